//! `task run-local`: train what a task file says on this machine.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use cryptomind_blob::HashTree;
use cryptomind_config::task::{FileWork, TaskFile};
use cryptomind_gpu::dataset::{self, Samples};
use cryptomind_gpu::inference::Model;
use cryptomind_gpu::session::Session;
use cryptomind_gpu::{EngineError, Scaling};
use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::item::{DatasetInfo, MODEL_FILE};
use cryptomind_protocol::model::ModelSpec;
use cryptomind_protocol::task::{Split, TrainSpec};
use serde::Serialize;

use crate::cli::RunLocalArgs;
use crate::command::data;
use crate::context::Context;
use crate::exit;
use crate::output::{Output, table};
use crate::training::{self, Next, Progress, Start, Trained, Training};

/// Within the folder; gone when the run is done.
const CHECKPOINT: &str = "checkpoint.safetensors";
/// From one line of progress to the next.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// What came out; one JSON object.
#[derive(Debug, Serialize)]
struct Report {
    model: PathBuf,
    parameters: u64,
    steps: u64,
    samples_per_s: Option<f64>,
    final_loss: Option<f64>,
    /// On the held-out samples.
    test_loss: f64,
    test_accuracy: Option<f64>,
    test_perplexity: Option<f64>,
    test_mean_absolute_error: Option<f64>,
}

/// Runs `task run-local`.
pub async fn run(context: &Context, args: RunLocalArgs) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let (output, asked) = (context.output, Arc::clone(&stop));
    let mut training = tokio::task::spawn_blocking(move || train(output, &args, &asked));
    let report = tokio::select! {
        report = &mut training => report??,
        _ = tokio::signal::ctrl_c() => {
            stop.store(true, Ordering::Relaxed);
            output.note("stopping after the step at hand, whose state is kept; again: at once")?;
            tokio::select! {
                report = training => report??,
                // The thread ends with the process; files are written whole or not at all.
                _ = tokio::signal::ctrl_c() => return Err(exit::interrupted("stopped at once").into()),
            }
        }
    };
    context.output.value(&report, || report.table())?;
    Ok(())
}

/// Refuses to go on where that is not wanted any more.
fn go_on(stop: &AtomicBool) -> Result<()> {
    match stop.load(Ordering::Relaxed) {
        true => Err(exit::interrupted("stopped before the first step").into()),
        false => Ok(()),
    }
}

/// What a task file and data of one's own come to.
struct Work {
    name: String,
    model: ModelSpec,
    train: TrainSpec,
    info: DatasetInfo,
    files: Vec<(String, PathBuf)>,
}

impl Work {
    fn read(args: &RunLocalArgs) -> Result<Self> {
        let file = TaskFile::read(&args.file)?;
        let (info, paths) = data::inspect(&args.data)?;
        file.check_dataset(&info)?;
        let FileWork::Train { model, train, .. } = &file.work else {
            return Err(
                ErrorBody::user("not_training", "the task file says kind = \"infer\"")
                    .with_help("run-local trains: write kind = \"train\" with [model] and [train]")
                    .into(),
            );
        };
        Ok(Self {
            name: file.name.clone(),
            model: model.clone(),
            train: train.clone(),
            files: data::named(&info, paths),
            info,
        })
    }

    fn load(&self, split: Split, known: Option<&Scaling>) -> Result<(Samples, Scaling), ErrorBody> {
        let file = |name: &str| {
            let mut found = self.files.iter().filter(|(own, _)| own == name);
            found
                .next()
                .map(|(_, path)| path.clone())
                .unwrap_or_default()
        };
        Ok(dataset::load(&self.info, split, known, &file)?)
    }

    /// A name for the run of this work on these very data, begun with these weights: whatever changes a bit of its
    /// checkpoints changes it.
    fn run(&self, weights: Option<&[u8]>) -> Result<String> {
        let content = |(_, path): &(String, PathBuf)| {
            let tree = File::open(path).and_then(HashTree::of_reader);
            tree.map(|tree| tree.root())
                .map_err(|e| exit::file(path, &e))
        };
        let files = self.files.iter().map(content);
        let files = files.collect::<Result<Vec<_>, _>>()?;
        let weights = weights.map(|bytes| HashTree::of_bytes(bytes).root());
        let all = serde_json::to_vec(&(&self.model, &self.train, &self.info, files, weights))?;
        Ok(HashTree::of_bytes(&all).root().to_string())
    }
}

fn train(output: Output, args: &RunLocalArgs, stop: &AtomicBool) -> Result<Report> {
    let work = Work::read(args)?;
    let folder = args
        .output
        .clone()
        .unwrap_or_else(|| work.name.clone().into());
    std::fs::create_dir_all(&folder).map_err(|e| exit::file(&folder, &e))?;
    let weights = args.weights.as_deref().map(|path| {
        let bytes = std::fs::read(path).map_err(|e| exit::file(path, &e))?;
        Ok::<_, ErrorBody>((Model::load(&work.model, &bytes)?.scaling().cloned(), bytes))
    });
    let weights = weights.transpose()?;
    // What was learnt before was learnt of inputs that were scaled so.
    let known = weights.as_ref().and_then(|(scaling, _)| scaling.as_ref());
    if weights.is_some() && known.is_none() {
        output
            .note("the weights do not say how their inputs were scaled: as these data propose")?;
    }
    go_on(stop)?;
    let (samples, scaling) = work.load(Split::Train, known)?;
    go_on(stop)?;
    let training = Training {
        run: Some(work.run(weights.as_ref().map(|(_, bytes)| &bytes[..]))?),
        model: &work.model,
        train: &work.train,
        samples: &samples,
        most_steps: None,
        threads: training::threads(args.threads),
    };
    let checkpoint = folder.join(CHECKPOINT);
    let weights = weights.as_ref().map(|(_, bytes)| &bytes[..]);
    let trained = run_from(output, &training, &checkpoint, weights, stop)?;
    if !trained.is_whole {
        return Err(exit::interrupted(format!(
            "stopped after step {}",
            trained.progress.map_or(0, |progress| progress.step)
        ))
        .with_help(format!(
            "the same command goes on from {}",
            checkpoint.display()
        ))
        .into());
    }
    let weights = trained.weights(&scaling);
    let model = folder.join(MODEL_FILE);
    if model.exists() {
        output.note(format!("{} is replaced", model.display()))?;
    }
    write(&model, &weights)?;
    let (held_out, _) = work.load(Split::Test, Some(&scaling))?;
    let test = training::evaluate(&work.model, &weights, &held_out, training.threads)?;
    // Only now: until the model is there, the checkpoint is all there is.
    match std::fs::remove_file(&checkpoint) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(exit::file(&checkpoint, &e).into());
        }
        _ => {}
    }
    Ok(Report {
        model,
        parameters: work.model.parameter_count(),
        steps: trained.step(),
        samples_per_s: trained.progress.map(|progress| progress.samples_per_s),
        final_loss: trained.progress.map(|progress| progress.loss),
        test_loss: test.loss,
        test_accuracy: test.accuracy,
        test_perplexity: test.perplexity,
        test_mean_absolute_error: test.mean_absolute_error,
    })
}

/// Trains from a checkpoint, where one is there, else from weights, where some are given, and leaves a checkpoint at each
/// of the task's and at the end.
fn run_from(
    output: Output,
    training: &Training<'_>,
    checkpoint: &Path,
    weights: Option<&[u8]>,
    stop: &AtomicBool,
) -> Result<Trained> {
    let before = match std::fs::read(checkpoint) {
        Ok(bytes) => Some(bytes),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(exit::file(checkpoint, &e).into()),
    };
    if before.is_some() {
        output.note(format!("going on from {}", checkpoint.display()))?;
    }
    let start = match (&before, weights) {
        (Some(checkpoint), _) => Start::Checkpoint(checkpoint),
        (None, Some(weights)) => Start::Weights(weights),
        (None, None) => Start::Fresh,
    };
    let mut shown = Shown::new(output);
    let every = u64::from(training.train.checkpoint_steps);
    let mut unwritten = None;
    let trained = training.run(start, &mut |session: &Session, progress| {
        shown.progress(progress);
        if progress.step % every == 0
            && let Err(error) = write(checkpoint, &session.checkpoint())
        {
            unwritten = Some(error);
            return Ok(Next::Stop);
        }
        Ok(match stop.load(Ordering::Relaxed) {
            true => Next::Stop,
            false => Next::GoOn,
        })
    });
    shown.end();
    let trained = trained.map_err(|error| refused(error, checkpoint, before.is_some()))?;
    if let Some(error) = unwritten {
        return Err(error.into());
    }
    write(checkpoint, &trained.checkpoint())?;
    Ok(trained)
}

/// Where there is a checkpoint, it is what was refused: weights were read before.
fn refused(error: EngineError, checkpoint: &Path, is_resumed: bool) -> ErrorBody {
    match (&error, is_resumed) {
        (EngineError::Weights(_), true) => ErrorBody::from(error).with_help(format!(
            "name another --output for this run, or remove {}",
            checkpoint.display()
        )),
        _ => error.into(),
    }
}

/// Whole or not at all: a checkpoint that was cut off would be worse than the one before.
fn write(path: &Path, bytes: &[u8]) -> Result<(), ErrorBody> {
    let part = path.with_extension("part");
    let written = File::create(&part).and_then(|mut file| {
        file.write_all(bytes)?;
        // Or a power cut might leave the name without the bytes.
        file.sync_all()?;
        std::fs::rename(&part, path)
    });
    written.map_err(|e| exit::file(path, &e))
}

/// Progress on the screen: a bar on a terminal, lines elsewhere.
struct Shown {
    output: Output,
    bar: Option<indicatif::ProgressBar>,
    /// When the last line was written.
    last: Option<Instant>,
}

impl Shown {
    fn new(output: Output) -> Self {
        Self {
            output,
            bar: None,
            last: None,
        }
    }

    fn progress(&mut self, progress: Progress) {
        let Progress {
            step,
            steps,
            loss,
            samples_per_s,
        } = progress;
        if self.output.has_bars() {
            let template = "{bar:30} step {pos} of {len}, {msg}, {eta} left";
            let bar = self
                .bar
                .get_or_insert_with(|| self.output.bar(steps, template));
            bar.set_message(format!("loss {loss:.4}, {samples_per_s:.0} samples/s"));
            bar.set_position(step);
        } else if self.last.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            self.last = Some(Instant::now());
            // A line that cannot be written is no reason to stop.
            let _ = self.output.note(format!(
                "step {step} of {steps}, loss {loss:.4}, {samples_per_s:.0} samples/s"
            ));
        }
    }

    fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Report {
    fn table(&self) -> String {
        let number = |value: Option<f64>| value.map(|value| format!("{value:.4}"));
        let rows = [
            ("parameters", Some(self.parameters.to_string())),
            ("steps", Some(self.steps.to_string())),
            (
                "samples a second",
                self.samples_per_s.map(|s| format!("{s:.0}")),
            ),
            ("loss of the last step", number(self.final_loss)),
            ("held out: loss", number(Some(self.test_loss))),
            ("held out: accuracy", number(self.test_accuracy)),
            ("held out: perplexity", number(self.test_perplexity)),
            (
                "held out: mean absolute error",
                number(self.test_mean_absolute_error),
            ),
            ("model", Some(self.model.display().to_string())),
        ];
        let rows = rows
            .into_iter()
            .filter_map(|(what, value)| Some(vec![what.to_owned(), value?]));
        table(&["trained", "value"], rows)
    }
}
