//! Which machines compute the same bits: a fixed computation, and the hash of all that came of it.
//!
//! Machines with equal hashes are of one class: a step that one of them did, another can do again and
//! compare bit by bit. Between classes an audit has to allow for rounding. The class is measured, not
//! declared: a matrix product's bits follow from the processor's vector units and from this binary,
//! and whoever updates either may find itself in another class.
//!
//! What is computed: matrix products of several depths in each order in which training has them, one
//! row, column and value among them; a convolution, attention, norms, GELU and softmax, forward and
//! backward where they have both; and some steps of a small training. Inputs are drawn from names,
//! and the number of threads changes nothing.
//!
//! Not here: whether what a machine computes is right, which [`crate::selftest`] looks at.

use cryptomind_protocol::key::Hash;
use cryptomind_protocol::model::{Layer, ModelSpec, NORM_EPS};
use cryptomind_protocol::task::{Optimizer, TrainSpec};

use crate::dataset::Samples;
use crate::error::EngineError;
use crate::kernel::activation::{self, Activation};
use crate::kernel::attention::{self, Attention};
use crate::kernel::conv::{self, Conv};
use crate::kernel::norm::rows::{self, RowNorm};
use crate::kernel::norm::{Affine, AffineGradient, Seen};
use crate::kernel::softmax;
use crate::product::{Matrix, Update, multiply};
use crate::random::Stream;
use crate::session::Session;
use crate::weights::each_block;

/// Another computation gets another number.
const PURPOSE: &str = "cryptomind determinism class/1";
/// Terms of the products' sums: as many as `gemm` sums at once, fewer, and more.
const DEPTHS: [usize; 4] = [64, 512, 1024, 4096];
/// Rows and columns of products: enough for several threads, and the shapes that `gemm` treats apart.
const SIZES: [(usize, usize); 4] = [(67, 45), (1, 45), (67, 1), (1, 1)];
/// Steps of the training, and samples of each.
const STEPS: usize = 20;
const BATCH: u32 = 24;

/// The hash of everything that the fixed computation gave, on at most so many threads: equal hashes
/// mean that steps can be audited bit by bit. Takes some hundredths of a second.
///
/// # Errors
/// What a session refuses, which on a sound machine is nothing.
pub fn class(threads: usize) -> Result<Hash, EngineError> {
    let mut probe = Probe {
        hasher: blake3::Hasher::new_derive_key(PURPOSE),
        threads: threads.max(1),
    };
    for depth in DEPTHS {
        for (rows, columns) in SIZES {
            probe.products(rows, columns, depth);
        }
    }
    probe.convolution();
    probe.attention();
    probe.rows();
    probe.training()?;
    Ok(Hash::new(*probe.hasher.finalize().as_bytes()))
}

/// The computation at hand.
struct Probe {
    hasher: blake3::Hasher,
    threads: usize,
}

/// Values from −1 to 1 that this name draws.
fn drawn(name: &str, len: usize) -> Vec<f32> {
    let mut stream = Stream::new(PURPOSE, 0, name);
    (0..len).map(|_| stream.signed_unit()).collect()
}

impl Probe {
    fn add(&mut self, values: &[f32]) {
        each_block(values, |bytes| {
            self.hasher.update(bytes);
        });
    }

    /// A layer's product, and those of its gradients by weight and input.
    fn products(&mut self, rows: usize, columns: usize, depth: usize) {
        let left = drawn("left", rows * depth);
        let right = drawn("right", columns * depth);
        let orders = [
            (
                Matrix::new(&left, rows, depth),
                Matrix::new(&right, columns, depth).transposed(),
            ),
            (
                Matrix::new(&left, depth, rows).transposed(),
                Matrix::new(&right, depth, columns),
            ),
            (
                Matrix::new(&left, rows, depth),
                Matrix::new(&right, depth, columns),
            ),
        ];
        let mut out = vec![0.0; rows * columns];
        for (left, right) in orders {
            multiply(&mut out, Update::Replace, left, right, self.threads);
            self.add(&out);
        }
    }

    fn convolution(&mut self) {
        let shape = Conv {
            channels: 6,
            height: 19,
            width: 14,
            filters: 10,
            kernel: [3, 3],
            stride: [2, 1],
            padding: [1, 1],
            groups: 2,
        };
        let images = 5;
        let [height, width] = shape.output();
        let input = drawn(
            "images",
            images * shape.channels * shape.height * shape.width,
        );
        let weight = drawn("filters", shape.weights());
        let upper = drawn("upper images", images * shape.filters * height * width);
        let bias = drawn("filters' bias", shape.filters);
        let needed = conv::scratch(&shape, self.threads).max(conv::weight_gradient_scratch(
            &shape,
            images,
            self.threads,
        ));
        let (mut scratch, threads) = (vec![0.0; needed], self.threads);
        let (mut output, mut lower) = (vec![0.0; upper.len()], vec![0.0; input.len()]);
        let mut by_weight = vec![0.0; weight.len()];
        let room = &mut scratch[..];
        conv::forward(
            &shape,
            &input,
            &weight,
            Some(&bias),
            &mut output,
            room,
            threads,
        );
        conv::input_gradient(&shape, &weight, &upper, &mut lower, room, threads);
        let replace = Update::Replace;
        conv::weight_gradient(
            &shape,
            &input,
            &upper,
            &mut by_weight,
            replace,
            room,
            threads,
        );
        for values in [output, lower, by_weight] {
            self.add(&values);
        }
    }

    fn attention(&mut self) {
        let shape = Attention {
            tokens: 37,
            heads: 3,
            head_width: 16,
            causal: true,
        };
        let (sequences, threads) = (2, self.threads);
        let values = sequences * shape.tokens * shape.width();
        let qkv = drawn("queries, keys and values", 3 * values);
        let upper = drawn("upper sequences", values);
        let needed = attention::forward_scratch(&shape, sequences, threads)
            .max(attention::backward_scratch(&shape, sequences, threads));
        let mut scratch = vec![0.0; needed];
        let mut statistics = vec![0.0; shape.statistics(sequences)];
        let (mut output, mut lower) = (vec![0.0; values], vec![0.0; qkv.len()]);
        let (room, seen) = (&mut scratch[..], &mut statistics[..]);
        attention::forward(&shape, &qkv, &mut output, seen, room, threads);
        attention::backward(&shape, &qkv, seen, &upper, &mut lower, room, threads);
        self.add(&output);
        self.add(&lower);
    }

    /// What works on rows or on single values.
    fn rows(&mut self) {
        let (count, width, threads) = (37, 129, self.threads);
        let input = drawn("rows", count * width);
        let upper = drawn("upper rows", count * width);
        let (mut output, mut lower) = (vec![0.0; input.len()], vec![0.0; input.len()]);

        softmax::forward(&input, width, &mut output, threads);
        softmax::backward(&output, width, &upper, &mut lower, threads);
        self.add(&output);
        self.add(&lower);

        activation::forward(Activation::Gelu, &input, &mut output, threads);
        activation::backward(Activation::Gelu, &input, &upper, &mut lower, threads);
        self.add(&output);
        self.add(&lower);

        let shape = RowNorm {
            width,
            eps: NORM_EPS,
            centred: true,
        };
        let (weight, bias) = (drawn("norm", width), drawn("norm's bias", width));
        let affine = Affine {
            weight: &weight,
            bias: Some(&bias),
        };
        let mut statistics = vec![0.0; shape.statistics(count)];
        rows::forward(
            &shape,
            &input,
            affine,
            &mut output,
            &mut statistics,
            threads,
        );
        let seen = Seen {
            input: &input,
            statistics: &statistics,
        };
        let (mut by_weight, mut by_bias) = (vec![0.0; width], vec![0.0; width]);
        let gradient = AffineGradient {
            weight: &mut by_weight,
            bias: Some(&mut by_bias),
        };
        let mut scratch = vec![0.0; rows::weight_gradient_scratch(&shape, count)];
        let replace = Update::Replace;
        rows::weight_gradient(
            &shape,
            seen,
            &upper,
            gradient,
            replace,
            &mut scratch,
            threads,
        );
        rows::input_gradient(&shape, seen, &weight, &upper, &mut lower, threads);
        for values in [output, lower, by_weight, by_bias] {
            self.add(&values);
        }
    }

    fn training(&mut self) -> Result<(), EngineError> {
        let (model, train) = training();
        let samples = 2 * BATCH as usize;
        let classes = model.output_len().unwrap_or(1);
        let labels = (0..samples).map(|sample| (sample % classes) as u32);
        let inputs = drawn("samples", samples * model.input_len());
        let data = Samples::labelled(inputs, labels.collect(), model.input_len(), classes);
        let mut session = Session::with_threads(&model, &train, self.threads)?;
        for step in 0..STEPS as u32 {
            let batch: Vec<u32> = (step..step + BATCH).collect();
            let loss = session.grad_step(&data, &batch, &mut |_| ())?;
            self.hasher.update(&loss.to_le_bytes());
            session.apply(BATCH)?;
            session.commit();
        }
        self.hasher.update(session.fingerprint().as_bytes());
        Ok(())
    }
}

/// A small model of images, and how it is trained.
fn training() -> (ModelSpec, TrainSpec) {
    let layers = vec![
        Layer::conv2d(4, 3, 1),
        Layer::BatchNorm {},
        Layer::Gelu {},
        Layer::Flatten {},
        Layer::linear(40),
        Layer::LayerNorm { bias: true },
        Layer::Tanh {},
        Layer::Dropout { rate_ppm: 100_000 },
        Layer::linear(7),
    ];
    let train = TrainSpec {
        epochs: 1,
        global_batch: BATCH,
        optimizer: Optimizer::adamw(1e-2),
        seed: 1,
        clip_norm: Some(1.0),
        ..TrainSpec::default()
    };
    (ModelSpec::new(vec![1, 12, 10], layers), train)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Set in the process that only says its class.
    const CHILD: &str = "CRYPTOMIND_TEST_DETERMINISM_CHILD";
    const SAYS: &str = "class of this process: ";

    #[test]
    fn the_class_does_not_depend_on_the_number_of_threads() {
        let one = class(1).unwrap();
        for threads in [2, 3, 7] {
            assert_eq!(class(threads).unwrap(), one, "{threads} threads");
        }
    }

    #[test]
    fn another_process_finds_the_same_class() {
        let here = class(2).unwrap().to_string();
        if std::env::var_os(CHILD).is_some() {
            return println!("\n{SAYS}{here}");
        }
        let own = std::thread::current().name().unwrap().to_owned();
        let output = Command::new(std::env::current_exe().unwrap())
            .args([&own, "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let there = said.lines().find_map(|line| line.strip_prefix(SAYS));
        assert_eq!(there, Some(&here[..]), "{said}");
    }

    /// One bit of one product is enough.
    #[test]
    fn what_is_computed_otherwise_has_another_hash() {
        let hash = |bits: u32| {
            let mut probe = Probe {
                hasher: blake3::Hasher::new_derive_key(PURPOSE),
                threads: 1,
            };
            probe.add(&[1.0, f32::from_bits(bits)]);
            probe.hasher.finalize()
        };
        assert_ne!(hash(1.0f32.to_bits()), hash(1.0f32.to_bits() + 1));
    }
}
