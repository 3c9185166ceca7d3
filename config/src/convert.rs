//! From one TOML value to one checked value. A refusal says what was expected and what came.

use std::ops::{Range, RangeInclusive};
use std::str::FromStr;

use crate::document::Value;
use crate::reader::Entry;
use cryptomind_protocol::Amount;
use cryptomind_protocol::task::is_name;

/// What is wrong with a value.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) message: String,
    pub(crate) help: Option<String>,
    /// A part of the value, where not all of it is wrong.
    pub(crate) span: Option<Range<usize>>,
}

pub(crate) type Converted<T> = Result<T, Problem>;

pub(crate) fn problem(message: impl Into<String>) -> Problem {
    Problem {
        message: message.into(),
        help: None,
        span: None,
    }
}

impl Problem {
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn at(mut self, span: Range<usize>) -> Self {
        self.span = Some(span);
        self
    }
}

fn wrong_type(expected: &str, value: &Value) -> Problem {
    problem(format!("expected {expected}, found {}", value.kind()))
}

pub(crate) fn text(entry: &Entry<'_>) -> Converted<String> {
    match entry.value {
        Value::Text(text) => Ok(text.to_string()),
        other => Err(wrong_type("text", other).help("put it in quotes: \"…\"")),
    }
}

/// Text that is not empty and has no control characters.
pub(crate) fn words(entry: &Entry<'_>) -> Converted<String> {
    let text = text(entry)?;
    if text.trim().is_empty() || text.chars().any(char::is_control) {
        return Err(problem("expected text on one line, found none"));
    }
    Ok(text)
}

/// A name as items, tasks, nodes and networks have.
pub(crate) fn name(entry: &Entry<'_>) -> Converted<String> {
    let text = text(entry)?;
    if is_name(&text) {
        Ok(text)
    } else {
        let shown: String = text.chars().take(80).collect();
        Err(problem(format!("`{shown}` cannot be a name"))
            .help("use up to 64 lower-case letters, digits, dots, dashes and underscores"))
    }
}

/// Text with a form of its own, such as an address.
pub(crate) fn parsed<T: FromStr>(entry: &Entry<'_>, example: &str) -> Converted<T>
where
    T::Err: std::fmt::Display,
{
    text(entry)?
        .trim()
        .parse()
        .map_err(|e: T::Err| problem(e.to_string()).help(format!("for example \"{example}\"")))
}

pub(crate) fn amount(entry: &Entry<'_>) -> Converted<Amount> {
    match entry.value {
        Value::Whole { digits, .. } => Err(problem("expected an amount, found a bare number")
            .help(format!("name the unit: \"{digits} CTM\""))),
        Value::Decimal(digits) => Err(problem("expected an amount, found a bare number")
            .help(format!("amounts are never floats: \"{digits} CTM\""))),
        _ => parsed(entry, "0.25 CTM"),
    }
}

fn as_whole(entry: &Entry<'_>, expected: &str) -> Converted<i128> {
    let too_large = || problem(format!("expected {expected}: this is too large"));
    match entry.value {
        Value::Whole { digits, radix } => {
            i128::from_str_radix(digits, *radix).map_err(|_| too_large())
        }
        Value::Text(text) if entry.is_plain_text => text
            .trim()
            .parse()
            .map_err(|_| problem(format!("expected {expected}, found `{text}`"))),
        other => Err(wrong_type(expected, other)),
    }
}

/// A whole number within limits, both included.
pub(crate) fn whole<T>(entry: &Entry<'_>, limits: RangeInclusive<T>) -> Converted<T>
where
    T: Copy + TryFrom<i128> + std::fmt::Display + Into<i128>,
{
    let expected = format!("a whole number from {} to {}", limits.start(), limits.end());
    let number = as_whole(entry, &expected)?;
    let range = (*limits.start()).into()..=(*limits.end()).into();
    if !range.contains(&number) {
        return Err(problem(format!(
            "{number} is out of range: expected {expected}"
        )));
    }
    T::try_from(number).map_err(|_| problem(format!("expected {expected}")))
}

/// A decimal number; a whole one will do.
pub(crate) fn decimal(entry: &Entry<'_>) -> Converted<f32> {
    let digits = match entry.value {
        Value::Decimal(digits) | Value::Whole { digits, radix: 10 } => digits.as_str(),
        Value::Text(text) if entry.is_plain_text => text.trim(),
        other => return Err(wrong_type("a number", other)),
    };
    digits
        .parse()
        .map_err(|_| problem(format!("expected a number, found `{digits}`")))
}

/// Yes or no.
pub(crate) fn truth(entry: &Entry<'_>) -> Converted<bool> {
    match entry.value {
        Value::Boolean(truth) => Ok(*truth),
        Value::Text(text) if entry.is_plain_text => text
            .trim()
            .parse()
            .map_err(|_| problem(format!("expected true or false, found `{text}`"))),
        other => Err(wrong_type("true or false", other)),
    }
}

const SIZES: [(&str, u64); 4] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

fn size_text(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = SIZES
        .iter()
        .find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)))
        .unwrap_or((text, 1));
    number.trim().parse::<u64>().ok()?.checked_mul(unit)
}

/// Bytes: a whole number, or text such as `"20 GiB"`.
pub(crate) fn bytes(entry: &Entry<'_>) -> Converted<u64> {
    let limits = 1..=(i64::MAX as u64);
    match entry.value {
        Value::Text(text) => size_text(text)
            .filter(|n| limits.contains(n))
            .ok_or_else(|| {
                problem(format!("`{text}` is not a size above 0"))
                    .help("a number of bytes, or text such as \"20 GiB\" (KiB, MiB, GiB, TiB)")
            }),
        _ => whole(entry, limits),
    }
}

/// A list of texts.
pub(crate) fn texts(entry: &Entry<'_>) -> Converted<Vec<String>> {
    Ok(spanned_texts(entry)?
        .into_iter()
        .map(|(text, _)| text)
        .collect())
}

/// A list of texts, each with its place.
pub(crate) fn spanned_texts(entry: &Entry<'_>) -> Converted<Vec<(String, Range<usize>)>> {
    let help = "write a list of texts: [\"…\", \"…\"]";
    let Value::List(items) = entry.value else {
        return Err(wrong_type("a list of texts", entry.value).help(help));
    };
    let one = |(item, span): &(Value, Range<usize>)| match item {
        Value::Text(text) => Ok((text.clone(), span.clone())),
        other => Err(wrong_type("text", other).help(help).at(span.clone())),
    };
    items.iter().map(one).collect()
}

/// A list of whole numbers that fit 32 bits.
pub(crate) fn sizes(entry: &Entry<'_>) -> Converted<Vec<u32>> {
    let Value::List(items) = entry.value else {
        return Err(wrong_type("a list of sizes", entry.value).help("for example [8, 8]"));
    };
    let one = |(item, span): &(Value, Range<usize>)| {
        whole(&entry.part(item), 1..=u32::MAX).map_err(|p| p.at(span.clone()))
    };
    items.iter().map(one).collect()
}

/// UDP ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

/// Why a text is no range of ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a range of ports: two numbers from 1 to 65535, the lower first")]
pub struct ParsePortsError(String);

impl FromStr for PortRange {
    type Err = ParsePortsError;

    fn from_str(text: &str) -> Result<Self, ParsePortsError> {
        let error = || ParsePortsError(text.chars().take(40).collect());
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |s: &str| s.trim().parse::<u16>().map_err(|_| error());
        let range = Self {
            first: port(first)?,
            last: port(last)?,
        };
        if range.first == 0 || range.first > range.last {
            return Err(error());
        }
        Ok(range)
    }
}

impl std::fmt::Display for PortRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}
