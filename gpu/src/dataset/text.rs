//! Texts: characters or bytes, cut into windows of which each token's label is the next token.
//!
//! The end of a text is held out as it lies: a shuffle of windows would let a model read in training what it is
//! measured on.

use std::io::Read;
use std::path::{Path, PathBuf};

use cryptomind_protocol::item::{DataFormat, DatasetInfo, TextLevel};
use cryptomind_protocol::task::Split;

use super::tokens::{Tokens, windows};
use super::{
    DataError, MAX_CLASSES, MAX_VALUES, Samples, agree, open, plain_name, short, shown, wrong,
};
use crate::scaling::Scaling;

/// The largest text, 256 MiB: it is held whole while its tokens are told apart.
const MAX_BYTES: u64 = MAX_VALUES;
const MILLION: u32 = 1_000_000;

/// Reads one split and holds it to `info`.
pub(super) fn load(
    info: &DatasetInfo,
    split: Split,
    known: Option<&Scaling>,
    path: &Path,
    level: TextLevel,
    held_out_ppm: u32,
) -> Result<(Samples, Scaling), DataError> {
    let [context] = info.input[..] else {
        return Err(DataError::Info(format!(
            "input {:?} is no number of tokens",
            info.input
        )));
    };
    check_cut(context, held_out_ppm)?;
    let vocabulary = Vocabulary::said(level, &info.classes)?;
    let tokens = vocabulary.tokens(&shown(path), read(path)?)?;
    let (context, count) = (context as usize, tokens.len());
    let first_held_out = first_held_out(count, held_out_ppm);
    let train = windows(first_held_out, context) as u64;
    agree("training samples", info.train_samples, train)?;
    let test = windows(count - first_held_out, context) as u64;
    agree("test samples", info.test_samples, test)?;
    let part = match split {
        Split::Train => 0..first_held_out,
        Split::Test => first_held_out..count,
    };
    let scaling = known.cloned().unwrap_or_else(Scaling::none);
    let classes = info.classes.len();
    let samples = Samples::windows(tokens.only(part), scaling.clone(), context, classes);
    Ok((samples, scaling))
}

/// See [`super::inspect_text`].
pub(super) fn inspect(
    path: &Path,
    context: u32,
    level: TextLevel,
    held_out_ppm: u32,
) -> Result<(DatasetInfo, PathBuf), DataError> {
    check_cut(context, held_out_ppm)?;
    let file = shown(path);
    let bytes = read(path)?;
    let vocabulary = Vocabulary::of(level, &file, &bytes)?;
    let count = vocabulary.tokens(&file, bytes)?.len();
    let first_held_out = first_held_out(count, held_out_ppm);
    let samples = |part: &str, tokens: usize| match windows(tokens, context as usize) {
        0 => Err(wrong(
            &file,
            format!(
                "the part {part} has {tokens} tokens: one window of {context} needs {}",
                u64::from(context) + 1
            ),
        )),
        windows => Ok(windows as u64),
    };
    let info = DatasetInfo {
        train_samples: samples("to train on", first_held_out)?,
        test_samples: samples("held out", count - first_held_out)?,
        format: DataFormat::Text {
            file: plain_name(&file, "text.txt"),
            level,
            held_out_ppm,
        },
        input: vec![context],
        classes: vocabulary.names(),
        values: Vec::new(),
    };
    Ok((info, path.to_path_buf()))
}

fn check_cut(context: u32, held_out_ppm: u32) -> Result<(), DataError> {
    let refuse = |reason: String| Err(DataError::Info(reason));
    if context == 0 {
        return refuse("a window of 0 tokens holds nothing".into());
    }
    match held_out_ppm {
        1..MILLION => Ok(()),
        _ => refuse(format!(
            "{held_out_ppm} millionths held out: give 1 to {}",
            MILLION - 1
        )),
    }
}

/// Where the tokens that are held out begin; what they are short of a whole one is theirs.
fn first_held_out(tokens: usize, held_out_ppm: u32) -> usize {
    let kept = u64::from(MILLION - held_out_ppm);
    // At most 2²⁸ tokens.
    (tokens as u64 * kept / u64::from(MILLION)) as usize
}

fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    let file = shown(path);
    let source = open(path)?;
    let said = source.metadata().map_err(|e| short(&file, e))?.len();
    if said > MAX_BYTES {
        return Err(wrong(&file, format!("{said} bytes exceed {MAX_BYTES}")));
    }
    let mut bytes = Vec::with_capacity(said as usize);
    let read = source.take(MAX_BYTES).read_to_end(&mut bytes);
    read.map_err(|e| short(&file, e))?;
    match bytes.is_empty() {
        true => Err(wrong(&file, "the file is empty".into())),
        false => Ok(bytes),
    }
}

/// The tokens that a text may have, by number.
enum Vocabulary {
    /// All of them.
    Bytes,
    /// Ascending.
    Characters(Vec<char>),
}

impl Vocabulary {
    /// What a text has.
    fn of(level: TextLevel, file: &str, bytes: &[u8]) -> Result<Self, DataError> {
        if level == TextLevel::Byte {
            return Ok(Self::Bytes);
        }
        let mut seen = vec![false; char::MAX as usize + 1];
        let text = utf8(file, bytes)?;
        text.chars().for_each(|c| seen[c as usize] = true);
        let characters: Vec<char> = ('\0'..=char::MAX).filter(|c| seen[*c as usize]).collect();
        match characters[..] {
            [only] => Err(wrong(
                file,
                format!("every character is {only:?}: nothing to learn"),
            )),
            [..] if characters.len() > MAX_CLASSES => Err(wrong(
                file,
                format!(
                    "{} different characters exceed {MAX_CLASSES}; bytes as tokens take any text",
                    characters.len()
                ),
            )),
            [..] => Ok(Self::Characters(characters)),
        }
    }

    /// What the catalog says that a text has; it may have less.
    fn said(level: TextLevel, classes: &[String]) -> Result<Self, DataError> {
        if level == TextLevel::Byte {
            agree("classes", classes, &Self::Bytes.names())?;
            return Ok(Self::Bytes);
        }
        let mut characters = Vec::with_capacity(classes.len());
        for class in classes {
            let mut parts = class.chars();
            match (parts.next(), parts.next()) {
                (Some(c), None) if characters.last() < Some(&c) => characters.push(c),
                _ => {
                    return Err(DataError::Info(format!(
                        "class {} is {class:.40?}: the classes of a text are its characters, ascending",
                        characters.len()
                    )));
                }
            }
        }
        Ok(Self::Characters(characters))
    }

    /// As the catalog has them.
    fn names(&self) -> Vec<String> {
        match self {
            Self::Bytes => (0..=u8::MAX).map(|byte| format!("0x{byte:02x}")).collect(),
            Self::Characters(characters) => characters.iter().map(char::to_string).collect(),
        }
    }

    /// Refuses what is no token of it, with its place.
    fn tokens(&self, file: &str, bytes: Vec<u8>) -> Result<Tokens, DataError> {
        let Self::Characters(characters) = self else {
            return Ok(Tokens::Narrow(bytes));
        };
        let text = utf8(file, &bytes)?;
        let numbers = text.char_indices().map(|(place, c)| {
            let number = characters.binary_search(&c);
            number.map_err(|_| {
                let at = placed(&bytes[..place]);
                wrong(
                    file,
                    format!("{at}: {c:?} is none of the {} classes", characters.len()),
                )
            })
        });
        match characters.len() {
            0..=256 => {
                let narrow = numbers.map(|number| Ok(number? as u8));
                Ok(Tokens::Narrow(narrow.collect::<Result<_, DataError>>()?))
            }
            _ => {
                let wide = numbers.map(|number| Ok(number? as u16));
                Ok(Tokens::Wide(wide.collect::<Result<_, DataError>>()?))
            }
        }
    }
}

fn utf8<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str, DataError> {
    std::str::from_utf8(bytes).map_err(|e| {
        let place = e.valid_up_to();
        let at = placed(&bytes[..place]);
        wrong(
            file,
            format!("{at} (byte {place} of the file): not UTF-8; bytes as tokens take any file"),
        )
    })
}

/// Where the next character is, after these bytes of text.
fn placed(before: &[u8]) -> String {
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let of_line = before
        .rsplit(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let column = String::from_utf8_lossy(of_line).chars().count() + 1;
    format!("line {line}, column {column}")
}
