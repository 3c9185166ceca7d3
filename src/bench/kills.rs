//! `cryptomind bench kills`: a coordinator is killed again and again under load, and must not lose, create or double
//! a token.
//!
//! A round: the clients ([`customer`]) send transactions, each recorded before it is sent. At a moment that the seed
//! draws, the coordinator's process gets SIGKILL, and is started again on the same folder and port. Every client has
//! its last acknowledged transaction answered again, and sends what was in flight until it is answered, as the same
//! bytes. Then, with nothing in flight, everything that the coordinator says of money is held against the clients'
//! records ([`books`]): the supply, the sum of all balances, each client's balances, each history.
//!
//! It ends at the first difference, with exit code 1; the error names the seed and the kill. The seed fixes what the
//! clients send and when the kills come; what is in flight then is up to the machine.
//!
//! It is not a power cut: what the operating system has taken is still there after a SIGKILL. What the disk may lose
//! is for the crash tests of the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use cryptomind_core::dice::Dice;
use cryptomind_protocol::genesis::{ALLOCATION_PERCENT, FEES, REWARD_FUND};
use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::{AccountId, ErrorBody, SecretKey};
use cryptomind_sdk::Client;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::coordinator::{Coordinator, logs};
use super::escrow::Market;
use super::latency::{Latencies, micros};
use super::load::Acknowledged;
use crate::command::interruptible;
use crate::demo::refuse_used;
use crate::dev::fresh_dir;
use crate::output::Output;

mod books;
mod customer;

use books::{Books, Differences};
use customer::{Counts, Customer, Phase};

/// From SIGKILL to the first answer of the coordinator that was started again.
const RECOVERY_LIMIT: Duration = Duration::from_secs(5);
/// For every client to have its first answer in a round.
const LOAD_LIMIT: Duration = Duration::from_secs(20);
/// How long the load runs before a kill, milliseconds: the seed draws evenly between these.
const KILL_AFTER_MS: (u64, u64) = (5, 400);
/// In one round of so many, the clients do not hear of the kill: they must notice, and connect again by themselves.
const UNTOLD_EVERY: u32 = 10;
/// The first of these.
const UNTOLD_FIRST: u32 = 3;
/// At most so many kills pass without a line of progress.
const TELL_EVERY: u32 = 10;

/// Of the differences, so many are told in words.
const MOST_WORDS: usize = 12;

/// How to kill a coordinator.
#[derive(Debug, Clone, clap::Args)]
pub struct KillsArgs {
    /// How often it is killed
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub kills: u32,

    /// Clients that send transactions, one at a time each
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=64))]
    pub clients: u32,

    /// Draws what is sent and when the kills come
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// The folder of the coordinator and its logs; a fresh one by default
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// What came of it: what `--format json` prints.
#[derive(Debug, Clone, Default, Serialize)]
struct Outcome {
    /// Kills that were recovered from and checked.
    kills: u32,
    clients: u32,
    seed: u64,
    /// Signed transactions that the clients made.
    transactions: u64,
    acknowledged: u64,
    refused: u64,
    /// Transactions sent again after a kill, as the same bytes.
    resent: u64,
    /// Holds that were opened.
    holds: u64,
    /// Acknowledged movements that were missing.
    lost: u64,
    /// Movements that nobody asked for, or that were there more than once.
    doubled: u64,
    /// Sum of all balances less the supply, base units.
    tokens_difference: i64,
    recover_p50_ms: f64,
    recover_p95_ms: f64,
    recover_max_ms: f64,
    wall_s: f64,
    dir: PathBuf,
}

/// Runs it to its end, or to the first difference.
pub async fn run(output: Output, args: KillsArgs) -> Result<()> {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => fresh_dir("bench-kills")?,
    };
    refuse_used(&dir)?;
    let dir = std::path::absolute(dir)?;
    // Whatever ends it, Ctrl-C too, the coordinator's process ends with its handle.
    interruptible(siege(output, &args, &dir)).await
}

async fn siege(output: Output, args: &KillsArgs, dir: &Path) -> Result<()> {
    let started = Instant::now();
    let mut siege = Siege::begin(args, dir).await?;
    output.note(format!(
        "{} clients at a coordinator in {}",
        args.clients,
        dir.display()
    ))?;
    let ended = siege.rounds(output, args).await;
    siege.outcome.wall_s = started.elapsed().as_secs_f64();
    siege.end().await;
    siege.coordinator.stop().await;
    let outcome = siege.outcome;
    output.value(&outcome, || outcome.told())?;
    Ok(ended?)
}

/// A run in progress.
struct Siege {
    coordinator: Coordinator,
    market: Market,
    /// Asks what no client is asked for; connected anew after each kill.
    auditor: Client,
    auditor_key: SecretKey,
    customers: Vec<Customer>,
    books: Books,
    dice: Dice,
    recoveries: Vec<u32>,
    outcome: Outcome,
}

impl Siege {
    async fn begin(args: &KillsArgs, dir: &Path) -> Result<Self, ErrorBody> {
        let mut dice = Dice::new(args.seed).branch(0);
        let coordinator = Coordinator::start(dir).await?;
        let auditor_key = SecretKey::from_seed(dice.bytes());
        let auditor = Client::connect(coordinator.address.clone(), auditor_key.clone()).await?;
        let counted = Acknowledged::default();
        let market = Market::open(&coordinator.address, &auditor, &counted).await?;
        let mut streams = 1..;
        let dice_of = (&mut streams).map(|stream| Dice::new(args.seed).branch(stream));
        let keys = dice_of.take(args.clients as usize).map(|mut dice| {
            let key = SecretKey::from_seed(dice.bytes());
            (key, dice)
        });
        let keys: Vec<(SecretKey, Dice)> = keys.collect();
        let accounts = keys.iter().map(|(key, _)| AccountId::of_key(&key.public()));
        let accounts: Arc<[AccountId]> = accounts.collect();
        let mut customers = Vec::new();
        for (key, dice) in keys {
            let (all, task) = (Arc::clone(&accounts), Arc::clone(&market.spec));
            customers.push(Customer::connect(&coordinator.address, key, dice, all, task).await?);
        }
        Ok(Self {
            books: Books::new(accounts.iter().copied()),
            outcome: Outcome {
                clients: args.clients,
                seed: args.seed,
                dir: dir.to_owned(),
                ..Outcome::default()
            },
            recoveries: Vec::new(),
            coordinator,
            market,
            auditor,
            auditor_key,
            customers,
            dice,
        })
    }

    /// All rounds.
    async fn rounds(&mut self, output: Output, args: &KillsArgs) -> Result<(), ErrorBody> {
        let every = TELL_EVERY.min(args.kills.div_ceil(10));
        for kill in 1..=args.kills {
            let done = self.round(kill).await;
            self.count();
            done.map_err(|error| self.named(kill, error))?;
            self.outcome.kills = kill;
            if kill % every == 0 || kill == args.kills {
                // Progress that nobody reads is no reason to stop.
                let _ = output.note(self.progress(kill, args.kills));
            }
        }
        Ok(())
    }

    /// What went wrong, with what it takes to look into it.
    fn named(&self, kill: u32, error: ErrorBody) -> ErrorBody {
        let Outcome {
            seed, clients, dir, ..
        } = &self.outcome;
        let message = format!("seed {seed}, kill {kill}: {}", error.message);
        let logs = logs(dir);
        ErrorBody::internal(message).with_help(format!(
            "logs, one a start: {}; again: cryptomind bench kills --seed {seed} --clients {clients} --kills {kill}",
            logs.display()
        ))
    }

    fn progress(&self, kill: u32, of: u32) -> String {
        let Outcome {
            acknowledged,
            recover_p50_ms: half,
            recover_max_ms: most,
            ..
        } = self.outcome;
        format!(
            "kill {kill} of {of}: {acknowledged} transactions acknowledged, recovered in {half:.0} ms, at most {most:.0} ms"
        )
    }

    fn count(&mut self) {
        let counts = self.customers.iter().map(|customer| customer.counts);
        let sum = |which: fn(&Counts) -> u64| counts.clone().map(|c| which(&c)).sum();
        let outcome = &mut self.outcome;
        outcome.transactions = sum(|c| c.transactions);
        outcome.acknowledged = sum(|c| c.acknowledged);
        outcome.refused = sum(|c| c.refused);
        outcome.resent = sum(|c| c.resent);
        outcome.holds = sum(|c| c.holds);
        let recoveries = Latencies::new(self.recoveries.clone());
        let ms = |percent| recoveries.percentile_ms(percent).unwrap_or_default();
        outcome.recover_p50_ms = ms(50);
        outcome.recover_p95_ms = ms(95);
        outcome.recover_max_ms = ms(100);
    }

    async fn end(&mut self) {
        for customer in &self.customers {
            customer.close().await;
        }
        self.auditor.close().await;
    }
}

/// A round.
impl Siege {
    async fn round(&mut self, kill: u32) -> Result<(), ErrorBody> {
        let told = kill % UNTOLD_EVERY != UNTOLD_FIRST;
        let (phase, seen) = watch::channel(Phase::Load);
        let (answers, answered) = watch::channel(0);
        let answers = Arc::new(answers);
        let mut working = JoinSet::new();
        for mut customer in self.customers.drain(..) {
            let (seen, answers) = (seen.clone(), Arc::clone(&answers));
            working.spawn(async move {
                let worked = customer.work(seen, &answers).await;
                (customer, worked)
            });
        }
        let killed = self.kill_and_start(answered, &phase, told).await;
        // Nothing that went wrong before may leave a client working.
        if killed.is_err() {
            phase.send_replace(Phase::Drop);
        }
        let worked = self.gather(working).await;
        // A client's own finding says more than what followed from it.
        worked.and(killed)?;
        let recovered = self.recover(told).await;
        // A wrong answer ends the run; what it did to money is still looked at.
        let checked = self.check().await;
        match (recovered, checked) {
            (Err(answer), Err(money)) => {
                let message = format!("{}\n  {}", answer.message, money.message);
                Err(ErrorBody::internal(message))
            }
            (recovered, checked) => recovered.and(checked),
        }
    }

    /// The customers come back from their work, in the order of their accounts; the first error counts.
    async fn gather(
        &mut self,
        mut working: JoinSet<(Customer, Result<(), ErrorBody>)>,
    ) -> Result<(), ErrorBody> {
        let mut all = Ok(());
        while let Some(joined) = working.join_next().await {
            let (customer, worked) = joined.map_err(ErrorBody::internal)?;
            self.customers.push(customer);
            all = all.and(worked);
        }
        self.customers.sort_by_key(Customer::account);
        all
    }

    async fn kill_and_start(
        &mut self,
        answered: watch::Receiver<u64>,
        phase: &watch::Sender<Phase>,
        told: bool,
    ) -> Result<(), ErrorBody> {
        self.wait_for_moment(answered).await?;
        let killed = Instant::now();
        self.coordinator.kill().await?;
        phase.send_replace(if told { Phase::Drop } else { Phase::Finish });
        self.coordinator.start_again().await?;
        let (address, key) = (self.coordinator.address.clone(), self.auditor_key.clone());
        // Connecting ends with an answer: the network's status.
        self.auditor = Client::connect(address, key).await?;
        let took = killed.elapsed();
        self.recoveries.push(micros(took));
        if took > RECOVERY_LIMIT {
            let limit = RECOVERY_LIMIT.as_secs();
            let message = format!(
                "serving again after {} ms: {limit} s are allowed",
                took.as_millis()
            );
            return Err(ErrorBody::internal(message));
        }
        self.market.join_again(&self.coordinator.address).await
    }

    /// Until as many answers came as there are clients, and then for as long as the seed says.
    async fn wait_for_moment(
        &mut self,
        mut answered: watch::Receiver<u64>,
    ) -> Result<(), ErrorBody> {
        let clients = u64::from(self.outcome.clients);
        let (least, most) = KILL_AFTER_MS;
        let pause = Duration::from_millis(least + self.dice.below(most - least + 1));
        let moment = async {
            let running = answered.wait_for(|answers| *answers >= clients);
            match timeout(LOAD_LIMIT, running).await {
                Ok(Ok(_)) => {}
                _ => return Err(ErrorBody::internal("the load does not run")),
            }
            // Not to wait for anything: the moment of the kill is what the seed draws.
            tokio::time::sleep(pause).await;
            Ok(())
        };
        tokio::select! {
            moment = moment => moment,
            ended = self.coordinator.ended() => Err(ended),
        }
    }

    /// Every client has all its transactions answered, and its records go into the books.
    async fn recover(&mut self, anew: bool) -> Result<(), ErrorBody> {
        let mut recovering = JoinSet::new();
        for mut customer in self.customers.drain(..) {
            recovering.spawn(async move {
                let recovered = customer.recover(anew).await;
                (customer, recovered)
            });
        }
        let recovered = self.gather(recovering).await;
        for customer in &mut self.customers {
            let effects = customer.take_effects();
            effects
                .into_iter()
                .for_each(|effect| self.books.record(effect));
        }
        recovered
    }

    /// Holds the coordinator's word against the books. Nothing is in flight.
    async fn check(&mut self) -> Result<(), ErrorBody> {
        let mut found = Differences::default();
        let (mut sum, mut held) = (0i128, 0u64);
        for customer in &mut self.customers {
            let (account, history) = customer.look().await?;
            found.add(self.books.compare(&account, &history));
            sum += i128::from(account.available.base_units());
            held += account.held.base_units();
            customer.set_spendable(self.books.available(&account.account));
        }
        sum += i128::from(held) + self.system_balances().await?;
        let status = self.auditor.status().await?;
        if (status.supply, status.held.base_units()) != (SUPPLY, held) {
            let (supply, said) = (status.supply, status.held);
            let words = format!(
                "the network has {supply} and holds {said}, its clients' holds are {held} base units"
            );
            found.note(words);
        }
        self.verdict(sum - i128::from(SUPPLY.base_units()), found)
    }

    async fn system_balances(&self) -> Result<i128, ErrorBody> {
        let mut sum = 0;
        for name in ALLOCATION_PERCENT
            .map(|(name, _)| name)
            .into_iter()
            .chain([FEES, REWARD_FUND])
        {
            let account = self.auditor.account_named(name).await?;
            sum += i128::from(account.available.base_units());
            sum += i128::from(account.locked.base_units());
            sum += i128::from(account.held.base_units());
        }
        Ok(sum)
    }

    fn verdict(&mut self, difference: i128, mut found: Differences) -> Result<(), ErrorBody> {
        self.outcome.lost += found.lost();
        self.outcome.doubled += found.doubled();
        self.outcome.tokens_difference = i64::try_from(difference).unwrap_or(i64::MAX);
        if difference != 0 {
            found.note(format!(
                "the balances sum to the supply and {difference} base units"
            ));
        }
        match told(&found.words()) {
            None => Ok(()),
            Some(message) => Err(ErrorBody::internal(message)),
        }
    }
}

/// The first of many differences; nothing where there are none.
fn told(words: &[String]) -> Option<String> {
    let most = &words[..MOST_WORDS.min(words.len())];
    let rest = words.len() - most.len();
    let rest = (rest > 0).then(|| format!("and {rest} more"));
    let lines: Vec<String> = most.iter().cloned().chain(rest).collect();
    (!lines.is_empty()).then(|| lines.join("\n  "))
}

impl Outcome {
    /// For people.
    fn told(&self) -> String {
        let Self {
            kills,
            transactions,
            acknowledged,
            refused,
            resent,
            holds,
            lost,
            doubled,
            tokens_difference,
            ..
        } = self;
        format!(
            "{kills} kills survived in {:.0} s\n\
             {transactions} transactions: {acknowledged} acknowledged, {refused} refused as they had to be, {resent} sent again, {holds} opened a hold\n\
             lost {lost}, doubled {doubled}, tokens {tokens_difference:+} base units\n\
             serving again after {:.0} ms (half), {:.0} ms (95 of 100), {:.0} ms (all)\n\
             left in {}",
            self.wall_s,
            self.recover_p50_ms,
            self.recover_p95_ms,
            self.recover_max_ms,
            self.dir.display()
        )
    }
}
