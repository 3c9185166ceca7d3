//! A model as PyTorch code whose parameters have the names of the weights file.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use cryptomind_protocol::model::{Layer, ModelSpec, NORM_EPS, PPM, Pair};

/// Modules that PyTorch has not, by the name of the layer that needs them.
const MODULES: [(&str, &str); 6] = [
    (
        "attention",
        r#"class Attention(torch.nn.Module):
    def __init__(self, width, heads, causal, bias):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = torch.nn.Linear(width, 3 * width, bias=bias)
        self.output = torch.nn.Linear(width, width, bias=bias)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        found = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.output(found.transpose(1, 2).reshape(b, t, d))
"#,
    ),
    (
        "embedding",
        r#"class Embedding(torch.nn.Module):
    def __init__(self, rows, width, tokens=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(rows, width))
        self.positions = torch.nn.Parameter(torch.empty(tokens, width)) if tokens else None

    def forward(self, x):
        x = torch.nn.functional.embedding(x.long(), self.weight)
        return x if self.positions is None else x + self.positions
"#,
    ),
    (
        "global_avg_pool",
        r#"class Mean(torch.nn.Module):
    def forward(self, x):
        return x.mean((2, 3))
"#,
    ),
    (
        "linear",
        r#"class Flat(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x.flatten(1))
"#,
    ),
    (
        "reshape",
        r#"class Reshape(torch.nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.shape = shape

    def forward(self, x):
        return x.reshape(len(x), *self.shape)
"#,
    ),
    (
        "residual",
        r#"class Residual(torch.nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)
"#,
    ),
];

/// What PyTorch lacks, and then the model as a `Sequential`, numbered as in the weights file.
pub(super) fn code(model: &ModelSpec) -> String {
    let mut text = String::new();
    let mut names = BTreeSet::new();
    collect(&model.layers, &mut names);
    let needed = MODULES.iter().filter(|(name, _)| names.contains(name));
    for (_, module) in needed {
        let _ = write!(text, "{module}\n\n");
    }
    text.push_str("model = torch.nn.Sequential(\n");
    sequence(&model.layers, model.input.clone(), 1, &mut text);
    text.push_str(")\n");
    text
}

fn collect(layers: &[Layer], names: &mut BTreeSet<&'static str>) {
    for layer in layers {
        match layer {
            Layer::Linear { each: true, .. } => {}
            other => {
                names.insert(other.name());
            }
        }
        collect(layer.inner(), names);
    }
}

/// A line for each layer.
fn sequence(layers: &[Layer], mut shape: Vec<u32>, depth: usize, text: &mut String) {
    let indent = "    ".repeat(depth);
    for layer in layers {
        if let Layer::Residual { layers } = layer {
            let _ = writeln!(text, "{indent}Residual(");
            sequence(layers, shape.clone(), depth + 1, text);
            let _ = writeln!(text, "{indent}),");
        } else {
            let _ = writeln!(text, "{indent}{},", module(layer, &shape));
        }
        shape = layer.output(&shape).unwrap_or(shape);
    }
}

/// The module of a layer on an input of this shape.
fn module(layer: &Layer, shape: &[u32]) -> String {
    let last = shape.last().copied().unwrap_or(1);
    let all: u64 = shape.iter().map(|size| u64::from(*size)).product();
    let no_bias = |bias: bool| if bias { "" } else { ", bias=False" };
    match layer {
        Layer::Linear { out, each, bias } => {
            let (class, inputs) = match each {
                true => ("torch.nn.Linear", u64::from(last)),
                false => ("Flat", all),
            };
            format!("{class}({inputs}, {out}{})", no_bias(*bias))
        }
        Layer::Conv2d {
            filters,
            kernel,
            stride,
            padding,
            groups,
            bias,
        } => {
            let [kernel, stride, padding] = [kernel, stride, padding].map(pair);
            format!(
                "torch.nn.Conv2d({}, {filters}, {kernel}, stride={stride}, padding={padding}, groups={groups}{})",
                shape[0],
                no_bias(*bias)
            )
        }
        Layer::MaxPool {
            size,
            stride,
            padding,
        } => pool("MaxPool2d", size, stride, padding),
        Layer::AvgPool {
            size,
            stride,
            padding,
        } => pool("AvgPool2d", size, stride, padding),
        Layer::GlobalAvgPool {} => "Mean()".into(),
        Layer::BatchNorm {} => {
            let dimensions = if shape.len() == 1 { 1 } else { 2 };
            format!("torch.nn.BatchNorm{dimensions}d({})", shape[0])
        }
        Layer::LayerNorm { bias } => format!("torch.nn.LayerNorm({last}{})", no_bias(*bias)),
        Layer::RmsNorm {} => format!("torch.nn.RMSNorm({last}, eps={NORM_EPS:e})"),
        Layer::Embedding {
            rows,
            width,
            positions,
        } => {
            let tokens = if *positions {
                format!(", {last}")
            } else {
                String::new()
            };
            format!("Embedding({rows}, {width}{tokens})")
        }
        Layer::Attention {
            heads,
            causal,
            bias,
        } => format!(
            "Attention({last}, {heads}, {}, {})",
            said(*causal),
            said(*bias)
        ),
        Layer::Dropout { rate_ppm } => {
            format!(
                "torch.nn.Dropout({})",
                f64::from(*rate_ppm) / f64::from(PPM)
            )
        }
        Layer::Relu {} => "torch.nn.ReLU()".into(),
        Layer::Gelu {} => "torch.nn.GELU()".into(),
        Layer::GeluTanh {} => "torch.nn.GELU(approximate=\"tanh\")".into(),
        Layer::Silu {} => "torch.nn.SiLU()".into(),
        Layer::Tanh {} => "torch.nn.Tanh()".into(),
        Layer::Sigmoid {} => "torch.nn.Sigmoid()".into(),
        Layer::Softmax {} => "torch.nn.Softmax(-1)".into(),
        Layer::Flatten {} => "torch.nn.Flatten()".into(),
        Layer::Reshape { shape } => {
            let sizes: Vec<String> = shape.iter().map(u32::to_string).collect();
            format!("Reshape({})", sizes.join(", "))
        }
        // Written by `sequence`.
        Layer::Residual { .. } => "Residual()".into(),
    }
}

fn pool(class: &str, size: &Pair, stride: &Pair, padding: &Pair) -> String {
    let [size, stride, padding] = [size, stride, padding].map(pair);
    format!("torch.nn.{class}({size}, stride={stride}, padding={padding})")
}

fn pair([height, width]: &Pair) -> String {
    format!("({height}, {width})")
}

const fn said(is_so: bool) -> &'static str {
    if is_so { "True" } else { "False" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptomind_protocol::model::Gpt;

    /// What PyTorch 2.15 loaded the weights of, with the same loss: the names are those of the file.
    #[test]
    fn a_transformer_is_written_as_its_weights_are_named() {
        let model = ModelSpec::gpt(Gpt {
            vocabulary: 7,
            context: 5,
            width: 8,
            heads: 2,
            blocks: 1,
            dropout_ppm: 100_000,
        });
        let code = code(&model);
        let (modules, layers) = code.split_once("model = ").unwrap();
        for class in ["Attention", "Embedding", "Residual"] {
            assert!(modules.contains(&format!("class {class}(")), "{modules}");
        }
        assert!(!modules.contains("class Flat"), "{modules}");
        let expected = r#"torch.nn.Sequential(
    Embedding(7, 8, 5),
    torch.nn.Dropout(0.1),
    Residual(
        torch.nn.LayerNorm(8, bias=False),
        Attention(8, 2, True, True),
        torch.nn.Dropout(0.1),
    ),
    Residual(
        torch.nn.LayerNorm(8, bias=False),
        torch.nn.Linear(8, 32),
        torch.nn.GELU(approximate="tanh"),
        torch.nn.Linear(32, 8),
        torch.nn.Dropout(0.1),
    ),
    torch.nn.LayerNorm(8, bias=False),
    torch.nn.Linear(8, 7),
)
"#;
        assert_eq!(layers, expected);
    }

    #[test]
    fn a_line_is_a_layer() {
        let layers = vec![
            Layer::Reshape {
                shape: vec![1, 8, 8],
            },
            Layer::conv2d(4, 3, 1),
            Layer::BatchNorm {},
            Layer::max_pool(2),
            Layer::RmsNorm {},
            Layer::GlobalAvgPool {},
            Layer::BatchNorm {},
            Layer::linear(2),
        ];
        let code = code(&ModelSpec::new(vec![8, 8], layers));
        let (_, layers) = code.split_once("model = ").unwrap();
        let lines: Vec<&str> = layers.lines().map(str::trim).collect();
        let expected = [
            "torch.nn.Sequential(",
            "Reshape(1, 8, 8),",
            "torch.nn.Conv2d(1, 4, (3, 3), stride=(1, 1), padding=(1, 1), groups=1),",
            "torch.nn.BatchNorm2d(4),",
            "torch.nn.MaxPool2d((2, 2), stride=(2, 2), padding=(0, 0)),",
            "torch.nn.RMSNorm(4, eps=1e-5),",
            "Mean(),",
            "torch.nn.BatchNorm1d(4),",
            "Flat(4, 2),",
            ")",
        ];
        assert_eq!(lines, expected);
    }
}
