//! Forward and backward passes of single operations, and the steps of optimizers, on slices: what a
//! training engine calls for the nodes of its graph.
//!
//! Every kernel is a plain function. Values are f32, row-major, batch first, images
//! (batch, channels, height, width); a small struct says the shape. Outputs are written fully;
//! gradients of weights are written or added ([`Update`]) where the caller keeps them. Nothing is
//! allocated: who needs room beside the output says how much (`…_scratch`) and is lent it, with any
//! content.
//!
//! A backward pass takes the gradient by the operation's output, `upper`, and gives that by its
//! input, `lower`, or by its weights. Gradients are sums over the batch; dividing by its size is the
//! caller's business.
//!
//! `threads` limits how many threads work at a time and changes no bit: every sum has an order that
//! follows from the shape alone. Except for the matrix products, which are those of `gemm`, only
//! additions, multiplications, divisions, square roots and operations on bits are used, never fused:
//! the same bits on every processor.
//!
//! Not here: graphs, arenas, parameters' names, and what is to be computed when.

pub mod activation;
pub mod add;
pub mod attention;
pub mod conv;
pub mod descent;
pub mod dropout;
pub mod embedding;
pub mod finite;
pub mod loss;
pub mod norm;
pub mod pool;
pub mod softmax;
pub mod sums;

mod elementary;
mod lanes;
pub(crate) mod parallel;
#[cfg(test)]
mod testing;
mod window;

pub use crate::product::Update;
