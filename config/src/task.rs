//! Task files: what a user writes to have a model trained or run, checked before anything else happens.
//!
//! ```toml
//! kind = "train"
//! name = "digits-mlp"
//! dataset = "ada/digits"                         # nickname/name, or an id cmi1…
//!
//! [model]
//! input = [8, 8]                                 # shape of one sample
//! layers = ["linear 64", "relu", "linear 10"]    # first to last; one output a class
//!
//! [train]
//! epochs = 30
//!
//! [budget]
//! max_cost = "0.5 CTM"
//! ```
//! A layer is one text: its name, then its sizes and options; a table holds layers of its own: `{ residual = […] }`,
//! `{ repeat = 4, layers = […] }`. `preset = "mlp"`, `"cnn"` or `"gpt"` with their sizes stands for layers. Everything
//! that [`TaskSpec::check`] refuses is reported at the line of the key at fault. Names of items are resolved by the
//! caller: see [`TaskFile::into_spec`].

mod layer;
mod model;
mod template;
mod train;

use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use cryptomind_protocol::item::{Access, DataFormat, DatasetInfo};
use cryptomind_protocol::model::{Misfit, ModelError, ModelMisfit, ModelSpec};
use cryptomind_protocol::task::{
    Conditions, Preference, Split, TaskError, TaskSpec, TrainSpec, Work, is_name,
};
use cryptomind_protocol::{Amount, ErrorBody, ItemId};

use crate::convert::{Converted, amount, decimal, name, parsed, whole};
use crate::document::Document;
use crate::reader::{Entry, Layer, Reader};
use crate::{ConfigError, convert};

/// How a task file names an item of the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ItemRef {
    /// By id.
    Id(ItemId),
    /// By path `nickname/name`.
    Path(String),
}

/// Why a text names no item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseItemRefError {
    /// It starts as an id and is none.
    #[error("{0}")]
    Id(#[from] cryptomind_protocol::id::ParseIdError),
    /// Neither id nor path.
    #[error("`{0}` names no item: write nickname/name or an id cmi1…")]
    Form(String),
}

impl FromStr for ItemRef {
    type Err = ParseItemRefError;

    fn from_str(text: &str) -> Result<Self, ParseItemRefError> {
        if text.starts_with(ItemId::PREFIX) && !text.contains('/') {
            return Ok(Self::Id(text.parse()?));
        }
        match text.split_once('/') {
            Some((owner, item)) if is_name(owner) && is_name(item) => Ok(Self::Path(text.into())),
            _ => Err(ParseItemRefError::Form(text.chars().take(80).collect())),
        }
    }
}

impl std::fmt::Display for ItemRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Path(path) => f.write_str(path),
        }
    }
}

/// What a task file wants computed, with items as they were named.
#[derive(Debug, Clone, PartialEq)]
pub enum FileWork {
    /// Fit a model to a dataset.
    Train {
        /// The dataset.
        dataset: ItemRef,
        /// The model.
        model: ModelSpec,
        /// Hyper-parameters.
        train: TrainSpec,
    },
    /// Run a model over samples.
    Infer {
        /// The model.
        model: ItemRef,
        /// The dataset that holds the samples.
        dataset: ItemRef,
        /// Which of its splits.
        split: Split,
    },
}

/// A task file: right in itself, its items not yet looked up.
#[derive(Debug, Clone)]
pub struct TaskFile {
    /// The task's name; a trained model is published as `<nickname>/<name>`.
    pub name: String,
    /// What to compute.
    pub work: FileWork,
    /// Miners in the group.
    pub miners: u32,
    /// The most that it may cost: what goes into the hold.
    pub max_cost: Amount,
    /// Who may use the trained model.
    pub access: Access,
    /// What is asked of the group and of the price.
    pub conditions: Conditions,
    document: Document,
    layer_spans: Vec<Range<usize>>,
}

#[derive(Clone, Copy)]
enum Kind {
    Train,
    Infer,
}

#[derive(Clone, Copy)]
enum AccessName {
    Free,
    Paid,
    Owner,
}

/// Miners, where a training file does not say.
const MINERS: u32 = 1;

impl TaskFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::of_document(Document::read(path)?)
    }

    /// Reads and checks a text; `name` stands for the file in errors.
    ///
    /// # Errors
    /// As [`TaskFile::read`].
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        Self::of_document(Document::parse(name.to_owned(), text.to_owned())?)
    }

    fn of_document(document: Document) -> Result<Self, ConfigError> {
        let layers = [Layer::File(document.clone())];
        let mut reader = Reader::new(&layers);
        let fields = Fields::read(&mut reader);
        reader.finish()?;
        let Some(fields) = fields else {
            return Err(ConfigError::without_line(
                &document.name,
                "a required key is missing",
            ));
        };
        let file = Self {
            name: fields.name,
            work: fields.work,
            miners: fields.miners,
            max_cost: fields.max_cost,
            access: fields.access,
            conditions: fields.conditions,
            document,
            layer_spans: fields.layer_spans,
        };
        // Ids do not matter to the check, so it need not wait for the catalog.
        file.spec_with(|_| ItemId::new([0; 16]))
            .check()
            .map_err(|e| file.locate(&e))?;
        Ok(file)
    }

    /// The items that the file names, each once.
    pub fn items(&self) -> Vec<&ItemRef> {
        match &self.work {
            FileWork::Train { dataset, .. } => vec![dataset],
            FileWork::Infer { model, dataset, .. } => vec![model, dataset],
        }
    }

    /// The dataset that the file names.
    pub const fn dataset(&self) -> &ItemRef {
        match &self.work {
            FileWork::Train { dataset, .. } | FileWork::Infer { dataset, .. } => dataset,
        }
    }

    /// The task, with every item looked up by `resolve`.
    ///
    /// # Errors
    /// What `resolve` says, at the line that names the item.
    pub fn into_spec(
        &self,
        mut resolve: impl FnMut(&ItemRef) -> Result<ItemId, ErrorBody>,
    ) -> Result<TaskSpec, ConfigError> {
        let mut ids = Vec::new();
        for item in self.items() {
            let id = resolve(item).map_err(|e| self.unresolved(item, e))?;
            ids.push((item, id));
        }
        let id_of = |item: &ItemRef| {
            let found = ids.iter().find(|(known, _)| *known == item);
            found.expect("every item of the work was resolved above").1
        };
        Ok(self.spec_with(id_of))
    }

    /// Holds the model against the dataset: shapes, loss, outputs and tokens must fit.
    ///
    /// # Errors
    /// What does not fit, at the line of the model's key.
    pub fn check_dataset(&self, info: &DatasetInfo) -> Result<(), ConfigError> {
        let FileWork::Train { model, dataset, .. } = &self.work else {
            return Ok(());
        };
        if model.input != info.input {
            let message = format!("{dataset} has samples of shape {:?}", info.input);
            return Err(self
                .at("model.input", &message)
                .with_help(format!("write input = {:?}", info.input)));
        }
        model.fits(info).map_err(|e| self.unfit(info, &e))
    }

    /// What does not fit a dataset, where the file says it: at a layer, or at a size of its preset.
    fn unfit(&self, info: &DatasetInfo, unfit: &ModelMisfit) -> ConfigError {
        let message = format!("{}: {}", self.dataset(), unfit.reason);
        let layer = match unfit.misfit {
            Misfit::Tokens => self.layer_spans.first(),
            Misfit::Positions | Misfit::Outputs => self.layer_spans.last(),
            Misfit::Input | Misfit::Loss => None,
        };
        if let Some(span) = layer.cloned() {
            let error = self.document.error(span, message);
            return error.with_help(&unfit.cure);
        }
        let is_text = matches!(info.format, DataFormat::Text { .. });
        let (key, help) = match unfit.misfit {
            Misfit::Input | Misfit::Loss => (unfit.misfit.key(), unfit.cure.clone()),
            Misfit::Outputs | Misfit::Tokens => (
                "model.outputs",
                format!("write outputs = {}", info.outputs()),
            ),
            Misfit::Positions if is_text => ("model.preset", "write preset = \"gpt\"".into()),
            Misfit::Positions => (
                "model.preset",
                "write preset = \"mlp\", or \"cnn\" for images".into(),
            ),
        };
        self.at(key, &message).with_help(help)
    }

    fn spec_with(&self, id_of: impl Fn(&ItemRef) -> ItemId) -> TaskSpec {
        let work = match &self.work {
            FileWork::Train {
                dataset,
                model,
                train,
            } => Work::Train {
                dataset: id_of(dataset),
                model: model.clone(),
                train: train.clone(),
            },
            FileWork::Infer {
                model,
                dataset,
                split,
            } => Work::Infer {
                model: id_of(model),
                dataset: id_of(dataset),
                split: *split,
            },
        };
        TaskSpec {
            name: self.name.clone(),
            work,
            miners: self.miners,
            max_cost: self.max_cost,
            access: self.access,
            conditions: self.conditions,
        }
    }

    fn unresolved(&self, item: &ItemRef, error: ErrorBody) -> ConfigError {
        let is_model = matches!(&self.work, FileWork::Infer { model, .. } if model == item);
        let key = if is_model { "model" } else { "dataset" };
        let located = self.at(key, &error.message);
        match error.help {
            Some(help) => located.with_help(help),
            None => located,
        }
    }

    /// The place of what [`TaskSpec::check`] refused.
    fn locate(&self, error: &TaskError) -> ConfigError {
        match error {
            TaskError::Value { field, reason } => self.at(field, &format!("`{field}`: {reason}")),
            TaskError::Model(error) => self.locate_in_model(error),
        }
    }

    fn locate_in_model(&self, error: &ModelError) -> ConfigError {
        let span = error
            .layer
            .and_then(|index| self.layer_spans.get(index).cloned());
        let in_input = error.reason.starts_with("input");
        match span {
            Some(span) => self.document.error(span, error),
            None if in_input => self.at("model.input", &error.to_string()),
            None if self.layer_spans.is_empty() => self.at("model.preset", &error.to_string()),
            None => self.at("model.layers", &error.to_string()),
        }
    }

    /// An error at the value of `key`, or where that would stand.
    fn at(&self, key: &str, message: &str) -> ConfigError {
        let section = key.split('.').next().unwrap_or(key);
        let value = self
            .document
            .values
            .get(key)
            .map(|placed| placed.span.clone());
        let span = value.or_else(|| self.document.sections.get(section).cloned());
        self.document.error(span.unwrap_or(0..0), message)
    }
}

/// What a file holds, before it is checked as a whole.
struct Fields {
    name: String,
    work: FileWork,
    miners: u32,
    max_cost: Amount,
    access: Access,
    conditions: Conditions,
    layer_spans: Vec<Range<usize>>,
}

impl Fields {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let kinds = [("train", Kind::Train), ("infer", Kind::Infer)];
        let kind = reader.required("kind", "write kind = \"train\" or \"infer\"", |e| {
            crate::reader::choose(e, &kinds)
        });
        let name = reader.required("name", "for example name = \"digits-mlp\"", name);
        let dataset = reader.required("dataset", "for example dataset = \"ada/digits\"", item);
        let max_cost = reader.required(
            "budget.max_cost",
            "write [budget] and max_cost = \"0.5 CTM\"; `cryptomind task quote FILE` says what is enough",
            amount,
        );
        let mut layer_spans = Vec::new();
        let work = match kind {
            Some(Kind::Infer) => Self::infer(reader, dataset),
            _ => Self::train(reader, dataset, &mut layer_spans),
        };
        let is_infer = matches!(kind, Some(Kind::Infer));
        let miners = reader.take("group.miners", MINERS, |e| whole(e, 0..=u32::MAX));
        let conditions = conditions(reader);
        let access = if is_infer {
            forbid_publishing(reader);
            Access::Owner
        } else {
            access(reader)
        };
        Some(Self {
            name: name?,
            work: work?,
            miners,
            max_cost: max_cost?,
            access,
            conditions,
            layer_spans,
        })
    }

    fn infer(reader: &mut Reader<'_>, dataset: Option<ItemRef>) -> Option<FileWork> {
        let model = reader.required("model", "for example model = \"bob/digits-mlp\"", item);
        let splits = [("train", Split::Train), ("test", Split::Test)];
        let split = reader.choice("split", Split::Test, &splits);
        Some(FileWork::Infer {
            model: model?,
            dataset: dataset?,
            split,
        })
    }

    fn train(
        reader: &mut Reader<'_>,
        dataset: Option<ItemRef>,
        layer_spans: &mut Vec<Range<usize>>,
    ) -> Option<FileWork> {
        let model = model::read(reader, layer_spans);
        let train = train::read(reader);
        Some(FileWork::Train {
            dataset: dataset?,
            model: model?,
            train: train?,
        })
    }
}

fn conditions(reader: &mut Reader<'_>) -> Conditions {
    let preferences = [
        ("fast", Preference::Fast),
        ("balanced", Preference::Balanced),
        ("cheap", Preference::Cheap),
    ];
    Conditions {
        preference: reader.choice("group.prefer", Preference::Balanced, &preferences),
        min_rating_milli: reader.take("group.min_rating", 0, stars),
        max_unit_price: reader.optional("budget.max_unit_price", amount),
    }
}

/// Stars in thousandths.
fn stars(entry: &Entry<'_>) -> Converted<u32> {
    let stars = decimal(entry)?;
    if (0.0..=5.0).contains(&stars) {
        return Ok((stars * 1000.0).round() as u32);
    }
    Err(convert::problem(format!("{stars} is not a rating")).help("give 0 to 5 stars, such as 3.5"))
}

fn item(entry: &Entry<'_>) -> Converted<ItemRef> {
    parsed(entry, "ada/digits")
}

fn access(reader: &mut Reader<'_>) -> Access {
    let names = [
        ("owner", AccessName::Owner),
        ("free", AccessName::Free),
        ("paid", AccessName::Paid),
    ];
    match reader.choice("publish.access", AccessName::Owner, &names) {
        AccessName::Paid => {
            let help = "for example fee = \"0.01 CTM\"";
            let fee = reader.required("publish.fee", help, amount);
            Access::Paid {
                fee: fee.unwrap_or(Amount::ZERO),
            }
        }
        name => {
            let help = "write access = \"paid\", or leave the fee out";
            reader.forbid("publish.fee", "a fee without paid access", help);
            match name {
                AccessName::Free => Access::Free,
                _ => Access::Owner,
            }
        }
    }
}

fn forbid_publishing(reader: &mut Reader<'_>) {
    for key in ["publish.access", "publish.fee"] {
        let help = "its result is the client's own: leave [publish] out";
        reader.forbid(key, "an inference task publishes nothing", help);
    }
}

#[cfg(test)]
mod tests;
