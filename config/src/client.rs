//! `client.toml`: where a user's client finds the network, and how it prints.

use std::path::PathBuf;

use cryptomind_protocol::NodeAddress;

use crate::{Reader, Settings};

/// How answers are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// For people; with colours and progress bars where a terminal is.
    #[default]
    Auto,
    /// Tables and sentences.
    Human,
    /// One JSON value a line.
    Json,
}

/// A client's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The coordinator that is asked, where commands name no other.
    pub coordinator: Option<NodeAddress>,
    /// The account's secret key. The platform's folder is the caller's to name.
    pub key_file: PathBuf,
    /// What was typed into the REPL.
    pub history_file: PathBuf,
    /// How answers are printed.
    pub format: Format,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            coordinator: None,
            key_file: "account.key".into(),
            history_file: "history".into(),
            format: Format::Auto,
        }
    }
}

impl Settings for Client {
    const SAMPLE: &'static str = include_str!("../client.toml");
    const FILE_NAME: &'static str = "client.toml";

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let default = Self::default();
        let formats = [
            ("auto", Format::Auto),
            ("human", Format::Human),
            ("json", Format::Json),
        ];
        Some(Self {
            coordinator: crate::miner::optional_coordinator(reader),
            key_file: reader.path("key_file", default.key_file),
            history_file: reader.path("history_file", default.history_file),
            format: reader.choice("format", default.format, &formats),
        })
    }
}
