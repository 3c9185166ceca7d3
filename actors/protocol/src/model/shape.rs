//! Which shape a layer makes of which.

use super::layer::{Layer, PPM, Pair};
use super::{MAX_ELEMENTS, MAX_RANK};

/// The largest side of a filter or window, the largest stride and the largest padding.
const MAX_WINDOW: u32 = 4096;

/// Values of a shape; nothing where a u64 does not hold it.
pub(super) fn values(shape: &[u32]) -> Option<u64> {
    let sizes = shape.iter().map(|size| u64::from(*size));
    sizes.into_iter().try_fold(1, u64::checked_mul)
}

impl Layer {
    /// The shape of its output for an input of this shape, whose sizes are not 0. A residual's is
    /// its input's: whether its branch keeps it is seen where the branch is walked.
    ///
    /// # Errors
    /// Why it cannot take it, with what it would take.
    pub fn output(&self, input: &[u32]) -> Result<Vec<u32>, String> {
        let output = self.shape_after(input)?;
        match values(&output) {
            Some(0) | None => Err(format!("{input:?} would become {output:?}")),
            Some(many) if many > MAX_ELEMENTS => Err(format!(
                "{input:?} would become {output:?}, more than {MAX_ELEMENTS} values"
            )),
            Some(_) => Ok(output),
        }
    }

    fn shape_after(&self, input: &[u32]) -> Result<Vec<u32>, String> {
        match self {
            Self::Linear { out, each, .. } => linear(input, *out, *each),
            Self::Conv2d {
                filters,
                kernel,
                stride,
                padding,
                groups,
                ..
            } => {
                let [channels, height, width] = image(input)?;
                let divides = |many: u32| many.checked_rem(*groups) == Some(0);
                if *filters == 0 {
                    return Err("0 filters: give at least one".into());
                }
                if !divides(channels) || !divides(*filters) {
                    return Err(format!(
                        "groups={groups} does not divide {channels} channels and {filters} filters"
                    ));
                }
                let [height, width] = windows([height, width], *kernel, *stride, *padding)?;
                Ok(vec![*filters, height, width])
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
                let [channels, height, width] = image(input)?;
                if (0..2).any(|axis| padding[axis] > size[axis] / 2) {
                    return Err(format!(
                        "padding {padding:?} is more than half a window of {size:?}"
                    ));
                }
                let [height, width] = windows([height, width], *size, *stride, *padding)?;
                Ok(vec![channels, height, width])
            }
            Self::GlobalAvgPool {} => Ok(vec![image(input)?[0]]),
            Self::BatchNorm {} if input.len() == 1 => Ok(input.to_vec()),
            Self::BatchNorm {} => image(input).map(Vec::from),
            Self::Embedding { rows, width, .. } => embedding(input, *rows, *width),
            Self::Attention { heads, .. } => attention(input, *heads),
            Self::Dropout { rate_ppm } if *rate_ppm >= PPM => {
                Err("nothing would be left: give a rate of 0 or more, below 1".into())
            }
            Self::Flatten {} => {
                let many = values(input).and_then(|many| u32::try_from(many).ok());
                Ok(vec![many.ok_or("too many values for one axis")?])
            }
            Self::Reshape { shape } => reshape(input, shape),
            Self::LayerNorm { .. } | Self::RmsNorm {} | Self::Residual { .. } => Ok(input.to_vec()),
            Self::Dropout { .. } | Self::Relu {} | Self::Gelu {} => Ok(input.to_vec()),
            Self::GeluTanh {} | Self::Silu {} | Self::Tanh {} => Ok(input.to_vec()),
            Self::Sigmoid {} | Self::Softmax {} => Ok(input.to_vec()),
        }
    }
}

fn linear(input: &[u32], out: u32, each: bool) -> Result<Vec<u32>, String> {
    if out == 0 {
        return Err("it needs at least one output".into());
    }
    match (each, input) {
        (true, [before @ .., _]) => Ok([before, &[out]].concat()),
        _ => Ok(vec![out]),
    }
}

fn image(input: &[u32]) -> Result<[u32; 3], String> {
    <[u32; 3]>::try_from(input).map_err(|_| {
        format!(
            "it takes an image [channels, height, width], its input is {input:?}; \"reshape\" makes one"
        )
    })
}

/// How many windows there are along both axes.
fn windows(size: Pair, window: Pair, stride: Pair, padding: Pair) -> Result<Pair, String> {
    let along = |axis: usize| {
        let padded = u64::from(size[axis]) + 2 * u64::from(padding[axis]);
        let room = padded.checked_sub(u64::from(window[axis]))?;
        let moves = room.checked_div(u64::from(stride[axis]))?;
        u32::try_from(moves + 1).ok()
    };
    let sizes = [window, stride, padding];
    if sizes.as_flattened().iter().any(|size| *size > MAX_WINDOW) {
        return Err(format!("no size of a window exceeds {MAX_WINDOW}"));
    }
    if window.contains(&0) || stride.contains(&0) {
        return Err("a window and its stride have no size 0".into());
    }
    match (along(0), along(1)) {
        (Some(height), Some(width)) => Ok([height, width]),
        _ => Err(format!(
            "a window of {window:?} does not fit into {size:?} with padding {padding:?}"
        )),
    }
}

fn embedding(input: &[u32], rows: u32, width: u32) -> Result<Vec<u32>, String> {
    match input {
        _ if rows == 0 || width == 0 => Err("give the number of tokens and a width above 0".into()),
        [tokens] => Ok(vec![*tokens, width]),
        _ => Err(format!("it takes [tokens], its input is {input:?}")),
    }
}

fn attention(input: &[u32], heads: u32) -> Result<Vec<u32>, String> {
    match input {
        [_, width] if width.checked_rem(heads) == Some(0) => Ok(input.to_vec()),
        [_, width] => Err(format!("{heads} heads do not divide a width of {width}")),
        _ => Err(format!("it takes [tokens, width], its input is {input:?}")),
    }
}

fn reshape(input: &[u32], shape: &[u32]) -> Result<Vec<u32>, String> {
    if shape.is_empty() || shape.len() > MAX_RANK {
        return Err(format!("give one to {MAX_RANK} sizes"));
    }
    let (before, after) = (values(input), values(shape));
    if after.is_none() || before != after {
        return Err(format!(
            "{input:?} has {} values, {shape:?} has {}",
            before.unwrap_or(0),
            after.map_or("too many".into(), |many| many.to_string())
        ));
    }
    Ok(shape.to_vec())
}
