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
    let model = serve::load(&plan.model, &plan.weights)?;
    // Scaled as the network learnt, not as this dataset would be: the same value means the same in both.
    let loaded = dataset::load(&plan.info, plan.split, model.scaling(), file);
    let (samples, _) = loaded.map_err(|e| Fault {
        task_fault: !matches!(e, dataset::DataError::Io { .. }),
        reason: e.to_string(),
    })?;
    let loaded = Instant::now();
    let mut csv = String::from("index,label,class,probability\n");
    let mut right = 0;
    for start in (0..samples.len()).step_by(CHUNK) {
        if unwanted.load(Ordering::Relaxed) {
            return Err(Fault {
                task_fault: false,
                reason: "nobody wants the answer any more".into(),
            });
        }
        let range = start..(start + CHUNK).min(samples.len());
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
