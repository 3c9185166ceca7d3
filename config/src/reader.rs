//! Takes settings out of layers by key, strongest layer first, and gathers everything that is wrong.
//!
//! A type reads each of its keys once; what it reads is what it knows, so unknown keys need no second
//! list. After an error reading goes on with the default, and [`Reader::finish`] reports.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::ConfigError;
use crate::convert::{Converted, Problem, text};
use crate::document::{Document, Value};
use crate::layers::Origin;
use crate::nearest::nearest;

/// A layer of settings by full key.
#[derive(Debug)]
pub(crate) enum Layer {
    /// A file: every key in it must be known.
    File(Document),
    /// Texts by full key, from the caller or the environment.
    Texts(Vec<TextSetting>),
}

/// A setting that came as text.
#[derive(Debug)]
pub(crate) struct TextSetting {
    pub(crate) key: String,
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// A value as a converter sees it.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) value: &'a Value,
    /// Whether it came as text from outside a file, where numbers have no quotes to be without.
    pub(crate) is_plain_text: bool,
}

impl<'a> Entry<'a> {
    pub(crate) fn part(&self, value: &'a Value) -> Self {
        Self {
            value,
            is_plain_text: self.is_plain_text,
        }
    }
}

/// Reads one type's settings. Made by [`crate::load`].
#[derive(Debug)]
pub struct Reader<'a> {
    layers: &'a [Layer],
    origins: BTreeMap<&'static str, Origin>,
    errors: Vec<ConfigError>,
}

impl<'a> Reader<'a> {
    /// `layers`: the strongest first.
    pub(crate) fn new(layers: &'a [Layer]) -> Self {
        Self {
            layers,
            origins: BTreeMap::new(),
            errors: Vec::new(),
        }
    }

    /// The strongest layer that has `key`.
    fn find(&self, key: &str) -> Option<(&'a Layer, Entry<'a>, Origin)> {
        self.layers.iter().find_map(|layer| {
            let (value, origin) = match layer {
                Layer::File(document) => {
                    let placed = document.values.get(key)?;
                    (
                        &placed.value,
                        Origin::of_file(document, placed.key_span.start),
                    )
                }
                Layer::Texts(settings) => {
                    let setting = settings.iter().find(|s| s.key == key)?;
                    (&setting.value, setting.origin.clone())
                }
            };
            let is_plain_text = matches!(layer, Layer::Texts(_));
            Some((
                layer,
                Entry {
                    value,
                    is_plain_text,
                },
                origin,
            ))
        })
    }

    /// The value of `key`, where any layer has it and it can be converted.
    pub(crate) fn optional<T>(
        &mut self,
        key: &'static str,
        convert: impl FnOnce(&Entry<'_>) -> Converted<T>,
    ) -> Option<T> {
        let Some((layer, entry, origin)) = self.find(key) else {
            self.origins.insert(key, Origin::Default);
            return None;
        };
        let converted = convert(&entry);
        let error = converted
            .as_ref()
            .err()
            .map(|problem| refuse(layer, key, &origin, problem));
        self.errors.extend(error);
        self.origins.insert(key, origin);
        converted.ok()
    }

    /// The value of `key`, or `default`.
    pub(crate) fn take<T>(
        &mut self,
        key: &'static str,
        default: T,
        convert: impl FnOnce(&Entry<'_>) -> Converted<T>,
    ) -> T {
        self.optional(key, convert).unwrap_or(default)
    }

    /// The value of `key`, which must be there.
    pub(crate) fn required<T>(
        &mut self,
        key: &'static str,
        help: &str,
        convert: impl FnOnce(&Entry<'_>) -> Converted<T>,
    ) -> Option<T> {
        let is_missing = self.find(key).is_none();
        let value = self.optional(key, convert);
        if is_missing {
            self.errors.push(self.missing(key, help));
        }
        value
    }

    fn missing(&self, key: &str, help: &str) -> ConfigError {
        let message = format!("`{key}` is missing");
        let document = self.layers.iter().find_map(|layer| match layer {
            Layer::File(document) => Some(document),
            Layer::Texts(_) => None,
        });
        let error = match document {
            None => ConfigError::without_line("configuration", message),
            Some(document) => match section_of(key).and_then(|s| document.sections.get(s)) {
                Some(span) => document.error(span.clone(), message),
                None => ConfigError::without_line(&document.name, message),
            },
        };
        error.with_help(help)
    }

    /// A path. One from a file is relative to that file's folder.
    pub(crate) fn path(&mut self, key: &'static str, default: PathBuf) -> PathBuf {
        let convert = |entry: &Entry<'_>| crate::convert::words(entry).map(PathBuf::from);
        let path = self.take(key, default, convert);
        match self.origins.get(key) {
            Some(Origin::File { file, .. }) => Path::new(file)
                .parent()
                .map_or(path.clone(), |folder| folder.join(&path)),
            _ => path,
        }
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        default: T,
        words: &[(&str, T)],
    ) -> T {
        self.take(key, default, |entry| choose(entry, words))
    }

    /// Refuses `key` where it is given, saying why.
    pub(crate) fn forbid(&mut self, key: &'static str, message: &str, help: &str) {
        if let Some((layer, _, origin)) = self.find(key) {
            let problem = crate::convert::problem(message).help(help);
            self.errors.push(refuse_key(layer, key, &origin, &problem));
            self.origins.insert(key, origin);
        }
    }

    /// Everything that is wrong, unknown keys first; or where each value came from.
    pub(crate) fn finish(self) -> Result<BTreeMap<&'static str, Origin>, ConfigError> {
        let unknown = self.layers.iter().find_map(|layer| self.unknown(layer));
        match unknown.or_else(|| self.errors.into_iter().next()) {
            Some(error) => Err(error),
            None => Ok(self.origins),
        }
    }

    pub(crate) fn known(&self) -> Vec<&'static str> {
        self.origins.keys().copied().collect()
    }

    fn unknown(&self, layer: &Layer) -> Option<ConfigError> {
        let known = self.known();
        match layer {
            Layer::File(document) => unknown_in_file(document, &known),
            Layer::Texts(settings) => settings
                .iter()
                .find(|s| !known.contains(&s.key.as_str()))
                .map(|s| {
                    let message = format!("unknown setting `{}`", s.key);
                    let error = ConfigError::without_line(s.origin.to_string(), message);
                    error.with_help(suggest(&s.key, &known))
                }),
        }
    }
}

/// Reads one of `words`.
pub(crate) fn choose<T: Copy>(entry: &Entry<'_>, words: &[(&str, T)]) -> Converted<T> {
    let given = text(entry)?;
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == given) {
        return Ok(*value);
    }
    let all: Vec<_> = words
        .iter()
        .map(|(word, _)| format!("\"{word}\""))
        .collect();
    let shown: String = given.chars().take(40).collect();
    let message = format!("`{shown}` is not one of {}", all.join(", "));
    let near = nearest(&given, words.iter().map(|(word, _)| *word));
    Err(match near {
        Some(word) => crate::convert::problem(message).help(format!("did you mean \"{word}\"?")),
        None => crate::convert::problem(message),
    })
}

/// `network.fees` of `network.fees.send`.
pub(crate) fn section_of(key: &str) -> Option<&str> {
    key.rsplit_once('.').map(|(section, _)| section)
}

fn refuse(layer: &Layer, key: &str, origin: &Origin, problem: &Problem) -> ConfigError {
    let message = format!("`{key}`: {}", problem.message);
    let error = match layer {
        Layer::File(document) => {
            let whole = document.values.get(key).map(|placed| placed.span.clone());
            let span = problem.span.clone().or(whole).unwrap_or(0..0);
            document.error(span, message)
        }
        Layer::Texts(_) => ConfigError::without_line(origin.to_string(), message),
    };
    match &problem.help {
        Some(help) => error.with_help(help),
        None => error,
    }
}

fn refuse_key(layer: &Layer, key: &str, origin: &Origin, problem: &Problem) -> ConfigError {
    let span = match layer {
        Layer::File(document) => document
            .values
            .get(key)
            .map(|placed| placed.key_span.clone()),
        Layer::Texts(_) => None,
    };
    let problem = Problem {
        message: problem.message.clone(),
        help: problem.help.clone(),
        span,
    };
    refuse(layer, key, origin, &problem)
}

fn unknown_in_file(document: &Document, known: &[&'static str]) -> Option<ConfigError> {
    let is_section = |name: &str| known.iter().any(|k| section_of(k) == Some(name));
    let section = document
        .sections
        .iter()
        .filter(|(name, _)| !is_section(name))
        .map(|(name, span)| (span.clone(), name.clone()));
    let key = document
        .values
        .iter()
        .filter(|(name, _)| !known.contains(&name.as_str()))
        .map(|(name, placed)| (placed.key_span.clone(), name.clone()));
    let (span, name) = section.chain(key).min_by_key(|(span, _)| span.start)?;
    Some(
        if document.sections.contains_key(&name) && !is_section(&name) {
            let sections = known.iter().filter_map(|k| section_of(k));
            let help = if known.contains(&name.as_str()) {
                format!("`{name}` is a key: write {name} = …")
            } else {
                match nearest(&name, sections.clone()) {
                    Some(near) => format!("did you mean [{near}]?"),
                    None => format!("there are {}", list(sections.map(|s| format!("[{s}]")))),
                }
            };
            document
                .error(span, format!("unknown section [{name}]"))
                .with_help(help)
        } else if is_section(&name) {
            let message = format!("`{name}` is a section, not a value");
            document
                .error(span, message)
                .with_help(format!("write [{name}] and its keys below"))
        } else {
            let short = name.rsplit('.').next().unwrap_or(&name);
            let error = document.error(span, format!("unknown key `{short}`"));
            error.with_help(suggest(&name, known))
        },
    )
}

/// What an unknown key may have meant: a near key of its section, the same key elsewhere, or the list.
pub(crate) fn suggest(key: &str, known: &[&str]) -> String {
    let (section, short) = match key.rsplit_once('.') {
        Some((section, short)) => (Some(section), short),
        None => (None, key),
    };
    let siblings = known.iter().filter(|k| section_of(k) == section);
    let shorts = siblings.map(|k| k.rsplit('.').next().unwrap_or(k));
    if let Some(near) = nearest(short, shorts.clone()) {
        return format!("did you mean `{near}`?");
    }
    let elsewhere = known.iter().find(|k| k.rsplit('.').next() == Some(short));
    match elsewhere.map(|k| section_of(k)) {
        Some(Some(section)) => format!("`{short}` belongs under [{section}]"),
        Some(None) => format!("`{short}` belongs above the first section"),
        None => match nearest(
            short,
            known.iter().map(|k| k.rsplit('.').next().unwrap_or(k)),
        ) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are {}", list(shorts.map(|s| format!("`{s}`")))),
        },
    }
}

fn list(words: impl Iterator<Item = String>) -> String {
    let mut words: Vec<_> = words.collect();
    words.dedup();
    words.join(", ")
}
