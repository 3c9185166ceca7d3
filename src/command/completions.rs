//! `completions`: scripts for shells, made from the one command tree.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::output::Output;

/// Prints the script.
pub fn print(output: Output, shell: Shell) -> std::io::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cryptomind", &mut script);
    output.raw(String::from_utf8_lossy(&script))
}
