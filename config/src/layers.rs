//! Where settings come from, and which of them wins.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use toml::de::DeValue;

use crate::document::{Document, Value};
use crate::reader::{Layer, Reader, TextSetting, section_of, suggest};
use crate::{ConfigError, sample};

/// What every environment variable of a setting starts with.
pub const VARIABLE_PREFIX: &str = "CRYPTOMIND_";

/// A type that is read from layers.
pub trait Settings: Sized {
    /// The commented sample file with every key.
    const SAMPLE: &'static str;
    /// The name of the file, such as `miner.toml`.
    const FILE_NAME: &'static str;

    /// Takes every setting. Nothing where a required one is missing: then the reader knows why.
    fn read(reader: &mut Reader<'_>) -> Option<Self>;
}

/// Where the settings of one process come from, weakest first.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// What the caller knows of the platform, as `("node.data_dir", "/home/ada/.local/share/cryptomind")`.
    pub platform: Vec<(String, String)>,
    /// A file that is read where it exists, by the platform's custom. Ignored where `file` is given.
    pub custom_file: Option<PathBuf>,
    /// A file that must exist: `--config FILE`.
    pub file: Option<PathBuf>,
    /// The environment. Variables that name no section of the type are left alone.
    pub environment: Vec<(String, String)>,
    /// What the caller insists on, as `("node.listen", "127.0.0.1:0")`.
    pub overrides: Vec<(String, String)>,
}

/// Which layer a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// The caller's knowledge of the platform.
    Platform,
    /// A file.
    File {
        /// As the user named it.
        file: String,
        /// From 1.
        line: usize,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// The command line.
    Override {
        /// The key that was set.
        key: String,
    },
}

impl Origin {
    pub(crate) fn of_file(document: &Document, at: usize) -> Self {
        Self::File {
            file: document.name.clone(),
            line: document.line_of(at),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Platform => f.write_str("platform"),
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Environment { variable } => write!(f, "environment variable {variable}"),
            Self::Override { key } => write!(f, "command line ({key})"),
        }
    }
}

/// Checked settings and where each came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded<T> {
    /// The settings.
    pub value: T,
    /// By full key, such as `node.listen`: every key that the type has.
    pub origins: BTreeMap<&'static str, Origin>,
}

impl Layers {
    /// The environment of this process over `file`.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        let is_text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self {
            file,
            environment: std::env::vars_os()
                .filter_map(is_text)
                .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
                .collect(),
            ..Self::default()
        }
    }

    /// Insists on a value, over all other layers.
    pub fn with_override(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.overrides.push((key.to_owned(), value.to_string()));
        self
    }

    fn document(&self) -> Result<Option<Document>, ConfigError> {
        match (&self.file, &self.custom_file) {
            (Some(file), _) => Document::read(file).map(Some),
            (None, Some(file)) if file.exists() => Document::read(file).map(Some),
            _ => Ok(None),
        }
    }

    /// Strongest first.
    fn open(&self, keys: &[&'static str]) -> Result<Vec<Layer>, ConfigError> {
        let overrides = texts(&self.overrides, |key| Origin::Override { key: key.into() });
        let mut layers = vec![
            Layer::Texts(overrides),
            Layer::Texts(environment(&self.environment, keys)?),
        ];
        layers.extend(self.document()?.map(Layer::File));
        layers.push(Layer::Texts(texts(&self.platform, |_| Origin::Platform)));
        Ok(layers)
    }
}

/// The last word on a key counts.
fn texts(pairs: &[(String, String)], origin: impl Fn(&str) -> Origin) -> Vec<TextSetting> {
    let one = |(key, value): &(String, String)| TextSetting {
        key: key.clone(),
        value: text_value(value),
        origin: origin(key),
    };
    pairs.iter().rev().map(one).collect()
}

/// A list is written as in TOML; everything else is taken as it is.
fn text_value(text: &str) -> Value {
    let list = text
        .trim_start()
        .starts_with('[')
        .then(|| DeValue::parse(text));
    match list {
        Some(Ok(value)) => Value::of(value.get_ref()),
        _ => Value::Text(text.to_owned()),
    }
}

/// `node.data_dir` → `CRYPTOMIND_NODE_DATA_DIR`.
pub(crate) fn variable_of(key: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", key.replace('.', "_").to_uppercase())
}

fn environment(
    variables: &[(String, String)],
    keys: &[&'static str],
) -> Result<Vec<TextSetting>, ConfigError> {
    let mut settings = Vec::new();
    for (variable, value) in variables {
        if let Some(key) = keys.iter().find(|key| variable_of(key) == *variable) {
            settings.push(TextSetting {
                key: (*key).to_owned(),
                value: text_value(value),
                origin: Origin::Environment {
                    variable: variable.clone(),
                },
            });
        } else if let Some(error) = mistyped(variable, keys) {
            return Err(error);
        }
    }
    Ok(settings)
}

/// A variable that names a section of the type, but no key in it, is a typing error.
fn mistyped(variable: &str, keys: &[&'static str]) -> Option<ConfigError> {
    let rest = variable.strip_prefix(VARIABLE_PREFIX)?.to_lowercase();
    let short_in = |section: &str| {
        rest.strip_prefix(&section.replace('.', "_"))?
            .strip_prefix('_')
    };
    // The innermost section that the variable can mean.
    let (section, short) = keys
        .iter()
        .filter_map(|key| section_of(key))
        .filter_map(|section| Some((section, short_in(section)?)))
        .max_by_key(|(section, _)| section.len())?;
    let message = format!("no setting `{short}` in [{section}]");
    let place = Origin::Environment {
        variable: variable.to_owned(),
    };
    let error = ConfigError::without_line(place.to_string(), message);
    Some(error.with_help(suggest(&format!("{section}.{short}"), keys)))
}

/// Every full key that `T` has.
pub(crate) fn keys<T: Settings>() -> Vec<&'static str> {
    let mut reader = Reader::new(&[]);
    let _ = T::read(&mut reader);
    reader.known()
}

/// Reads and checks a role's settings.
///
/// # Errors
/// The first thing that is wrong, unknown keys before all else, with its place and what would be right.
pub fn load<T: Settings>(layers: &Layers) -> Result<Loaded<T>, ConfigError> {
    let layers = layers.open(&keys::<T>())?;
    let mut reader = Reader::new(&layers);
    let value = T::read(&mut reader);
    let origins = reader.finish()?;
    match value {
        Some(value) => Ok(Loaded { value, origins }),
        None => Err(ConfigError::without_line(
            T::FILE_NAME,
            "a required setting is missing",
        )),
    }
}

impl<T: Settings> Loaded<T> {
    /// The sample file of this type with these settings filled in: see [`crate::fill_sample`].
    pub fn sample_with(settings: &[(&str, &str)]) -> Result<String, sample::SampleError> {
        sample::fill_sample(T::SAMPLE, settings)
    }
}
