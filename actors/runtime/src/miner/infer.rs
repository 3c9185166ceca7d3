//! Inference: a trained model over one split, without a ring.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use cryptomind_gpu::dataset::{self, Samples};
use cryptomind_gpu::inference::{Model, most_probable};
use cryptomind_protocol::item::{DatasetInfo, ModelInfo};
use cryptomind_protocol::task::{Latency, Metrics, Split};

use super::serve;
use super::train::Fault;

/// Samples between two looks at whether anybody still wants the answer.
const CHUNK: usize = 1024;

/// The first line of every table of predictions.
const HEADER: &str = "index,label,class,probability";
/// By such a part of the greatest probability rounding moves one, at most, where it does not decide.
const ROUNDING: f32 = 1e-3;
/// By so much writing it does.
const WRITTEN: f32 = 1e-6;

/// What is run over what.
pub struct Plan {
    /// The model.
    pub model: ModelInfo,
    /// Where its weights lie.
    pub weights: PathBuf,
    /// The dataset.
    pub info: DatasetInfo,
    /// Which of its splits.
    pub split: Split,
}

/// Predictions as CSV, `index,label,class,probability`: the most probable class's number and name. Blocks; ends
/// early when `unwanted` turns true.
pub fn run(
    plan: &Plan,
    file: &dyn Fn(&str) -> PathBuf,
    unwanted: &AtomicBool,
) -> Result<(String, Metrics), Fault> {
    let begin = Instant::now();
    let (model, samples) = load(plan, file)?;
    let loaded = Instant::now();
    let mut csv = format!("{HEADER}\n");
    let mut right = 0;
    for range in chunks(&samples) {
        if unwanted.load(Ordering::Relaxed) {
            return Err(Fault {
                task_fault: false,
                reason: "nobody wants the answer any more".into(),
            });
        }
        right += predict(plan, &model, &samples, range, &mut csv)?;
    }
    let metrics = Metrics {
        final_loss: None,
        test_accuracy: (!samples.is_empty()).then(|| right as f32 / samples.len() as f32),
        samples: samples.len() as u64,
        compute_ms: begin.elapsed().as_millis() as u64,
        latency: Some(Latency {
            load_us: (loaded - begin).as_micros() as u64,
            compute_us: loaded.elapsed().as_micros() as u64,
            ..Latency::default()
        }),
    };
    Ok((csv, metrics))
}

/// How an answer differs from the one that this plan comes to; nothing where it is the same but for rounding. `answer` may be
/// anything. Blocks.
pub fn difference(
    plan: &Plan,
    file: &dyn Fn(&str) -> PathBuf,
    answer: &[u8],
) -> Result<Option<String>, Fault> {
    let (model, samples) = load(plan, file)?;
    let text = std::str::from_utf8(answer).unwrap_or_default();
    let table = text.strip_prefix(HEADER);
    let Some(mut rest) = table.and_then(|rest| rest.strip_prefix('\n')) else {
        return Ok(Some("it is no table of predictions".into()));
    };
    for range in chunks(&samples) {
        let probabilities = model.probabilities(&samples, range.clone())?;
        let rows = range.zip(probabilities.chunks_exact(model.classes()));
        for (index, row) in rows {
            let Some(after) = take_answer(rest, index, row, &plan.model.classes) else {
                let said: String = rest.chars().take(60).collect();
                return Ok(Some(format!("of sample {index} it says {said:?}")));
            };
            rest = after;
        }
    }
    let more = !rest.is_empty();
    Ok(more.then(|| "it goes on after its samples".into()))
}

/// What comes after a line that says a class as probable as any, and how probable that is: machines round differently. Nothing
/// where no such line is there. A class's name may have lines of its own.
fn take_answer<'a>(
    text: &'a str,
    index: usize,
    row: &[f32],
    classes: &[String],
) -> Option<&'a str> {
    let rest = text.strip_prefix(&format!("{index},"))?;
    let (label, rest) = rest.split_once(',')?;
    let label: usize = label.parse().ok()?;
    let name = cell(classes.get(label).map_or("", String::as_str));
    let rest = rest.strip_prefix(&name)?.strip_prefix(',')?;
    let (said, rest) = rest.split_once('\n')?;
    let (is, said): (f32, f32) = (*row.get(label)?, said.parse().ok()?);
    let most = row[most_probable(row)];
    let apart = ROUNDING * most + WRITTEN;
    (most - is <= apart && (is - said).abs() <= apart).then_some(rest)
}

/// Whether what this plan comes to depends little on how a machine rounds: where `round` changes the weights and the samples, every
/// probability stays well within what counts as the same. Blocks.
pub fn is_calm(
    plan: &Plan,
    file: &dyn Fn(&str) -> PathBuf,
    round: &mut dyn FnMut(&mut [f32]),
) -> Result<bool, Fault> {
    let (model, mut samples) = load(plan, file)?;
    let mut calm = true;
    let mut expected = Vec::new();
    for range in chunks(&samples) {
        expected.push(model.probabilities(&samples, range)?);
    }
    let model = serve::load_changed(&plan.model, &plan.weights, round)?;
    round(&mut samples.inputs);
    for (range, expected) in chunks(&samples).zip(expected) {
        let rows = expected.chunks_exact(model.classes());
        let rounded = model.probabilities(&samples, range)?;
        let rounded = rounded.chunks_exact(model.classes());
        calm &= rows
            .zip(rounded)
            .all(|(row, rounded)| is_near(row, rounded));
    }
    Ok(calm)
}

/// Whether no probability is further from the other than a tenth of what counts as the same.
fn is_near(row: &[f32], other: &[f32]) -> bool {
    let apart = ROUNDING / 10.0 * row[most_probable(row)] + WRITTEN;
    let mut pairs = row.iter().zip(other);
    pairs.all(|(one, other)| (one - other).abs() <= apart)
}

/// The model and the samples.
fn load(plan: &Plan, file: &dyn Fn(&str) -> PathBuf) -> Result<(Model, Samples), Fault> {
    let model = serve::load(&plan.model, &plan.weights)?;
    // Scaled as the network learnt, not as this dataset would be: the same value means the same in both.
    let loaded = dataset::load(&plan.info, plan.split, model.scaling(), file);
    let (samples, _) = loaded.map_err(|e| Fault {
        task_fault: !matches!(e, dataset::DataError::Io { .. }),
        reason: e.to_string(),
    })?;
    Ok((model, samples))
}

fn chunks(samples: &Samples) -> impl Iterator<Item = Range<usize>> + use<> {
    let len = samples.len();
    let starts = (0..len).step_by(CHUNK);
    starts.map(move |start| start..(start + CHUNK).min(len))
}

/// Adds the lines of a range, and counts the right ones.
fn predict(
    plan: &Plan,
    model: &Model,
    samples: &Samples,
    range: Range<usize>,
    csv: &mut String,
) -> Result<usize, Fault> {
    let probabilities = model.probabilities(samples, range.clone())?;
    let rows = range.zip(probabilities.chunks_exact(model.classes()));
    let mut right = 0;
    for (index, row) in rows {
        let label = most_probable(row);
        let name = plan.model.classes.get(label).map_or("", String::as_str);
        let _ = writeln!(csv, "{index},{label},{},{:.6}", cell(name), row[label]);
        right += usize::from(samples.labels[index] as usize == label);
    }
    Ok(right)
}

/// A CSV cell (RFC 4180). A name that a spreadsheet would take for a formula is quoted with an apostrophe.
fn cell(text: &str) -> String {
    let text = match text.chars().next() {
        Some('=' | '+' | '-' | '@' | '\t' | '\r') if text.parse::<f64>().is_err() => {
            format!("'{text}")
        }
        _ => text.to_owned(),
    };
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptomind_gpu::session::Session;
    use cryptomind_protocol::model::{Layer, ModelSpec};
    use cryptomind_protocol::task::{Optimizer, TrainSpec};
    use std::collections::BTreeMap;

    #[test]
    fn cells_cannot_break_out() {
        assert_eq!(cell("zero"), "zero");
        assert_eq!(cell("-1"), "-1");
        assert_eq!(cell("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(cell("=HYPERLINK(1)"), "'=HYPERLINK(1)");
    }

    fn plan(dir: &std::path::Path, outputs: u32) -> Plan {
        for (name, content) in cryptomind_gpu::digits::files() {
            std::fs::write(dir.join(name), content).unwrap();
        }
        let (info, _) = dataset::inspect_idx(dir).unwrap();
        let spec = ModelSpec {
            input: vec![8, 8],
            layers: vec![Layer::Linear { out: outputs }],
        };
        let train = TrainSpec {
            epochs: 1,
            global_batch: 1,
            optimizer: Optimizer::adamw(0.1),
            seed: 1,
            checkpoint_steps: 1,
        };
        let weights = dir.join("weights");
        let session = Session::new(&spec, &train).unwrap();
        std::fs::write(&weights, session.export(&BTreeMap::new())).unwrap();
        let model = ModelInfo {
            spec,
            classes: info.classes.clone(),
            dataset: None,
            task: None,
            metrics: Metrics::default(),
        };
        Plan {
            model,
            weights,
            info,
            split: Split::Test,
        }
    }

    #[test]
    fn every_sample_gets_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path(), 10);
        let file = |name: &str| dir.path().join(name);
        let (csv, metrics) = run(&plan, &file, &AtomicBool::new(false)).unwrap();
        assert_eq!(metrics.samples, 360);
        assert_eq!(csv.lines().count(), 361);
        assert!(csv.starts_with("index,label,class,probability\n0,"));
        assert!(metrics.test_accuracy.is_some());
        let stopped = run(&plan, &file, &AtomicBool::new(true)).unwrap_err();
        assert!(!stopped.task_fault);
    }

    #[test]
    fn an_answer_is_told_from_what_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path(), 10);
        let file = |name: &str| dir.path().join(name);
        let (csv, _) = run(&plan, &file, &AtomicBool::new(false)).unwrap();
        let differs = |answer: &str| difference(&plan, &file, answer.as_bytes()).unwrap();
        assert_eq!(differs(&csv), None);
        let lines: Vec<&str> = csv.lines().collect();
        let last = *lines.last().unwrap();
        let fields: Vec<&str> = last.split(',').collect();
        let [index, label, _, probability] = fields[..] else {
            panic!("{last}")
        };
        let with = |line: String| {
            let mut lines = lines.clone();
            *lines.last_mut().unwrap() = &line;
            differs(&(lines.join("\n") + "\n"))
        };
        let rounded = probability.parse::<f32>().unwrap() + 1e-5;
        assert_eq!(with(format!("{index},{label},{label},{rounded:.6}")), None);
        let other = (label.parse::<usize>().unwrap() + 1) % 10;
        for wrong in [
            format!("{index},{other},{other},{probability}"),
            format!("{index},{label},{other},{probability}"),
            format!("{index},{label},{label},{:.6}", rounded + 0.01),
            format!("{index},{label},{label},NaN"),
            format!("{index},99,,{probability}"),
            format!("7,{label},{label},{probability}"),
            format!("{last}\n{last}"),
            format!("{index},{label}"),
            String::new(),
        ] {
            assert!(with(wrong.clone()).is_some(), "{wrong}");
        }
        let without_last = csv.strip_suffix(&format!("{last}\n")).unwrap();
        assert!(differs(without_last).is_some() && differs("").is_some());
        assert!(difference(&plan, &file, &[0xff, 0xfe]).unwrap().is_some());
    }

    /// Names are whatever a dataset's owner wrote.
    #[test]
    fn an_honest_answer_is_one_whatever_the_classes_are_called() {
        let dir = tempfile::tempdir().unwrap();
        let mut plan = plan(dir.path(), 10);
        let names = [
            "a\nb", "a,b", "a\"b", "a\r\nb", "=1+1", "", " ", "ü", "0,0,0", "\"",
        ];
        plan.model.classes = names.map(str::to_owned).to_vec();
        let file = |name: &str| dir.path().join(name);
        let (csv, _) = run(&plan, &file, &AtomicBool::new(false)).unwrap();
        assert_eq!(difference(&plan, &file, csv.as_bytes()).unwrap(), None);
    }

    #[test]
    fn what_rounding_decides_is_told_from_what_it_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path(), 10);
        let file = |name: &str| dir.path().join(name);
        let calm = |by: f32| {
            let mut sign = by;
            let mut round = |values: &mut [f32]| {
                for value in values {
                    *value *= 1.0 + sign;
                    sign = -sign;
                }
            };
            is_calm(&plan, &file, &mut round).unwrap()
        };
        assert!(calm(0.0) && calm(5e-7));
        assert!(
            !calm(1e-2),
            "weights that cancel make as much of a last bit"
        );
    }

    #[test]
    fn a_model_that_does_not_fit_is_the_tasks_fault() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path(), 9);
        let file = |name: &str| dir.path().join(name);
        let fault = run(&plan, &file, &AtomicBool::new(false)).unwrap_err();
        assert!(fault.task_fault, "{fault:?}");
        std::fs::write(&plan.weights, b"no weights").unwrap();
        assert!(
            run(&plan, &file, &AtomicBool::new(false))
                .unwrap_err()
                .task_fault
        );
    }
}
