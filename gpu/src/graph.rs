//! A model as the operations that compute it, in order, on numbered values: what any engine plans its
//! step from. Shapes and places in the arena are resolved here, once.
//!
//! Not here: buffers, kernels, threads.

use std::collections::HashMap;
use std::ops::Range;

use cryptomind_protocol::model::{Layer, Loss, ModelSpec, NORM_EPS, PPM};

use crate::error::EngineError;
use crate::goal::Goal;
use crate::kernel::activation::Activation;
use crate::kernel::attention::Attention;
use crate::kernel::conv::Conv;
use crate::kernel::embedding::Embedding;
use crate::kernel::norm::batch::BatchNorm;
use crate::kernel::norm::rows::RowNorm;
use crate::kernel::pool::Pool;

/// Where a tensor lies in the arena.
pub(crate) type Place = Range<usize>;

/// What a graph is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Dropout drops, batch norms take their batch's statistics.
    Training,
    /// Nothing is dropped, batch norms take the running statistics.
    Use,
}

/// One operation.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Rows of `inputs` values to rows of `outputs`.
    Linear {
        inputs: usize,
        outputs: usize,
        bias: Option<Place>,
        weight: Place,
    },
    Conv {
        shape: Conv,
        bias: Option<Place>,
        weight: Place,
    },
    MaxPool(Pool),
    AveragePool(Pool),
    GlobalAveragePool {
        pixels: usize,
    },
    BatchNorm {
        shape: BatchNorm,
        bias: Place,
        mean: Place,
        variance: Place,
        weight: Place,
    },
    RowNorm {
        shape: RowNorm,
        bias: Option<Place>,
        weight: Place,
    },
    Embedding {
        shape: Embedding,
        tokens: usize,
        positions: Option<Place>,
        weight: Place,
    },
    /// Of queries, keys and values.
    Attention(Attention),
    Function(Activation),
    Softmax {
        width: usize,
    },
    /// `tensor` names what is dropped.
    Dropout {
        rate: f32,
        tensor: [u8; 32],
    },
    /// Adds the value with this number.
    Add {
        skip: usize,
    },
}

impl Op {
    /// What it is called in a profile.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Linear { .. } => "linear",
            Self::Conv { .. } => "convolution",
            Self::MaxPool(_) | Self::AveragePool(_) | Self::GlobalAveragePool { .. } => "pool",
            Self::BatchNorm { .. } | Self::RowNorm { .. } => "norm",
            Self::Embedding { .. } => "embedding",
            Self::Attention(_) => "attention",
            Self::Function(_) => "activation",
            Self::Softmax { .. } => "softmax",
            Self::Dropout { .. } => "dropout",
            Self::Add { .. } => "residual",
        }
    }
}

/// An operation in its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) op: Op,
    /// The model's layer that it is of.
    pub(crate) layer: usize,
    /// Numbers of the values that it reads and makes.
    pub(crate) input: usize,
    pub(crate) output: usize,
    /// The part of the arena whose gradient is final after its backward pass.
    pub(crate) bucket: Option<Place>,
    /// Whether anything at or below it is trained: then its output has a gradient.
    pub(crate) is_trained: bool,
}

/// A model's operations.
#[derive(Clone, Debug)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<Node>,
    /// Values of one sample, by number; number 0 is the model's input.
    pub(crate) widths: Vec<usize>,
    /// The number of the model's output.
    pub(crate) output: usize,
    /// Outputs: classes, or values.
    pub(crate) outputs: usize,
    /// Tokens that each have these outputs; 1 where a sample is no sequence.
    pub(crate) positions: usize,
    /// Tokens that there are, where the model takes tokens.
    pub(crate) vocabulary: Option<usize>,
}

impl Graph {
    /// The operations of a model whose check passed.
    pub(crate) fn new(model: &ModelSpec, purpose: Purpose) -> Self {
        let mut builder = Builder::new(model, purpose);
        let (output, shape) = builder.layers(&model.layers, 0, model.input.clone());
        let outputs = shape.last().map_or(1, |size| *size as usize);
        let positions = count(&shape) / outputs.max(1);
        let vocabulary = model.layers.first().and_then(|layer| match layer {
            Layer::Embedding { rows, .. } => Some(*rows as usize),
            _ => None,
        });
        Self {
            nodes: builder.nodes,
            widths: builder.widths,
            output,
            outputs,
            positions,
            vocabulary,
        }
    }

    /// Values of one sample.
    pub(crate) fn inputs(&self) -> usize {
        self.widths[0]
    }

    /// What samples and outputs have to be, for this loss.
    pub(crate) fn goal(&self, loss: Loss) -> Goal {
        Goal {
            loss,
            inputs: self.inputs(),
            outputs: self.outputs,
            positions: self.positions,
        }
    }

    /// Refuses samples, those of these rows, that are no tokens where the model takes such.
    pub(crate) fn check_tokens(&self, inputs: &[f32], rows: &[u32]) -> Result<(), EngineError> {
        let Some(vocabulary) = self.vocabulary else {
            return Ok(());
        };
        // Comparisons with what is not a number are false.
        let is_token = |v: &f32| *v >= 0.0 && *v < vocabulary as f32 && v.fract() == 0.0;
        match inputs.iter().position(|value| !is_token(value)) {
            None => Ok(()),
            Some(place) => Err(EngineError::Data(format!(
                "{} in sample {} is no token: the model takes whole numbers below {vocabulary}",
                inputs[place],
                rows.get(place / self.inputs().max(1)).unwrap_or(&0)
            ))),
        }
    }

    /// Whether a value has a gradient.
    pub(crate) fn is_trained(&self, value: usize) -> bool {
        // Each node makes the next value.
        value > 0 && self.nodes[value - 1].is_trained
    }

    /// The layer to which this place of the arena belongs.
    pub(crate) fn layer_at(&self, place: usize) -> usize {
        let holds = |node: &&Node| node.bucket.as_ref().is_some_and(|b| b.contains(&place));
        self.nodes.iter().find(holds).map_or(0, |node| node.layer)
    }
}

struct Builder {
    purpose: Purpose,
    places: HashMap<String, Place>,
    nodes: Vec<Node>,
    widths: Vec<usize>,
    /// Where the layer at hand stands.
    path: Vec<usize>,
    is_trained: bool,
}

impl Builder {
    fn new(model: &ModelSpec, purpose: Purpose) -> Self {
        let mut end = 0;
        let place = |parameter: cryptomind_protocol::model::Parameter| {
            let start = end;
            end += parameter.len();
            (parameter.name, start..end)
        };
        Self {
            purpose,
            places: model.parameters().into_iter().map(place).collect(),
            nodes: Vec::new(),
            widths: vec![model.input_len()],
            path: Vec::new(),
            is_trained: false,
        }
    }

    /// Adds these layers behind a value; the number and shape of what they make.
    fn layers(
        &mut self,
        layers: &[Layer],
        mut value: usize,
        mut shape: Vec<u32>,
    ) -> (usize, Vec<u32>) {
        for (index, layer) in layers.iter().enumerate() {
            self.path.push(index);
            value = self.layer(layer, value, &shape);
            // What was checked fits.
            shape = layer.output(&shape).unwrap_or(shape);
            self.path.pop();
        }
        (value, shape)
    }

    fn layer(&mut self, layer: &Layer, value: usize, shape: &[u32]) -> usize {
        match layer {
            Layer::Residual { layers } => {
                let (branch, _) = self.layers(layers, value, shape.to_vec());
                self.node(Op::Add { skip: value }, branch, self.widths[branch], None)
            }
            Layer::Attention { heads, causal, .. } => {
                self.attention(*heads as usize, *causal, value, shape)
            }
            Layer::Dropout { .. } if self.purpose == Purpose::Use => value,
            _ => match self.simple(layer, shape) {
                None => value,
                Some(op) => {
                    let output = layer.output(shape).unwrap_or_default();
                    let names = ["bias", "positions", "running_mean", "running_var", "weight"];
                    self.node(op, value, count(&output), self.bucket(&names))
                }
            },
        }
    }

    /// The operation of a layer that is one; none where it only gives values another shape.
    fn simple(&self, layer: &Layer, shape: &[u32]) -> Option<Op> {
        let size = |at: usize| shape.get(at).map_or(1, |size| *size as usize);
        let last = size(shape.len().saturating_sub(1));
        let bias = || self.place("bias");
        let weight = || self.place("weight").unwrap_or_default();
        let pool = |size: &[u32; 2], stride: &[u32; 2], padding: &[u32; 2]| Pool {
            height: shape[1] as usize,
            width: shape[2] as usize,
            kernel: pair(size),
            stride: pair(stride),
            padding: pair(padding),
        };
        let op = match layer {
            Layer::Linear { out, each, .. } => Op::Linear {
                inputs: if *each { last } else { count(shape) },
                outputs: *out as usize,
                bias: bias(),
                weight: weight(),
            },
            Layer::Conv2d {
                filters,
                kernel,
                stride,
                padding,
                groups,
                ..
            } => Op::Conv {
                shape: Conv {
                    channels: size(0),
                    height: size(1),
                    width: size(2),
                    filters: *filters as usize,
                    kernel: pair(kernel),
                    stride: pair(stride),
                    padding: pair(padding),
                    groups: *groups as usize,
                },
                bias: bias(),
                weight: weight(),
            },
            Layer::MaxPool {
                size,
                stride,
                padding,
            } => Op::MaxPool(pool(size, stride, padding)),
            Layer::AvgPool {
                size,
                stride,
                padding,
            } => Op::AveragePool(pool(size, stride, padding)),
            Layer::GlobalAvgPool {} => Op::GlobalAveragePool {
                pixels: size(1) * size(2),
            },
            Layer::BatchNorm {} => Op::BatchNorm {
                shape: BatchNorm {
                    channels: size(0),
                    pixels: count(shape) / size(0),
                    eps: NORM_EPS,
                },
                bias: bias().unwrap_or_default(),
                mean: self.place("running_mean").unwrap_or_default(),
                variance: self.place("running_var").unwrap_or_default(),
                weight: weight(),
            },
            Layer::LayerNorm { .. } | Layer::RmsNorm {} => Op::RowNorm {
                shape: RowNorm {
                    width: last,
                    eps: NORM_EPS,
                    centred: matches!(layer, Layer::LayerNorm { .. }),
                },
                bias: bias(),
                weight: weight(),
            },
            Layer::Embedding { rows, width, .. } => Op::Embedding {
                shape: Embedding {
                    rows: *rows as usize,
                    width: *width as usize,
                },
                tokens: size(0),
                positions: self.place("positions"),
                weight: weight(),
            },
            Layer::Dropout { rate_ppm } => Op::Dropout {
                rate: (f64::from(*rate_ppm) / f64::from(PPM)) as f32,
                tensor: *blake3::hash(self.name("dropout").as_bytes()).as_bytes(),
            },
            Layer::Relu {} => Op::Function(Activation::Relu),
            Layer::Gelu {} => Op::Function(Activation::Gelu),
            Layer::GeluTanh {} => Op::Function(Activation::GeluTanh),
            Layer::Silu {} => Op::Function(Activation::Silu),
            Layer::Tanh {} => Op::Function(Activation::Tanh),
            Layer::Sigmoid {} => Op::Function(Activation::Sigmoid),
            Layer::Softmax {} => Op::Softmax { width: last },
            Layer::Flatten {} | Layer::Reshape { .. } => return None,
            // Several operations: see `layer`.
            Layer::Residual { .. } | Layer::Attention { .. } => return None,
        };
        Some(op)
    }

    /// Projection to queries, keys and values, the heads, and the projection of what they found.
    fn attention(&mut self, heads: usize, causal: bool, value: usize, shape: &[u32]) -> usize {
        let (tokens, width) = (shape[0] as usize, shape[1] as usize);
        let linear = |builder: &Self, name: &str, outputs: usize| Op::Linear {
            inputs: width,
            outputs,
            bias: builder.place(&format!("{name}.bias")),
            weight: builder.place(&format!("{name}.weight")).unwrap_or_default(),
        };
        // Its gradients come last: then all of the layer's are final.
        let names = ["output.bias", "output.weight", "qkv.bias", "qkv.weight"];
        let (op, bucket) = (linear(self, "qkv", 3 * width), self.bucket(&names));
        let qkv = self.node(op, value, 3 * tokens * width, bucket);
        let attention = Op::Attention(Attention {
            tokens,
            heads,
            head_width: width / heads,
            causal,
        });
        let found = self.node(attention, qkv, tokens * width, None);
        let op = linear(self, "output", width);
        self.node(op, found, tokens * width, None)
    }

    fn node(&mut self, op: Op, input: usize, width: usize, bucket: Option<Place>) -> usize {
        self.is_trained |= bucket.is_some();
        let output = self.widths.len();
        self.widths.push(width);
        self.nodes.push(Node {
            op,
            layer: self.path.first().copied().unwrap_or(0),
            input,
            output,
            bucket,
            is_trained: self.is_trained,
        });
        output
    }

    /// The name of a tensor of the layer at hand.
    fn name(&self, tensor: &str) -> String {
        let place: String = self.path.iter().map(|index| format!(".{index}")).collect();
        format!("layers{place}.{tensor}")
    }

    fn place(&self, tensor: &str) -> Option<Place> {
        self.places.get(&self.name(tensor)).cloned()
    }

    /// From the first to the last of these tensors, which lie one after the other.
    fn bucket(&self, tensors: &[&str]) -> Option<Place> {
        let places = tensors.iter().filter_map(|tensor| self.place(tensor));
        places.reduce(|all, next| all.start.min(next.start)..all.end.max(next.end))
    }
}

fn count(shape: &[u32]) -> usize {
    shape.iter().map(|size| *size as usize).product()
}

fn pair(sizes: &[u32; 2]) -> [usize; 2] {
    sizes.map(|size| size as usize)
}
