//! Tokens of a text, in as few bytes as their vocabulary allows.

use std::ops::Range;

use crate::scaling::Scaling;

/// Tokens one after the other.
#[derive(Debug)]
pub(super) enum Tokens {
    /// Of a vocabulary of at most 256.
    Narrow(Vec<u8>),
    /// Of a larger one.
    Wide(Vec<u16>),
}

impl Tokens {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Narrow(tokens) => tokens.len(),
            Self::Wide(tokens) => tokens.len(),
        }
    }

    /// How many windows of `context` tokens there are of which the last token too has one after it.
    pub(super) fn windows(&self, context: usize) -> usize {
        windows(self.len(), context)
    }

    /// These tokens alone; the others' room is given back.
    pub(super) fn only(self, range: Range<usize>) -> Self {
        fn only<T>(mut tokens: Vec<T>, range: Range<usize>) -> Vec<T> {
            tokens.truncate(range.end);
            tokens.drain(..range.start);
            tokens.shrink_to_fit();
            tokens
        }
        match self {
            Self::Narrow(tokens) => Self::Narrow(only(tokens, range)),
            Self::Wide(tokens) => Self::Wide(only(tokens, range)),
        }
    }

    pub(super) fn add_inputs(
        &self,
        start: usize,
        len: usize,
        scaling: &Scaling,
        into: &mut Vec<f32>,
    ) {
        match self {
            Self::Narrow(tokens) => {
                let part = tokens[start..start + len].iter();
                scaling.add(part.map(|token| f32::from(*token)), into);
            }
            Self::Wide(tokens) => {
                let part = tokens[start..start + len].iter();
                scaling.add(part.map(|token| f32::from(*token)), into);
            }
        }
    }

    pub(super) fn add_labels(&self, start: usize, len: usize, into: &mut Vec<u32>) {
        match self {
            Self::Narrow(tokens) => {
                into.extend(tokens[start..start + len].iter().map(|t| u32::from(*t)));
            }
            Self::Wide(tokens) => {
                into.extend(tokens[start..start + len].iter().map(|t| u32::from(*t)));
            }
        }
    }
}

/// See [`Tokens::windows`].
pub(super) const fn windows(tokens: usize, context: usize) -> usize {
    match context {
        0 => 0,
        context => tokens.saturating_sub(1) / context,
    }
}
