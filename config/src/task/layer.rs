//! Layers as a user writes them: a name, its sizes, and what is unlike the usual.
//!
//! `"linear 64"`, `"conv2d 32 kernel=3 padding=1"`, `"max_pool 2"`, `"relu"`; and two that hold others:
//! `{ residual = ["layer_norm", "attention 4"] }` and `{ repeat = 4, layers = [ … ] }`.

use std::ops::Range;

use cryptomind_protocol::model::{Layer, MAX_LAYERS, PPM, Pair};

use crate::convert::{Converted, Problem, problem};
use crate::document::Value;
use crate::nearest::nearest;

/// How each layer is written; the first word is its name.
const FORMS: [&str; 20] = [
    "linear 64",
    "conv2d 32 kernel=3 stride=1 padding=1 groups=1",
    "max_pool 2 stride=2 padding=0",
    "avg_pool 2 stride=2 padding=0",
    "global_avg_pool",
    "batch_norm",
    "layer_norm",
    "rms_norm",
    "embedding 65 128 positions",
    "attention 4",
    "dropout 0.1",
    "relu",
    "gelu",
    "gelu_tanh",
    "silu",
    "tanh",
    "sigmoid",
    "softmax",
    "flatten",
    "reshape 1 28 28",
];
/// How those are written that hold others.
const RESIDUAL: &str = "{ residual = [\"layer_norm\", \"attention 4\"] }";
const REPEAT: &str = "{ repeat = 4, layers = [\"linear 64\", \"relu\"] }";

/// A layer and where it was written.
pub(super) type Placed = (Layer, Range<usize>);

/// Reads a list of layers. What they fit is the model's own check to say.
pub(super) fn list(items: &[(Value, Range<usize>)]) -> Converted<Vec<Placed>> {
    let mut layers = Vec::new();
    for (value, span) in items {
        let found = entry(value, span).map_err(|problem| match problem.span {
            Some(_) => problem,
            None => problem.at(span.clone()),
        })?;
        layers.extend(found);
        if count(&layers) > MAX_LAYERS {
            return Err(too_many().at(span.clone()));
        }
    }
    Ok(layers)
}

fn count(layers: &[Placed]) -> usize {
    let counts = layers.iter().map(|(layer, _)| layer.count());
    counts.fold(0, usize::saturating_add)
}

fn too_many() -> Problem {
    problem(format!("more than {MAX_LAYERS} layers"))
}

/// The layers that one entry of a list stands for.
fn entry(value: &Value, span: &Range<usize>) -> Converted<Vec<Placed>> {
    match value {
        Value::Text(text) => Ok(vec![(read(text)?, span.clone())]),
        Value::Table(fields) => table(fields, span),
        other => Err(problem(format!("expected text, found {}", other.kind()))
            .help(format!("write a layer as text, such as \"{}\"", FORMS[0]))),
    }
}

fn table(fields: &[(String, Value)], span: &Range<usize>) -> Converted<Vec<Placed>> {
    let field = |name: &str| {
        let mut found = fields.iter().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value)
    };
    match (field("residual"), field("repeat"), field("layers")) {
        (Some(Value::List(items)), None, None) if fields.len() == 1 => {
            let layers = list(items)?.into_iter().map(|(layer, _)| layer).collect();
            Ok(vec![(Layer::Residual { layers }, span.clone())])
        }
        (None, Some(Value::Whole { digits, radix: 10 }), Some(Value::List(items)))
            if fields.len() == 2 =>
        {
            let times = digits.parse().unwrap_or(0);
            if !(1..=MAX_LAYERS).contains(&times) {
                return Err(problem(format!(
                    "repeat = {digits}: give 1 to {MAX_LAYERS}"
                )));
            }
            let layers = list(items)?;
            // Before they are made: repetitions of repetitions multiply.
            match times.saturating_mul(count(&layers)) {
                0..=MAX_LAYERS => Ok(vec![layers; times].concat()),
                _ => Err(too_many()),
            }
        }
        _ => Err(
            problem("a table among the layers is a residual or a repetition")
                .help(format!("for example {RESIDUAL} or {REPEAT}")),
        ),
    }
}

/// What a text says after its name.
struct Words<'a> {
    name: &'a str,
    sizes: Vec<&'a str>,
    /// `name=value`, or a name alone for what is switched on.
    options: Vec<(&'a str, Option<&'a str>)>,
}

fn read(text: &str) -> Converted<Layer> {
    let mut words = Words::of(text);
    let layer = words.layer()?;
    match words.options.first() {
        None => Ok(layer),
        Some((name, _)) => Err(words.unlike(format!("`{}` has no `{}`", words.name, shown(name)))),
    }
}

impl<'a> Words<'a> {
    fn of(text: &'a str) -> Self {
        let mut words = text.split_whitespace();
        let name = words.next().unwrap_or_default();
        let (mut sizes, mut options) = (Vec::new(), Vec::new());
        for word in words {
            match word.split_once('=') {
                Some((name, value)) => options.push((name, Some(value))),
                None if word.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                    options.push((word, None));
                }
                None => sizes.push(word),
            }
        }
        Self {
            name,
            sizes,
            options,
        }
    }

    fn layer(&mut self) -> Converted<Layer> {
        Ok(match self.name {
            "linear" => {
                let [out] = self.sizes(["its outputs"])?;
                Layer::Linear {
                    out,
                    each: self.switch("each", false)?,
                    bias: self.switch("bias", true)?,
                }
            }
            "conv2d" => self.conv2d()?,
            "max_pool" => {
                let (size, stride, padding) = self.window()?;
                Layer::MaxPool {
                    size,
                    stride,
                    padding,
                }
            }
            "avg_pool" => {
                let (size, stride, padding) = self.window()?;
                Layer::AvgPool {
                    size,
                    stride,
                    padding,
                }
            }
            "layer_norm" => {
                self.no_sizes()?;
                Layer::LayerNorm {
                    bias: self.switch("bias", true)?,
                }
            }
            "embedding" => {
                let [rows, width] = self.sizes(["the number of tokens", "a width"])?;
                Layer::Embedding {
                    rows,
                    width,
                    positions: self.switch("positions", false)?,
                }
            }
            "attention" => {
                let [heads] = self.sizes(["its heads"])?;
                Layer::Attention {
                    heads,
                    causal: self.switch("causal", true)?,
                    bias: self.switch("bias", true)?,
                }
            }
            "dropout" => self.dropout()?,
            "reshape" => Layer::Reshape {
                shape: self
                    .sizes
                    .iter()
                    .map(|size| self.size(size))
                    .collect::<Result<_, _>>()?,
            },
            _ => self.plain()?,
        })
    }

    /// The layers that are a name alone.
    fn plain(&self) -> Converted<Layer> {
        let layer = match self.name {
            "global_avg_pool" => Layer::GlobalAvgPool {},
            "batch_norm" => Layer::BatchNorm {},
            "rms_norm" => Layer::RmsNorm {},
            "relu" => Layer::Relu {},
            "gelu" => Layer::Gelu {},
            "gelu_tanh" => Layer::GeluTanh {},
            "silu" => Layer::Silu {},
            "tanh" => Layer::Tanh {},
            "sigmoid" => Layer::Sigmoid {},
            "softmax" => Layer::Softmax {},
            "flatten" => Layer::Flatten {},
            name => return Err(unknown(name)),
        };
        self.no_sizes()?;
        Ok(layer)
    }

    fn conv2d(&mut self) -> Converted<Layer> {
        let [filters] = self.sizes(["its filters"])?;
        let Some(kernel) = self.pair("kernel")? else {
            return Err(self.unlike("`conv2d` needs a `kernel`".into()));
        };
        Ok(Layer::Conv2d {
            filters,
            kernel,
            stride: self.pair("stride")?.unwrap_or([1, 1]),
            padding: self.pair("padding")?.unwrap_or([0, 0]),
            groups: match self.option("groups") {
                Some(text) => self.size(text.unwrap_or_default())?,
                None => 1,
            },
            bias: self.switch("bias", true)?,
        })
    }

    fn window(&mut self) -> Converted<(Pair, Pair, Pair)> {
        let [size] = self.sizes.as_slice() else {
            return Err(self.unlike(format!("`{}` has one size: its window", self.name)));
        };
        let size = self.sides(size)?;
        let stride = self.pair("stride")?.unwrap_or(size);
        Ok((size, stride, self.pair("padding")?.unwrap_or([0, 0])))
    }

    fn dropout(&self) -> Converted<Layer> {
        let rate = match self.sizes[..] {
            [rate] => rate.parse::<f64>().ok(),
            _ => None,
        };
        match rate.filter(|rate| (0.0..1.0).contains(rate)) {
            Some(rate) => Ok(Layer::Dropout {
                rate_ppm: (rate * f64::from(PPM)).round() as u32,
            }),
            None => Err(self.unlike("`dropout` has one rate, from 0 to below 1".into())),
        }
    }

    /// Exactly so many sizes.
    fn sizes<const N: usize>(&self, what: [&str; N]) -> Converted<[u32; N]> {
        let Ok(texts) = <[&str; N]>::try_from(self.sizes.as_slice()) else {
            let number = if N == 1 { "one size" } else { "two sizes" };
            return Err(self.unlike(format!(
                "`{}` has {number}: {}",
                self.name,
                what.join(" and ")
            )));
        };
        let mut sizes = [0; N];
        for (size, text) in sizes.iter_mut().zip(texts) {
            *size = self.size(text)?;
        }
        Ok(sizes)
    }

    fn no_sizes(&self) -> Converted<()> {
        match self.sizes.is_empty() {
            true => Ok(()),
            false => Err(problem(format!("`{}` has no sizes", self.name))),
        }
    }

    /// Takes an option out: what is left over is unknown.
    fn option(&mut self, name: &str) -> Option<Option<&'a str>> {
        let at = self.options.iter().position(|(given, _)| *given == name)?;
        Some(self.options.remove(at).1)
    }

    fn switch(&mut self, name: &str, usual: bool) -> Converted<bool> {
        match self.option(name) {
            None => Ok(usual),
            Some(None | Some("true")) => Ok(true),
            Some(Some("false")) => Ok(false),
            Some(Some(other)) => Err(problem(format!(
                "`{name}={}` is neither true nor false",
                shown(other)
            ))),
        }
    }

    fn pair(&mut self, name: &str) -> Converted<Option<Pair>> {
        self.option(name)
            .map(|text| self.sides(text.unwrap_or_default()))
            .transpose()
    }

    /// `3`, or `3x5` for height 3 and width 5.
    fn sides(&self, text: &str) -> Converted<Pair> {
        match text.split_once('x') {
            Some((height, width)) => Ok([self.size(height)?, self.size(width)?]),
            None => Ok([self.size(text)?; 2]),
        }
    }

    fn size(&self, text: &str) -> Converted<u32> {
        let wrong = |_| self.unlike(format!("`{}` is not a size", shown(text)));
        text.parse().map_err(wrong)
    }

    /// A problem with the form of this layer for help.
    fn unlike(&self, message: String) -> Problem {
        problem(message).help(format!("for example \"{}\"", form(self.name)))
    }
}

fn form(name: &str) -> &'static str {
    let is_its = |form: &&&str| form.split(' ').next() == Some(name);
    FORMS.iter().find(is_its).copied().unwrap_or(FORMS[0])
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

fn unknown(name: &str) -> Problem {
    let names = FORMS.iter().filter_map(|form| form.split(' ').next());
    let problem = problem(format!("unknown layer `{}`", shown(name)));
    match nearest(name, names.clone()) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => {
            let names: Vec<_> = names.collect();
            problem.help(format!("there are {}, and residual", names.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair() -> impl Strategy<Value = Pair> {
        [0u32..9, 0u32..9]
    }

    fn any_layer() -> impl Strategy<Value = Layer> {
        let sizes = (any::<u32>(), any::<u32>(), any::<bool>(), any::<bool>());
        let windows = (pair(), pair(), pair());
        (
            0..21usize,
            sizes,
            windows,
            0..PPM,
            proptest::collection::vec(1u32..9, 1..4),
        )
            .prop_map(
                |(which, (a, b, first, second), (size, stride, padding), rate_ppm, shape)| {
                    match which {
                        0 => Layer::Linear {
                            out: a,
                            each: first,
                            bias: second,
                        },
                        1 => Layer::Conv2d {
                            filters: a,
                            kernel: size,
                            stride,
                            padding,
                            groups: b,
                            bias: first,
                        },
                        2 => Layer::MaxPool {
                            size,
                            stride,
                            padding,
                        },
                        3 => Layer::AvgPool {
                            size,
                            stride,
                            padding,
                        },
                        4 => Layer::LayerNorm { bias: first },
                        5 => Layer::Embedding {
                            rows: a,
                            width: b,
                            positions: first,
                        },
                        6 => Layer::Attention {
                            heads: a,
                            causal: first,
                            bias: second,
                        },
                        7 => Layer::Dropout { rate_ppm },
                        8 => Layer::Reshape { shape },
                        9 => Layer::GlobalAvgPool {},
                        10 => Layer::BatchNorm {},
                        11 => Layer::RmsNorm {},
                        12 => Layer::Relu {},
                        13 => Layer::Gelu {},
                        14 => Layer::GeluTanh {},
                        15 => Layer::Silu {},
                        16 => Layer::Tanh {},
                        17 => Layer::Sigmoid {},
                        18 => Layer::Softmax {},
                        _ => Layer::Flatten {},
                    }
                },
            )
    }

    proptest! {
        /// A layer is shown as it is written.
        #[test]
        fn what_is_shown_is_read(layer in any_layer()) {
            let read = read(&layer.to_string()).map_err(|problem| problem.message);
            prop_assert_eq!(read, Ok(layer));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[a-z0-9_=x. ]{0,40}") {
            let _ = read(&text);
        }
    }

    #[test]
    fn each_form_is_read_and_says_its_name() {
        for form in FORMS {
            let layer = read(form).unwrap();
            assert_eq!(form.split(' ').next(), Some(layer.name()));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            ("conv2d 32", "needs a `kernel`", "kernel=3"),
            (
                "conv2d 32 kernel=3 pading=1",
                "has no `pading`",
                "padding=1",
            ),
            ("conv2d 32 kernel=", "`` is not a size", "kernel=3"),
            ("max_pool", "one size: its window", "max_pool 2"),
            ("dropout 1", "from 0 to below 1", "dropout 0.1"),
            ("dropout nan", "from 0 to below 1", "dropout 0.1"),
            ("embedding 65", "two sizes", "embedding 65 128"),
            ("linear 64 each=maybe", "neither true nor false", ""),
            ("atention 4", "unknown layer", "`attention`"),
            ("transformer", "unknown layer", "there are linear"),
        ];
        for (text, message, help) in cases {
            let problem = read(text).unwrap_err();
            assert!(
                problem.message.contains(message),
                "{text}: {}",
                problem.message
            );
            let said = problem.help.unwrap_or_default();
            assert!(said.contains(help), "{text}: {said}");
        }
    }
}
