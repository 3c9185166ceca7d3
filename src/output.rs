//! Everything that is printed passes here.
//!
//! Data goes to standard output: sentences and tables for people, one JSON value a line for programs.
//! Everything else goes to standard error: notes, progress, errors. Progress bars are drawn on a
//! terminal only; each stream is asked by itself whether it is one.
#![allow(clippy::print_stdout)]

use std::io::{IsTerminal, Write};

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use cryptomind_protocol::ErrorBody;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// How and how much to print.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
    quiet: bool,
    colour: bool,
    bars: bool,
}

/// A colour with a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Headings.
    Strong,
    /// What went well.
    Good,
    /// What did not.
    Bad,
    /// What to notice.
    Notice,
    /// What can be skipped.
    Dim,
}

impl Tone {
    const fn code(self) -> &'static str {
        match self {
            Self::Strong => "1",
            Self::Good => "32",
            Self::Bad => "31",
            Self::Notice => "33",
            Self::Dim => "2",
        }
    }
}

/// What the command line and the configuration say about printing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish {
    /// `--format json`.
    pub json: bool,
    /// `--quiet`.
    pub quiet: bool,
}

impl Output {
    /// As wished, as far as the terminal allows.
    pub fn new(wish: Wish) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        Self {
            json: wish.json,
            quiet: wish.quiet,
            colour: !wish.json && !plain && std::io::stdout().is_terminal(),
            bars: !wish.quiet && std::io::stderr().is_terminal(),
        }
    }

    /// Whether programs read this.
    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// Whether bars are drawn.
    pub const fn has_bars(&self) -> bool {
        self.bars
    }

    /// The text in a colour, where there are colours.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        if self.colour {
            format!("\x1b[{}m{text}\x1b[0m", tone.code())
        } else {
            text.to_owned()
        }
    }

    /// A line for people; nothing in JSON.
    pub fn say(&self, text: impl AsRef<str>) -> std::io::Result<()> {
        if self.json {
            return Ok(());
        }
        data(text.as_ref())
    }

    /// A line of data in whatever format: a script, a path.
    pub fn raw(&self, text: impl AsRef<str>) -> std::io::Result<()> {
        data(text.as_ref())
    }

    /// One value: as a JSON line, or as `human` says it.
    pub fn value<T: Serialize>(
        &self,
        value: &T,
        human: impl FnOnce() -> String,
    ) -> std::io::Result<()> {
        if self.json {
            self.json_line(value)
        } else {
            data(human().trim_end())
        }
    }

    /// A list: one JSON line a row, or a table; `empty` where there is nothing.
    pub fn rows<T: Serialize>(
        &self,
        rows: &[T],
        header: &[&str],
        cells: impl Fn(&T) -> Vec<String>,
        empty: &str,
    ) -> std::io::Result<()> {
        if self.json {
            return rows.iter().try_for_each(|row| self.json_line(row));
        }
        if rows.is_empty() {
            return self.note(empty);
        }
        data(&table(header, rows.iter().map(cells)))
    }

    /// A JSON value on a line of its own.
    pub fn json_line<T: Serialize>(&self, value: &T) -> std::io::Result<()> {
        data(&serde_json::to_string(value).map_err(std::io::Error::other)?)
    }

    /// A note beside the data: what is being done, what to do next.
    pub fn note(&self, text: impl AsRef<str>) -> std::io::Result<()> {
        if self.quiet {
            return Ok(());
        }
        aside(text.as_ref());
        Ok(())
    }

    /// An error, on standard error: for people, or as `{"error": …}`.
    pub fn error(&self, error: &ErrorBody) {
        if self.json {
            let line = serde_json::json!({ "error": error });
            return aside(&line.to_string());
        }
        let label = if std::io::stderr().is_terminal() && self.colour {
            "\x1b[1;31merror\x1b[0m"
        } else {
            "error"
        };
        aside(&format!(
            "{label}[{}]: {}",
            error.code,
            printable(&error.message)
        ));
        if let Some(help) = &error.help {
            aside(&format!(
                "  help: {}",
                printable(help).replace('\n', "\n        ")
            ));
        }
    }

    /// Characters in a line of the terminal that bars are drawn on; 80 where there is none.
    pub fn width(&self) -> usize {
        let terminal = Table::new().use_stderr().width();
        terminal.filter(|_| self.bars).map_or(80, usize::from)
    }

    /// A bar on standard error; hidden where that is no terminal.
    pub fn bar(&self, total: u64, template: &str) -> ProgressBar {
        if !self.bars {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("█▉▊▋▌▍▎▏ ");
        ProgressBar::new(total).with_style(style)
    }
}

/// Escape sequences from afar must not reach the terminal.
pub fn printable(text: &str) -> String {
    let keep = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    text.chars().filter(keep).collect()
}

/// A table as text: no frame, numbers to the right.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.into_iter().map(cell));
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

fn cell(text: String) -> Cell {
    let text = printable(&text);
    let number = text.trim_end_matches(" CTM");
    let is_number = !number.is_empty()
        && number
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'+' | b'-' | b' ' | b'%'));
    let alignment = if is_number {
        CellAlignment::Right
    } else {
        CellAlignment::Left
    };
    Cell::new(text).set_alignment(alignment)
}

fn data(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// What cannot be said beside the data is lost: there is nowhere to say so.
fn aside(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_numbers_to_the_right() {
        let rows = [("ann", "1.5 CTM"), ("beatrice", "10 CTM")];
        let text = table(
            &["who", "amount"],
            rows.map(|(who, amount)| vec![who.to_owned(), amount.to_owned()]),
        );
        let ends: Vec<usize> = text.lines().skip(1).map(str::len).collect();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert_eq!(ends[0], ends[1], "{text}");
    }

    #[test]
    fn escape_sequences_from_afar_are_stripped() {
        assert_eq!(printable("a\x1b[31mb\u{7}c\nd"), "a[31mbc\nd");
    }
}
