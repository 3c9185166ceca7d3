//! Layers as a user writes them: a name, then sizes. `"linear 64"`, `"relu"`.

use std::ops::Range;

use cryptomind_protocol::model::Layer;

use crate::convert::{Converted, Problem, problem};
use crate::nearest::nearest;

const NAMES: [&str; 3] = ["linear", "relu", "tanh"];

/// Reads one layer. Zero sizes are the model's own check to refuse.
pub(super) fn parse(text: &str, span: Range<usize>) -> Converted<Layer> {
    read(text).map_err(|p| p.at(span))
}

fn read(text: &str) -> Converted<Layer> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        ["linear", out] => Ok(Layer::Linear { out: size(out)? }),
        ["relu"] => Ok(Layer::Relu {}),
        ["tanh"] => Ok(Layer::Tanh {}),
        ["linear", ..] => {
            Err(problem("`linear` has one size: its outputs").help("for example \"linear 64\""))
        }
        ["relu" | "tanh", ..] => Err(problem(format!("`{}` has no sizes", words[0]))),
        _ => Err(unknown(words.first().copied().unwrap_or_default())),
    }
}

fn size(text: &str) -> Converted<u32> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(40).collect();
        problem(format!("`{shown}` is not a size")).help("for example \"linear 64\"")
    })
}

fn unknown(name: &str) -> Problem {
    let shown: String = name.chars().take(40).collect();
    let problem = problem(format!("unknown layer `{shown}`"));
    match nearest(name, NAMES) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem.help("there are \"linear OUTPUTS\", \"relu\", \"tanh\""),
    }
}
