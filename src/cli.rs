//! The command tree: one for the shell and for the REPL.
//!
//! Owned by `main` and the REPL, which parse it; the modules of [`crate::command`] run it. Here is what
//! can be said and how it is explained, nothing of what it does.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use cryptomind_protocol::item::TextLevel;
use cryptomind_protocol::price::{PriceClass, PriceRing};
use cryptomind_protocol::task::Split;
use cryptomind_protocol::{AccountId, Amount, GenesisHash, NodeAddress, ReceiptId};

pub mod bench;
mod examples;

/// A network in which people sell computing power for artificial intelligence and others use it.
#[derive(Debug, Parser)]
#[command(name = "cryptomind", version, after_help = examples::TOP, max_term_width = 100)]
pub struct Cli {
    /// What every command understands.
    #[command(flatten)]
    pub global: Global,

    /// How to run a part of the network.
    #[command(flatten)]
    pub role: RoleArgs,

    /// What to do, where no part of the network is run.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// A line of the REPL: the same tree without the name of the program.
#[derive(Debug, Parser)]
#[command(
    name = "",
    no_binary_name = true,
    disable_version_flag = true,
    max_term_width = 100
)]
pub struct Line {
    /// What every command understands.
    #[command(flatten)]
    pub global: Global,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people; with colours and progress bars where a terminal is.
    Auto,
    /// For people.
    Human,
    /// For programs: one JSON value a line.
    Json,
}

/// What every command understands.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// How to print: for people or for programs
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,

    /// The coordinator's address; without it, from client.toml or CRYPTOMIND_COORDINATOR
    #[arg(long, global = true, value_name = "cm://…")]
    pub coordinator: Option<NodeAddress>,

    /// The account's key file; without it, from client.toml or CRYPTOMIND_KEY_FILE
    #[arg(long, global = true, value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// A configuration file instead of the platform's
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print results and errors only
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// A part of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Keeps ledger, catalog and ratings, and matches tasks with miners.
    Coordinator,
    /// Trains and infers for tokens.
    Miner,
    /// Keeps models and datasets.
    Storage,
    /// An interactive prompt.
    Client,
}

/// How to run a part of the network.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Run a part of the network")]
pub struct RoleArgs {
    /// Which part
    #[arg(long, value_enum)]
    pub role: Option<Role>,

    /// The coordinator to join: a miner or storage node makes its key and configuration by itself
    #[arg(long, value_name = "cm://…", requires = "role")]
    pub join: Option<NodeAddress>,

    /// The account that shall earn; its owner approves the node
    #[arg(long, value_name = "cm1…", requires = "join")]
    pub account: Option<AccountId>,

    /// The node's name in tables
    #[arg(long, value_name = "NAME", requires = "join")]
    pub name: Option<String>,

    /// The folder of the node's key, configuration and data
    #[arg(long, value_name = "DIR", requires = "join")]
    pub dir: Option<PathBuf>,

    /// End when standard input closes, so that no part outlives who started it
    #[arg(long, hide = true, requires = "role")]
    pub tethered: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The whole network on this machine, one real training task, then exit
    #[command(after_help = examples::DEMO)]
    Demo(DemoArgs),
    /// The same network, left running, with test money
    #[command(after_help = examples::DEV)]
    Dev(DevArgs),
    /// Take a nickname for the account
    #[command(after_help = examples::REGISTER)]
    Register {
        /// Lower-case letters, digits, dashes
        nickname: String,
    },
    /// Key files: who you are
    #[command(subcommand, after_help = examples::KEY)]
    Key(KeyCommand),
    /// Tokens: balance, history, test money, sending
    #[command(subcommand, after_help = examples::WALLET)]
    Wallet(WalletCommand),
    /// The ledger: the chain in which all money is kept; look at it, check it, copy it
    #[command(subcommand, after_help = examples::LEDGER)]
    Ledger(LedgerCommand),
    /// Datasets: publish, list, fetch
    #[command(subcommand, after_help = examples::DATASET)]
    Dataset(DatasetCommand),
    /// Models: list, fetch, run
    #[command(subcommand, after_help = examples::MODEL)]
    Model(ModelCommand),
    /// Tasks: quote, submit, watch, fetch results
    #[command(subcommand, after_help = examples::TASK)]
    Task(TaskCommand),
    /// Miners: who computes, and who asks to compute for you
    #[command(subcommand, after_help = examples::MINER)]
    Miner(MinerCommand),
    /// The market: what computing costs, and how work finds its miners
    #[command(subcommand, after_help = examples::MARKET)]
    Market(MarketCommand),
    /// The network: what it is and how it is
    #[command(subcommand, after_help = examples::NETWORK)]
    Network(NetworkCommand),
    /// Configuration files: check one, show what is in force
    #[command(subcommand, after_help = examples::CONFIG)]
    Config(ConfigCommand),
    /// Measure a part of this software on this machine, or wear it down
    #[command(subcommand, after_help = examples::BENCH)]
    Bench(bench::BenchCommand),
    /// Check devices, folders, key, clock and the way to the coordinator
    #[command(after_help = examples::DOCTOR)]
    Doctor,
    /// Print a completion script for a shell
    #[command(after_help = examples::COMPLETIONS)]
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// How to run the demo.
#[derive(Debug, Clone, Default, Args)]
pub struct DemoArgs {
    /// The folder of everything; a fresh one by default
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Kill no miner in the middle
    #[arg(long)]
    pub calm: bool,
}

/// How to run the development network.
#[derive(Debug, Clone, Args)]
pub struct DevArgs {
    /// Where the coordinator listens; give an address that others reach to let them join
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7700")]
    pub listen: SocketAddr,

    /// The folder of everything; a fresh one by default
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Key files.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key file; never overwrites one
    New {
        /// Where; by default where the client looks for it
        file: Option<PathBuf>,
    },
    /// Show the account of a key file
    Show {
        /// Which; by default the client's
        file: Option<PathBuf>,
    },
    /// List the key files beside the client's
    Ls,
    /// Give the account a new key: the old one signs nothing any more
    #[command(after_help = examples::KEY_ROTATE)]
    Rotate,
}

/// Tokens.
#[derive(Debug, Subcommand)]
pub enum WalletCommand {
    /// What is free, held, being earned and locked
    Balance,
    /// Transfers, newest first, each with its reason
    #[command(after_help = examples::WALLET_HISTORY)]
    History {
        /// At most this many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Only those before this entry: the next page
        #[arg(long, value_name = "cmr1…")]
        before: Option<ReceiptId>,
    },
    /// Receive test money, on a development network
    Faucet,
    /// Send tokens; on a terminal, asks before it signs
    #[command(after_help = examples::WALLET_SEND)]
    Send {
        /// An account id or a nickname
        to: String,
        /// CTM, such as 0.25
        amount: Amount,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Write the proof of a payment into a file, for anyone to check without a node
    #[command(after_help = examples::WALLET_RECEIPT)]
    Receipt {
        /// The payment, as `wallet send` and `wallet history` name it
        #[arg(value_name = "cmr1…")]
        receipt: ReceiptId,
        /// The file to write; never overwrites one
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
    },
}

/// The ledger.
#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// How the chain stands: height, head, supply, bytes
    Status,
    /// Show a block
    Block {
        /// Its height, from 0
        height: u64,
    },
    /// Show an entry of the chain: who signed what, and what it moved
    Tx {
        /// The entry, as `wallet history` names it
        #[arg(value_name = "cmr1…")]
        receipt: ReceiptId,
    },
    /// Carry out a stored chain again from its genesis and check every bit of it, offline
    #[command(after_help = examples::LEDGER_VERIFY)]
    Verify {
        /// A coordinator's data folder or one that was followed into; by default that of coordinator.toml
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Check a receipt file, offline: no node, no account and no configuration is needed
    #[command(after_help = examples::LEDGER_VERIFY_RECEIPT)]
    VerifyReceipt {
        /// What `wallet receipt` wrote
        file: PathBuf,
        /// The network's id, from a source that you trust
        #[arg(long, value_name = "cmg1…")]
        genesis: GenesisHash,
    },
    /// Write every transfer of the chain, for spreadsheets and scripts
    #[command(after_help = examples::LEDGER_EXPORT)]
    Export(LedgerExportArgs),
    /// Copy a coordinator's chain into a folder, carrying out and checking every block
    #[command(after_help = examples::LEDGER_FOLLOW)]
    Follow(LedgerFollowArgs),
}

impl LedgerCommand {
    /// Whether it needs neither a coordinator nor a client's settings.
    pub const fn is_offline(&self) -> bool {
        match self {
            Self::Verify { .. } | Self::VerifyReceipt { .. } => true,
            Self::Export(args) => args.dir.is_some(),
            Self::Status | Self::Block { .. } | Self::Tx { .. } | Self::Follow(_) => false,
        }
    }
}

/// What to write and where to.
#[derive(Debug, Args)]
pub struct LedgerExportArgs {
    /// A folder with a chain that nobody has open; without it, the coordinator is asked
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The file to write; without it, standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// In which form
    #[arg(long = "as", value_enum, default_value = "jsonl")]
    pub form: ExportForm,
}

/// The form of exported transfers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportForm {
    /// One JSON object a line.
    Jsonl,
    /// A table with a heading.
    Csv,
}

/// Whom to follow, where to and how far.
#[derive(Debug, Args)]
pub struct LedgerFollowArgs {
    /// The coordinator's address; without it, the one that all commands ask
    #[arg(value_name = "cm://…")]
    pub address: Option<NodeAddress>,
    /// The folder of the copy, made where it is missing; following goes on where it ended
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// End when this block is here
    #[arg(long, value_name = "HEIGHT", conflicts_with = "once")]
    pub until_height: Option<u64>,
    /// End when everything is here that the coordinator has now
    #[arg(long)]
    pub once: bool,
}

/// Who may use an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AccessArg {
    /// Everybody, for nothing.
    Free,
    /// Everybody, for `--fee` a use.
    Paid,
    /// You alone.
    Owner,
}

/// Datasets.
#[derive(Debug, Subcommand)]
pub enum DatasetCommand {
    /// Publish a dataset: a folder with four IDX files, a CSV table, a text, or tensors
    #[command(after_help = examples::DATASET_ADD)]
    Add(Box<DatasetAddArgs>),
    /// List the datasets of the catalog
    Ls,
    /// Fetch a dataset's files
    Get(GetArgs),
}

/// Data of one's own: a folder with four IDX files, a CSV table, a text, or tensors.
#[derive(Debug, Clone, Args)]
#[command(group(ArgGroup::new("data").required(true).args(["path", "csv", "text", "safetensors"])))]
pub struct DataArgs {
    /// A folder with four IDX files, or a CSV file
    pub path: Option<PathBuf>,
    /// A CSV file; one row in five is held out
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// The column of labels, for a CSV file
    #[arg(long, value_name = "COLUMN", conflicts_with_all = ["values", "text", "safetensors"])]
    pub label: Option<String>,
    /// The columns of numbers to predict, for a CSV file
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', conflicts_with_all = ["text", "safetensors"])]
    pub values: Vec<String>,
    /// A text, of which the next token is learnt
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Tokens of one sample of a text; by default 64
    #[arg(long, value_name = "TOKENS", requires = "text", conflicts_with_all = ["path", "csv", "safetensors"], value_parser = clap::value_parser!(u32).range(1..))]
    pub context: Option<u32>,
    /// What a token of a text is; by default a character
    #[arg(long, value_enum, requires = "text", conflicts_with_all = ["path", "csv", "safetensors"])]
    pub level: Option<LevelArg>,
    /// Share at a text's end that is held out; by default 0.1
    #[arg(long, value_name = "SHARE", requires = "text", conflicts_with_all = ["path", "csv", "safetensors"], value_parser = millionths)]
    pub held_out: Option<u32>,
    /// A folder with train.safetensors and test.safetensors: tensors `inputs`, and `labels` or `targets`
    #[arg(long, value_name = "DIR")]
    pub safetensors: Option<PathBuf>,
}

/// What to publish and how.
#[derive(Debug, Clone, Args)]
pub struct DatasetAddArgs {
    /// The data.
    #[command(flatten)]
    pub data: DataArgs,
    /// Its name; by default that of the file or folder
    #[arg(long)]
    pub name: Option<String>,
    /// Who may use it
    #[arg(long, value_enum, default_value = "free")]
    pub access: AccessArg,
    /// What one use costs, with `--access paid`
    #[arg(long, value_name = "CTM")]
    pub fee: Option<Amount>,
    /// Write no task file to go with it
    #[arg(long)]
    pub no_task_file: bool,
    /// Its licence: an SPDX expression or a sentence
    #[arg(long, default_value = "")]
    pub licence: String,
    /// Where it comes from
    #[arg(long, default_value = "")]
    pub source: String,
}

/// What a token of a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LevelArg {
    /// A character of UTF-8.
    Character,
    /// A byte of any file.
    Byte,
}

impl From<LevelArg> for TextLevel {
    fn from(level: LevelArg) -> Self {
        match level {
            LevelArg::Character => Self::Character,
            LevelArg::Byte => Self::Byte,
        }
    }
}

/// A share between 0 and 1 as whole millionths.
fn millionths(text: &str) -> Result<u32, String> {
    let share: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let millionths = (share * 1e6).round();
    match (1.0..1e6).contains(&millionths) {
        true => Ok(millionths as u32),
        false => Err("give a share above 0 and below 1, for example 0.1".into()),
    }
}

/// What to fetch and where to.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// `nickname/name`, an id, or the beginning of one
    pub item: String,
    /// The folder to write to; by default one with the item's name
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// Which samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SplitArg {
    /// Those for fitting.
    Train,
    /// Those held out.
    Test,
}

impl From<SplitArg> for Split {
    fn from(split: SplitArg) -> Self {
        match split {
            SplitArg::Train => Self::Train,
            SplitArg::Test => Self::Test,
        }
    }
}

/// Models.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// List the models of the catalog
    Ls,
    /// Fetch a model's files: safetensors and a card
    Get(GetArgs),
    /// Run a model on a miner: over a dataset, whose predictions are fetched, or over samples of your own
    #[command(after_help = examples::MODEL_INFER)]
    Infer(InferArgs),
    /// Keep a model ready on a miner, and answer each sample that comes in
    #[command(after_help = examples::MODEL_SERVE)]
    Serve(ServeArgs),
}

/// What to keep ready, and for how much.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The model: `nickname/name`, an id, or the beginning of one
    pub model: String,
    /// The most samples; those that are not used are not paid
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub samples: u32,
    /// The most that it may cost; by default the upper end of the quote
    #[arg(long, value_name = "CTM")]
    pub max_cost: Option<Amount>,
    /// Samples, a line each: numbers with commas between them, or a JSON list; by default standard input
    #[arg(long, short, value_name = "FILE")]
    pub input: Option<PathBuf>,
}

/// What to run over what.
#[derive(Debug, Args)]
pub struct InferArgs {
    /// The model: `nickname/name`, an id, or the beginning of one
    pub model: String,
    /// The dataset that holds the samples
    #[arg(long, value_name = "DATASET", required_unless_present = "input")]
    pub dataset: Option<String>,
    /// Samples of your own instead, a line each: numbers with commas between them, or a JSON list; `-` is standard input
    #[arg(long, short, value_name = "FILE", conflicts_with_all = ["dataset", "output"])]
    pub input: Option<PathBuf>,
    /// Which of its samples
    #[arg(long, value_enum, default_value = "test")]
    pub split: SplitArg,
    /// The most that it may cost; by default the upper end of the quote
    #[arg(long, value_name = "CTM")]
    pub max_cost: Option<Amount>,
    /// The folder for the predictions; by default one with the task's name
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// What to train here, and on what.
#[derive(Debug, Clone, Args)]
pub struct RunLocalArgs {
    /// The task file; its dataset and its budget play no part
    pub file: PathBuf,
    /// The data.
    #[command(flatten)]
    pub data: DataArgs,
    /// Threads; 0: all
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=4096))]
    pub threads: u16,
    /// Begin with the weights of a model file instead of drawn ones; it has the same layers
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// The folder for model and checkpoint; by default one with the task's name. A checkpoint in it is gone on from
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// Tasks.
#[derive(Debug, Subcommand)]
pub enum TaskCommand {
    /// Write a task file that trains a small network on a dataset, to start from
    New {
        /// The dataset: `nickname/name`, an id, or the beginning of one
        dataset: String,
        /// The file to write; never overwritten. Without it, the text is printed
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// What a task would cost and take, and who could do it
    Quote {
        /// The task file
        file: PathBuf,
    },
    /// Train on this machine, without a network: to try a model before it costs anything
    #[command(after_help = examples::TASK_RUN_LOCAL)]
    RunLocal(RunLocalArgs),
    /// Post a task: its whole cap is held until it ends
    #[command(after_help = examples::TASK_SUBMIT)]
    Submit {
        /// The task file
        file: PathBuf,
        /// Follow it until it ends
        #[arg(long)]
        watch: bool,
    },
    /// Follow a task; Ctrl-C detaches and the task goes on
    #[command(after_help = examples::TASK_WATCH)]
    Watch {
        /// Its id, or the beginning of it
        task: String,
        /// From this event on
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Show where the last step's time went in place of the loss curve
        #[arg(long)]
        timeline: bool,
    },
    /// Wait until a task has ended
    Wait {
        /// Its id, or the beginning of it
        task: String,
        /// At most this many seconds
        #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
        timeout: u64,
    },
    /// List your tasks, newest first
    Ls {
        /// Only those in this state
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
    },
    /// Show a task as it stands
    Show {
        /// Its id, or the beginning of it
        task: String,
    },
    /// Why it waits, and what became of every miner for it
    Explain {
        /// Its id, or the beginning of it
        task: String,
    },
    /// Fetch a task's results
    Get {
        /// Its id, or the beginning of it
        task: String,
        /// The folder to write to; by default one with the task's name
        #[arg(long, short, value_name = "DIR")]
        output: Option<PathBuf>,
    },
    /// Cancel a task: what was earned is paid, the rest comes back
    Cancel {
        /// Its id, or the beginning of it
        task: String,
    },
    /// Give the miners of a finished task stars
    Rate {
        /// Its id, or the beginning of it
        task: String,
        /// 1 (bad) to 5 (good)
        #[arg(value_parser = clap::value_parser!(u8).range(1..=5))]
        stars: u8,
    },
}

/// Miners.
#[derive(Debug, Subcommand)]
pub enum MinerCommand {
    /// List the miners with speed, activity and rating
    Ls,
    /// Why your miners have no work, task by task
    WhyNoWork,
    /// Check this machine: what it has, whether it computes rightly, how fast it is and how fast it stays
    #[command(after_help = examples::MINER_SELFTEST)]
    Selftest(SelftestArgs),
    /// What a miner's rating rests on, event by event; recomputed here
    #[command(after_help = examples::MINER_EXPLAIN)]
    Explain {
        /// The miner's id, or the beginning of it
        miner: String,
    },
    /// List the measured links between miners: round trip, throughput, and what they rest on
    Links {
        /// Only of this miner: its id, or the beginning of it
        miner: Option<String>,
    },
    /// Let nodes that ask for it work for your account, or longer than they do already
    Approve {
        /// The node's id, or the beginning of it; without it, the nodes that ask are listed
        node: Option<String>,
        /// For how many days
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=36_500))]
        days: u64,
    },
    /// List the nodes that you let work for your account, and until when
    Delegations,
    /// End a node's work for your account; what it earned stays yours
    Revoke {
        /// The node's id, or the beginning of it
        node: String,
    },
}

/// How to test this machine.
#[derive(Debug, Args)]
pub struct SelftestArgs {
    /// For how long it trains to see whether it slows down
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// What to compute on; by default something that nobody knew before
    #[arg(long, value_name = "NUMBER")]
    pub challenge: Option<u64>,
    /// A miner's configuration: tested are its threads, folder, port and coordinator, and it joins with the report
    #[arg(long, value_name = "FILE")]
    pub miner: Option<PathBuf>,
}

/// The market.
#[derive(Debug, Subcommand)]
pub enum MarketCommand {
    /// What a CU (10^12 floating-point operations) costs, by class of work
    #[command(after_help = examples::MARKET_PRICE)]
    Price(PriceArgs),
    /// What miners achieved in past runs: speeds are predicted from it
    #[command(after_help = examples::MARKET_RUNS)]
    Runs(RunsArgs),
    /// Play a scenario in virtual time: how soon tasks end by the market's choice, by speed alone, by lot
    #[command(after_help = examples::MARKET_SIMULATE)]
    Simulate(SimulateArgs),
    /// Play every way to cheat in virtual time: what it gains over honesty, when it is found, what the checks cost
    #[command(after_help = examples::MARKET_HONESTY)]
    Honesty(HonestyArgs),
}

/// How often to play.
#[derive(Debug, Args)]
pub struct HonestyArgs {
    /// How often, with seeds from 0 on
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub seeds: u64,
}

/// What to play, and how often.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// The scenario's file
    #[arg(value_name = "SCENARIO.toml")]
    pub scenario: PathBuf,
    /// How often, with seeds from 0 on
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub seeds: u64,
}

/// Whose runs, and where to.
#[derive(Debug, Args)]
pub struct RunsArgs {
    /// Only this miner's
    #[arg(long)]
    pub node: Option<String>,
    /// Write all of them as CSV to this file instead of showing the newest
    #[arg(short, long, value_name = "FILE.csv")]
    pub output: Option<PathBuf>,
}

/// Of which class, and when.
#[derive(Debug, Args)]
pub struct PriceArgs {
    /// Only this class, such as training-8g; a history is of one, by default of training-1g
    #[arg(long)]
    pub class: Option<PriceClass>,
    /// What it was: each minute of a day, or each hour of a year
    #[arg(long, value_enum, value_name = "EVERY", num_args = 0..=1, default_missing_value = "minutes")]
    pub history: Option<HistoryArg>,
}

/// How far apart the points of a history are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HistoryArg {
    /// A day of minutes.
    Minutes,
    /// A year of hours.
    Hours,
}

impl From<HistoryArg> for PriceRing {
    fn from(every: HistoryArg) -> Self {
        match every {
            HistoryArg::Minutes => Self::Minutes,
            HistoryArg::Hours => Self::Hours,
        }
    }
}

/// The network.
#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// What network this is, who is online, what is held
    Status,
}

/// Configuration files.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a configuration or task file and say what is wrong, with the line
    Check {
        /// The file: coordinator.toml, miner.toml, storage.toml, client.toml or a task
        file: PathBuf,
        /// What it is for, where its name does not tell
        #[arg(long, value_enum)]
        role: Option<CheckAs>,
    },
    /// Show the settings in force and where each comes from
    Show {
        /// Of which part
        #[arg(value_enum, default_value = "client")]
        role: CheckAs,
    },
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CheckAs {
    /// A coordinator's configuration.
    Coordinator,
    /// A miner's.
    Miner,
    /// A storage node's.
    Storage,
    /// A client's.
    Client,
    /// A task.
    Task,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
        Line::command().debug_assert();
    }

    #[test]
    fn shell_and_repl_parse_the_same_commands() {
        for line in [
            "task submit mlp.toml --watch",
            "--format json wallet balance",
            "dataset add t.csv --label kind --access paid --fee 0.25",
            "dataset add --csv t.csv --values price,area",
            "dataset add --text t.txt --context 64 --level byte --held-out 0.05",
            "dataset add --safetensors tensors --access owner",
            "model infer bob/mlp --dataset ada/digits --split test --max-cost 1",
            "model infer bob/mlp --input rows.csv",
            "model serve bob/mlp --samples 50 --max-cost 1 --format json",
            "bench infer --calls 100 --format json",
            "wallet send bob 0.5",
            "wallet send bob 0.5 --yes",
            "ledger status --format json",
            "ledger block 7",
            "market honesty --seeds 3 --format json",
            "ledger verify --dir d",
            "ledger export --as csv -o transfers.csv",
            "ledger follow --dir d --once",
            "ledger follow --dir d --until-height 9",
            "key rotate",
            "task rate cmt1abc 5",
            "market price --format json",
            "market price --class inference-24g",
            "market price --history",
            "market price --class training-8g --history hours --format json",
            "bench ledger --seconds 2 --clients 1 --format json",
            "bench ledger --recover 1000000 --dir d",
            "bench kills --kills 200 --clients 8 --seed 1 --format json",
            "bench scale --worlds 1,2,4 --wire int8 --format json",
            "bench scale --netns 1gbit --steps 5 --runs 1",
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            Line::try_parse_from(&words).unwrap();
            Cli::try_parse_from([&["cryptomind"][..], &words].concat()).unwrap();
        }
    }

    #[test]
    fn nonsense_is_a_usage_error() {
        for line in [
            "task rate cmt1abc 6",
            "wallet send bob 0.0000000001",
            "wallet history --limit 0",
            "market price --class training-9g",
            "market price --history days",
            "wallet history --before cmt1abc",
            "wallet receipt cmr1abc -o f",
            "ledger verify-receipt f",
            "ledger verify-receipt f --genesis cm1abc",
            "ledger follow",
            "ledger follow --dir d --once --until-height 9",
            "ledger export --as xml",
            "--join cm://x",
            "frobnicate",
            "bench",
            "bench ledger --clients 0",
            "bench ledger --clients 501",
            "bench ledger --seconds 0",
            "dataset add",
            "dataset add t.csv --text t.txt",
            "dataset add t.csv --label a --values b",
            "dataset add t.csv --label a --context 8",
            "dataset add --text t.txt --context 0",
            "dataset add --text t.txt --held-out 1",
            "dataset add --text t.txt --held-out NaN",
            "dataset add --safetensors tensors --label a",
            "task run-local",
            "task run-local t.toml",
            "task run-local t.toml digits --text t.txt",
            "bench train --model rnn",
            "bench quality",
            "model infer bob/mlp",
            "model infer bob/mlp --dataset ada/digits --input rows.csv",
            "model serve bob/mlp --samples 0",
            "bench infer --calls 0",
            "bench kills --kills 0",
            "bench kills --clients 1",
            "bench scale --worlds 0",
            "bench scale --worlds 1;2",
            "bench scale --runs 0",
            "--format xml doctor",
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            let parsed = Cli::try_parse_from([&["cryptomind"][..], &words].concat());
            assert_eq!(parsed.unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn every_command_explains_itself_with_an_example() {
        fn walk(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            assert!(help.contains("cryptomind "), "{}", command.get_name());
        }
    }
}
