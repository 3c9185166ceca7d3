use super::*;
use crate::kernel::testing::{assert_close, gradient, same_bits, values, wide};

const PLAIN: Pool = Pool {
    height: 4,
    width: 6,
    kernel: [2, 2],
    stride: [2, 2],
    padding: [0, 0],
};

/// Odd sizes, size 1, overlaps, gaps, padding, a rest that no window sees.
fn shapes() -> [(usize, Pool); 9] {
    [
        (
            1,
            Pool {
                height: 1,
                width: 1,
                kernel: [1, 1],
                stride: [1, 1],
                ..PLAIN
            },
        ),
        (6, PLAIN),
        (
            3,
            Pool {
                height: 5,
                width: 7,
                ..PLAIN
            },
        ),
        (
            2,
            Pool {
                height: 5,
                width: 7,
                kernel: [3, 3],
                stride: [1, 1],
                padding: [1, 1],
            },
        ),
        (
            2,
            Pool {
                height: 7,
                width: 5,
                kernel: [3, 2],
                stride: [2, 1],
                padding: [1, 1],
            },
        ),
        (
            2,
            Pool {
                height: 9,
                width: 9,
                kernel: [2, 2],
                stride: [3, 3],
                ..PLAIN
            },
        ),
        (
            2,
            Pool {
                height: 9,
                width: 19,
                kernel: [2, 3],
                stride: [5, 4],
                padding: [1, 1],
            },
        ),
        (
            1,
            Pool {
                height: 2,
                width: 3,
                kernel: [2, 3],
                stride: [7, 7],
                ..PLAIN
            },
        ),
        (
            2,
            Pool {
                height: 1,
                width: 40,
                kernel: [1, 4],
                stride: [1, 2],
                padding: [0, 2],
            },
        ),
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

#[test]
fn kernel_max_pool_and_its_gradient_are_those_of_the_definition() {
    for (planes, shape) in shapes() {
        let windows = windows(&shape, planes);
        let input = values("x", planes * shape.height * shape.width);
        let upper = values("g", windows.len());
        let exact = |x: &[f64]| -> Vec<f64> {
            let max = |w: &Vec<usize>| w.iter().map(|i| x[*i]).fold(f64::NEG_INFINITY, f64::max);
            windows.iter().map(max).collect()
        };
        let (output, _, lower) = run_max(&shape, &input, &upper, 1);
        assert_eq!(wide(&output), exact(&wide(&input)));
        assert_close(&lower, &gradient(&input, &upper, exact), 1e-6);
    }
}

#[test]
fn kernel_max_pool_gives_a_tie_to_the_first() {
    for (planes, shape) in shapes() {
        let windows = windows(&shape, planes);
        let few: Vec<f32> = values("x", planes * shape.height * shape.width)
            .iter()
            .map(|x| (x * 1.5).round())
            .collect();
        for input in [few.clone(), vec![f32::NEG_INFINITY; few.len()]] {
            let upper = values("g", windows.len());
            let (_, argmax, _) = run_max(&shape, &input, &upper, 1);
            let size = shape.height * shape.width;
            for (window, got) in windows.iter().zip(argmax) {
                let larger = |a: usize, b: usize| if input[b] > input[a] { b } else { a };
                let want = window.iter().copied().reduce(larger).unwrap();
                assert_eq!(got as usize, want % size, "{shape:?}");
            }
        }
    }
}

#[test]
fn kernel_max_pool_hides_no_broken_value() {
    let mut input = [1.0; 24];
    input[7] = f32::NAN;
    let (output, argmax, _) = run_max(&PLAIN, &input, &[0.0; 6], 1);
    assert!(output[0].is_nan() && argmax[0] == 7);
    assert_eq!(output[1..], [1.0; 5]);
}

#[test]
fn kernel_average_pools_and_their_gradients_are_those_of_the_definition() {
    for (planes, shape) in shapes() {
        let windows = windows(&shape, planes);
        let size = shape.height * shape.width;
        let input = values("x", planes * size);
        let upper = values("g", windows.len());
        let area = (shape.kernel[0] * shape.kernel[1]) as f64;
        let exact = |x: &[f64]| -> Vec<f64> {
            let mean = |w: &Vec<usize>| w.iter().map(|i| x[*i]).sum::<f64>() / area;
            windows.iter().map(mean).collect()
        };
        let (mut output, mut lower) = (vec![f32::NAN; upper.len()], vec![f32::NAN; input.len()]);
        average_forward(&shape, &input, &mut output, 1);
        assert_close(&output, &exact(&wide(&input)), 1e-6);
        average_backward(&shape, &upper, &mut lower, 1);
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
}

#[test]
fn kernel_pools_have_the_same_bits_on_any_number_of_threads() {
    let shape = Pool {
        height: 21,
        width: 23,
        kernel: [3, 3],
        padding: [1, 1],
        ..PLAIN
    };
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
