//! What this crate must not take of candle: layers that cut gradients or give wrong ones, and maps
//! without an order. Tests hold the sources to it.

use std::path::{Path, PathBuf};

/// Normalisations, softmax and rope whose gradients end there, max-pool whose gradient is wrong, and
/// parameters in the random order of a hash map.
const TRAPS: [&str; 9] = [
    "layer_norm(",
    "layer_norm_slow(",
    "rms_norm(",
    "rms_norm_slow(",
    "softmax_last_dim",
    "rope",
    "max_pool2d",
    "VarMap",
    "set_seed",
];
/// How a line names candle.
const CRATES: [&str; 2] = ["candle_nn", "candle_core"];
/// What may use candle: the oracle that our step is compared with, and what becomes of its errors.
const USERS: [&str; 2] = ["session/tests/oracle.rs", "error.rs"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Whether a word, or a call, stands in this line by itself.
fn says(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let ends = word.ends_with('(') || !after.is_some_and(is_part);
        !before.is_some_and(is_part) && ends
    })
}

/// Path within the sources, number and text of each line of code that says one of these.
fn lines(words: &[&str]) -> Vec<(String, usize, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 40, "the sources are here");
    let mut found = Vec::new();
    for file in files {
        let name = file.strip_prefix(&root).unwrap().to_string_lossy();
        let name = name.replace('\\', "/");
        let text = std::fs::read_to_string(&file).unwrap();
        for (index, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if name != "traps.rs" && words.iter().any(|word| says(code, word)) {
                found.push((name.clone(), index + 1, line.to_owned()));
            }
        }
    }
    found
}

#[test]
fn nothing_of_candle_is_used_that_is_wrong() {
    assert_eq!(lines(&TRAPS), []);
}

#[test]
fn candle_is_used_by_the_oracle_only() {
    let others = lines(&CRATES).into_iter();
    let others: Vec<_> = others
        .filter(|(file, ..)| !USERS.contains(&file.as_str()))
        .collect();
    assert_eq!(others, []);
}

#[test]
fn a_trap_is_seen_where_it_stands() {
    assert!(says(
        "let y = candle_nn::ops::layer_norm(&x)?;",
        "layer_norm("
    ));
    assert!(says("use candle_nn::VarMap;", "VarMap"));
    assert!(says("x.max_pool2d(2)?", "max_pool2d"));
    for fine in [
        "fn batch_norm(x: f32)",
        "let properly = 1;",
        "our_layer_norm(x)",
    ] {
        assert!(!TRAPS.iter().any(|trap| says(fine, trap)), "{fine}");
    }
}
