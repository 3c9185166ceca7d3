//! 6. The model classifies test images, on a miner that does not hold it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::item::{Access, ItemView, MODEL_FILE, PREDICTIONS_FILE};
use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::task::{Conditions, Event, Payment, Split, TaskSpec, TaskState, Work};
use cryptomind_protocol::{Amount, TaskId};

use super::result::info_of_digits;
use super::{ACCURACY_NEEDED, Demo, Model, digits};
use crate::command::files;
use crate::exit;
use crate::follow::{Follow, size};

/// Beyond it something hangs.
const LIMIT: Duration = Duration::from_secs(30);
/// Digits that are drawn.
const DRAWN: usize = 3;

/// What a finished inference leaves for the steps after it.
pub(super) struct Inferred {
    pub(super) task: TaskId,
    pub(super) held: Amount,
    pub(super) payments: Vec<Payment>,
    pub(super) predictions: PathBuf,
}

/// One line of the predictions.
struct Prediction {
    index: usize,
    label: u32,
    class: String,
    probability: f32,
}

impl Demo<'_> {
    pub(super) async fn infer(&mut self, model: &Model, dataset: &ItemView) -> Result<Inferred> {
        self.heading(6, "The model classifies the test images, on a miner")?;
        let mut spec = TaskSpec {
            name: "digits-answers".into(),
            work: Work::Infer {
                model: model.item.item,
                dataset: dataset.item,
                split: Split::Test,
            },
            miners: 1,
            max_cost: SUPPLY,
            access: Access::Owner,
            conditions: Conditions::default(),
        };
        spec.max_cost = self.bob.quote(&spec).await?.cost_high;
        let (task, held) = self.bob.post(spec).await?;
        self.line(format!("{task} posted, {held} held"))?;
        let watched = tokio::time::timeout(LIMIT, self.watch_inference(task)).await;
        let watched = watched.map_err(|_| self.late("inference", LIMIT))?;
        let (payments, fetched) = watched?;
        self.tell_fetched(model, fetched)?;
        let predictions = self.fetch_predictions(task).await?;
        self.show(&predictions)?;
        Ok(Inferred {
            task,
            held,
            payments,
            predictions,
        })
    }

    /// The payments, and how many bytes the miner had to fetch.
    async fn watch_inference(&mut self, task: TaskId) -> Result<(Vec<Payment>, u64)> {
        let mut screen = Follow::new(self.output).indented("   ");
        let mut events = self.bob.watch(task, 0);
        let mut fetched = 0;
        while let Some(event) = events.next().await {
            let event = event?;
            screen.show(&event)?;
            match event.event {
                Event::Fetched { bytes, .. } => fetched = bytes,
                Event::Settled {
                    state,
                    reason,
                    payments,
                } => {
                    exit::of_task(state, &reason)?;
                    debug_assert_eq!(state, TaskState::Finished);
                    return Ok((payments, fetched));
                }
                _ => {}
            }
        }
        Err(ErrorBody::internal("the inference's events ended before it did").into())
    }

    fn tell_fetched(&self, model: &Model, fetched: u64) -> std::io::Result<()> {
        let weights = model.item.manifest.file(MODEL_FILE);
        let bytes = weights.map_or(0, |file| file.bytes);
        if fetched >= bytes {
            let shown = size(bytes);
            return self.line(format!(
                "the miner did not hold the model: it downloaded its {shown}"
            ));
        }
        self.line("the miner had the model from before")
    }

    async fn fetch_predictions(&mut self, task: TaskId) -> Result<PathBuf> {
        let view = self.bob.task(task).await?;
        let placement = self.bob.locate_task(task).await?;
        let dir = self.network.dir().join("answers");
        let entries = files::entries(&view.files);
        files::download(self.output, &self.bob, &placement, &entries, &dir).await?;
        Ok(dir.join(PREDICTIONS_FILE))
    }

    /// Draws the first digits, and holds the answers against the labels.
    fn show(&self, file: &Path) -> Result<()> {
        let predictions = read(file)?;
        let dir = self.network.dir();
        let test = digits::test_set(dir, &info_of_digits(dir)?)?;
        let rows: Vec<u32> = (0..test.len() as u32).collect();
        let (mut inputs, mut labels) = (Vec::new(), Vec::new());
        test.inputs_of(&rows, &mut inputs)
            .map_err(ErrorBody::from)?;
        test.labels_of(&rows, &mut labels);
        let width = test.input_len();
        let image = |p: &Prediction| inputs.get(p.index * width..(p.index + 1) * width);
        let drawn = predictions.iter().take(DRAWN);
        let images: Vec<&[f32]> = drawn.clone().filter_map(image).collect();
        let captions: Vec<String> = drawn
            .map(|p| format!("a {} ({:.0} %)", p.class, p.probability * 100.0))
            .collect();
        self.block(&digits::draw(&images, &captions))?;
        let right = |p: &&Prediction| labels.get(p.index) == Some(&p.label);
        let right = predictions.iter().filter(right).count();
        self.line(format!(
            "{right} of {} test images are classified rightly",
            labels.len()
        ))?;
        let accuracy = right as f64 / labels.len().max(1) as f64;
        if predictions.len() != labels.len() || accuracy < ACCURACY_NEEDED {
            let message = format!("{} answers, accuracy {accuracy:.4}", predictions.len());
            return Err(ErrorBody::internal(message).into());
        }
        Ok(())
    }
}

/// Reads `index,label,class,probability`; a line of titles is passed over.
fn read(file: &Path) -> Result<Vec<Prediction>> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_path(file)?;
    let mut predictions = Vec::new();
    for record in reader.records() {
        let record = record?;
        if record.get(0) == Some("index") {
            continue;
        }
        let (index, label, class, probability) = record.deserialize(None)?;
        predictions.push(Prediction {
            index,
            label,
            class,
            probability,
        });
    }
    Ok(predictions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predictions_are_read_with_and_without_titles() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.csv");
        for titles in ["", "index,label,class,probability\n"] {
            std::fs::write(&file, format!("{titles}0,7,seven,0.99\n1,2,two,0.5\n")).unwrap();
            let read = read(&file).unwrap();
            assert_eq!((read.len(), read[0].label, read[1].index), (2, 7, 1));
            assert_eq!(read[0].class, "seven");
        }
        std::fs::write(&file, "0,seven\n").unwrap();
        assert!(super::read(&file).is_err());
    }
}
