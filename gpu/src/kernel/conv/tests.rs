use proptest::array::{uniform2, uniform3};
use proptest::prelude::*;

use super::*;
use crate::kernel::sums;
use crate::kernel::testing::{assert_close, gradient, same_bits, twice, values, wide};

/// A convolution of these channels, filters and groups.
fn conv(
    [channels, filters, groups]: [usize; 3],
    [height, width]: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
) -> Conv {
    Conv {
        channels,
        height,
        width,
        filters,
        kernel,
        stride,
        padding,
        groups,
    }
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

/// Output and all gradients, against seven loops and their finite differences.
fn check(batch: usize, shape: &Conv) {
    let case = case(batch, shape);
    let (input, weight, bias) = (wide(&case.input), wide(&case.weight), wide(&case.bias));
    let output = run_forward(shape, &case, None, 1);
    assert_close(&output, &exact(shape, &input, &weight, None), 1e-5);
    let output = run_forward(shape, &case, Some(&case.bias), 1);
    assert_close(&output, &exact(shape, &input, &weight, Some(&bias)), 1e-5);

    let of_input = |x: &[f64]| exact(shape, x, &weight, None);
    let want = gradient(&case.input, &case.upper, of_input);
    assert_close(&run_input_gradient(shape, &case, 1), &want, 1e-5);

    let of_weight = |w: &[f64]| exact(shape, &input, w, None);
    let want = gradient(&case.weight, &case.upper, of_weight);
    let nan = vec![f32::NAN; case.weight.len()];
    let got = run_weight_gradient(shape, &case, &nan, Update::Replace, 1);
    assert_close(&got, &want, 1e-5);
    let got = run_weight_gradient(shape, &case, &got, Update::Add, 1);
    assert_close(&got, &twice(&want), 1e-5);

    let of_bias = |b: &[f64]| exact(shape, &input, &weight, Some(b));
    let want = gradient(&case.bias, &case.upper, of_bias);
    let mut got = vec![f32::NAN; shape.filters];
    sums::channels(&case.upper, shape.pixels(), &mut got, Update::Replace, 1);
    assert_close(&got, &want, 1e-5);
}

/// Size 1, points, windows that leave gaps, groups, kernels and padding beyond the image.
#[test]
fn a_convolution_and_its_gradients_are_those_of_seven_loops() {
    check(1, &conv([1, 1, 1], [1, 1], [1, 1], [1, 1], [0, 0]));
    check(2, &conv([2, 3, 1], [5, 5], [3, 3], [1, 1], [1, 1]));
    check(2, &conv([2, 3, 1], [5, 5], [3, 3], [1, 1], [0, 0]));
    check(2, &conv([2, 3, 1], [5, 5], [1, 1], [1, 1], [0, 0]));
    check(2, &conv([2, 3, 1], [5, 5], [1, 1], [2, 3], [0, 0]));
    check(2, &conv([2, 3, 1], [5, 5], [2, 2], [3, 3], [0, 0]));
    check(2, &conv([4, 6, 2], [5, 5], [3, 3], [1, 1], [1, 1]));
    check(2, &conv([3, 3, 3], [5, 5], [3, 3], [2, 2], [1, 1]));
    check(2, &conv([4, 4, 4], [5, 5], [1, 1], [1, 1], [0, 0]));
    check(1, &conv([2, 3, 1], [2, 1], [5, 5], [1, 1], [2, 2]));
    check(1, &conv([2, 3, 1], [1, 3], [3, 7], [1, 1], [1, 3]));
    check(1, &conv([2, 3, 1], [3, 2], [7, 7], [4, 5], [6, 6]));
    check(2, &conv([2, 3, 1], [6, 3], [4, 5], [1, 1], [3, 2]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_convolution_and_its_gradients_are_those_of_seven_loops(
        batch in 1usize..3,
        [channels, filters, groups] in uniform3(1usize..4),
        size in uniform2(1usize..8),
        kernel in uniform2(1usize..5),
        stride in uniform2(1usize..4),
        padding in uniform2(0usize..4),
    ) {
        prop_assume!((0..2).all(|i| kernel[i] <= size[i] + 2 * padding[i]));
        let counts = [channels * groups, filters * groups, groups];
        check(batch, &conv(counts, size, kernel, stride, padding));
    }
}

/// Images of more than one tile, with and without the shortcut, more threads than images.
#[test]
fn convolutions_are_exact_in_tiles_and_have_the_same_bits_on_any_number_of_threads() {
    let size = [61, 67];
    for (batch, shape) in [
        (2, conv([8, 4, 1], size, [3, 3], [1, 1], [1, 1])),
        (1, conv([8, 4, 2], size, [3, 3], [1, 2], [0, 2])),
        (19, conv([3, 5, 1], [14, 14], [3, 3], [1, 1], [1, 1])),
        (1, conv([64, 64, 1], [30, 30], [1, 1], [1, 1], [0, 0])),
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
fn a_convolution_of_no_image_has_no_gradient() {
    let shape = conv([2, 3, 1], [5, 5], [3, 3], [1, 1], [1, 1]);
    let mut gradient = vec![f32::NAN; shape.weights()];
    let mut room = vec![0.0; weight_gradient_scratch(&shape, 0, 2)];
    weight_gradient(
        &shape,
        &[],
        &[],
        &mut gradient,
        Update::Replace,
        &mut room,
        2,
    );
    assert!(gradient.iter().all(|v| *v == 0.0));
}
