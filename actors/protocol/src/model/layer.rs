//! The layers that a model may have, as data and as people write them.

use serde::{Deserialize, Serialize};

/// Height and width: of a filter, a window, a stride, a padding.
pub type Pair = [u32; 2];

/// Added to a variance before its root is taken, in every norm.
pub const NORM_EPS: f32 = 1e-5;
/// Part of a batch's statistics that goes into the running ones of a batch norm, as in PyTorch.
pub const BATCH_NORM_MOMENTUM: f32 = 0.1;
/// Millionths in a whole.
pub const PPM: u32 = 1_000_000;

/// One layer. Activations are layers of their own. Images are (channels, height, width), sequences
/// (tokens, width).
///
/// A field with a default is left out where it has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Layer {
    /// `y = x·Wᵀ + b`. Any input shape is flattened to one vector a sample, or, with `each`, its
    /// last axis alone is a vector and the others stay.
    Linear {
        /// Width of the output.
        out: u32,
        /// Whether each vector of the last axis is mapped alone.
        #[serde(default, skip_serializing_if = "is_false")]
        each: bool,
        /// Whether there is a b.
        #[serde(default = "yes", skip_serializing_if = "is_true")]
        bias: bool,
    },
    /// Cross-correlation of an image with filters, as other frameworks' convolution is.
    Conv2d {
        /// Channels of the output.
        filters: u32,
        /// Size of a filter.
        kernel: Pair,
        /// From a place to the next.
        #[serde(default = "ones", skip_serializing_if = "are_ones")]
        stride: Pair,
        /// Zeros on each side.
        #[serde(default, skip_serializing_if = "are_zeros")]
        padding: Pair,
        /// Parts into which channels and filters are divided; each part sees its own channels.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        groups: u32,
        /// Whether a number is added to each channel of the output.
        #[serde(default = "yes", skip_serializing_if = "is_true")]
        bias: bool,
    },
    /// The largest value of each window of an image.
    MaxPool {
        /// Size of a window.
        size: Pair,
        /// From a window to the next.
        stride: Pair,
        /// Around the image, on each side: at most half a window.
        #[serde(default, skip_serializing_if = "are_zeros")]
        padding: Pair,
    },
    /// The mean of each window of an image, padding counted as zeros.
    AvgPool {
        /// Size of a window.
        size: Pair,
        /// From a window to the next.
        stride: Pair,
        /// Zeros on each side: at most half a window.
        #[serde(default, skip_serializing_if = "are_zeros")]
        padding: Pair,
    },
    /// The mean of each channel of an image.
    GlobalAvgPool {},
    /// Each channel of an image, or each value of a vector, normalised over the batch (Ioffe and
    /// Szegedy, 2015), in use by the running statistics.
    BatchNorm {},
    /// The last axis normalised to mean 0 and variance 1 (Ba et al., 2016).
    LayerNorm {
        /// Whether something is added after.
        #[serde(default = "yes", skip_serializing_if = "is_true")]
        bias: bool,
    },
    /// The last axis divided by its root mean square (Zhang and Sennrich, 2019).
    RmsNorm {},
    /// Token numbers to vectors. The first layer, where there is one.
    Embedding {
        /// Tokens that there are.
        rows: u32,
        /// Width of a vector.
        width: u32,
        /// Whether a vector of its place is added to each token's.
        #[serde(default, skip_serializing_if = "is_false")]
        positions: bool,
    },
    /// Multi-head self-attention (Vaswani et al., 2017) with its projections: queries, keys and
    /// values by one linear layer, and one over what the heads found.
    Attention {
        /// Heads; they divide the width.
        heads: u32,
        /// Whether a token sees only itself and those before it.
        #[serde(default = "yes", skip_serializing_if = "is_true")]
        causal: bool,
        /// Whether the projections have a bias.
        #[serde(default = "yes", skip_serializing_if = "is_true")]
        bias: bool,
    },
    /// `x + layers(x)` (He et al., 2015).
    Residual {
        /// The branch. Its output has its input's shape.
        layers: Vec<Layer>,
    },
    /// In training drops values at random and enlarges the others, so that the mean stays.
    Dropout {
        /// Of so many in a million.
        rate_ppm: u32,
    },
    /// `max(x, 0)`; the gradient at zero is zero.
    Relu {},
    /// `x·Φ(x)` (Hendrycks and Gimpel, 2016).
    Gelu {},
    /// The same by its approximation with the hyperbolic tangent.
    GeluTanh {},
    /// `x·σ(x)`.
    Silu {},
    /// `tanh x`.
    Tanh {},
    /// `1 / (1 + e⁻ˣ)`.
    Sigmoid {},
    /// `e^xᵢ / Σ e^xⱼ` over the last axis.
    Softmax {},
    /// To one vector.
    Flatten {},
    /// To another shape of as many values.
    Reshape {
        /// One to four sizes.
        shape: Vec<u32>,
    },
}

const fn yes() -> bool {
    true
}
const fn one() -> u32 {
    1
}
const fn ones() -> Pair {
    [1, 1]
}
// serde hands over references.
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_true(given: &bool) -> bool {
    *given
}
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_false(given: &bool) -> bool {
    !*given
}
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_one(given: &u32) -> bool {
    *given == 1
}
fn are_ones(given: &Pair) -> bool {
    *given == ones()
}
fn are_zeros(given: &Pair) -> bool {
    *given == [0, 0]
}

impl Layer {
    /// A linear layer over all values of a sample.
    pub const fn linear(out: u32) -> Self {
        Self::Linear {
            out,
            each: false,
            bias: true,
        }
    }

    /// A linear layer over each vector of a sequence.
    pub const fn linear_each(out: u32) -> Self {
        Self::Linear {
            out,
            each: true,
            bias: true,
        }
    }

    /// A convolution with square filters that move by one.
    pub const fn conv2d(filters: u32, kernel: u32, padding: u32) -> Self {
        Self::Conv2d {
            filters,
            kernel: [kernel; 2],
            stride: ones(),
            padding: [padding; 2],
            groups: 1,
            bias: true,
        }
    }

    /// The largest of square windows side by side.
    pub const fn max_pool(size: u32) -> Self {
        Self::MaxPool {
            size: [size; 2],
            stride: [size; 2],
            padding: [0; 2],
        }
    }

    /// Its name, as in a task file.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Linear { .. } => "linear",
            Self::Conv2d { .. } => "conv2d",
            Self::MaxPool { .. } => "max_pool",
            Self::AvgPool { .. } => "avg_pool",
            Self::GlobalAvgPool {} => "global_avg_pool",
            Self::BatchNorm {} => "batch_norm",
            Self::LayerNorm { .. } => "layer_norm",
            Self::RmsNorm {} => "rms_norm",
            Self::Embedding { .. } => "embedding",
            Self::Attention { .. } => "attention",
            Self::Residual { .. } => "residual",
            Self::Dropout { .. } => "dropout",
            Self::Relu {} => "relu",
            Self::Gelu {} => "gelu",
            Self::GeluTanh {} => "gelu_tanh",
            Self::Silu {} => "silu",
            Self::Tanh {} => "tanh",
            Self::Sigmoid {} => "sigmoid",
            Self::Softmax {} => "softmax",
            Self::Flatten {} => "flatten",
            Self::Reshape { .. } => "reshape",
        }
    }

    /// The layers inside.
    pub fn inner(&self) -> &[Self] {
        match self {
            Self::Residual { layers } => layers,
            _ => &[],
        }
    }

    /// How many layers it is, with those inside it.
    pub fn count(&self) -> usize {
        let inner = self.inner().iter().map(Self::count);
        inner.fold(1, usize::saturating_add)
    }
}

/// As in a task file: `conv2d 32 kernel=3 padding=1`.
impl std::fmt::Display for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Linear { out, each, bias } => {
                write!(f, " {out}")?;
                flag(f, *each, " each")?;
                flag(f, !bias, " bias=false")
            }
            Self::Conv2d {
                filters,
                kernel,
                stride,
                padding,
                groups,
                bias,
            } => {
                write!(f, " {filters} kernel={}", Sides(*kernel))?;
                sides(f, "stride", *stride, ones())?;
                sides(f, "padding", *padding, [0; 2])?;
                if *groups != 1 {
                    write!(f, " groups={groups}")?;
                }
                flag(f, !bias, " bias=false")
            }
            Self::MaxPool {
                size,
                stride,
                padding,
            }
            | Self::AvgPool {
                size,
                stride,
                padding,
            } => {
                write!(f, " {}", Sides(*size))?;
                sides(f, "stride", *stride, *size)?;
                sides(f, "padding", *padding, [0; 2])
            }
            Self::LayerNorm { bias } => flag(f, !bias, " bias=false"),
            Self::Embedding {
                rows,
                width,
                positions,
            } => {
                write!(f, " {rows} {width}")?;
                flag(f, *positions, " positions")
            }
            Self::Attention {
                heads,
                causal,
                bias,
            } => {
                write!(f, " {heads}")?;
                flag(f, !causal, " causal=false")?;
                flag(f, !bias, " bias=false")
            }
            Self::Residual { layers } => {
                let texts: Vec<String> = layers.iter().map(Self::to_string).collect();
                write!(f, " [{}]", texts.join(", "))
            }
            Self::Dropout { rate_ppm } => write!(f, " {}", f64::from(*rate_ppm) / f64::from(PPM)),
            Self::Reshape { shape } => shape.iter().try_for_each(|size| write!(f, " {size}")),
            _ => Ok(()),
        }
    }
}

fn flag(f: &mut std::fmt::Formatter<'_>, is_said: bool, text: &str) -> std::fmt::Result {
    if is_said { f.write_str(text) } else { Ok(()) }
}

fn sides(
    f: &mut std::fmt::Formatter<'_>,
    name: &str,
    given: Pair,
    usual: Pair,
) -> std::fmt::Result {
    if given == usual {
        return Ok(());
    }
    write!(f, " {name}={}", Sides(given))
}

/// `3`, or `3x5` for height 3 and width 5.
struct Sides(Pair);

impl std::fmt::Display for Sides {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            [height, width] if height == width => write!(f, "{height}"),
            [height, width] => write!(f, "{height}x{width}"),
        }
    }
}
