//! `cryptomind`: one program, every part of the network.
//!
//! This binary is thin: it parses the command line ([`cli`]), runs a part ([`roles`]), a command
//! ([`command`]), the demo or the development network, and turns what comes of it into an exit code.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bench;
mod chart;
mod cli;
mod command;
mod context;
mod demo;
mod dev;
mod exit;
mod follow;
mod local_network;
mod moment;
mod output;
mod platform;
mod process;
mod resolve;
mod roles;
mod timeline;
mod training;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser};
use cryptomind_protocol::ErrorBody;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command, MarketCommand};
use crate::context::Context;
use crate::output::{Output, Wish};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    start_log(if cli.role.role.is_some() {
        "info"
    } else {
        "error"
    });
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return ended(Output::new(Wish::default()), Err(error.into())),
    };
    let output = Context::without_settings(&cli.global).output;
    let done = runtime.block_on(run(cli));
    // A thread that reads standard input or a file must not hold the process.
    runtime.shutdown_background();
    ended(output, done)
}

/// Logs go to standard error, filtered by `RUST_LOG`.
fn start_log(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .init();
}

/// Help and version are data; a wrong command line is an error in the wanted format.
fn usage(error: &clap::Error) -> ExitCode {
    let mut words = std::env::args().skip_while(|word| !word.starts_with("--format"));
    let wants_json = match words.next().as_deref() {
        Some("--format=json") => true,
        Some("--format") => words.next().as_deref() == Some("json"),
        _ => false,
    };
    if error.use_stderr() && wants_json {
        let output = Output::new(Wish {
            json: true,
            ..Wish::default()
        });
        output.error(&ErrorBody::user("usage", error.to_string().trim_end()));
        return ExitCode::from(exit::USAGE);
    }
    let _ = error.print();
    ExitCode::from(error.exit_code() as u8)
}

fn ended(output: Output, done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::from(exit::DONE),
        Err(error) if exit::is_broken_pipe(&error) => ExitCode::from(exit::DONE),
        Err(error) => {
            let body = exit::body_of(&error);
            output.error(&body);
            ExitCode::from(exit::code_of(&body))
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    let global = cli.global;
    match (cli.role.role, cli.command) {
        (Some(_), Some(_)) => {
            Err(ErrorBody::user("usage", "give --role or a command, not both").into())
        }
        (Some(cli::Role::Client), None) => {
            let context = Context::new(&global)?;
            let done = roles::run(&context, &global, cli::Role::Client, &cli.role).await;
            context.close().await;
            done
        }
        (Some(role), None) => {
            let context = Context::without_settings(&global);
            roles::run(&context, &global, role, &cli.role).await
        }
        (None, Some(command)) => run_command(&global, command).await,
        (None, None) => {
            let help = Cli::command().render_help().to_string();
            Err(ErrorBody::user("usage", "say what to do")
                .with_help(help)
                .into())
        }
    }
}

async fn run_command(global: &cli::Global, command: Command) -> Result<()> {
    let plain = || Context::without_settings(global);
    match command {
        Command::Demo(args) => demo::run(&plain(), args).await,
        Command::Dev(args) => dev::run(&plain(), args).await,
        Command::Bench(command) => bench::run(&plain(), command).await,
        Command::Completions { shell } => Ok(command::completions(plain().output, shell)?),
        Command::Config(command) => command::config(plain().output, global, command),
        Command::Market(MarketCommand::Simulate(args)) => {
            command::simulate(plain().output, args).await
        }
        Command::Market(MarketCommand::Honesty(args)) => {
            command::honesty(plain().output, args).await
        }
        Command::Ledger(command) if command.is_offline() => {
            command::ledger_offline(plain().output, global, command)
        }
        Command::Doctor => {
            // What is wrong in client.toml is one of its findings.
            let context = Context::new(global).unwrap_or_else(|_| plain());
            command::doctor::run(&context, global).await
        }
        command => {
            let context = Context::new(global)?;
            let done = command::run(&context, command).await;
            context.close().await;
            done
        }
    }
}
