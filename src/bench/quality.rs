//! `bench quality`: how good models become that are trained on real data with fixed recipes, held against what PyTorch
//! reaches with the same.

use std::path::{Path, PathBuf};

use anyhow::Result;
use cryptomind_gpu::dataset::{self, DataError, Samples, inspect_idx, inspect_text};
use cryptomind_gpu::{Evaluation, Scaling};
use cryptomind_protocol::item::{DatasetInfo, TextLevel};
use cryptomind_protocol::model::{Gpt, ModelSpec};
use cryptomind_protocol::task::{DecayGroup, Optimizer, Schedule, Split, TrainSpec};
use cryptomind_protocol::{ErrorBody, ErrorClass};
use serde::Serialize;

use crate::cli::bench::BenchQualityArgs;
use crate::exit;
use crate::output::{Output, table};
use crate::training::{self, Next, Start, Training};

/// Tokens of a sample of the language model, and of its vocabulary's file the share that is held out, as nanoGPT has
/// them.
const CONTEXT: u32 = 64;
const HELD_OUT_PPM: u32 = 100_000;
const TEXT_STEPS: u32 = 2_000;

/// What must be reached on held-out samples.
#[derive(Debug, Clone, Copy)]
enum Bar {
    /// Accuracy, at least.
    Accuracy(f64),
    /// Loss, nats a token, at most.
    Loss(f64),
}

/// A model, its data and its recipe.
struct Recipe {
    name: &'static str,
    /// Within the folder of data.
    data: &'static str,
    bar: Bar,
    epochs: u32,
    batch: u32,
    /// Whether a seed after the first is worth its time.
    is_quick: bool,
}

const RECIPES: [Recipe; 4] = [
    Recipe {
        name: "digits-mlp",
        data: "digits",
        bar: Bar::Accuracy(0.975),
        epochs: 30,
        batch: 32,
        is_quick: true,
    },
    Recipe {
        name: "mnist10k-mlp",
        data: "mnist10k",
        bar: Bar::Accuracy(0.94),
        epochs: 5,
        batch: 128,
        is_quick: true,
    },
    Recipe {
        name: "mnist10k-cnn",
        data: "mnist10k",
        bar: Bar::Accuracy(0.96),
        epochs: 3,
        batch: 64,
        is_quick: true,
    },
    Recipe {
        name: "tinyshakespeare-gpt",
        data: "tinyshakespeare/input.txt",
        bar: Bar::Loss(1.95),
        epochs: 100,
        batch: 12,
        is_quick: false,
    },
];

/// A model that was trained; one JSON object a line of the table.
#[derive(Debug, Serialize)]
struct Row {
    model: &'static str,
    seed: u64,
    steps: u64,
    seconds: f64,
    test_loss: f64,
    test_accuracy: Option<f64>,
    /// What the measure that counts has to reach.
    bar: f64,
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
    let measuring = tokio::task::spawn_blocking(move || measure(output, &args));
    let report = tokio::select! {
        report = measuring => report??,
        // The thread ends with the process.
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

fn measure(output: Output, args: &BenchQualityArgs) -> Result<Report, ErrorBody> {
    let threads = training::threads(args.threads);
    // Before the first is trained: what is missing is not found out after minutes.
    let loaded = RECIPES
        .iter()
        .map(|recipe| Loaded::read(recipe, &args.data));
    let loaded = loaded.collect::<Result<Vec<_>, _>>()?;
    let mut rows = Vec::new();
    for (recipe, loaded) in RECIPES.iter().zip(&loaded) {
        let seeds = if recipe.is_quick { args.seeds } else { 1 };
        for seed in 0..u64::from(seeds) {
            // A note that cannot be written is no reason to stop.
            let _ = output.note(format!("training {} with seed {seed}", recipe.name));
            rows.push(recipe.row(loaded, seed, threads)?);
        }
    }
    Ok(Report {
        threads,
        good_enough: rows.iter().all(|row| row.good_enough),
        rows,
    })
}

/// Both splits.
struct Loaded {
    info: DatasetInfo,
    train: Samples,
    test: Samples,
    scaling: Scaling,
}

impl Loaded {
    fn read(recipe: &Recipe, folder: &Path) -> Result<Self, ErrorBody> {
        let path = folder.join(recipe.data);
        let (info, paths) = inspect(&path).map_err(|error| {
            ErrorBody::user("data_missing", format!("{}: {error}", path.display()))
                .with_help("--data names a folder with digits/, mnist10k/ and tinyshakespeare/")
        })?;
        let names: Vec<String> = info.format.files().into_iter().map(str::to_owned).collect();
        let file = |name: &str| {
            let at = names.iter().position(|own| own == name);
            at.and_then(|at| paths.get(at)).cloned().unwrap_or_default()
        };
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

fn inspect(path: &Path) -> Result<(DatasetInfo, Vec<PathBuf>), DataError> {
    if path.is_dir() || path.extension().is_none() {
        return inspect_idx(path);
    }
    let (info, file) = inspect_text(path, CONTEXT, TextLevel::Character, HELD_OUT_PPM)?;
    Ok((info, vec![file]))
}

impl Recipe {
    fn row(&self, data: &Loaded, seed: u64, threads: usize) -> Result<Row, ErrorBody> {
        let (model, train) = self.plan(&data.info, seed);
        let training = Training {
            run: None,
            model: &model,
            train: &train,
            samples: &data.train,
            most_steps: matches!(self.bar, Bar::Loss(_)).then_some(TEXT_STEPS.into()),
            threads,
        };
        let trained = training.run(Start::Fresh, &mut |_, _| Ok(Next::GoOn))?;
        let weights = trained.weights(&data.scaling);
        let test = training::evaluate(&model, &weights, &data.test, threads)?;
        let (bar, good_enough) = self.bar.judge(&test);
        Ok(Row {
            model: self.name,
            seed,
            steps: trained.progress.map_or(0, |progress| progress.step),
            seconds: trained.took.as_secs_f64(),
            test_loss: test.loss,
            test_accuracy: test.accuracy,
            bar,
            good_enough,
        })
    }

    fn plan(&self, info: &DatasetInfo, seed: u64) -> (ModelSpec, TrainSpec) {
        let (input, classes) = (info.input.clone(), info.classes.len() as u32);
        let train = TrainSpec {
            epochs: self.epochs,
            global_batch: self.batch,
            seed,
            ..TrainSpec::default()
        };
        match self.name {
            "digits-mlp" => (ModelSpec::mlp(input, &[64], classes), train),
            "mnist10k-mlp" => (ModelSpec::mlp(input, &[512, 512], classes), train),
            "mnist10k-cnn" => (ModelSpec::cnn(input, &[32, 64], 128, classes), train),
            _ => (gpt(classes), text_recipe(train)),
        }
    }
}

/// The shapes of nanoGPT's recipe for processors.
fn gpt(vocabulary: u32) -> ModelSpec {
    ModelSpec::gpt(Gpt {
        vocabulary,
        context: CONTEXT,
        width: 128,
        heads: 4,
        blocks: 4,
        dropout_ppm: 0,
    })
}

/// Its optimizer, which decays matrices alone, clips, and lets the rate fall by half a cosine.
fn text_recipe(train: TrainSpec) -> TrainSpec {
    TrainSpec {
        optimizer: Optimizer::Adamw {
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.99,
            eps: 1e-8,
            weight_decay: 0.1,
        },
        clip_norm: Some(1.0),
        schedule: Schedule::Cosine {
            warmup_steps: 100,
            decay_steps: TEXT_STEPS,
            min_lr: 1e-4,
        },
        decay: DecayGroup::Matrices,
        ..train
    }
}

impl Bar {
    /// What has to be reached, and whether it is.
    fn judge(self, test: &Evaluation) -> (f64, bool) {
        match self {
            Self::Accuracy(bar) => (bar, test.accuracy.is_some_and(|got| got >= bar)),
            Self::Loss(bar) => (bar, test.loss <= bar),
        }
    }
}

impl Report {
    fn table(&self) -> String {
        let row = |row: &Row| {
            vec![
                row.model.to_owned(),
                row.seed.to_string(),
                row.steps.to_string(),
                format!("{:.1}", row.seconds),
                format!("{:.4}", row.test_loss),
                row.test_accuracy
                    .map_or_else(String::new, |a| format!("{a:.4}")),
                row.bar.to_string(),
                if row.good_enough { "yes" } else { "no" }.to_owned(),
            ]
        };
        let header = [
            "model", "seed", "steps", "seconds", "loss", "accuracy", "bar", "reached",
        ];
        table(&header, self.rows.iter().map(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bundled digits alone: the rest takes minutes, and data that are not in the repository.
    #[test]
    fn digits_become_good_enough() {
        let folder = tempfile::tempdir().unwrap();
        let digits = folder.path().join("digits");
        std::fs::create_dir(&digits).unwrap();
        for (name, bytes) in cryptomind_gpu::digits::files() {
            std::fs::write(digits.join(name), bytes).unwrap();
        }
        let loaded = Loaded::read(&RECIPES[0], folder.path()).unwrap();
        let row = |seed| RECIPES[0].row(&loaded, seed, 2).unwrap();
        let accuracies: Vec<f64> = (0..3).filter_map(|seed| row(seed).test_accuracy).collect();
        // Of a single seed one digit more or less depends on how the processor rounds.
        let mean = accuracies.iter().sum::<f64>() / 3.0;
        assert!(mean >= 0.975, "{accuracies:?}");
    }

    #[test]
    fn missing_data_are_an_error() {
        let args = BenchQualityArgs {
            data: "/nowhere".into(),
            threads: 1,
            seeds: 1,
        };
        let quiet = Output::new(crate::output::Wish {
            json: true,
            quiet: true,
        });
        let error = measure(quiet, &args).unwrap_err();
        assert!(error.message.contains("digits"), "{error:?}");
    }
}
