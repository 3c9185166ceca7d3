//! A model as data: an input shape, a list of layers, and what its outputs are. A task is data, never code.
//!
//! Everything that must be known before anything runs follows from it here: shapes, parameters, operations, room.

mod count;
mod fit;
mod layer;
mod preset;
mod shape;

use serde::{Deserialize, Serialize};

pub use count::{Part, Visit};
pub use fit::{Misfit, ModelMisfit};
pub use layer::{BATCH_NORM_MOMENTUM, Layer, NORM_EPS, PPM, Pair};
pub use preset::Gpt;

/// The most values in one sample, one layer's output, or one weight.
pub const MAX_ELEMENTS: u64 = 1 << 28;
/// The most layers, those inside of others counted too.
pub const MAX_LAYERS: usize = 1024;
/// How deep layers may lie in layers.
pub const MAX_DEPTH: usize = 4;
/// The most sizes of a shape.
pub const MAX_RANK: usize = 4;
/// The most parameters in a model of today's engine.
pub const MAX_PARAMETERS: u64 = 1 << 28;

/// What the outputs are fitted by, and so what they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Cross-entropy: a score for each class, of which softmax makes probabilities. Of a sequence, for each token.
    #[default]
    CrossEntropy,
    /// The mean of the squared differences: numbers.
    MeanSquare,
    /// Binary cross-entropy of each output: log-odds, of which the logistic function makes probabilities.
    BinaryCrossEntropy,
}

impl Loss {
    /// As in a task file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CrossEntropy => "cross_entropy",
            Self::MeanSquare => "mean_square",
            Self::BinaryCrossEntropy => "binary_cross_entropy",
        }
    }

    // serde hands over a reference.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// A model: the shape of one sample and the layers that it passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Shape of one sample, such as `[8, 8]`.
    pub input: Vec<u32>,
    /// The layers, first to last.
    pub layers: Vec<Layer>,
    /// What the last layer's outputs are. Left out where it is cross-entropy.
    #[serde(default, skip_serializing_if = "Loss::is_usual")]
    pub loss: Loss,
}

/// Why a model cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", layer.map(|l| format!("layer {}: ", l + 1)).unwrap_or_default())]
pub struct ModelError {
    /// The layer at fault, counted from 0; of a residual's layers, the residual. None where the model as a whole is.
    pub layer: Option<usize>,
    /// What is wrong.
    pub reason: String,
}

/// A parameter tensor in canonical order: by layer, then by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Index of its layer in the model; of a residual's layers, the residual's.
    pub layer: usize,
    /// `layers.<index>.<name>`, as in the safetensors file; of a residual's layers, `layers.<index>.<index>.<name>`.
    pub name: String,
    /// Row-major shape; a linear weight is `[out, in]`, that of a convolution `[filters, channels, height, width]`.
    pub shape: Vec<usize>,
    /// What it is.
    pub part: Part,
}

impl Parameter {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no values; it never is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ModelSpec {
    /// A model that tells classes apart.
    pub const fn new(input: Vec<u32>, layers: Vec<Layer>) -> Self {
        Self {
            input,
            layers,
            loss: Loss::CrossEntropy,
        }
    }

    /// Values in one sample. Meaningful once [`ModelSpec::check`] passed.
    pub fn input_len(&self) -> usize {
        self.input.iter().map(|d| *d as usize).product()
    }

    /// Shape of the last layer's output, where the layers fit each other.
    pub fn output(&self) -> Option<Vec<u32>> {
        self.visit(&mut |_| Ok(())).ok()
    }

    /// Outputs: classes, or values that are predicted. Of a sequence, those of each token.
    pub fn output_len(&self) -> Option<usize> {
        let last = self.output()?.last().copied()?;
        self.has_parameters().then_some(last as usize)
    }

    /// Refuses models that cannot be built, naming the layer.
    pub fn check(&self) -> Result<(), ModelError> {
        self.check_input()?;
        if count(&self.layers) > MAX_LAYERS {
            let many = count(&self.layers);
            return Err(whole(format!(
                "{many} layers: at most {MAX_LAYERS} are allowed"
            )));
        }
        let mut parameters = 0u64;
        let output = self.visit(&mut |visit| {
            parameters = parameters.saturating_add(weights(visit)?);
            match parameters {
                0..=MAX_PARAMETERS => Ok(()),
                _ => Err(format!(
                    "the model exceeds {MAX_PARAMETERS} parameters here"
                )),
            }
        })?;
        self.check_output(&output)
    }

    fn check_input(&self) -> Result<(), ModelError> {
        let input = &self.input;
        if input.is_empty() || input.len() > MAX_RANK || input.contains(&0) {
            return Err(whole(format!(
                "input {input:?}: give one to four sizes, none of them 0"
            )));
        }
        match shape::values(input) {
            Some(many) if many <= MAX_ELEMENTS => Ok(()),
            _ => Err(whole(format!(
                "input {input:?}: more than {MAX_ELEMENTS} values a sample"
            ))),
        }
    }

    fn check_output(&self, output: &[u32]) -> Result<(), ModelError> {
        if !self.has_parameters() {
            return Err(whole("no layer can learn: give at least a `linear`".into()));
        }
        let last = self.layers.len().checked_sub(1);
        let at = |reason: String| ModelError {
            layer: last,
            reason,
        };
        if output.len() > 2 {
            return Err(at(format!(
                "the last layer gives {output:?}: the outputs are a vector, or one for each token; \"flatten\" and \"linear OUTPUTS\" make one"
            )));
        }
        match (self.loss, self.layers.last()) {
            (Loss::CrossEntropy, Some(Layer::Softmax {})) => Err(at(
                "the last layer is `softmax`, which the loss does already: leave it out".into(),
            )),
            (Loss::BinaryCrossEntropy, Some(Layer::Sigmoid {})) => Err(at(
                "the last layer is `sigmoid`, which the loss does already: leave it out".into(),
            )),
            _ => Ok(()),
        }
    }

    fn has_parameters(&self) -> bool {
        fn learns(layers: &[Layer]) -> bool {
            let own = |layer: &Layer| match layer {
                Layer::Linear { .. } | Layer::Conv2d { .. } | Layer::BatchNorm {} => true,
                Layer::LayerNorm { .. } | Layer::RmsNorm {} => true,
                Layer::Embedding { .. } | Layer::Attention { .. } => true,
                other => learns(other.inner()),
            };
            layers.iter().any(own)
        }
        learns(&self.layers)
    }

    /// Calls `see` for each layer in the order in which a sample passes them, a residual after its branch, and gives the
    /// shape of the output.
    ///
    /// # Errors
    /// The first layer that does not fit, or that `see` refuses.
    pub fn visit(
        &self,
        see: &mut dyn FnMut(&Visit<'_>) -> Result<(), String>,
    ) -> Result<Vec<u32>, ModelError> {
        let mut path = Vec::new();
        walk(&self.layers, self.input.clone(), &mut path, see).map_err(|reason| ModelError {
            layer: path.first().copied(),
            reason: inside(&path, reason),
        })
    }

    /// The parameters in canonical order, the running statistics of batch norms among them. Meaningful once
    /// [`ModelSpec::check`] passed.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut parameters = Vec::new();
        // What was checked is visited whole.
        let _ = self.visit(&mut |visit| {
            let place: String = visit.path.iter().map(|index| format!(".{index}")).collect();
            let named = visit
                .tensors()
                .into_iter()
                .map(|(name, shape, part)| Parameter {
                    layer: visit.path[0],
                    name: format!("layers{place}.{name}"),
                    shape,
                    part,
                });
            parameters.extend(named);
            Ok(())
        });
        parameters
    }

    /// Number of parameters, running statistics included: the length of an arena.
    pub fn parameter_count(&self) -> u64 {
        self.parameters().iter().map(|p| p.len() as u64).sum()
    }

    /// Floating-point operations of one sample's forward pass: two a multiply-add, one an activation.
    pub fn forward_flops(&self) -> u64 {
        self.sum(&mut |visit| visit.forward_flops())
    }

    /// Floating-point operations of one sample in training: the forward pass, and as much again for the gradient of each
    /// layer's parameters and of its inputs. Nothing below the first layer with parameters needs a gradient, and that
    /// layer's inputs need none: what nobody computes does not count.
    pub fn training_flops(&self) -> u64 {
        let mut is_reached = false;
        self.sum(&mut |visit| {
            let is_trained = !visit.tensors().is_empty();
            let passes = match (is_trained, is_reached) {
                (false, false) => 1,
                (true, false) | (false, true) => 2,
                (true, true) => 3,
            };
            is_reached |= is_trained;
            visit.forward_flops().saturating_mul(passes)
        })
    }

    /// The most values of one sample that wait from its forward pass for its backward pass, its inputs included. A step's
    /// memory is about that times the batch, and the arenas.
    pub fn kept_values(&self) -> u64 {
        self.sum(&mut |visit| visit.kept_values())
            .saturating_add(self.input_len() as u64)
    }

    fn sum(&self, of: &mut dyn FnMut(&Visit<'_>) -> u64) -> u64 {
        let mut sum = 0u64;
        let _ = self.visit(&mut |visit| {
            sum = sum.saturating_add(of(visit));
            Ok(())
        });
        sum
    }
}

fn whole(reason: String) -> ModelError {
    ModelError {
        layer: None,
        reason,
    }
}

/// Layers, those inside of others counted too.
fn count(layers: &[Layer]) -> usize {
    layers
        .iter()
        .map(Layer::count)
        .fold(0, usize::saturating_add)
}

/// Values of a layer's tensors, within bounds.
fn weights(visit: &Visit<'_>) -> Result<u64, String> {
    let mut sum = 0u64;
    for (name, shape, _) in visit.tensors() {
        let sizes = shape.iter().map(|size| *size as u64);
        let values = sizes.into_iter().try_fold(1, u64::checked_mul);
        match values.filter(|many| *many <= MAX_ELEMENTS) {
            Some(many) => sum = sum.saturating_add(many),
            None => {
                return Err(format!(
                    "`{}` on {:?}: a {name} of {shape:?} exceeds {MAX_ELEMENTS} values",
                    visit.layer, visit.input
                ));
            }
        }
    }
    Ok(sum)
}

/// Leaves `path` at the layer that did not fit.
fn walk(
    layers: &[Layer],
    mut shape: Vec<u32>,
    path: &mut Vec<usize>,
    see: &mut dyn FnMut(&Visit<'_>) -> Result<(), String>,
) -> Result<Vec<u32>, String> {
    for (index, layer) in layers.iter().enumerate() {
        path.push(index);
        if path.len() > MAX_DEPTH {
            return Err(format!(
                "layers lie more than {MAX_DEPTH} deep in each other"
            ));
        }
        if matches!(layer, Layer::Embedding { .. }) && path[..] != [0] {
            return Err("`embedding` takes token numbers: it is the first layer".into());
        }
        let refuse = |reason: String| format!("`{layer}` on {shape:?}: {reason}");
        let output = layer.output(&shape).map_err(refuse)?;
        if let Layer::Residual { layers } = layer {
            check_branch(layers, &shape, path, see)?;
        }
        see(&Visit {
            path,
            layer,
            input: &shape,
            output: &output,
        })?;
        shape = output;
        path.pop();
    }
    Ok(shape)
}

fn check_branch(
    layers: &[Layer],
    shape: &[u32],
    path: &mut Vec<usize>,
    see: &mut dyn FnMut(&Visit<'_>) -> Result<(), String>,
) -> Result<(), String> {
    if layers.is_empty() {
        return Err("`residual` has no layers in it".into());
    }
    let output = walk(layers, shape.to_vec(), path, see)?;
    if output == shape {
        return Ok(());
    }
    Err(format!(
        "`residual` on {shape:?}: its branch gives {output:?}, which cannot be added"
    ))
}

/// Says where inside of a residual it is.
fn inside(path: &[usize], reason: String) -> String {
    let inner = path.get(1..).unwrap_or_default().iter();
    let place: String = inner
        .map(|index| format!("its layer {}: ", index + 1))
        .collect();
    format!("{place}{reason}")
}

#[cfg(test)]
mod tests;
