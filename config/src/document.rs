//! A TOML text with its name: where a byte stands in it, and its keys as a flat list.
//!
//! A key's full name is `section.key`, or `key` above the first section; a section within another is
//! `section.inner`. Every value keeps its place for errors.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::ConfigError;

/// The largest file that is read, bytes.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 20;

/// A parsed text.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    /// As the user named it.
    pub(crate) name: String,
    text: String,
    pub(crate) values: BTreeMap<String, Placed>,
    /// Every section with the place of its name.
    pub(crate) sections: BTreeMap<String, Range<usize>>,
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) value: Value,
    pub(crate) span: Range<usize>,
    pub(crate) key_span: Range<usize>,
}

/// A TOML value. Numbers stay text: what is too large for one type fits another.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Text(String),
    Whole {
        digits: String,
        radix: u32,
    },
    Decimal(String),
    Boolean(bool),
    Date,
    List(Vec<(Value, Range<usize>)>),
    /// Within a list: its keys in their order by name.
    Table(Vec<(String, Value)>),
}

impl Value {
    pub(crate) fn of(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text.to_string()),
            DeValue::Integer(n) => Self::Whole {
                digits: n.as_str().replace('_', ""),
                radix: n.radix(),
            },
            DeValue::Float(n) => Self::Decimal(n.as_str().replace('_', "")),
            DeValue::Boolean(truth) => Self::Boolean(*truth),
            DeValue::Datetime(_) => Self::Date,
            DeValue::Array(items) => {
                let item = |item: &Spanned<DeValue<'_>>| (Self::of(item.get_ref()), item.span());
                Self::List(items.iter().map(item).collect())
            }
            DeValue::Table(table) => {
                let field = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                    let key: &std::borrow::Cow<'_, str> = key.get_ref();
                    (key.to_string(), Self::of(value.get_ref()))
                };
                Self::Table(table.iter().map(field).collect())
            }
        }
    }

    /// How its type is called in an error.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Whole { .. } => "a whole number",
            Self::Decimal(_) => "a decimal number",
            Self::Boolean(_) => "true or false",
            Self::Date => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

impl Document {
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = read_text(path).map_err(|e| ConfigError::without_line(&name, e))?;
        Self::parse(name, text)
    }

    pub(crate) fn parse(name: String, text: String) -> Result<Self, ConfigError> {
        let mut document = Self {
            name,
            values: BTreeMap::new(),
            sections: BTreeMap::new(),
            text: String::new(),
        };
        let parsed = DeTable::parse(&text).map(|table| document.flatten("", table.get_ref()));
        document.text = text;
        match parsed {
            Ok(()) => Ok(document),
            Err(e) => Err(document.syntax_error(&e)),
        }
    }

    /// Adds a section's values, and those of the sections in it. The parser has limited the nesting.
    fn flatten(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            match value.get_ref() {
                DeValue::Table(inner) => {
                    self.flatten(&format!("{name}."), inner);
                    self.sections.insert(name, key.span());
                }
                _ => self.add(name, key.span(), value),
            }
        }
    }

    fn add(&mut self, name: String, key_span: Range<usize>, value: &Spanned<DeValue<'_>>) {
        let placed = Placed {
            value: Value::of(value.get_ref()),
            span: value.span(),
            key_span,
        };
        self.values.insert(name, placed);
    }

    fn syntax_error(&self, e: &toml::de::Error) -> ConfigError {
        self.error(e.span().unwrap_or(0..0), e.message().replace('\n', ", "))
    }

    /// An error at these bytes.
    pub(crate) fn error(&self, span: Range<usize>, message: impl std::fmt::Display) -> ConfigError {
        let start = self.boundary(span.start);
        let end = self.boundary(span.end).max(start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |i| i + 1);
        let line = self.text[line_start..].lines().next().unwrap_or_default();
        let line_end = (line_start + line.len()).max(start);
        ConfigError {
            file: self.name.clone(),
            line: self.text[..line_start].matches('\n').count() + 1,
            column: self.text[line_start..start].chars().count() + 1,
            message: message.to_string(),
            help: None,
            line_text: line.to_owned(),
            width: self.text[start..end.min(line_end)].chars().count().max(1),
        }
    }

    fn boundary(&self, at: usize) -> usize {
        self.text.floor_char_boundary(at)
    }

    pub(crate) fn line_of(&self, at: usize) -> usize {
        self.text[..self.boundary(at)].matches('\n').count() + 1
    }
}

/// Reads a whole text file, within the limit.
pub(crate) fn read_text(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|e| format!("cannot be opened: {e}"))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("cannot be read: {e}"))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("is larger than {MAX_FILE_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())
}
