//! Simulations.

pub(crate) mod dice;
