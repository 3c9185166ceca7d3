//! `ledger follow`: a copy of the chain on this machine, every block carried out again before it is kept.
//!
//! First the folder's history is held against the coordinator's, and again whenever nothing came for a while or a block
//! did not hold: a coordinator that was set back to an old state says nothing by itself. Where the two part, the first
//! height is found by halving.

use std::time::{Duration, Instant};

use anyhow::Result;
use cryptomind_actors::ledger::replica::{Parting, Replica};
use cryptomind_config::key::{self, KeyFileError};
use cryptomind_protocol::block::Block;
use cryptomind_protocol::{ErrorBody, NodeAddress, SecretKey};
use cryptomind_sdk::Client;
use serde_json::json;

use crate::cli::LedgerFollowArgs;
use crate::context::Context;
use crate::moment;
use crate::output::Output;

/// After so long without a block the histories are compared again.
const QUIET: Duration = Duration::from_secs(10);
/// At most so often it is said how far the copy is, while there is much to fetch.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Follows until the copy has what was asked for, the histories part, or Ctrl-C.
pub async fn run(context: &Context, args: &LedgerFollowArgs) -> Result<()> {
    let address = args
        .address
        .clone()
        .map_or_else(|| context.coordinator(), Ok)?;
    let client = connect(context, address).await?;
    let followed = Follower::begin(context.output, &client, args).await;
    client.close().await;
    match followed? {
        Ended::Reached => Ok(()),
        Ended::Parted(parted) => parted.tell(context.output, args),
    }
}

/// Any key may follow.
async fn connect(context: &Context, address: NodeAddress) -> Result<Client, ErrorBody> {
    let key: SecretKey = match key::read(&context.key_file()) {
        Err(KeyFileError::Missing { .. }) => cryptomind_sdk::new_key()?,
        read => read?,
    };
    Client::connect(address, key).await
}

/// Where the coordinator's history is not that of the folder.
#[derive(Debug)]
struct Parted {
    height: u64,
    reason: String,
}

impl Parted {
    fn tell(self, output: Output, args: &LedgerFollowArgs) -> Result<()> {
        let Self { height, reason } = self;
        if output.is_json() {
            output.json_line(&json!({ "diverges_at": height, "reason": reason }))?;
        }
        let message = format!(
            "the coordinator's history parts from this folder's at block {height}: {reason}"
        );
        let help = format!(
            "keep {} as the evidence of what it said before; ask the operator, and follow what it has now into another folder",
            args.dir.display()
        );
        Err(ErrorBody::user("ledger_diverges", message)
            .with_help(help)
            .into())
    }
}

enum Ended {
    Reached,
    Parted(Parted),
}

/// What came next.
enum Next {
    Block(Box<Block>),
    /// Nothing is there at once.
    Pause,
    /// Nothing came for a while.
    Quiet,
}

struct Follower<'a> {
    output: Output,
    client: &'a Client,
    replica: Replica,
    /// The last block that is wanted; none to go on for ever.
    target: Option<u64>,
    /// What the coordinator had when it was last asked.
    theirs: u64,
    told: Instant,
    /// Height of the last block that was told of.
    told_at: Option<u64>,
}

impl<'a> Follower<'a> {
    async fn begin(output: Output, client: &'a Client, args: &LedgerFollowArgs) -> Result<Ended> {
        let genesis = client.genesis();
        let replica = match Replica::open(&args.dir)? {
            Some(replica) => replica,
            None => Replica::create(&args.dir, genesis.clone())?,
        };
        let (own, theirs) = (
            replica.chain().map(|chain| *chain.network()),
            client.network(),
        );
        if let Some(own) = own.filter(|own| *own != theirs) {
            let reason = format!("its genesis is {theirs}, the folder's is {own}");
            return Ok(Ended::Parted(Parted { height: 0, reason }));
        }
        let follower = Self {
            output,
            client,
            replica,
            target: args.until_height,
            theirs: 0,
            told: Instant::now(),
            told_at: None,
        };
        follower.follow(args.once).await
    }

    async fn follow(mut self, once: bool) -> Result<Ended> {
        if let Some(parted) = self.compare().await? {
            return Ok(Ended::Parted(parted));
        }
        if once {
            self.target = Some(self.theirs);
        }
        let mut blocks = self.client.follow(self.replica.next());
        let mut waiting = false;
        while !self.is_done() {
            let next = tokio::select! {
                biased;
                block = blocks.next() => Next::Block(Box::new(block.ok_or_else(ended)??)),
                () = std::future::ready(()), if waiting => Next::Pause,
                () = tokio::time::sleep(QUIET) => Next::Quiet,
            };
            match next {
                Next::Block(block) => {
                    if let Some(parted) = self.take(*block).await? {
                        return Ok(Ended::Parted(parted));
                    }
                    waiting = true;
                }
                Next::Pause => {
                    self.flush()?;
                    waiting = false;
                }
                Next::Quiet => {
                    if let Some(parted) = self.compare().await? {
                        return Ok(Ended::Parted(parted));
                    }
                }
            }
        }
        self.flush()?;
        self.tell()?;
        Ok(Ended::Reached)
    }

    fn is_done(&self) -> bool {
        self.target
            .is_some_and(|target| self.replica.next() > target)
    }

    async fn take(&mut self, block: Block) -> Result<Option<Parted>> {
        let appended = tokio::task::block_in_place(|| self.replica.append(block));
        let Err(fault) = appended else {
            if self.told.elapsed() >= TELL_EVERY {
                self.tell()?;
            }
            return Ok(None);
        };
        self.replica.flush().map_err(ErrorBody::from)?;
        let Some(height) = fault.height else {
            return Err(ErrorBody::internal(fault).into());
        };
        // A block on top of another history says so only by its parent.
        let earlier = self.part_before(height).await?;
        let reason = fault.what;
        Ok(Some(earlier.unwrap_or(Parted { height, reason })))
    }

    fn flush(&mut self) -> Result<()> {
        tokio::task::block_in_place(|| self.replica.flush()).map_err(ErrorBody::from)?;
        if self.replica.next() > self.theirs {
            self.tell()?;
        }
        Ok(())
    }

    /// Says how far the copy is.
    fn tell(&mut self) -> Result<()> {
        let Some((head, ledger)) = self.replica.head().zip(self.replica.ledger()) else {
            return Ok(());
        };
        if self.told_at == Some(head.height) {
            return Ok(());
        }
        let value = json!({
            "height": head.height, "time": head.time, "entries": head.total, "head": head.hash(),
            "supply": ledger.supply(), "held": ledger.held(),
        });
        self.output.value(&value, || {
            format!(
                "block {}  {} UTC  {} entries  supply {}",
                head.height,
                moment::text(head.time),
                head.total,
                ledger.supply()
            )
        })?;
        (self.told, self.told_at) = (Instant::now(), Some(head.height));
        Ok(())
    }

    /// Holds the folder's history against the coordinator's.
    async fn compare(&mut self) -> Result<Option<Parted>, ErrorBody> {
        self.replica.flush().map_err(ErrorBody::from)?;
        self.theirs = self.client.ledger().await?.height;
        let Some(own) = self.replica.next().checked_sub(1) else {
            return Ok(None);
        };
        if let Some(parted) = self.part_before(own.min(self.theirs) + 1).await? {
            return Ok(Some(parted));
        }
        if self.theirs >= own {
            return Ok(None);
        }
        let reason = format!(
            "it ends with block {}, the folder with block {own}",
            self.theirs
        );
        Ok(Some(Parted {
            height: self.theirs + 1,
            reason,
        }))
    }

    /// The first block below `end` that is not the same in both histories.
    async fn part_before(&self, end: u64) -> Result<Option<Parted>, ErrorBody> {
        let Some(last) = end.checked_sub(1) else {
            return Ok(None);
        };
        if !self.differs(last).await? {
            return Ok(None);
        }
        let mut parting = Parting::at_most(last);
        while let Some(height) = parting.probe() {
            parting.tell(height, self.differs(height).await?);
        }
        Ok(Some(Parted {
            height: parting.height(),
            reason: "both have this block, and they are not the same".into(),
        }))
    }

    async fn differs(&self, height: u64) -> Result<bool, ErrorBody> {
        let theirs = match self.client.block(height).await {
            Ok(block) => Some(block),
            // It had this one, or it would not be asked: a history that became shorter.
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let own = self.replica.block(height)?;
        let hash = |block: Option<Block>| block.map(|block| block.header.hash());
        Ok(hash(own) != hash(theirs))
    }
}

fn ended() -> ErrorBody {
    ErrorBody::network("unreachable", "the stream of blocks ended")
        .with_help("follow again: it goes on where it ended")
}
