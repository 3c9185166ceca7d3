use super::*;
use crate::kernel::sums;
use crate::kernel::testing::{assert_close, gradient, same_bits, values, wide};

const PLAIN: Conv = Conv {
    channels: 2,
    height: 5,
    width: 5,
    filters: 3,
    kernel: [3, 3],
    stride: [1, 1],
    padding: [1, 1],
    groups: 1,
};

/// Odd sizes, size 1, groups, strides beyond the kernel, padding beyond the image.
fn shapes() -> Vec<(usize, Conv)> {
    vec![
        (
            1,
            Conv {
                channels: 1,
                height: 1,
                width: 1,
                filters: 1,
                kernel: [1, 1],
                padding: [0, 0],
                ..PLAIN
            },
        ),
        (2, PLAIN),
        (
            2,
            Conv {
                padding: [0, 0],
                ..PLAIN
            },
        ),
        (
            3,
            Conv {
                height: 7,
                width: 4,
                kernel: [3, 2],
                stride: [2, 1],
                padding: [1, 0],
                ..PLAIN
            },
        ),
        (
            2,
            Conv {
                kernel: [1, 1],
                padding: [0, 0],
                ..PLAIN
            },
        ),
        (
            2,
            Conv {
                kernel: [1, 1],
                padding: [0, 0],
                stride: [2, 3],
                ..PLAIN
            },
        ),
        (
            2,
            Conv {
                kernel: [2, 2],
                stride: [3, 3],
                padding: [0, 0],
                ..PLAIN
            },
        ),
        (
            2,
            Conv {
                channels: 4,
                filters: 6,
                groups: 2,
                ..PLAIN
            },
        ),
        (
            2,
            Conv {
                channels: 3,
                filters: 3,
                groups: 3,
                stride: [2, 2],
                ..PLAIN
            },
        ),
        (
            2,
            Conv {
                channels: 4,
                filters: 4,
                groups: 4,
                kernel: [1, 1],
                padding: [0, 0],
                ..PLAIN
            },
        ),
        (
            1,
            Conv {
                height: 2,
                width: 1,
                kernel: [5, 5],
                padding: [2, 2],
                ..PLAIN
            },
        ),
        (
            1,
            Conv {
                height: 1,
                width: 3,
                kernel: [3, 7],
                padding: [1, 3],
                ..PLAIN
            },
        ),
        (
            1,
            Conv {
                height: 3,
                width: 2,
                kernel: [7, 7],
                padding: [6, 6],
                stride: [4, 5],
                ..PLAIN
            },
        ),
        (
            2,
            Conv {
                height: 6,
                width: 3,
                kernel: [4, 5],
                padding: [3, 2],
                ..PLAIN
            },
        ),
    ]
}

fn exact(shape: &Conv, input: &[f64], weight: &[f64], bias: Option<&[f64]>) -> Vec<f64> {
    let (before, _) = shape.image();
    let [height, width] = shape.output();
    let channels = shape.channels / shape.groups;
    let mut output = Vec::new();
    for image in input.chunks(before) {
        for filter in 0..shape.filters {
            let first = filter / (shape.filters / shape.groups) * channels;
            for y in 0..height {
                for x in 0..width {
                    let mut sum = bias.map_or(0.0, |b| b[filter]);
                    for (index, w) in weight[filter * shape.depth()..][..shape.depth()]
                        .iter()
                        .enumerate()
                    {
                        let [kh, kw] = shape.kernel;
                        let (channel, ky, kx) = (index / (kh * kw), index / kw % kh, index % kw);
                        let iy = (y * shape.stride[0] + ky) as isize - shape.padding[0] as isize;
                        let ix = (x * shape.stride[1] + kx) as isize - shape.padding[1] as isize;
                        let inside = (0..shape.height as isize).contains(&iy)
                            && (0..shape.width as isize).contains(&ix);
                        if inside {
                            let line = (first + channel) * shape.height + iy as usize;
                            sum += w * image[line * shape.width + ix as usize];
                        }
                    }
                    output.push(sum);
                }
            }
        }
    }
    output
}

struct Case {
    input: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    upper: Vec<f32>,
}

fn case(batch: usize, shape: &Conv) -> Case {
    let (before, after) = shape.image();
    Case {
        input: values("x", batch * before),
        weight: values("w", shape.weights()),
        bias: values("b", shape.filters),
        upper: values("g", batch * after),
    }
}

fn run_forward(shape: &Conv, case: &Case, bias: Option<&[f32]>, threads: usize) -> Vec<f32> {
    let mut output = vec![f32::NAN; case.upper.len()];
    let mut room = vec![f32::NAN; scratch(shape, threads)];
    forward(
        shape,
        &case.input,
        &case.weight,
        bias,
        &mut output,
        &mut room,
        threads,
    );
    output
}

fn run_input_gradient(shape: &Conv, case: &Case, threads: usize) -> Vec<f32> {
    let mut lower = vec![f32::NAN; case.input.len()];
    let mut room = vec![f32::NAN; scratch(shape, threads)];
    input_gradient(
        shape,
        &case.weight,
        &case.upper,
        &mut lower,
        &mut room,
        threads,
    );
    lower
}

fn run_weight_gradient(
    shape: &Conv,
    case: &Case,
    start: &[f32],
    update: Update,
    threads: usize,
) -> Vec<f32> {
    let mut gradient = start.to_vec();
    let batch = shape.batch(&case.input, &case.upper);
    let mut room = vec![f32::NAN; weight_gradient_scratch(shape, batch, threads)];
    weight_gradient(
        shape,
        &case.input,
        &case.upper,
        &mut gradient,
        update,
        &mut room,
        threads,
    );
    gradient
}

#[test]
fn kernel_conv_and_its_gradients_are_those_of_seven_loops() {
    for (batch, shape) in shapes() {
        let case = case(batch, &shape);
        let (input, weight, bias) = (wide(&case.input), wide(&case.weight), wide(&case.bias));
        let output = run_forward(&shape, &case, None, 1);
        assert_close(&output, &exact(&shape, &input, &weight, None), 1e-5);
        let output = run_forward(&shape, &case, Some(&case.bias), 1);
        assert_close(&output, &exact(&shape, &input, &weight, Some(&bias)), 1e-5);

        let by_input = gradient(&case.input, &case.upper, |x| {
            exact(&shape, x, &weight, None)
        });
        assert_close(&run_input_gradient(&shape, &case, 1), &by_input, 1e-5);

        let by_weight = gradient(&case.weight, &case.upper, |w| {
            exact(&shape, &input, w, None)
        });
        let nan = vec![f32::NAN; case.weight.len()];
        let got = run_weight_gradient(&shape, &case, &nan, Update::Replace, 1);
        assert_close(&got, &by_weight, 1e-5);
        let got = run_weight_gradient(&shape, &case, &got, Update::Add, 1);
        assert_close(
            &got,
            &by_weight.iter().map(|v| 2.0 * v).collect::<Vec<_>>(),
            1e-5,
        );

        let exact = |b: &[f64]| exact(&shape, &input, &weight, Some(b));
        let by_bias = gradient(&case.bias, &case.upper, exact);
        let mut got = vec![f32::NAN; shape.filters];
        sums::channels(&case.upper, shape.pixels(), &mut got, Update::Replace, 1);
        assert_close(&got, &by_bias, 1e-5);
    }
}

/// Images of more than one tile, with and without the shortcut, more threads than images.
#[test]
fn kernel_conv_is_exact_in_tiles_and_has_the_same_bits_on_any_number_of_threads() {
    let large = Conv {
        channels: 8,
        height: 61,
        width: 67,
        filters: 4,
        ..PLAIN
    };
    for (batch, shape) in [
        (2, large),
        (
            1,
            Conv {
                padding: [0, 2],
                stride: [1, 2],
                groups: 2,
                ..large
            },
        ),
        (
            19,
            Conv {
                channels: 3,
                height: 14,
                width: 14,
                filters: 5,
                ..PLAIN
            },
        ),
        (
            1,
            Conv {
                channels: 64,
                filters: 64,
                height: 30,
                width: 30,
                kernel: [1, 1],
                padding: [0, 0],
                ..PLAIN
            },
        ),
    ] {
        let case = case(batch, &shape);
        let (input, weight) = (wide(&case.input), wide(&case.weight));
        let output = run_forward(&shape, &case, None, 1);
        assert_close(&output, &exact(&shape, &input, &weight, None), 1e-5);
        same_bits(|threads| run_forward(&shape, &case, Some(&case.bias), threads));
        same_bits(|threads| run_input_gradient(&shape, &case, threads));
        let zeros = vec![0.0; case.weight.len()];
        same_bits(|threads| run_weight_gradient(&shape, &case, &zeros, Update::Replace, threads));
        // ⟨y, g⟩ is ⟨w, dw⟩ and ⟨x, dx⟩, y being linear in both.
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter()
                .zip(b)
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum()
        };
        let want = dot(&output, &case.upper);
        let by_weight = run_weight_gradient(&shape, &case, &zeros, Update::Replace, 2);
        for got in [
            dot(&case.weight, &by_weight),
            dot(&case.input, &run_input_gradient(&shape, &case, 2)),
        ] {
            assert!(
                (got - want).abs() < 1e-4 * want.abs().max(100.0),
                "{got} for {want}"
            );
        }
    }
}

#[test]
fn kernel_conv_of_no_image_has_no_gradient() {
    let case = case(0, &PLAIN);
    let mut gradient = vec![f32::NAN; PLAIN.weights()];
    let mut room = vec![0.0; weight_gradient_scratch(&PLAIN, 0, 2)];
    let (x, g) = (&case.input, &case.upper);
    weight_gradient(&PLAIN, x, g, &mut gradient, Update::Replace, &mut room, 2);
    assert!(gradient.iter().all(|v| *v == 0.0));
}
