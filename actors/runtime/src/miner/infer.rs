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

/// Predictions as CSV: `index,label,class,probability` with the most probable class's number and name, of a text that of the
/// token after each sample; where numbers are predicted, `index` and a column for each. Blocks; ends early when
/// `unwanted` turns true.
pub fn run(
    plan: &Plan,
    file: &dyn Fn(&str) -> PathBuf,
    unwanted: &AtomicBool,
) -> Result<(String, Metrics), Fault> {
    let begin = Instant::now();
    let (model, samples) = load(plan, file)?;
    let loaded = Instant::now();
    let mut csv = format!("{}\n", header(plan, &model));
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
        test_accuracy: (!samples.is_empty() && samples.classes() > 0)
            .then(|| right as f32 / samples.len() as f32),
        test_loss: None,
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

/// What an answer is to the one that a plan comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The same, but for rounding.
    Same,
    /// Something else: how, for people.
    Other(String),
    /// Something else where rounding decides.
    Undecided,
}

/// Holds an answer, which may be anything, against what this plan comes to. Machines round differently; where it would matter by
/// what `round` does to weights and samples, nothing is concluded. Blocks.
pub fn judge(
    plan: &Plan,
    file: &dyn Fn(&str) -> PathBuf,
    answer: &[u8],
    round: &mut dyn FnMut(&mut [f32]),
) -> Result<Verdict, Fault> {
    let (model, samples) = load(plan, file)?;
    let text = std::str::from_utf8(answer).unwrap_or_default();
    let table = text.strip_prefix(HEADER);
    let Some(mut rest) = table.and_then(|rest| rest.strip_prefix('\n')) else {
        return Ok(Verdict::Other("it is no table of predictions".into()));
    };
    let (mut rounded, mut verdict) = (None, Verdict::Same);
    for range in chunks(&samples) {
        let probabilities = model.probabilities(&samples, range.clone())?;
        let rows = range.zip(probabilities.chunks_exact(model.classes()));
        for (index, row) in rows {
            let line = Line::take(rest, index, &plan.model.classes);
            let Some(line) = line.filter(|line| line.label < row.len()) else {
                return Ok(other(index, rest));
            };
            if !line.agrees(row) {
                let rounded = match &mut rounded {
                    Some(rounded) => rounded,
                    none => none.insert(serve::load_changed(&plan.model, &plan.weights, round)?),
                };
                if is_near(row, &again(rounded, &samples, index, round)?) {
                    return Ok(other(index, rest));
                }
                verdict = Verdict::Undecided;
            }
            rest = line.rest;
        }
    }
    match rest.is_empty() {
        true => Ok(verdict),
        false => Ok(Verdict::Other("it goes on after its samples".into())),
    }
}

fn other(index: usize, text: &str) -> Verdict {
    let said: String = text.chars().take(60).collect();
    Verdict::Other(format!("of sample {index} it says {said:?}"))
}

/// A line of a table of predictions.
struct Line<'a> {
    label: usize,
    probability: f32,
    /// What comes after it.
    rest: &'a str,
}

impl<'a> Line<'a> {
    /// The line of this sample; nothing where there is none. A class's name may have lines of its own.
    fn take(text: &'a str, index: usize, classes: &[String]) -> Option<Self> {
        let rest = text.strip_prefix(&format!("{index},"))?;
        let (label, rest) = rest.split_once(',')?;
        let label: usize = label.parse().ok()?;
        let name = cell(classes.get(label).map_or("", String::as_str));
        let rest = rest.strip_prefix(&name)?.strip_prefix(',')?;
        let (probability, rest) = rest.split_once('\n')?;
        let probability = probability.parse().ok()?;
        Some(Self {
            label,
            probability,
            rest,
        })
    }

    /// Whether it says a class as probable as any, and how probable that is.
    fn agrees(&self, row: &[f32]) -> bool {
        let (most, is) = (row[most_probable(row)], row[self.label]);
        let apart = ROUNDING * most + WRITTEN;
        most - is <= apart && (is - self.probability).abs() <= apart
    }
}

/// The probabilities of one sample as another machine may come to them.
fn again(
    rounded: &Model,
    samples: &Samples,
    index: usize,
    round: &mut dyn FnMut(&mut [f32]),
) -> Result<Vec<f32>, Fault> {
    let (row, mut inputs, mut labels) = ([index as u32], Vec::new(), Vec::new());
    samples.inputs_of(&row, &mut inputs)?;
    samples.labels_of(&row, &mut labels);
    round(&mut inputs);
    let one = Samples::labelled(inputs, labels, samples.input_len(), samples.classes());
    Ok(rounded.probabilities(&one, 0..1)?)
}

/// Whether no probability is further from the other than a tenth of what counts as the same.
fn is_near(row: &[f32], other: &[f32]) -> bool {
    let apart = ROUNDING / 10.0 * row[most_probable(row)] + WRITTEN;
    let mut pairs = row.iter().zip(other);
    pairs.all(|(one, other)| (one - other).abs() <= apart)
}

/// The model and the samples, where they fit each other.
fn load(plan: &Plan, file: &dyn Fn(&str) -> PathBuf) -> Result<(Model, Samples), Fault> {
    plan.model.spec.fits(&plan.info).map_err(|misfit| Fault {
        task_fault: true,
        reason: misfit.to_string(),
    })?;
    let model = serve::load(&plan.model, &plan.weights)?;
    // Scaled as the network learnt, not as this dataset would be: the same value means the same in both.
    let (samples, _) = dataset::load(&plan.info, plan.split, model.scaling(), file)?;
    Ok((model, samples))
}

fn chunks(samples: &Samples) -> impl Iterator<Item = Range<usize>> + use<> {
    let len = samples.len();
    let starts = (0..len).step_by(CHUNK);
    starts.map(move |start| start..(start + CHUNK).min(len))
}

/// The first line: the names of classes or of values.
fn header(plan: &Plan, model: &Model) -> String {
    if plan.info.values.is_empty() {
        return HEADER.to_owned();
    }
    let names = plan.info.values.iter().take(model.classes());
    let names: Vec<String> = names.map(|name| cell(name)).collect();
    format!("index,{}", names.join(","))
}

/// Adds the lines of a range, and counts the right ones.
fn predict(
    plan: &Plan,
    model: &Model,
    samples: &Samples,
    range: Range<usize>,
    csv: &mut String,
) -> Result<usize, Fault> {
    let answers = model.probabilities(samples, range.clone())?;
    let indices: Vec<u32> = range.map(|index| index as u32).collect();
    let rows = indices.iter().zip(answers.chunks_exact(model.classes()));
    if samples.classes() == 0 {
        for (index, row) in rows {
            let values: Vec<String> = row.iter().map(f32::to_string).collect();
            let _ = writeln!(csv, "{index},{}", values.join(","));
        }
        return Ok(0);
    }
    let mut labels = Vec::new();
    samples.labels_of(&indices, &mut labels);
    // Of a text the last token's: the one that is not among the inputs.
    let known = labels.chunks_exact(samples.labels_per_sample());
    let mut right = 0;
    for ((index, row), known) in rows.zip(known) {
        let (label, probability) = decided(row);
        let name = plan.model.classes.get(label).map_or("", String::as_str);
        let _ = writeln!(csv, "{index},{label},{},{probability:.6}", cell(name));
        right += usize::from(known.last() == Some(&(label as u32)));
    }
    Ok(right)
}

/// The class that is the most probable, and how probable it is. A single output is the share of class 1 of two.
fn decided(row: &[f32]) -> (usize, f32) {
    match row {
        [share] if *share > 0.5 => (1, *share),
        [share] => (0, 1.0 - share),
        _ => {
            let label = most_probable(row);
            (label, row[label])
        }
    }
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
    use cryptomind_protocol::model::{Layer, Loss, ModelSpec};
    use cryptomind_protocol::task::{Optimizer, TrainSpec};
    use std::collections::BTreeMap;

    /// What is wanted of each kind of model: numbers as they are, one output for two classes, a text's next token.
    #[test]
    fn each_kind_of_model_has_its_lines() {
        assert_eq!(decided(&[0.75]), (1, 0.75));
        assert_eq!(decided(&[0.25]), (0, 0.75));
        assert_eq!(decided(&[0.2, 0.5, 0.3]), (1, 0.5));

        let dir = tempfile::tempdir().unwrap();
        let table = dir.path().join("t.csv");
        let lines: String = (0..50).map(|i| format!("{i},{}\n", 2 * i)).collect();
        std::fs::write(&table, format!("a,b\n{lines}")).unwrap();
        let (info, _) = dataset::inspect_csv_values(&table, &["b".into()]).unwrap();
        let spec = ModelSpec {
            loss: Loss::MeanSquare,
            ..ModelSpec::mlp(vec![1], &[], 1)
        };
        let (csv, metrics) = answered(dir.path(), spec, info, &table);
        assert!(csv.starts_with("index,b\n0,"), "{csv}");
        assert_eq!((csv.lines().count(), metrics.test_accuracy), (11, None));

        let text = dir.path().join("t.txt");
        std::fs::write(&text, "abcd".repeat(100)).unwrap();
        let level = cryptomind_protocol::item::TextLevel::Character;
        let (info, _) = dataset::inspect_text(&text, 4, level, 250_000).unwrap();
        let spec = ModelSpec::gpt(cryptomind_protocol::model::Gpt {
            vocabulary: 4,
            context: 4,
            width: 4,
            heads: 1,
            blocks: 1,
            dropout_ppm: 0,
        });
        let (csv, metrics) = answered(dir.path(), spec, info, &text);
        let rows: Vec<&str> = csv.lines().skip(1).collect();
        // Each sample begins with an a, and so does the next.
        let right = rows.iter().filter(|row| row.contains(",0,")).count();
        let share = right as f32 / rows.len() as f32;
        assert_eq!(metrics.test_accuracy, Some(share), "{csv}");
    }

    /// What a model with its first weights answers to the test split of a dataset of one file.
    fn answered(
        dir: &std::path::Path,
        spec: ModelSpec,
        info: DatasetInfo,
        data: &std::path::Path,
    ) -> (String, Metrics) {
        let session = Session::with_threads(&spec, &TrainSpec::default(), 1).unwrap();
        let weights = dir.join("w.safetensors");
        std::fs::write(&weights, session.export(&std::collections::BTreeMap::new())).unwrap();
        let plan = Plan {
            model: ModelInfo {
                spec,
                classes: info.classes.clone(),
                dataset: None,
                task: None,
                metrics: Metrics::default(),
            },
            weights,
            info,
            split: Split::Test,
        };
        run(&plan, &|_| data.to_owned(), &AtomicBool::new(false)).unwrap()
    }

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
            layers: vec![Layer::linear(outputs)],
            loss: Loss::default(),
        };
        let train = TrainSpec {
            epochs: 1,
            global_batch: 1,
            optimizer: Optimizer::adamw(0.1),
            seed: 1,
            checkpoint_steps: 1,
            ..TrainSpec::default()
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
        let judged = |answer: &[u8]| judge(&plan, &file, answer, &mut |_| ()).unwrap();
        let differs = |answer: &str| match judged(answer.as_bytes()) {
            Verdict::Same => None,
            Verdict::Other(how) => Some(how),
            Verdict::Undecided => panic!("nothing is rounded"),
        };
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
        assert!(matches!(judged(&[0xff, 0xfe]), Verdict::Other(_)));
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
        let judged = judge(&plan, &file, csv.as_bytes(), &mut |_| ());
        assert_eq!(judged.unwrap(), Verdict::Same);
    }

    #[test]
    fn what_rounding_decides_is_told_from_what_it_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path(), 10);
        let file = |name: &str| dir.path().join(name);
        let (csv, _) = run(&plan, &file, &AtomicBool::new(false)).unwrap();
        let judged = |answer: &str, by: f32| {
            let mut sign = by;
            let mut round = |values: &mut [f32]| {
                for value in values {
                    *value *= 1.0 + sign;
                    sign = -sign;
                }
            };
            judge(&plan, &file, answer.as_bytes(), &mut round).unwrap()
        };
        let wrong = csv.replacen(",0.", ",0.9", 1);
        assert!(matches!(judged(&wrong, 5e-7), Verdict::Other(_)));
        // Weights that cancel each other make as much of a last bit.
        assert_eq!(judged(&wrong, 1e-2), Verdict::Undecided);
        assert_eq!(judged(&csv, 1e-2), Verdict::Same);
        let short = wrong.rsplit_once("\n359,").unwrap().0.to_owned() + "\n";
        assert!(
            matches!(judged(&short, 1e-2), Verdict::Other(_)),
            "a line that lacks is no rounding"
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
