//! The commented sample files, and filling settings into them.
//!
//! In a sample a line `#key = value` (no space after `#`) is a setting that is switched off; a line
//! `# text` is prose.

use toml::Value;

/// Why a sample cannot take a setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the sample has no key `{0}`")]
pub struct SampleError(pub String);

/// A sample's line that holds a setting.
struct Line<'a> {
    section: &'a str,
    key: &'a str,
    value: &'a str,
}

fn lines(sample: &str) -> impl Iterator<Item = (usize, Line<'_>)> {
    let mut section = "";
    sample.lines().enumerate().filter_map(move |(index, line)| {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        }
        let line = line.strip_prefix('#').unwrap_or(line);
        let (key, value) = line.split_once(" = ")?;
        let is_key = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let is_setting = !key.is_empty() && key.bytes().all(is_key);
        is_setting.then_some((
            index,
            Line {
                section,
                key,
                value,
            },
        ))
    })
}

impl Line<'_> {
    fn full_key(&self) -> String {
        match self.section {
            "" => self.key.to_owned(),
            section => format!("{section}.{}", self.key),
        }
    }
}

/// Fills settings into a sample: comments and order stay. Values are texts; where the sample's own
/// value has no quotes (a number, a list), neither has the new one.
///
/// # Errors
/// A key that the sample lacks.
pub fn fill_sample(sample: &str, settings: &[(&str, &str)]) -> Result<String, SampleError> {
    let mut filled: Vec<String> = sample.lines().map(str::to_owned).collect();
    for (key, value) in settings {
        let (index, line) = lines(sample)
            .find(|(_, line)| line.full_key() == *key)
            .ok_or_else(|| SampleError((*key).to_owned()))?;
        let is_text = line.value.starts_with('"');
        let value = if is_text {
            Value::String((*value).to_owned()).to_string()
        } else {
            (*value).to_owned()
        };
        filled[index] = format!("{} = {value}", line.key);
    }
    Ok(filled.join("\n") + "\n")
}

/// Every key of a sample.
#[cfg(test)]
pub(crate) fn keys_of(sample: &str) -> Vec<String> {
    lines(sample).map(|(_, line)| line.full_key()).collect()
}

/// The sample with every setting switched on.
#[cfg(test)]
pub(crate) fn all_on(sample: &str) -> String {
    let settings: Vec<usize> = lines(sample).map(|(index, _)| index).collect();
    let line = |(index, line): (usize, &str)| match line.strip_prefix('#') {
        Some(on) if settings.contains(&index) => format!("{on}\n"),
        _ => format!("{line}\n"),
    };
    sample.lines().enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "# A file.\n#top = \"x\"\n[a]\n# Prose = not a setting.\nn = 1\n#t = \"old\"\n[b]\nt = \"b\"\n";

    #[test]
    fn settings_are_filled_in_and_the_rest_stays() {
        let filled = fill_sample(
            SAMPLE,
            &[("a.t", "new \"one\""), ("a.n", "2"), ("top", "y")],
        );
        let filled = filled.unwrap();
        let table: toml::Table = filled.parse().unwrap();
        assert_eq!(table["a"]["t"].as_str(), Some("new \"one\""));
        assert_eq!(table["a"]["n"].as_integer(), Some(2));
        assert_eq!(table["b"]["t"].as_str(), Some("b"));
        assert_eq!(table["top"].as_str(), Some("y"));
        assert!(filled.starts_with("# A file.\n") && filled.contains("# Prose"));
        assert_eq!(
            fill_sample(SAMPLE, &[("a.x", "1")]),
            Err(SampleError("a.x".into()))
        );
    }
}
