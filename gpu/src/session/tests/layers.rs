//! Whole models of every layer: loss, outputs and gradients against plain loops in f64.

use cryptomind_protocol::model::{Gpt, Loss};

use super::naive::{self, Parameters};
use super::*;

/// Small images through every layer of images.
pub(crate) fn images() -> ModelSpec {
    images_of(7, 6)
}

/// Images of this size through every layer of images.
pub(crate) fn images_of(height: u32, width: u32) -> ModelSpec {
    let grouped = Layer::Conv2d {
        filters: 6,
        kernel: [3, 2],
        stride: [2, 1],
        padding: [1, 0],
        groups: 3,
        bias: false,
    };
    let branch = vec![Layer::BatchNorm {}, Layer::Silu {}, Layer::conv2d(3, 3, 1)];
    let average = Layer::AvgPool {
        size: [2, 3],
        stride: [1, 2],
        padding: [1, 0],
    };
    let largest = Layer::MaxPool {
        size: [2, 2],
        stride: [1, 1],
        padding: [0, 1],
    };
    ModelSpec::new(
        vec![height, width],
        vec![
            Layer::Reshape {
                shape: vec![1, height, width],
            },
            Layer::conv2d(3, 3, 1),
            Layer::Residual { layers: branch },
            largest,
            Layer::Relu {},
            grouped,
            average,
            Layer::BatchNorm {},
            Layer::Sigmoid {},
            Layer::GlobalAvgPool {},
            Layer::Softmax {},
            Layer::linear(3),
        ],
    )
}

/// Short sequences through every layer of sequences.
pub(crate) fn sequences() -> ModelSpec {
    sequences_of(4, 6)
}

/// Sequences of so many tokens, and vectors of this width, through every layer of sequences.
pub(crate) fn sequences_of(context: u32, width: u32) -> ModelSpec {
    let seeing_all = Layer::Attention {
        heads: 3,
        causal: false,
        bias: false,
    };
    let mut model = ModelSpec::gpt(Gpt {
        vocabulary: 5,
        context,
        width,
        heads: 2,
        blocks: 1,
        dropout_ppm: 0,
    });
    let inner = Layer::Residual {
        layers: vec![Layer::Gelu {}, Layer::Dropout { rate_ppm: 0 }],
    };
    let branch = vec![
        Layer::RmsNorm {},
        seeing_all,
        inner,
        Layer::LayerNorm { bias: true },
    ];
    model.layers.insert(3, Layer::Residual { layers: branch });
    model
}

/// A class from a whole sequence: its vectors are flattened.
pub(crate) fn pooled() -> ModelSpec {
    let embedding = Layer::Embedding {
        rows: 7,
        width: 3,
        positions: false,
    };
    let twice = Layer::Residual {
        layers: vec![
            Layer::Residual {
                layers: vec![Layer::Tanh {}],
            },
            Layer::Residual {
                layers: vec![Layer::Dropout { rate_ppm: 0 }],
            },
        ],
    };
    let layers = vec![
        embedding,
        twice,
        Layer::Residual {
            layers: vec![Layer::Reshape { shape: vec![5, 3] }],
        },
        Layer::Flatten {},
        Layer::linear(4),
        Layer::GeluTanh {},
        Layer::linear(2),
    ];
    ModelSpec::new(vec![5], layers)
}

pub(crate) fn inputs(model: &ModelSpec, count: usize) -> Vec<f32> {
    let mut stream = Stream::new("test", 3, "inputs");
    let values = count * model.input_len();
    match model.layers.first() {
        Some(Layer::Embedding { rows, .. }) => (0..values)
            .map(|_| stream.below(u64::from(*rows)) as f32)
            .collect(),
        _ => (0..values).map(|_| stream.signed_unit()).collect(),
    }
}

/// Random samples of this model, of classes.
pub(crate) fn classed(model: &ModelSpec, count: usize) -> Samples {
    let outputs = model.output_len().unwrap();
    let mut stream = Stream::new("test", 5, "labels");
    let labels: Vec<u32> = (0..count * positions(model))
        .map(|_| stream.below(outputs as u64) as u32)
        .collect();
    batch(model, &inputs(model, count), &labels)
}

/// The model with each of its layers changed by `change`, or left out.
fn changed(layers: &[Layer], change: &dyn Fn(&Layer) -> Option<Layer>) -> Vec<Layer> {
    let one = |layer: &Layer| match layer {
        Layer::Residual { layers } => Some(Layer::Residual {
            layers: changed(layers, change),
        }),
        other => change(other),
    };
    layers.iter().filter_map(one).collect()
}

/// The model with a fifth dropped wherever it may drop, and before its last layer.
pub(crate) fn dropping(model: ModelSpec) -> ModelSpec {
    let fifth = Layer::Dropout { rate_ppm: 200_000 };
    let drop = |layer: &Layer| match layer {
        Layer::Dropout { .. } => Some(fifth.clone()),
        other => Some(other.clone()),
    };
    let mut layers = changed(&model.layers, &drop);
    layers.insert(layers.len() - 1, fifth.clone());
    ModelSpec { layers, ..model }
}

/// The model without what makes samples depend on their batch.
pub(crate) fn without_batch_norm(model: ModelSpec) -> ModelSpec {
    let keep = |layer: &Layer| Some(layer.clone()).filter(|layer| *layer != Layer::BatchNorm {});
    ModelSpec {
        layers: changed(&model.layers, &keep),
        ..model
    }
}

/// Tokens of a sample that have outputs of their own.
pub(crate) fn positions(model: &ModelSpec) -> usize {
    let output = model.output().unwrap();
    output[..output.len() - 1].iter().product::<u32>() as usize
}

/// Parameters that hide nothing: none is 0 or 1, as norms begin.
pub(super) fn stir(session: &mut Session) {
    let mut stream = Stream::new("test", 4, "parameters");
    let parameters = session.committed.parameters.iter_mut();
    parameters.for_each(|p| *p += 0.3 * stream.signed_unit());
}

pub(super) fn by_name(model: &ModelSpec, arena: &[f64]) -> Parameters {
    let mut start = 0;
    let parameters = model.parameters().into_iter();
    parameters
        .map(|p| {
            let values = arena[start..start + p.len()].to_vec();
            start += p.len();
            (p.name, values)
        })
        .collect()
}

pub(super) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// Loss and gradients of a batch against central differences in f64.
fn check_gradients(model: &ModelSpec, count: usize) {
    model.check().unwrap();
    let positions = positions(model);
    let mut stream = Stream::new("test", 5, "labels");
    let outputs = model.output_len().unwrap();
    let labels: Vec<u32> = (0..count * positions)
        .map(|_| stream.below(outputs as u64) as u32)
        .collect();
    let inputs = inputs(model, count);
    let data = batch(model, &inputs, &labels);
    let mut session = Session::with_threads(model, &adamw(), 2).unwrap();
    stir(&mut session);
    let (loss, got) = gradients(&mut session, &data, &all(&data));
    let parameters = wide(session.parameters());
    let loss_at =
        |parameters: &[f64]| naive::loss(model, &inputs, &labels, &[], &by_name(model, parameters));
    let expected = loss_at(&parameters);
    assert!(
        (loss - expected).abs() < 1e-5 * expected,
        "{loss} for {expected}"
    );
    let mut at = 0;
    for parameter in model.parameters() {
        for place in at..at + parameter.len() {
            if parameter.part.is_statistic() {
                continue;
            }
            let moved = |by: f64| {
                let mut parameters = parameters.clone();
                parameters[place] += by;
                loss_at(&parameters)
            };
            let h = 1e-5;
            let want = (moved(h) - moved(-h)) / (2.0 * h);
            let off = (f64::from(got[place]) - want).abs();
            assert!(
                off < 2e-5 * want.abs().max(1.0),
                "{} at {}: {} for {want}",
                parameter.name,
                place - at,
                got[place]
            );
        }
        at += parameter.len();
    }
}

#[test]
fn gradients_of_every_layer_are_the_slopes_of_the_loss() {
    for count in [1, 2, 5] {
        check_gradients(&mixed(), count);
        check_gradients(&sequences(), count);
        check_gradients(&pooled(), count);
    }
    // A batch norm of one sample of one pixel has no slope.
    for count in [2, 5] {
        check_gradients(&images(), count);
    }
}

/// Both parts of a sum may be one value, which may have a gradient from elsewhere already.
#[test]
fn a_branch_that_changes_nothing_doubles_its_gradient() {
    let within = |layers: Vec<Layer>| Layer::Residual { layers };
    let nothing = || within(vec![Layer::Flatten {}]);
    let branches = [
        vec![nothing()],
        vec![within(vec![nothing()])],
        vec![within(vec![nothing(), Layer::linear(3)])],
        vec![within(vec![Layer::linear(3), nothing()]), nothing()],
        vec![within(vec![within(vec![nothing()]), Layer::Tanh {}])],
    ];
    for branch in branches {
        let ends = [vec![Layer::linear(3)], branch, vec![Layer::linear(2)]];
        check_gradients(&ModelSpec::new(vec![2], ends.concat()), 3);
    }
}

/// Numbers and log-odds, and classes fitted as such.
#[test]
fn other_losses_have_their_slopes() {
    let shapes = [
        (Loss::MeanSquare, 3),
        (Loss::BinaryCrossEntropy, 1),
        (Loss::BinaryCrossEntropy, 4),
    ];
    for (loss, outputs) in shapes {
        let mut model = model(6, &[linear(5), Layer::Silu {}, linear(outputs)]);
        model.loss = loss;
        let inputs = inputs(&model, 4);
        let labels: Vec<u32> = (0..4).map(|i| i % outputs.max(2)).collect();
        let width = outputs as usize;
        let values: Vec<f32> = match width {
            1 => labels.iter().map(|label| *label as f32).collect(),
            _ => labels
                .iter()
                .flat_map(|label| (0..outputs).map(move |c| f32::from(u8::from(c == *label))))
                .collect(),
        };
        let valued = Samples::valued(inputs.clone(), values.clone(), 6, width);
        let labelled = Samples::labelled(inputs.clone(), labels, 6, width.max(2));
        let mut session = Session::with_threads(&model, &adamw(), 1).unwrap();
        let (loss, got) = gradients(&mut session, &valued, &all(&valued));
        assert_eq!(
            gradients(&mut session, &labelled, &all(&labelled)),
            (loss, got.clone())
        );
        let parameters = wide(session.parameters());
        let at = |parameters: &[f64]| {
            naive::loss(&model, &inputs, &[], &values, &by_name(&model, parameters))
        };
        assert!((loss - at(&parameters)).abs() < 1e-5);
        for (place, got) in got.iter().enumerate() {
            let moved = |by: f64| {
                let mut parameters = parameters.clone();
                parameters[place] += by;
                at(&parameters)
            };
            let want = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((f64::from(*got) - want).abs() < 2e-5 * want.abs().max(1.0));
        }
    }
}

#[test]
fn what_a_loss_cannot_be_fitted_to_is_refused() {
    let by = |loss, outputs| ModelSpec {
        loss,
        ..model(2, &[linear(outputs)])
    };
    let inputs = || vec![0.5; 4];
    let refused = |model: &ModelSpec, data: &Samples| {
        let mut session = Session::with_threads(model, &adamw(), 1).unwrap();
        session
            .grad_step(data, &[0, 1], &mut |_| ())
            .unwrap_err()
            .to_string()
    };
    let numbers = Samples::valued(inputs(), vec![0.5, 2.0], 2, 1);
    assert!(refused(&by(Loss::CrossEntropy, 2), &numbers).contains("fits numbers"));
    assert!(refused(&by(Loss::BinaryCrossEntropy, 1), &numbers).contains("2 is to be predicted"));
    assert!(refused(&by(Loss::MeanSquare, 2), &numbers).contains("2 outputs"));
    let classes = Samples::labelled(inputs(), vec![0, 2], 2, 3);
    assert!(refused(&by(Loss::BinaryCrossEntropy, 1), &classes).contains("3 classes"));
    let two_each = Samples::labelled(inputs(), vec![0, 1, 0, 1], 2, 2);
    assert!(refused(&by(Loss::CrossEntropy, 2), &two_each).contains("2 labels"));
    let tokens = pooled();
    let wrong = Samples::labelled(vec![0.0, 1.0, 2.0, 3.0, 7.0], vec![1], 5, 2);
    let mut session = Session::with_threads(&tokens, &adamw(), 1).unwrap();
    let error = session.grad_step(&wrong, &[0], &mut |_| ()).unwrap_err();
    assert!(
        error.to_string().contains("7 in sample 0 is no token"),
        "{error}"
    );
}

/// A parameter without a gradient would stay as it was drawn, and the loss would fall all the same.
#[test]
fn every_parameter_receives_a_gradient() {
    for model in [images(), sequences(), pooled()] {
        let inputs = inputs(&model, 8);
        let positions = positions(&model);
        let labels: Vec<u32> = (0..8 * positions as u32).map(|i| i % 2).collect();
        let data = batch(&model, &inputs, &labels);
        let mut session = Session::with_threads(&model, &adamw(), 1).unwrap();
        stir(&mut session);
        session.gradients().fill(0.0);
        let (_, got) = gradients(&mut session, &data, &all(&data));
        let mut at = 0;
        for parameter in model.parameters() {
            let own = &got[at..at + parameter.len()];
            assert!(
                own.iter().any(|g| *g != 0.0),
                "{} of {:?}",
                parameter.name,
                model.layers
            );
            at += parameter.len();
        }
    }
}
