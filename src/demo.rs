//! `cryptomind demo`: the whole network does its job once, on real data, and tells it as a story.
//!
//! Every part is a process; ada and bob act through the client library alone. Nothing is made up for
//! the show: what is printed is what the network answered, and what it claims is checked here again (the
//! accuracy with the fetched weights, the payments against the supply). A claim that fails is an error.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::api::MinerView;
use cryptomind_protocol::item::ItemView;
use cryptomind_protocol::task::{Payment, TaskView};
use cryptomind_sdk::Client;
use serde_json::{Value, json};

use crate::cli::DemoArgs;
use crate::context::Context;
use crate::dev::fresh_dir;
use crate::exit;
use crate::local_network::{LocalNetwork, MINER_OWNERS, STORAGE_OWNER};
use crate::output::{Output, Tone};

pub mod digits;
mod inference;
mod money;
mod publishing;
mod ratings;
mod result;
mod training;

/// Anyone's test accuracy below this is a failed demo; PyTorch with the same recipe has 0.981 to 0.986.
const ACCURACY_NEEDED: f64 = 0.97;

/// What the steps share and find out.
struct Demo<'a> {
    output: Output,
    network: &'a mut LocalNetwork,
    calm: bool,
    ada: Client,
    bob: Client,
}

/// What a finished training leaves for the steps after it.
struct Trained {
    task: TaskView,
    payments: Vec<Payment>,
    first_loss: Duration,
    /// The miner that was killed.
    killed: Option<String>,
}

/// Runs the demo in a fresh folder; no process is left, however it ends.
pub async fn run(context: &Context, args: DemoArgs) -> Result<()> {
    let started = Instant::now();
    let output = context.output;
    let dir = match args.dir {
        Some(dir) => dir,
        None => fresh_dir("demo")?,
    };
    refuse_used(&dir)?;
    let network = LocalNetwork::start(&dir, ([127, 0, 0, 1], 0).into());
    let mut network = tokio::select! {
        network = network => network?,
        _ = tokio::signal::ctrl_c() => return Err(exit::interrupted("interrupted").into()),
    };
    let up = started.elapsed();
    let told = tokio::select! {
        told = tell(output, &mut network, args.calm, up) => told,
        _ = tokio::signal::ctrl_c() => Err(exit::interrupted("interrupted").into()),
    };
    network.shutdown().await;
    let mut summary = told?;
    let wall = started.elapsed().as_secs_f64();
    summary["wall_s"] = json!(wall);
    if output.is_json() {
        output.json_line(&summary)?;
    } else {
        let done = format!("Done in {wall:.1} s; every process has ended.");
        output.say(output.paint(Tone::Good, &done))?;
    }
    Ok(())
}

/// People of a demo or a benchmark have no past: a folder with one is left alone.
pub fn refuse_used(dir: &Path) -> Result<(), ErrorBody> {
    let is_used = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    if is_used {
        return Err(ErrorBody::user(
            "folder_not_empty",
            format!("{} is not empty", dir.display()),
        )
        .with_help("name a folder that is empty or not there, or leave --dir out"));
    }
    Ok(())
}

/// The story from beginning to end; gives what `--format json` prints.
async fn tell(
    output: Output,
    network: &mut LocalNetwork,
    calm: bool,
    up: Duration,
) -> Result<Value> {
    let (ada, bob) = tokio::try_join!(network.client("ada"), network.client("bob"))?;
    let mut demo = Demo {
        output,
        network,
        calm,
        ada,
        bob,
    };
    demo.introduce(up)?;
    let before = demo.bob.miners().await?;
    let dataset = demo.publish_digits().await?;
    let posted = demo.quote_and_post(&dataset).await?;
    let trained = demo.train(posted).await?;
    let model = demo.fetch_model(&trained).await?;
    let inferred = demo.infer(&model, &dataset).await?;
    let paid = demo.settle(&trained, &inferred).await?;
    let ratings = demo.rate(&trained, &before).await?;
    demo.next_steps(&model)?;
    demo.ada.close().await;
    demo.bob.close().await;
    Ok(json!({
        "test_accuracy": model.accuracy,
        "model_path": model.weights,
        "test_set_path": digits::folder(demo.network.dir()),
        "predictions_path": inferred.predictions,
        "payments": paid.payments,
        "held_base_units": paid.held.base_units(),
        "supply_base_units": paid.supply.base_units(),
        "balances": paid.balances,
        "ratings": ratings,
        "killed": trained.killed,
        "network_up_s": up.as_secs_f64(),
        "first_loss_s": trained.first_loss.as_secs_f64(),
        "folder": demo.network.dir(),
    }))
}

/// The trained model as bob has it.
struct Model {
    item: ItemView,
    weights: PathBuf,
    card: PathBuf,
    accuracy: f64,
}

impl Demo<'_> {
    /// A task that takes longer than it ever should: where to look for the reason.
    fn late(&self, what: &str, limit: Duration) -> ErrorBody {
        ErrorBody::internal(format!(
            "the {what} did not end within {} s",
            limit.as_secs()
        ))
        .with_help(format!(
            "what each part did: {}",
            self.network.dir().join("logs").display()
        ))
    }

    fn heading(&self, number: u32, text: &str) -> std::io::Result<()> {
        let line = format!("\n{number}. {text}");
        self.output.say(self.output.paint(Tone::Strong, &line))
    }

    fn line(&self, text: impl AsRef<str>) -> std::io::Result<()> {
        self.output.say(format!("   {}", text.as_ref()).trim_end())
    }

    /// A table or another text of many lines, as a part of the story.
    fn block(&self, text: &str) -> std::io::Result<()> {
        text.lines().try_for_each(|line| self.line(line))
    }

    fn introduce(&self, up: Duration) -> std::io::Result<()> {
        self.output.say(format!(
            "{}\nA coordinator, a storage node ({STORAGE_OWNER}'s) and three miners ({}) run as processes of their own\n\
             and speak QUIC on loopback. The network was up in {:.2} s.",
            self.output.paint(Tone::Strong, "A market for computing power, on this machine"),
            MINER_OWNERS.map(|owner| format!("{owner}'s")).join(", "),
            up.as_secs_f64(),
        ))
    }

    fn next_steps(&self, model: &Model) -> std::io::Result<()> {
        self.heading(8, "What is left, and what to try next")?;
        let dir = self.network.dir();
        self.line(format!("the model      {}", model.weights.display()))?;
        self.line(format!("its card       {}", model.card.display()))?;
        self.line(format!("the test set   {}", digits::folder(dir).display()))?;
        self.line(format!("logs           {}", dir.join("logs").display()))?;
        let program = std::env::args()
            .next()
            .unwrap_or_else(|| "cryptomind".into());
        let config = dir.join("client.toml");
        let (config, dir) = (config.display(), dir.display());
        self.output.say(format!(
            "\n   Go on with this network, in a terminal of its own:\n     {program} dev --dir {dir}\n   \
             Train on a table of yours: numbers, and a column of labels:\n     {program} --config {config} dataset add my.csv --label COLUMN --name mine\n   \
             \x20 {program} --config {config} task submit mine-task.toml --watch\n"
        ))
    }
}

/// The miner with this name.
fn miner<'m>(miners: &'m [MinerView], name: &str) -> Option<&'m MinerView> {
    miners.iter().find(|miner| miner.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_a_past_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        refuse_used(dir.path()).unwrap();
        refuse_used(&dir.path().join("new")).unwrap();
        std::fs::write(dir.path().join("x"), "").unwrap();
        assert_eq!(
            refuse_used(dir.path()).unwrap_err().code,
            "folder_not_empty"
        );
    }
}
