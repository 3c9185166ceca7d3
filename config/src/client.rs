//! `client.toml`: where a user's client finds the network, and how it prints.

use std::path::PathBuf;

use cryptomind_core::market::rental::RentedCard;
use cryptomind_protocol::NodeAddress;

use crate::convert::{Converted, problem, spanned_texts};
use crate::reader::Entry;
use crate::rental::{Card, EXAMPLE};
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
    /// What cards cost that are rented elsewhere: quotes compare with them.
    pub rented: Vec<Card>,
}

/// What the sample shows: on-demand prices of March 2026, and what the makers' data sheets give for 32-bit floats.
fn rented() -> Vec<Card> {
    let card = |name: &str, micro_usd_per_hour, mflops| {
        Card(RentedCard {
            name: name.to_owned(),
            micro_usd_per_hour,
            mflops,
        })
    };
    vec![
        card("RTX 4090", 600_000, 82_600_000),
        card("A100 80 GB", 2_450_000, 19_500_000),
        card("H100", 4_760_000, 67_000_000),
    ]
}

/// The most cards of a table.
const MAX_CARDS: usize = 32;

fn cards(entry: &Entry<'_>) -> Converted<Vec<Card>> {
    let texts = spanned_texts(entry)?;
    if texts.len() > MAX_CARDS {
        return Err(problem(format!(
            "{} cards: {MAX_CARDS} are enough",
            texts.len()
        )));
    }
    let card = |(text, span): (String, std::ops::Range<usize>)| {
        let parsed = text.parse::<Card>();
        parsed.map_err(|reason| {
            problem(reason)
                .help(format!("for example \"{EXAMPLE}\""))
                .at(span)
        })
    };
    texts.into_iter().map(card).collect()
}

impl Default for Client {
    fn default() -> Self {
        Self {
            coordinator: None,
            key_file: "account.key".into(),
            history_file: "history".into(),
            format: Format::Auto,
            rented: rented(),
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
            rented: reader.take("rented", default.rented, cards),
        })
    }
}
