//! Which block comes next, and why it is final: engines behind one trait, and what they order behind another.
//!
//! An [`Executor`] carries out entries and knows nothing of who agrees; a [`Consensus`] makes proposals final and
//! knows nothing of money. Both are pure: messages, time and keys come in, [`Step`]s come out, and the actor that
//! holds both does what they say. So a second engine fits without a change to the executor.
//!
//! One engine stands here, [`Solo`]: one coordinator, whose signature makes a block final at once. It tolerates no
//! failure: when its machine is away the chain stands still, and its operator can leave transactions out. It
//! cannot forge them, spend others' tokens or rewrite the past unseen: anyone can follow the chain and carry it
//! out again. A Byzantine fault tolerant engine answers a proposal with messages to its peers first, and asks the
//! executor to [`Executor::check`] what others propose.

use cryptomind_protocol::block::{Block, Certificate, Entry, Header, Receipt};
use cryptomind_protocol::key::Nonce;
use cryptomind_protocol::{AccountId, PublicKey, SecretKey, Timestamp};

use crate::chain::Divergence;

/// A block that nobody has agreed to yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// What it commits to.
    pub header: Header,
    /// What happened, in order.
    pub entries: Vec<Entry>,
    /// What each did.
    pub receipts: Vec<Receipt>,
}

impl Proposal {
    /// The block that it becomes.
    pub fn certified(self, certificate: Certificate) -> Block {
        Block {
            header: self.header,
            certificate,
            entries: self.entries,
            receipts: self.receipts,
        }
    }
}

/// Carries out what consensus puts in order.
pub trait Executor {
    /// Closes the block being made; `None` where nothing happened.
    fn propose(&mut self) -> Option<Proposal>;

    /// Carries out a block that was made elsewhere, on top of the last one, and compares. `seen` knows the transactions
    /// of earlier blocks, by account and the client's id.
    ///
    /// # Errors
    /// Where the two part. The executor is of no use afterwards: it is rebuilt from what is stored.
    fn check(
        &mut self,
        block: &Block,
        seen: &dyn Fn(&AccountId, &Nonce) -> bool,
    ) -> Result<(), Divergence>;
}

/// What an engine wants done, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// This block is final: store it, then tell its transactions' senders.
    Decided(Box<Block>),
    /// Carry this proposal out and answer whether it holds.
    Judge(Box<Proposal>),
    /// Send this to another maker of blocks.
    Send(PublicKey, Vec<u8>),
    /// Call [`Consensus::tick`] at this time.
    Wake(Timestamp),
    /// The proposal of this height lost: take back what was carried out for it.
    Discard(u64),
}

/// Decides which block comes next.
pub trait Consensus {
    /// Its name, for people.
    fn name(&self) -> &'static str;

    /// How many of the makers of blocks may fail or lie without harm.
    fn tolerates(&self) -> u32;

    /// The executor made a proposal.
    fn propose(&mut self, proposal: Proposal, now: Timestamp) -> Vec<Step>;

    /// Another maker of blocks says something.
    fn receive(&mut self, from: PublicKey, message: &[u8], now: Timestamp) -> Vec<Step>;

    /// Time has passed.
    fn tick(&mut self, now: Timestamp) -> Vec<Step>;

    /// Whether a certificate makes a block final.
    fn is_final(&self, header: &Header, certificate: &Certificate) -> bool;
}

/// One coordinator decides alone.
#[derive(Debug)]
pub struct Solo {
    maker: PublicKey,
    /// A follower checks certificates and makes none.
    key: Option<SecretKey>,
}

impl Solo {
    /// The engine of the coordinator itself.
    pub fn maker(key: SecretKey) -> Self {
        Self {
            maker: key.public(),
            key: Some(key),
        }
    }

    /// The engine of those who check what `maker` makes.
    pub const fn follower(maker: PublicKey) -> Self {
        Self { maker, key: None }
    }
}

impl Consensus for Solo {
    fn name(&self) -> &'static str {
        "solo"
    }

    fn tolerates(&self) -> u32 {
        0
    }

    fn propose(&mut self, proposal: Proposal, _: Timestamp) -> Vec<Step> {
        let Some(key) = &self.key else {
            return vec![Step::Discard(proposal.header.height)];
        };
        let certificate = Certificate::sign(&proposal.header.hash(), key);
        vec![Step::Decided(Box::new(proposal.certified(certificate)))]
    }

    fn receive(&mut self, _: PublicKey, _: &[u8], _: Timestamp) -> Vec<Step> {
        Vec::new()
    }

    fn tick(&mut self, _: Timestamp) -> Vec<Step> {
        Vec::new()
    }

    fn is_final(&self, header: &Header, certificate: &Certificate) -> bool {
        // One more beside it would prove nothing, and two blocks that differ in it would both be final.
        certificate.signatures.len() == 1 && certificate.is_signed_by(&self.maker, &header.hash())
    }
}
