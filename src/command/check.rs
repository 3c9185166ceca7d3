//! Named checks of a machine: what was found, what is needed, and what to do where they differ.

use anyhow::Result;
use cryptomind_protocol::ErrorBody;
use serde::Serialize;

use crate::output::{Output, Tone};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Works, with less than there could be.
    Notice,
    /// Not as it must be.
    Bad,
}

/// One check.
#[derive(Debug, Serialize)]
pub struct Check {
    /// Of what.
    pub name: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What is there.
    pub found: String,
    /// What should be.
    pub needed: &'static str,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Check {
    /// What was found beside what is needed.
    pub fn new(
        name: &'static str,
        needed: &'static str,
        verdict: Verdict,
        found: impl ToString,
    ) -> Self {
        Self {
            name,
            verdict,
            found: found.to_string(),
            needed,
            remedy: None,
        }
    }

    /// With what to do about it.
    pub fn remedy(mut self, remedy: impl ToString) -> Self {
        self.remedy = Some(remedy.to_string());
        self
    }

    /// One that could not be made.
    pub fn failed(name: &'static str, needed: &'static str, error: &ErrorBody) -> Self {
        let check = Self::new(name, needed, Verdict::Bad, &error.message);
        match &error.help {
            Some(help) => check.remedy(help),
            None => check,
        }
    }
}

/// Prints a check.
pub fn show(output: Output, check: &Check) -> std::io::Result<()> {
    output.value(check, || text(output, check))
}

/// An error where one is bad.
pub fn verdict(checks: &[Check]) -> Result<()> {
    let bad = checks.iter().filter(|check| check.verdict == Verdict::Bad);
    match bad.count() {
        0 => Ok(()),
        bad => {
            let message = format!("{bad} of {} checks failed", checks.len());
            let error = ErrorBody::user("checks_failed", message);
            Err(error
                .with_help("do what the marked lines say, then run it again")
                .into())
        }
    }
}

fn text(output: Output, check: &Check) -> String {
    let (tone, mark) = match check.verdict {
        Verdict::Good => (Tone::Good, "✔"),
        Verdict::Notice => (Tone::Notice, "!"),
        Verdict::Bad => (Tone::Bad, "✘"),
    };
    let mark = output.paint(tone, mark);
    let line = format!(
        "{mark} {:<14} {}  (needed: {})",
        check.name, check.found, check.needed
    );
    match &check.remedy {
        Some(remedy) => format!("{line}\n  {:<14} → {remedy}", ""),
        None => line,
    }
}
