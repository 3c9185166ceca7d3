//! What is wrong with a file or setting, and where: shown as rustc shows its errors.

use std::fmt;

use cryptomind_protocol::ErrorBody;

/// A refused configuration or task file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file as the user named it, or the layer: `environment variable CRYPTOMIND_NODE_NAME`.
    pub file: String,
    /// Line from 1; 0 where there is none, as in the environment.
    pub line: usize,
    /// Column from 1, in characters; 0 where there is none.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
    /// The text of the line, without its end.
    pub line_text: String,
    /// How many characters from `column` on are at fault; at least 1 where there is a line.
    pub width: usize,
}

/// Longer lines are cut off in the picture.
const MAX_SHOWN_CHARS: usize = 160;

impl ConfigError {
    /// An error without a line, such as a file that cannot be read.
    pub fn without_line(file: impl Into<String>, message: impl fmt::Display) -> Self {
        Self {
            file: file.into(),
            line: 0,
            column: 0,
            message: message.to_string(),
            help: None,
            line_text: String::new(),
            width: 0,
        }
    }

    /// Adds what would be right.
    pub fn with_help(mut self, help: impl fmt::Display) -> Self {
        self.help = Some(help.to_string());
        self
    }

    /// `file:line:column`, or the file alone.
    pub fn place(&self) -> String {
        match self.line {
            0 => self.file.clone(),
            line => format!("{}:{line}:{}", self.file, self.column),
        }
    }

    /// The line with a caret below what is at fault.
    fn picture(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let text: String = shown(&self.line_text).take(MAX_SHOWN_CHARS).collect();
        let start = self.column.saturating_sub(1).min(MAX_SHOWN_CHARS);
        let width = self.width.clamp(1, MAX_SHOWN_CHARS + 1 - start);
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {text}")?;
        write!(
            f,
            "{margin} | {}{}",
            " ".repeat(start),
            "^".repeat(width.min(text.chars().count().saturating_sub(start)).max(1))
        )
    }
}

/// Control characters would move the caret, or worse the terminal.
fn shown(line: &str) -> impl Iterator<Item = char> {
    line.chars().map(|c| if c.is_control() { ' ' } else { c })
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let margin = " ".repeat(self.line.max(1).to_string().len());
        writeln!(f, "{}", self.message)?;
        write!(f, "{margin}--> {}", self.place())?;
        if self.line > 0 {
            writeln!(f)?;
            self.picture(f)?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n{margin} = help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for ErrorBody {
    fn from(error: ConfigError) -> Self {
        let help = error.help.clone();
        let text = ConfigError {
            help: None,
            ..error
        };
        let body = Self::user("invalid_configuration", text);
        match help {
            Some(help) => body.with_help(help),
            None => body,
        }
    }
}
