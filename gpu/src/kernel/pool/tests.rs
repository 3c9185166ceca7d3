use proptest::array::uniform2;
use proptest::prelude::*;

use super::*;
use crate::kernel::testing::{assert_close, gradient, same_bits, values, wide};

fn pool(
    [height, width]: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
) -> Pool {
    Pool {
        height,
        width,
        kernel,
        stride,
        padding,
    }
}

/// Odd sizes, size 1, overlaps, gaps, padding, a rest that no window sees; each with planes.
fn shapes() -> [(usize, Pool); 9] {
    [
        (1, pool([1, 1], [1, 1], [1, 1], [0, 0])),
        (6, pool([4, 6], [2, 2], [2, 2], [0, 0])),
        (3, pool([5, 39], [2, 2], [2, 2], [0, 0])),
        (2, pool([5, 7], [3, 3], [1, 1], [1, 1])),
        (2, pool([7, 5], [3, 2], [2, 1], [1, 1])),
        (2, pool([9, 9], [2, 2], [3, 3], [0, 0])),
        (2, pool([9, 19], [2, 3], [5, 4], [1, 1])),
        (1, pool([2, 3], [2, 3], [7, 7], [0, 0])),
        (2, pool([1, 40], [1, 4], [1, 2], [0, 2])),
    ]
}

/// The values that each window sees, with their places in the input.
fn windows(shape: &Pool, planes: usize) -> Vec<Vec<usize>> {
    let [height, width] = shape.output();
    let mut all = Vec::new();
    for plane in 0..planes {
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            let mut window = Vec::new();
            for (ky, kx) in
                (0..shape.kernel[0]).flat_map(|ky| (0..shape.kernel[1]).map(move |kx| (ky, kx)))
            {
                let iy = (y * shape.stride[0] + ky) as isize - shape.padding[0] as isize;
                let ix = (x * shape.stride[1] + kx) as isize - shape.padding[1] as isize;
                if (0..shape.height as isize).contains(&iy)
                    && (0..shape.width as isize).contains(&ix)
                {
                    window.push((plane * shape.height + iy as usize) * shape.width + ix as usize);
                }
            }
            all.push(window);
        }
    }
    all
}

fn run_max(
    shape: &Pool,
    input: &[f32],
    upper: &[f32],
    threads: usize,
) -> (Vec<f32>, Vec<u32>, Vec<f32>) {
    let (mut output, mut argmax) = (vec![f32::NAN; upper.len()], vec![0; upper.len()]);
    max_forward(shape, input, &mut output, &mut argmax, threads);
    let mut lower = vec![f32::NAN; input.len()];
    max_backward(shape, &argmax, upper, &mut lower, threads);
    (output, argmax, lower)
}

fn check_max(planes: usize, shape: &Pool) {
    let windows = windows(shape, planes);
    let input = values("x", planes * shape.height * shape.width);
    let upper = values("g", windows.len());
    let exact = |x: &[f64]| -> Vec<f64> {
        let max = |w: &Vec<usize>| w.iter().map(|i| x[*i]).fold(f64::NEG_INFINITY, f64::max);
        windows.iter().map(max).collect()
    };
    let (output, _, lower) = run_max(shape, &input, &upper, 1);
    assert_eq!(wide(&output), exact(&wide(&input)));
    assert_close(&lower, &gradient(&input, &upper, exact), 1e-6);
}

/// Few different values, and a plane of −∞: a tie is the first one's.
fn check_ties(planes: usize, shape: &Pool) {
    let windows = windows(shape, planes);
    let few: Vec<f32> = values("x", planes * shape.height * shape.width)
        .iter()
        .map(|x| (x * 1.5).round())
        .collect();
    for input in [few.clone(), vec![f32::NEG_INFINITY; few.len()]] {
        let upper = values("g", windows.len());
        let (_, argmax, _) = run_max(shape, &input, &upper, 1);
        let size = shape.height * shape.width;
        for (window, got) in windows.iter().zip(argmax) {
            let larger = |a: usize, b: usize| if input[b] > input[a] { b } else { a };
            let want = window.iter().copied().reduce(larger).unwrap();
            assert_eq!(got as usize, want % size, "{shape:?}");
        }
    }
}

#[test]
fn pools_and_their_gradients_are_those_of_the_definitions() {
    for (planes, shape) in shapes() {
        check_max(planes, &shape);
        check_ties(planes, &shape);
        check_average(planes, &shape);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_pool_and_its_gradients_are_those_of_the_definitions(
        planes in 1usize..3,
        size in uniform2(1usize..9),
        kernel in uniform2(1usize..5),
        stride in uniform2(1usize..6),
        padding in uniform2(0usize..3),
    ) {
        let fits = |i: usize| {
            kernel[i] <= size[i] + 2 * padding[i] && 2 * padding[i] <= kernel[i]
        };
        prop_assume!((0..2).all(fits));
        let shape = pool(size, kernel, stride, padding);
        check_max(planes, &shape);
        check_ties(planes, &shape);
        check_average(planes, &shape);
    }
}

#[test]
fn max_pool_hides_no_broken_value() {
    let mut input = [1.0; 24];
    input[7] = f32::NAN;
    let (output, argmax, _) = run_max(&pool([4, 6], [2, 2], [2, 2], [0, 0]), &input, &[0.0; 6], 1);
    assert!(output[0].is_nan() && argmax[0] == 7);
    assert_eq!(output[1..], [1.0; 5]);
}

fn check_average(planes: usize, shape: &Pool) {
    let windows = windows(shape, planes);
    let size = shape.height * shape.width;
    let input = values("x", planes * size);
    let upper = values("g", windows.len());
    let area = (shape.kernel[0] * shape.kernel[1]) as f64;
    let exact = |x: &[f64]| -> Vec<f64> {
        let mean = |w: &Vec<usize>| w.iter().map(|i| x[*i]).sum::<f64>() / area;
        windows.iter().map(mean).collect()
    };
    let (mut output, mut lower) = (vec![f32::NAN; upper.len()], vec![f32::NAN; input.len()]);
    average_forward(shape, &input, &mut output, 1);
    assert_close(&output, &exact(&wide(&input)), 1e-6);
    average_backward(shape, &upper, &mut lower, 1);
    assert_close(&lower, &gradient(&input, &upper, exact), 1e-6);

    let exact = |x: &[f64]| -> Vec<f64> {
        x.chunks(size)
            .map(|p| p.iter().sum::<f64>() / size as f64)
            .collect()
    };
    let mut output = vec![f32::NAN; planes];
    global_average_forward(size, &input, &mut output, 1);
    assert_close(&output, &exact(&wide(&input)), 1e-6);
    let upper = values("g", planes);
    global_average_backward(size, &upper, &mut lower, 1);
    assert_close(&lower, &gradient(&input, &upper, exact), 1e-6);
}

#[test]
fn pools_have_the_same_bits_on_any_number_of_threads() {
    let shape = pool([21, 23], [3, 3], [2, 2], [1, 1]);
    let [height, width] = shape.output();
    let planes = 131;
    let (input, upper) = (
        values("x", planes * 21 * 23),
        values("g", planes * height * width),
    );
    same_bits(|threads| {
        let (mut all, argmax, lower) = run_max(&shape, &input, &upper, threads);
        all.extend(argmax.iter().map(|place| *place as f32));
        all.extend(lower);
        all
    });
    same_bits(|threads| {
        let (mut output, mut lower) = (vec![0.0; upper.len()], vec![0.0; input.len()]);
        average_forward(&shape, &input, &mut output, threads);
        average_backward(&shape, &upper, &mut lower, threads);
        let mut means = vec![0.0; planes];
        global_average_forward(21 * 23, &input, &mut means, threads);
        [output, lower, means].concat()
    });
    same_bits(|threads| {
        let mut lower = vec![0.0; input.len()];
        global_average_backward(21 * 23, &upper[..planes], &mut lower, threads);
        lower
    });
}
