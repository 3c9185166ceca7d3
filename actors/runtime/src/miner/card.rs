//! The model card: what was trained, on what, how, how good it is, and how to load it elsewhere.

mod torch;

use std::fmt::Write as _;

use cryptomind_protocol::item::{DataFormat, DatasetInfo, FileEntry, MODEL_FILE, TextLevel};
use cryptomind_protocol::model::ModelSpec;
use cryptomind_protocol::ring::Wire;
use cryptomind_protocol::task::{DecayGroup, Metrics, Optimizer, Schedule, TaskSpec, TrainSpec};
use cryptomind_protocol::{ItemId, TaskId};

/// What a card is written from.
pub struct Card<'a> {
    /// The task that trained the model.
    pub task: TaskId,
    /// What was asked for.
    pub spec: &'a TaskSpec,
    /// The model.
    pub model: &'a ModelSpec,
    /// Hyper-parameters.
    pub train: &'a TrainSpec,
    /// The dataset item.
    pub dataset: ItemId,
    /// What is known of it.
    pub info: &'a DatasetInfo,
    /// Its files.
    pub files: &'a [FileEntry],
    /// Miners of the last attempt.
    pub miners: usize,
    /// Steps done.
    pub steps: u64,
    /// What came out.
    pub metrics: &'a Metrics,
}

fn optimizer(optimizer: &Optimizer) -> String {
    match optimizer {
        Optimizer::Adamw {
            lr,
            beta1,
            beta2,
            eps,
            weight_decay,
        } => format!(
            "AdamW, lr {lr}, betas {beta1} and {beta2}, eps {eps}, weight decay {weight_decay}"
        ),
        Optimizer::Adam {
            lr,
            beta1,
            beta2,
            eps,
            weight_decay,
        } => format!(
            "Adam, lr {lr}, betas {beta1} and {beta2}, eps {eps}, weight decay {weight_decay} (L2)"
        ),
        Optimizer::Sgd {
            lr,
            momentum,
            nesterov,
            weight_decay,
        } => {
            let kind = if *nesterov {
                "Nesterov momentum"
            } else {
                "momentum"
            };
            let decay = match *weight_decay {
                0.0 => String::new(),
                decay => format!(", weight decay {decay} (L2)"),
            };
            format!("SGD, lr {lr}, {kind} {momentum}{decay}")
        }
    }
}

/// What a run asks beyond its optimizer, one line each.
fn refinements(train: &TrainSpec) -> Vec<String> {
    let rate = match train.schedule {
        Schedule::Constant => None,
        Schedule::Cosine {
            warmup_steps,
            decay_steps,
            min_lr,
        } => Some(format!(
            "lr by half a cosine to {min_lr} at step {decay_steps}, after {warmup_steps} steps of linear warm-up"
        )),
        Schedule::Step {
            every_steps,
            factor,
        } => Some(format!("lr times {factor} every {every_steps} steps")),
    };
    let clip = train.clip_norm;
    let clip = clip.map(|norm| format!("gradients clipped at norm {norm}"));
    let decay = match train.decay {
        DecayGroup::All => None,
        DecayGroup::Matrices => Some("weight decay of matrices only".to_owned()),
    };
    let wire = match train.wire {
        Wire::F32 => None,
        wire => Some(format!("gradients between miners in {wire}")),
    };
    [rate, clip, decay, wire].into_iter().flatten().collect()
}

/// A name as one line of Markdown: what comes from others must not write a card of its own.
fn plain(text: &str) -> String {
    let harmless = |c: char| {
        if c.is_control() || "`|<>[]".contains(c) {
            ' '
        } else {
            c
        }
    };
    text.chars().take(80).map(harmless).collect()
}

impl Card<'_> {
    /// The card as Markdown.
    pub fn text(&self) -> String {
        let mut text = format!("# {}\n\n", plain(&self.spec.name));
        let _ = writeln!(
            text,
            "Trained on Cryptomind by {} miner{} in task `{}`.\n",
            self.miners,
            if self.miners == 1 { "" } else { "s" },
            self.task
        );
        self.write_model(&mut text);
        self.write_dataset(&mut text);
        self.write_training(&mut text);
        self.write_loading(&mut text);
        text
    }

    fn write_model(&self, text: &mut String) {
        let (kind, names) = match self.info.values.is_empty() {
            true => ("classes", &self.info.classes),
            false => ("values to predict", &self.info.values),
        };
        let _ = writeln!(
            text,
            "## Model\n\nInput {:?}, {} parameters, {} {kind}: {}.\n",
            self.model.input,
            self.model.parameter_count(),
            names.len(),
            self.named(names)
        );
    }

    /// The first of these names. A character of a text is quoted as code quotes it, or it would not be seen.
    fn named(&self, names: &[String]) -> String {
        const SHOWN: usize = 20;
        let are_characters = matches!(
            self.info.format,
            DataFormat::Text {
                level: TextLevel::Character,
                ..
            }
        );
        let shown = |name: &String| match are_characters {
            true => plain(&format!("{name:?}")),
            false => plain(name),
        };
        let mut text = names.iter().take(SHOWN).map(shown).collect::<Vec<_>>();
        if names.len() > SHOWN {
            text.push("…".into());
        }
        text.join(", ")
    }

    fn write_dataset(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "## Dataset\n\nItem `{}`: {} samples to train on, {} held out.\n",
            self.dataset, self.info.train_samples, self.info.test_samples
        );
        for file in self.files {
            let _ = writeln!(text, "- {} `{}`", plain(&file.name), file.blob);
        }
    }

    fn write_training(&self, text: &mut String) {
        let train = self.train;
        let _ = writeln!(
            text,
            "\n## Training\n\n- {}\n- {} epochs, {} samples a step, {} steps, seed {}",
            optimizer(&train.optimizer),
            train.epochs,
            train.global_batch,
            self.steps,
            train.seed
        );
        for line in refinements(train) {
            let _ = writeln!(text, "- {line}");
        }
        if let Some(loss) = self.metrics.final_loss {
            let _ = writeln!(text, "- loss of the last step {loss:.6}");
        }
        if let Some(accuracy) = self.metrics.test_accuracy {
            let _ = writeln!(text, "- accuracy on the held-out samples {accuracy:.4}");
        }
        if let Some(loss) = self.metrics.test_loss {
            let _ = writeln!(text, "- loss on the held-out samples {loss:.4}");
        }
    }

    fn write_loading(&self, text: &mut String) {
        let _ = write!(
            text,
            "\n## Loading it in PyTorch\n\n```python\nimport torch\nfrom safetensors.torch import load_file\n\n\
             {}weights = load_file(\"{MODEL_FILE}\")\n\
             model.load_state_dict({{k.removeprefix(\"layers.\"): v for k, v in weights.items()}})\n\
             model.eval()\n# {}\n```\n",
            torch::code(self.model),
            self.inputs()
        );
    }

    /// How samples become inputs, in a sentence.
    fn inputs(&self) -> String {
        let flat = format!(
            "Samples are flattened to {} values each",
            self.model.input_len()
        );
        match &self.info.format {
            DataFormat::Idx { scale, .. } => format!("{flat}, divided by {scale}."),
            DataFormat::Csv { .. } => format!(
                "{flat}, each less `input_shift` and divided by `input_scale` of the file's metadata."
            ),
            DataFormat::Text { level, .. } => format!(
                "Samples are {} tokens each: {}. Answers are numbered alike.",
                self.model.input_len(),
                match level {
                    TextLevel::Character =>
                        "a character's place among all of the text, sorted by code point, from 0",
                    TextLevel::Byte => "bytes, 0 to 255",
                }
            ),
            DataFormat::Safetensors { .. } => {
                format!("{flat}, as the tensor `inputs` has them: nothing is scaled.")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptomind_protocol::item::Access;
    use cryptomind_protocol::task::{Conditions, Work};
    use cryptomind_protocol::{Amount, BlobId};

    #[test]
    fn a_card_names_what_is_needed_to_repeat_and_to_use_it() {
        let model = ModelSpec::mlp(vec![8, 8], &[32], 2);
        let train = TrainSpec {
            epochs: 3,
            global_batch: 64,
            optimizer: Optimizer::adamw(0.001),
            seed: 42,
            checkpoint_steps: 10,
            clip_norm: Some(0.5),
            schedule: Schedule::Step {
                every_steps: 7,
                factor: 0.5,
            },
            decay: DecayGroup::Matrices,
            wire: Wire::Int8,
            ..TrainSpec::default()
        };
        let dataset = ItemId::new([1; 16]);
        let spec = TaskSpec {
            name: "digits-mlp".into(),
            work: Work::Train {
                dataset,
                model: model.clone(),
                train: train.clone(),
            },
            miners: 3,
            max_cost: Amount::from_base_units(1),
            access: Access::Owner,
            conditions: Conditions::default(),
        };
        let info = DatasetInfo {
            format: DataFormat::Idx {
                train_images: "a".into(),
                train_labels: "b".into(),
                test_images: "c".into(),
                test_labels: "d".into(),
                scale: 16.0,
            },
            train_samples: 100,
            test_samples: 10,
            input: vec![8, 8],
            classes: vec!["zero".into(), "o`ne\n# x".into()],
            values: Vec::new(),
        };
        let files = [FileEntry {
            name: "a".into(),
            blob: BlobId::new([2; 32]),
            bytes: 1,
        }];
        let metrics = Metrics {
            test_accuracy: Some(0.975),
            ..Metrics::default()
        };
        let card = Card {
            task: TaskId::new([3; 16]),
            spec: &spec,
            model: &model,
            train: &train,
            dataset,
            info: &info,
            files: &files,
            miners: 3,
            steps: 6,
            metrics: &metrics,
        };
        let text = card.text();
        for wanted in [
            "# digits-mlp\n",
            "seed 42",
            "- lr times 0.5 every 7 steps\n- gradients clipped at norm 0.5\n- weight decay of matrices only\n- gradients between miners in int8\n",
            "0.9750",
            "    Flat(64, 32),\n    torch.nn.ReLU(),\n    Flat(32, 2),\n",
            "class Flat(torch.nn.Linear)",
            "divided by 16",
            "zero, o ne # x",
            &BlobId::new([2; 32]).to_string(),
        ] {
            assert!(text.contains(wanted), "{wanted} is missing in:\n{text}");
        }
        let text_format = |level| DataFormat::Text {
            file: "a".into(),
            level,
            held_out_ppm: 1,
        };
        let table = DataFormat::Csv {
            file: "a".into(),
            label: String::new(),
            split_seed: 0,
            targets: vec!["price".into()],
        };
        let tensors = DataFormat::Safetensors {
            train: "a".into(),
            test: "b".into(),
        };
        let others = [
            (text_format(TextLevel::Character), "sorted by code point"),
            (
                text_format(TextLevel::Character),
                "2 classes: \"\\n\", \"a\"",
            ),
            (
                text_format(TextLevel::Byte),
                "64 tokens each: bytes, 0 to 255",
            ),
            (tensors.clone(), "nothing is scaled"),
            (tensors, "1 values to predict: price"),
            (table, "less `input_shift`"),
        ];
        for (format, wanted) in others {
            let (classes, values) = match format {
                DataFormat::Text { .. } => (vec!["\n".into(), "a".into()], vec![]),
                _ => (vec![], vec!["price".into()]),
            };
            let info = DatasetInfo {
                format,
                classes,
                values,
                ..info.clone()
            };
            let text = Card {
                info: &info,
                ..card
            }
            .text();
            assert!(text.contains(wanted), "{wanted} is missing in:\n{text}");
        }
    }
}
