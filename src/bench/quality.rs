//! `bench quality`: how good models become that are trained on real data with fixed recipes, held against what PyTorch
//! reaches with the same; and how good the same become that several members train together.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use cryptomind_gpu::Scaling;
use cryptomind_gpu::dataset::{self, Samples};
use cryptomind_protocol::item::DatasetInfo;
use cryptomind_protocol::ring::Wire;
use cryptomind_protocol::task::Split;
use cryptomind_protocol::{ErrorBody, ErrorClass};
use serde::Serialize;
use tokio::process::Command;

use super::rank::{self, Rank};
use crate::cli::bench::{BenchQualityArgs, RankArgs};
use crate::exit;
use crate::output::{Output, table};
use crate::training::{self, Next, Start, Training};
use member::{Answer, Order};
use recipe::{Data, RECIPES, Recipe};

mod member;
mod recipe;

/// What starts a rank.
const COMMAND: &str = "quality-member";
/// So far from the accuracy of the model that one alone trains may that of a group's be: a percentage point.
const POINT: f64 = 0.01;

/// A model that was trained; one JSON object a line of the table.
#[derive(Debug, Serialize)]
struct Row {
    model: &'static str,
    /// Members that trained it.
    world: usize,
    /// The format of their exchange; nothing where one trained alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    wire: Option<Wire>,
    seed: u64,
    steps: u64,
    seconds: f64,
    test_loss: f64,
    test_accuracy: Option<f64>,
    /// How much more accurate it is than the model that one alone trained with this seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    accuracy_gain: Option<f64>,
    /// What the measure that counts has to reach.
    bar: f64,
    /// Of one alone, whether it does; of a group, whether its model is within a point of that one.
    good_enough: bool,
}

/// What was measured; one JSON object.
#[derive(Debug, Serialize)]
struct Report {
    threads: usize,
    rows: Vec<Row>,
    good_enough: bool,
}

/// Runs the benchmark.
pub async fn run(output: Output, args: BenchQualityArgs) -> Result<()> {
    let report = tokio::select! {
        report = measure(output, &args) => report?,
        // Threads and processes end with this one.
        _ = tokio::signal::ctrl_c() => return Err(exit::interrupted("interrupted").into()),
    };
    output.value(&report, || report.table())?;
    match report.good_enough {
        true => Ok(()),
        false => Err(ErrorBody::new(
            ErrorClass::Internal,
            "bar_missed",
            "a model is not as good as it should be",
        )
        .into()),
    }
}

/// One rank, in this process: told on standard input what to train, and telling on standard output what it came to.
pub async fn member(args: RankArgs) -> Result<()> {
    Ok(member::run(args).await?)
}

async fn measure(output: Output, args: &BenchQualityArgs) -> Result<Report, ErrorBody> {
    let threads = training::threads(args.threads);
    // Before the first is trained: what is missing is not found out after minutes.
    let found = RECIPES.iter().map(|recipe| recipe.find(&args.data));
    let found = found.collect::<Result<Vec<_>, _>>()?;
    let mut rows = Vec::new();
    for (number, data) in found.into_iter().enumerate() {
        let recipe = &RECIPES[number];
        let loaded = Arc::new(Loaded::read(data)?);
        let seeds = if recipe.is_quick { args.seeds } else { 1 };
        for seed in 0..u64::from(seeds) {
            // A note that cannot be written is no reason to stop.
            let _ = output.note(format!("training {} with seed {seed}", recipe.name));
            let alone = alone(recipe, loaded.clone(), seed, threads).await?;
            let accuracy = alone.test_accuracy;
            let _ = output.note(alone.line());
            rows.push(alone);
            for (world, wire) in groups(args, recipe) {
                let _ = output.note(format!("  in a group of {world}, over {wire}"));
                let order = |addresses| Order {
                    addresses,
                    recipe: number,
                    data: args.data.clone(),
                    wire,
                    seed,
                    threads: (threads / world).max(1),
                };
                let answers = train(world, order).await?;
                let row = together(recipe, (world, wire, seed), &answers, accuracy)?;
                let _ = output.note(row.line());
                rows.push(row);
            }
        }
    }
    Ok(Report {
        threads,
        good_enough: rows.iter().all(|row| row.good_enough),
        rows,
    })
}

/// The groups that train it too. They train to the end, which the language model's recipe does not.
fn groups(args: &BenchQualityArgs, recipe: &Recipe) -> Vec<(usize, Wire)> {
    let worlds = args.worlds.iter().copied();
    let worlds = worlds.filter(|world| *world > 1 && recipe.most_steps().is_none());
    let wires = |world| args.wires.iter().map(move |wire| (world, (*wire).into()));
    worlds.flat_map(wires).collect()
}

/// Both splits.
struct Loaded {
    info: DatasetInfo,
    train: Samples,
    test: Samples,
    scaling: Scaling,
}

impl Loaded {
    fn read(Data { info, files }: Data) -> Result<Self, ErrorBody> {
        let file = |name: &str| files.get(name).cloned().unwrap_or_default();
        let (train, scaling) = dataset::load(&info, Split::Train, None, &file)?;
        let (test, _) = dataset::load(&info, Split::Test, Some(&scaling), &file)?;
        Ok(Self {
            info,
            train,
            test,
            scaling,
        })
    }
}

/// Trains it in this process, off the runtime's own threads.
async fn alone(
    recipe: &'static Recipe,
    data: Arc<Loaded>,
    seed: u64,
    threads: usize,
) -> Result<Row, ErrorBody> {
    let training = tokio::task::spawn_blocking(move || recipe.row(&data, seed, threads));
    training.await.map_err(ErrorBody::internal)?
}

impl Recipe {
    fn row(&self, data: &Loaded, seed: u64, threads: usize) -> Result<Row, ErrorBody> {
        let (model, train) = self.plan(&data.info, seed);
        let training = Training {
            run: None,
            model: &model,
            train: &train,
            samples: &data.train,
            most_steps: self.most_steps(),
            threads,
        };
        let trained = training.run(Start::Fresh, &mut |_, _| Ok(Next::GoOn))?;
        let weights = trained.weights(&data.scaling);
        let test = training::evaluate(&model, &weights, &data.test, threads)?;
        let (bar, good_enough) = self.bar.judge(test.loss, test.accuracy);
        Ok(Row {
            model: self.name,
            world: 1,
            wire: None,
            seed,
            steps: trained.progress.map_or(0, |progress| progress.step),
            seconds: trained.took.as_secs_f64(),
            test_loss: test.loss,
            test_accuracy: test.accuracy,
            accuracy_gain: None,
            bar,
            good_enough,
        })
    }
}

/// Has so many processes train together.
async fn train(
    world: usize,
    order: impl FnOnce(Vec<String>) -> Order,
) -> Result<Vec<Answer>, ErrorBody> {
    let program = std::env::current_exe();
    let program: PathBuf = program.map_err(|e| exit::file(Path::new("cryptomind"), &e))?;
    let listen = [127, 0, 0, 1].into();
    let start = |rank| Rank::start(rank, listen, COMMAND, Command::new(&program));
    let mut ranks = (0..world).map(start).collect::<Result<Vec<_>, _>>()?;
    rank::ask(&mut ranks, order).await
}

/// What a group's model is, beside the accuracy of the one that one member trains.
fn together(
    recipe: &Recipe,
    (world, wire, seed): (usize, Wire, u64),
    answers: &[Answer],
    alone: Option<f64>,
) -> Result<Row, ErrorBody> {
    let [first, ..] = answers else {
        return Err(ErrorBody::internal("a group of nobody"));
    };
    super::member::agree(answers.iter().map(|answer| &answer.fingerprint))?;
    let (loss, accuracy) = first
        .test
        .ok_or_else(|| ErrorBody::internal("rank 0 did not say how good its model is"))?;
    let gain = accuracy.zip(alone).map(|(got, alone)| got - alone);
    let (bar, _) = recipe.bar.judge(loss, accuracy);
    Ok(Row {
        model: recipe.name,
        world,
        wire: Some(wire),
        seed,
        steps: first.steps,
        seconds: first.seconds,
        test_loss: loss,
        test_accuracy: accuracy,
        accuracy_gain: gain,
        bar,
        good_enough: gain.is_some_and(|gain| gain.abs() <= POINT),
    })
}

impl Row {
    /// What is said of it while the rest is trained, which takes minutes.
    fn line(&self) -> String {
        let accuracy = self.test_accuracy;
        let accuracy = accuracy.map_or_else(String::new, |a| format!("accuracy {a:.4}, "));
        let (loss, seconds) = (self.test_loss, self.seconds);
        format!(
            "    {accuracy}loss {loss:.4}, {} steps in {seconds:.1} s",
            self.steps
        )
    }
}

impl Report {
    fn table(&self) -> String {
        let accuracy = |value: Option<f64>| value.map_or_else(String::new, |a| format!("{a:.4}"));
        let row = |row: &Row| {
            vec![
                row.model.to_owned(),
                row.world.to_string(),
                row.wire.map_or_else(String::new, |wire| wire.to_string()),
                row.seed.to_string(),
                row.steps.to_string(),
                format!("{:.1}", row.seconds),
                format!("{:.4}", row.test_loss),
                accuracy(row.test_accuracy),
                row.accuracy_gain
                    .map_or_else(String::new, |gain| format!("{gain:+.4}")),
                row.bar.to_string(),
                if row.good_enough { "yes" } else { "no" }.to_owned(),
            ]
        };
        let header = [
            "model", "members", "wire", "seed", "steps", "seconds", "loss", "accuracy", "gain",
            "bar", "reached",
        ];
        table(&header, self.rows.iter().map(row))
    }
}

#[cfg(test)]
mod tests {
    use cryptomind_protocol::key::Hash;

    use super::*;
    use crate::cli::bench::WireName;

    /// The bundled digits alone: the rest takes minutes, and data that are not in the repository.
    #[test]
    fn digits_become_good_enough() {
        let folder = tempfile::tempdir().unwrap();
        let digits = folder.path().join("digits");
        std::fs::create_dir(&digits).unwrap();
        for (name, bytes) in cryptomind_gpu::digits::files() {
            std::fs::write(digits.join(name), bytes).unwrap();
        }
        let loaded = Loaded::read(RECIPES[0].find(folder.path()).unwrap()).unwrap();
        let row = |seed| RECIPES[0].row(&loaded, seed, 2).unwrap();
        let accuracies: Vec<f64> = (0..3).filter_map(|seed| row(seed).test_accuracy).collect();
        // Of a single seed one digit more or less depends on how the processor rounds.
        let mean = accuracies.iter().sum::<f64>() / 3.0;
        assert!(mean >= 0.975, "{accuracies:?}");
    }

    fn args(worlds: &[usize]) -> BenchQualityArgs {
        BenchQualityArgs {
            data: "/nowhere".into(),
            threads: 1,
            seeds: 1,
            worlds: worlds.to_vec(),
            wires: vec![WireName::F32, WireName::Int8],
        }
    }

    #[test]
    fn groups_train_what_ends_by_itself() {
        let groups = |recipe: &Recipe| groups(&args(&[1, 2, 4]), recipe);
        let (exact, coarse) = (Wire::F32, Wire::Int8);
        let wanted = [(2, exact), (2, coarse), (4, exact), (4, coarse)];
        assert_eq!(groups(&RECIPES[0]), wanted);
        assert_eq!(groups(&RECIPES[3]), []);
    }

    #[test]
    fn a_group_is_held_against_one_alone() {
        let answer = |state, test| Answer {
            fingerprint: Hash::new([state; 32]),
            steps: 3,
            seconds: 1.0,
            test,
        };
        let row = |answers: &[Answer]| {
            let group = (answers.len(), Wire::F32, 7);
            together(&RECIPES[0], group, answers, Some(0.97))
        };
        let with = |accuracy| [answer(1, Some((0.1, Some(accuracy)))), answer(1, None)];
        let is_good = |accuracy| row(&with(accuracy)).unwrap().good_enough;
        assert!(is_good(0.9605) && is_good(0.9795));
        assert!(!is_good(0.9595) && !is_good(0.9805));
        let parted = [answer(1, Some((0.1, Some(0.97)))), answer(2, None)];
        assert_eq!(row(&parted).unwrap_err().code, "states_differ");
    }

    #[tokio::test]
    async fn missing_data_are_an_error() {
        let args = args(&[1]);
        let quiet = Output::new(crate::output::Wish {
            json: true,
            quiet: true,
        });
        let error = measure(quiet, &args).await.unwrap_err();
        assert!(error.message.contains("digits"), "{error:?}");
    }
}
