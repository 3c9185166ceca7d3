//! The `[model]` of a task file: layers one by one, or a preset with its sizes.

use std::ops::Range;

use cryptomind_protocol::model::{Gpt, Loss, ModelSpec, PPM};

use super::layer;
use crate::convert::{Converted, problem, sizes, whole};
use crate::document::Value;
use crate::reader::{Entry, Reader};

const LAYERS_EXAMPLE: &str =
    "for example layers = [\"linear 64\", \"relu\", \"linear 10\"], or preset = \"mlp\"";

/// The sizes that presets take, and which of them.
const PRESET_KEYS: [(&str, &[Preset]); 7] = [
    ("model.outputs", &[Preset::Mlp, Preset::Cnn, Preset::Gpt]),
    ("model.hidden", &[Preset::Mlp, Preset::Cnn]),
    ("model.filters", &[Preset::Cnn]),
    ("model.width", &[Preset::Gpt]),
    ("model.heads", &[Preset::Gpt]),
    ("model.blocks", &[Preset::Gpt]),
    ("model.dropout", &[Preset::Gpt]),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Preset {
    None,
    Mlp,
    Cnn,
    Gpt,
}

/// Reads the model, and where each of its layers stands; nowhere where a preset made them.
pub(super) fn read(reader: &mut Reader<'_>, spans: &mut Vec<Range<usize>>) -> Option<ModelSpec> {
    let input = reader.required("model.input", "for example input = [8, 8]", sizes);
    let losses = [
        Loss::CrossEntropy,
        Loss::MeanSquare,
        Loss::BinaryCrossEntropy,
    ];
    let losses = losses.map(|loss| (loss.name(), loss));
    let loss = reader.choice("model.loss", Loss::default(), &losses);
    let presets = [
        ("mlp", Preset::Mlp),
        ("cnn", Preset::Cnn),
        ("gpt", Preset::Gpt),
    ];
    let preset = reader.choice("model.preset", Preset::None, &presets);
    forbid_others(reader, preset);
    let model = match preset {
        Preset::None => layers(reader, input, spans),
        _ => preset_model(reader, preset, input),
    };
    model.map(|model| ModelSpec { loss, ..model })
}

fn layers(
    reader: &mut Reader<'_>,
    input: Option<Vec<u32>>,
    spans: &mut Vec<Range<usize>>,
) -> Option<ModelSpec> {
    let layers = reader.required("model.layers", LAYERS_EXAMPLE, |entry| {
        let Value::List(items) = entry.value else {
            let found = entry.value.kind();
            return Err(
                problem(format!("expected a list of layers, found {found}")).help(LAYERS_EXAMPLE)
            );
        };
        layer::list(items)
    })?;
    spans.extend(layers.iter().map(|(_, span)| span.clone()));
    let layers = layers.into_iter().map(|(layer, _)| layer).collect();
    Some(ModelSpec::new(input?, layers))
}

fn preset_model(
    reader: &mut Reader<'_>,
    preset: Preset,
    input: Option<Vec<u32>>,
) -> Option<ModelSpec> {
    let size = |entry: &Entry<'_>| whole(entry, 1..=u32::MAX);
    let help = "classes of the dataset, or tokens that there are: for example outputs = 10";
    let outputs = reader.required("model.outputs", help, size);
    let model = match preset {
        Preset::Cnn => {
            let filters = reader.take("model.filters", vec![32, 64], sizes);
            let hidden = reader.take("model.hidden", 128, size);
            ModelSpec::cnn(input?, &filters, hidden, outputs?)
        }
        Preset::Gpt => {
            let width = reader.take("model.width", 128, size);
            let heads = reader.take("model.heads", 4, size);
            let blocks = reader.take("model.blocks", 4, |e| whole(e, 1..=256));
            let dropout_ppm = reader.take("model.dropout", 0, rate);
            ModelSpec::gpt(Gpt {
                vocabulary: outputs?,
                context: input?.iter().copied().fold(1, u32::saturating_mul),
                width,
                heads,
                blocks,
                dropout_ppm,
            })
        }
        Preset::Mlp | Preset::None => {
            let hidden = reader.take("model.hidden", vec![128], sizes);
            ModelSpec::mlp(input?, &hidden, outputs?)
        }
    };
    Some(model)
}

fn rate(entry: &Entry<'_>) -> Converted<u32> {
    let rate = crate::convert::decimal(entry)?;
    if (0.0..1.0).contains(&rate) {
        return Ok((f64::from(rate) * f64::from(PPM)).round() as u32);
    }
    Err(problem(format!("{rate} is not a rate")).help("give 0 to below 1, such as 0.1"))
}

/// Refuses what belongs to another preset, or to none.
fn forbid_others(reader: &mut Reader<'_>, preset: Preset) {
    if preset != Preset::None {
        let help = "write the layers out without `preset`, or leave them out";
        reader.forbid("model.layers", "a preset has its own layers", help);
    }
    for (key, presets) in PRESET_KEYS {
        if presets.contains(&preset) {
            continue;
        }
        let short = key.trim_start_matches("model.");
        let names: Vec<_> = presets.iter().map(|preset| preset.name()).collect();
        let message = format!("`{short}` is for preset = {}", names.join(" or "));
        reader.forbid(key, &message, "leave it out");
    }
}

impl Preset {
    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Mlp => "\"mlp\"",
            Self::Cnn => "\"cnn\"",
            Self::Gpt => "\"gpt\"",
        }
    }
}
