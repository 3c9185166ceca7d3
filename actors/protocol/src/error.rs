//! Errors as they cross the wire: whose fault, what to do, whether a retry helps.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whose fault an error is. It decides the exit code of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The request is wrong: change it.
    User,
    /// Who asks is not proven or not allowed.
    Auth,
    /// Money is missing.
    Funds,
    /// Nobody can do it now.
    Capacity,
    /// The task itself failed.
    Task,
    /// A peer could not be reached or broke off.
    Network,
    /// A fault of this software.
    Internal,
}

/// An error: a stable code, its class, what happened, what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// A stable slug, such as `insufficient_funds`.
    pub code: String,
    /// Whose fault.
    pub class: ErrorClass,
    /// What happened, with what was expected and what came.
    pub message: String,
    /// What to do about it; a command where one helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// After how many milliseconds the same request may succeed, where a retry helps at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl ErrorBody {
    /// An error without help.
    pub fn new(class: ErrorClass, code: &str, message: impl fmt::Display) -> Self {
        Self {
            code: code.into(),
            class,
            message: message.to_string(),
            help: None,
            retry_after_ms: None,
        }
    }

    /// The request is wrong.
    pub fn user(code: &str, message: impl fmt::Display) -> Self {
        Self::new(ErrorClass::User, code, message)
    }

    /// Who asks is not proven or not allowed.
    pub fn auth(code: &str, message: impl fmt::Display) -> Self {
        Self::new(ErrorClass::Auth, code, message)
    }

    /// What is asked for does not exist.
    pub fn not_found(what: &str, message: impl fmt::Display) -> Self {
        Self::new(ErrorClass::User, &format!("{what}_not_found"), message)
    }

    /// A fault of this software.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(ErrorClass::Internal, "internal", message)
    }

    /// A peer could not be reached or broke off; trying again may help.
    pub fn network(code: &str, message: impl fmt::Display) -> Self {
        Self::new(ErrorClass::Network, code, message)
    }

    /// Adds what to do about it.
    pub fn with_help(mut self, help: impl fmt::Display) -> Self {
        self.help = Some(help.to_string());
        self
    }

    /// Adds when to try again.
    pub const fn with_retry_after_ms(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }

    /// Whether this says that something does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code.ends_with("_not_found")
    }
}

impl fmt::Display for ErrorBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.code)?;
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ErrorBody {}

/// An answer: what was asked for, or why not. On the wire `{"ok": …}` or `{"error": …}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer<T> {
    /// What was asked for.
    Ok(T),
    /// Why not.
    Error(ErrorBody),
}

impl<T> From<Result<T, ErrorBody>> for Answer<T> {
    fn from(result: Result<T, ErrorBody>) -> Self {
        match result {
            Ok(value) => Self::Ok(value),
            Err(error) => Self::Error(error),
        }
    }
}

impl<T> From<Answer<T>> for Result<T, ErrorBody> {
    fn from(answer: Answer<T>) -> Self {
        match answer {
            Answer::Ok(value) => Ok(value),
            Answer::Error(error) => Err(error),
        }
    }
}
