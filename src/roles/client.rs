//! `--role client`: an interactive prompt over the command tree of the shell.
//!
//! Lines are edited, remembered in the history file and completed from the tree. Every line is parsed
//! and run as the shell's commands are; a failed one says so and the prompt comes again. Without a
//! terminal, lines are read as they come, so that a script can be piped in.

use std::time::Duration;

use anyhow::Result;
use clap::{CommandFactory, Parser};
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hinter, HistoryHinter};
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Editor, Helper};

use crate::cli::{Command, Line};
use crate::command;
use crate::context::Context;
use crate::exit;

/// For nickname and balance: the prompt must not wait for a coordinator that is away.
const PROMPT_LIMIT: Duration = Duration::from_millis(700);
const MOST_HISTORY: usize = 10_000;

/// Reads and runs lines until `exit` or the end of input.
pub async fn run(context: &Context) -> Result<()> {
    let output = context.output;
    context.client().await?;
    output.note("help lists the commands, Tab completes, exit (or Ctrl-D) leaves")?;
    let mut editor = editor(context)?;
    loop {
        let prompt = prompt(context).await;
        let read = tokio::task::block_in_place(|| editor.readline(&prompt));
        let line = match read {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match meaning(&line) {
            Meaning::Nothing => {}
            Meaning::Leave => return Ok(()),
            Meaning::Help => output.say(Line::command().render_help().to_string())?,
            Meaning::Words(words) => run_line(context, &words).await?,
        }
    }
}

type LineEditor = Editor<Assistant, DefaultHistory>;

fn editor(context: &Context) -> Result<LineEditor> {
    let config = Config::builder()
        .auto_add_history(true)
        .max_history_size(MOST_HISTORY)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .build();
    let mut editor = LineEditor::with_config(config)?;
    editor.set_helper(Some(Assistant::default()));
    let file = &context.settings.history_file;
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // A first session has no history yet.
    let _ = editor.load_history(file);
    Ok(editor)
}

/// `ada 99.5 CTM> `; without an answer in time `cryptomind> `.
async fn prompt(context: &Context) -> String {
    let asked = async { context.client().await?.my_account().await };
    match tokio::time::timeout(PROMPT_LIMIT, asked).await {
        Ok(Ok(account)) => {
            let name = account.nickname.unwrap_or_else(|| account.account.short());
            format!("{name} {}> ", account.available)
        }
        _ => "cryptomind (coordinator away)> ".to_owned(),
    }
}

/// What a line means.
#[derive(Debug, PartialEq)]
enum Meaning {
    Nothing,
    Leave,
    Help,
    Words(Vec<String>),
}

fn meaning(line: &str) -> Meaning {
    let words = split(line);
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Meaning::Nothing,
        [first, ..] if first.starts_with('#') => Meaning::Nothing,
        ["exit" | "quit"] => Meaning::Leave,
        ["help" | "?"] => Meaning::Help,
        // Examples from the documentation can be pasted as they are.
        ["cryptomind", ..] => Meaning::Words(words[1..].to_vec()),
        _ => Meaning::Words(words),
    }
}

/// Words as a shell would part them: quotes keep blanks, a backslash keeps the next character.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Runs one line; what goes wrong is printed, and only output that nobody reads ends the session.
async fn run_line(context: &Context, words: &[String]) -> Result<()> {
    let line = match Line::try_parse_from(words) {
        Ok(line) => line,
        Err(error) => return Ok(context.output.raw(error.render().to_string().trim_end())?),
    };
    let context = context.for_line(&line.global);
    let done = match line.command {
        Command::Bench(_) | Command::Demo(_) | Command::Dev(_) => {
            let why = "this starts a network of its own: use it in a shell";
            Err(cryptomind_protocol::ErrorBody::user("not_here", why).into())
        }
        Command::Key(crate::cli::KeyCommand::Rotate) => {
            let why = "this prompt speaks with the old key: rotate it in a shell";
            Err(cryptomind_protocol::ErrorBody::user("not_here", why)
                .with_help("cryptomind key rotate")
                .into())
        }
        Command::Ledger(command) if command.is_offline() => {
            command::ledger_offline(context.output, &line.global, command)
        }
        Command::Config(command) => command::config(context.output, &line.global, command),
        Command::Market(command) => command::market(context.output, command).await,
        Command::Completions { shell } => Ok(command::completions(context.output, shell)?),
        Command::Doctor => command::doctor::run(&context, &line.global).await,
        command => command::run(&context, command).await,
    };
    match done {
        Err(error) if exit::is_broken_pipe(&error) => Err(error),
        Err(error) => {
            context.output.error(&exit::body_of(&error));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Completes commands and options from the tree, and files after them; hints from the history.
struct Assistant {
    tree: clap::Command,
    files: FilenameCompleter,
    hinter: HistoryHinter,
}

impl Helper for Assistant {}
impl Highlighter for Assistant {}
impl Validator for Assistant {}

impl Hinter for Assistant {
    type Hint = String;

    fn hint(&self, line: &str, pos: usize, context: &rustyline::Context<'_>) -> Option<String> {
        self.hinter.hint(line, pos, context)
    }
}

impl Default for Assistant {
    fn default() -> Self {
        let mut tree = Line::command();
        tree.build();
        Self {
            tree,
            files: FilenameCompleter::new(),
            hinter: HistoryHinter::new(),
        }
    }
}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        context: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, candidates) = candidates(&self.tree, &line[..pos]);
        if candidates.is_empty() {
            return self.files.complete(line, pos, context);
        }
        let pair = |word: String| Pair {
            display: word.clone(),
            replacement: word + " ",
        };
        Ok((start, candidates.into_iter().map(pair).collect()))
    }
}

/// Where the word before the cursor starts, and what of the tree it may become.
fn candidates(tree: &clap::Command, line: &str) -> (usize, Vec<String>) {
    let start = line.rfind(char::is_whitespace).map_or(0, |at| at + 1);
    let (before, word) = line.split_at(start);
    let mut here = tree;
    for step in before.split_whitespace() {
        if let Some(below) = here.find_subcommand(step) {
            here = below;
        }
    }
    let names = here
        .get_subcommands()
        .map(|below| below.get_name().to_owned());
    let is_shown = |arg: &&clap::Arg| !arg.is_hide_set();
    let longs = here
        .get_arguments()
        .filter(is_shown)
        .filter_map(|arg| arg.get_long());
    let mut found: Vec<String> = match word.starts_with('-') {
        true => longs.map(|long| format!("--{long}")).collect(),
        false => names.collect(),
    };
    found.retain(|name| name.starts_with(word));
    (start, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_parted_as_by_a_shell() {
        assert_eq!(split("  a  b "), ["a", "b"]);
        assert_eq!(
            split(r#"a "b c" 'd "e' f\ g "" "#),
            ["a", "b c", "d \"e", "f g", ""]
        );
        assert!(split("   ").is_empty());
        assert_eq!(split("torn \"quote"), ["torn", "quote"]);
    }

    #[test]
    fn examples_can_be_pasted_with_the_programs_name() {
        let words = Meaning::Words(vec!["wallet".into(), "balance".into()]);
        assert_eq!(meaning("cryptomind wallet balance"), words);
        assert_eq!(meaning("wallet balance"), words);
        assert_eq!(meaning("# a comment"), Meaning::Nothing);
        assert_eq!(meaning("quit"), Meaning::Leave);
    }

    #[test]
    fn completion_follows_the_tree() {
        let assistant = Assistant::default();
        let of = |line: &str| candidates(&assistant.tree, line);
        assert_eq!(of("da"), (0, vec!["dataset".to_owned()]));
        let (start, found) = of("task s");
        assert_eq!(
            (start, found),
            (5, vec!["submit".to_owned(), "show".to_owned()])
        );
        let (_, found) = of("task submit x.toml --w");
        assert_eq!(found, ["--watch"]);
        assert!(of("task submit mlp").1.is_empty());
    }
}
