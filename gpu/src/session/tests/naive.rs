//! Every layer by plain loops in f64: the reference of whole models. Slow, and nothing else.

use std::collections::HashMap;

use cryptomind_protocol::model::{Layer, Loss, ModelSpec, NORM_EPS, Pair};

use crate::graph::Purpose;

/// A batch of values of one shape, sample by sample.
#[derive(Clone)]
pub(super) struct Batch {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f64>,
}

/// Parameters by name.
pub(super) type Parameters = HashMap<String, Vec<f64>>;

impl Batch {
    fn len(&self) -> usize {
        self.values.len() / self.sample()
    }

    fn sample(&self) -> usize {
        self.shape.iter().product()
    }

    fn map(mut self, f: impl Fn(f64) -> f64) -> Self {
        self.values.iter_mut().for_each(|v| *v = f(*v));
        self
    }

    /// Each vector of so many values replaced by another of any length.
    fn each(&self, width: usize, shape: Vec<usize>, f: impl Fn(&[f64]) -> Vec<f64>) -> Self {
        let values = self.values.chunks(width).flat_map(f).collect();
        Self { shape, values }
    }

    pub(super) fn last(&self) -> usize {
        *self.shape.last().unwrap()
    }
}

fn named(path: &str, name: &str, parameters: &Parameters) -> Option<Vec<f64>> {
    parameters.get(&format!("{path}.{name}")).cloned()
}

fn linear(x: &[f64], weight: &[f64], bias: Option<&Vec<f64>>) -> Vec<f64> {
    let rows = weight.chunks(x.len()).enumerate();
    rows.map(|(row, w)| {
        let dot: f64 = w.iter().zip(x).map(|(w, x)| w * x).sum();
        dot + bias.map_or(0.0, |bias| bias[row])
    })
    .collect()
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let largest = x.iter().copied().fold(f64::MIN, f64::max);
    let powers: Vec<f64> = x.iter().map(|v| (v - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|v| v / sum).collect()
}

/// The error function by its series: exact in f64 for the values of these tests.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

/// The indices of each window of an image, by output; none where it is padding.
fn windows(
    image: [usize; 2],
    size: Pair,
    stride: Pair,
    padding: Pair,
) -> ([usize; 2], Vec<Vec<Option<usize>>>) {
    let count = |axis: usize| {
        (image[axis] + 2 * padding[axis] as usize - size[axis] as usize) / stride[axis] as usize + 1
    };
    let mut all = Vec::new();
    for (row, column) in
        (0..count(0)).flat_map(|row| (0..count(1)).map(move |column| (row, column)))
    {
        let mut window = Vec::new();
        for (i, j) in (0..size[0]).flat_map(|i| (0..size[1]).map(move |j| (i, j))) {
            let at = |place: usize, axis: usize, inner: u32| {
                (place * stride[axis] as usize + inner as usize)
                    .checked_sub(padding[axis] as usize)
                    .filter(|at| *at < image[axis])
            };
            let place = at(row, 0, i).zip(at(column, 1, j));
            window.push(place.map(|(row, column)| row * image[1] + column));
        }
        all.push(window);
    }
    ([count(0), count(1)], all)
}

/// What each window of each plane becomes.
fn pool(
    x: &Batch,
    size: Pair,
    stride: Pair,
    padding: Pair,
    f: impl Fn(&[Option<f64>]) -> f64,
) -> Batch {
    let [channels, height, width] = x.shape[..] else {
        panic!("{:?}", x.shape)
    };
    let ([rows, columns], windows) = windows([height, width], size, stride, padding);
    x.each(height * width, vec![channels, rows, columns], |plane| {
        let window = |window: &Vec<Option<usize>>| {
            let values: Vec<Option<f64>> = window.iter().map(|at| at.map(|at| plane[at])).collect();
            f(&values)
        };
        windows.iter().map(window).collect()
    })
}

fn attention(x: &Batch, heads: usize, causal: bool, path: &str, parameters: &Parameters) -> Batch {
    let (tokens, width) = (x.shape[0], x.shape[1]);
    let get = |name: &str| named(path, name, parameters);
    let (qkv, qkv_bias) = (get("qkv.weight").unwrap(), get("qkv.bias"));
    let (out, out_bias) = (get("output.weight").unwrap(), get("output.bias"));
    x.each(tokens * width, x.shape.clone(), |sample| {
        let all: Vec<Vec<f64>> = sample
            .chunks(width)
            .map(|x| linear(x, &qkv, qkv_bias.as_ref()))
            .collect();
        let size = width / heads;
        let part = |token: usize, kind: usize, head: usize| {
            &all[token][kind * width + head * size..][..size]
        };
        let mut found = Vec::new();
        for token in 0..tokens {
            let seen = if causal { token + 1 } else { tokens };
            let mut row = Vec::new();
            for head in 0..heads {
                let dot = |other: usize| {
                    let pairs = part(token, 0, head).iter().zip(part(other, 1, head));
                    pairs.map(|(a, b)| a * b).sum::<f64>() / (size as f64).sqrt()
                };
                let weights = softmax(&(0..seen).map(dot).collect::<Vec<_>>());
                row.extend((0..size).map(|i| {
                    let values = weights.iter().enumerate();
                    values
                        .map(|(other, w)| w * part(other, 2, head)[i])
                        .sum::<f64>()
                }));
            }
            found.extend(linear(&row, &out, out_bias.as_ref()));
        }
        found
    })
}

fn row_norm(x: &Batch, centred: bool, path: &str, parameters: &Parameters) -> Batch {
    let weight = named(path, "weight", parameters).unwrap();
    let bias = named(path, "bias", parameters);
    x.each(x.last(), x.shape.clone(), |row| {
        let count = row.len() as f64;
        let mean = if centred {
            row.iter().sum::<f64>() / count
        } else {
            0.0
        };
        let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
        let deviation = (variance + f64::from(NORM_EPS)).sqrt();
        let value = |(i, v): (usize, &f64)| {
            (v - mean) / deviation * weight[i] + bias.as_ref().map_or(0.0, |b| b[i])
        };
        row.iter().enumerate().map(value).collect()
    })
}

fn batch_norm(x: &Batch, path: &str, parameters: &Parameters, purpose: Purpose) -> Batch {
    let get = |name: &str| named(path, name, parameters).unwrap();
    let (weight, bias) = (get("weight"), get("bias"));
    let mut result = x.clone();
    for channel in 0..x.shape[0] {
        let places = channel_places(x, channel);
        let [mean, variance] = match purpose {
            Purpose::Training => channel_moments(x, channel, 0.0),
            Purpose::Use => ["running_mean", "running_var"].map(|name| get(name)[channel]),
        };
        for at in places {
            let normal = (x.values[at] - mean) / (variance + f64::from(NORM_EPS)).sqrt();
            result.values[at] = normal * weight[channel] + bias[channel];
        }
    }
    result
}

/// Where a channel's values lie.
fn channel_places(x: &Batch, channel: usize) -> Vec<usize> {
    let (channels, pixels) = (x.shape[0], x.sample() / x.shape[0]);
    let image = |sample| (0..pixels).map(move |p| (sample * channels + channel) * pixels + p);
    (0..x.len()).flat_map(image).collect()
}

/// Mean and variance of a channel; `spared` is 1 for the unbiased variance.
pub(super) fn channel_moments(x: &Batch, channel: usize, spared: f64) -> [f64; 2] {
    let places = channel_places(x, channel);
    let count = places.len() as f64;
    let mean = places.iter().map(|at| x.values[*at]).sum::<f64>() / count;
    let squares = places.iter().map(|at| (x.values[*at] - mean).powi(2));
    [mean, squares.sum::<f64>() / (count - spared)]
}

fn conv(x: &Batch, layer: &Layer, path: &str, parameters: &Parameters) -> Batch {
    let Layer::Conv2d {
        filters,
        kernel,
        stride,
        padding,
        groups,
        ..
    } = layer
    else {
        panic!("{layer}")
    };
    let [channels, height, width] = x.shape[..] else {
        panic!("{:?}", x.shape)
    };
    let weight = named(path, "weight", parameters).unwrap();
    let bias = named(path, "bias", parameters);
    let ([rows, columns], windows) = windows([height, width], *kernel, *stride, *padding);
    let (filters, inner) = (*filters as usize, channels / *groups as usize);
    x.each(x.sample(), vec![filters, rows, columns], |image| {
        let mut result = Vec::new();
        for filter in 0..filters {
            let first = filter / (filters / *groups as usize) * inner;
            let weight = weight.chunks(weight.len() / filters).nth(filter).unwrap();
            for window in &windows {
                let mut sum = bias.as_ref().map_or(0.0, |bias| bias[filter]);
                for channel in 0..inner {
                    let weights = &weight[channel * window.len()..];
                    let seen = window
                        .iter()
                        .zip(weights)
                        .filter_map(|(at, w)| at.map(|at| (at, w)));
                    sum += seen
                        .map(|(at, w)| image[(first + channel) * height * width + at] * w)
                        .sum::<f64>();
                }
                result.push(sum);
            }
        }
        result
    })
}

fn layer(x: Batch, layer: &Layer, path: &str, parameters: &Parameters, purpose: Purpose) -> Batch {
    let get = |name: &str| named(path, name, parameters);
    match layer {
        Layer::Linear { out, each, .. } => {
            let (weight, bias) = (get("weight").unwrap(), get("bias"));
            let width = if *each { x.last() } else { x.sample() };
            let mut shape = if *each { x.shape.clone() } else { vec![0] };
            *shape.last_mut().unwrap() = *out as usize;
            x.each(width, shape, |row| linear(row, &weight, bias.as_ref()))
        }
        Layer::Conv2d { .. } => conv(&x, layer, path, parameters),
        Layer::MaxPool {
            size,
            stride,
            padding,
        } => pool(&x, *size, *stride, *padding, |window| {
            window.iter().flatten().copied().fold(f64::MIN, f64::max)
        }),
        Layer::AvgPool {
            size,
            stride,
            padding,
        } => pool(&x, *size, *stride, *padding, |window| {
            window.iter().flatten().sum::<f64>() / window.len() as f64
        }),
        Layer::GlobalAvgPool {} => {
            let pixels = x.shape[1] * x.shape[2];
            x.each(pixels, vec![x.shape[0]], |plane| {
                vec![plane.iter().sum::<f64>() / pixels as f64]
            })
        }
        Layer::BatchNorm {} => batch_norm(&x, path, parameters, purpose),
        Layer::LayerNorm { .. } => row_norm(&x, true, path, parameters),
        Layer::RmsNorm {} => row_norm(&x, false, path, parameters),
        Layer::Embedding { width, .. } => {
            let (table, positions) = (get("weight").unwrap(), get("positions"));
            let width = *width as usize;
            let tokens = x.last();
            x.each(tokens, vec![tokens, width], |row| {
                let token = |(place, token): (usize, &f64)| {
                    let own = table[*token as usize * width..][..width].to_vec();
                    let positions = positions
                        .as_ref()
                        .map(|p| p[place * width..][..width].to_vec());
                    let positions = positions.unwrap_or(vec![0.0; width]);
                    own.into_iter()
                        .zip(positions)
                        .map(|(a, b)| a + b)
                        .collect::<Vec<_>>()
                };
                row.iter().enumerate().flat_map(token).collect()
            })
        }
        Layer::Attention { heads, causal, .. } => {
            attention(&x, *heads as usize, *causal, path, parameters)
        }
        Layer::Residual { layers } => {
            let branch = all(x.clone(), layers, path, parameters, purpose);
            let values = branch
                .values
                .iter()
                .zip(&x.values)
                .map(|(a, b)| a + b)
                .collect();
            Batch {
                shape: x.shape,
                values,
            }
        }
        // Of rate 0 here: what is dropped is the kernel's own test.
        Layer::Dropout { rate_ppm: 0 } => x,
        Layer::Dropout { .. } if purpose == Purpose::Use => x,
        Layer::Dropout { .. } => panic!("{layer}"),
        Layer::Relu {} => x.map(|v| v.max(0.0)),
        Layer::Gelu {} => x.map(|v| v * 0.5 * (1.0 + erf(v / std::f64::consts::SQRT_2))),
        Layer::GeluTanh {} => x.map(|v| {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (v + 0.044715 * v.powi(3));
            v * 0.5 * (1.0 + inner.tanh())
        }),
        Layer::Silu {} => x.map(|v| v / (1.0 + (-v).exp())),
        Layer::Tanh {} => x.map(f64::tanh),
        Layer::Sigmoid {} => x.map(|v| 1.0 / (1.0 + (-v).exp())),
        Layer::Softmax {} => x.each(x.last(), x.shape.clone(), softmax),
        Layer::Flatten {} => Batch {
            shape: vec![x.sample()],
            ..x
        },
        Layer::Reshape { shape } => Batch {
            shape: shape.iter().map(|s| *s as usize).collect(),
            ..x
        },
    }
}

fn all(
    mut x: Batch,
    layers: &[Layer],
    path: &str,
    parameters: &Parameters,
    purpose: Purpose,
) -> Batch {
    for (index, each) in layers.iter().enumerate() {
        x = layer(x, each, &format!("{path}.{index}"), parameters, purpose);
    }
    x
}

/// The outputs of a model.
pub(super) fn outputs(
    model: &ModelSpec,
    inputs: &[f32],
    parameters: &Parameters,
    purpose: Purpose,
) -> Batch {
    let inputs = Batch {
        shape: model.input.iter().map(|size| *size as usize).collect(),
        values: inputs.iter().map(|v| f64::from(*v)).collect(),
    };
    all(inputs, &model.layers, "layers", parameters, purpose)
}

/// The sum of the losses of a batch in training: of a sequence, the mean over its tokens.
pub(super) fn loss(
    model: &ModelSpec,
    inputs: &[f32],
    labels: &[u32],
    targets: &[f32],
    parameters: &Parameters,
) -> f64 {
    let outputs = outputs(model, inputs, parameters, Purpose::Training);
    loss_of(model, &outputs, labels, targets)
}

/// The same of these outputs.
pub(super) fn loss_of(model: &ModelSpec, outputs: &Batch, labels: &[u32], targets: &[f32]) -> f64 {
    let (rows, width) = (outputs.values.chunks(outputs.last()), outputs.last());
    let positions = outputs.sample() / width;
    let mean = |row: usize, f: &dyn Fn(f64, f64) -> f64| {
        let values = outputs.values[row * width..][..width].iter();
        let pairs = values.zip(&targets[row * width..]);
        pairs.map(|(x, t)| f(*x, f64::from(*t))).sum::<f64>() / width as f64
    };
    let sum: f64 = match model.loss {
        Loss::CrossEntropy => rows
            .zip(labels)
            .map(|(row, label)| -softmax(row)[*label as usize].ln())
            .sum(),
        Loss::MeanSquare => (0..outputs.len())
            .map(|row| mean(row, &|x, t| (x - t).powi(2)))
            .sum(),
        Loss::BinaryCrossEntropy => (0..outputs.len())
            .map(|row| mean(row, &|x, t| x.max(0.0) - x * t + (-x.abs()).exp().ln_1p()))
            .sum(),
    };
    sum / positions as f64
}
