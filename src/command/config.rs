//! `config`: check a file, show what is in force.

use std::path::Path;

use anyhow::Result;
use cryptomind_config::{
    Client, Coordinator, Layers, Loaded, Miner, Settings, Storage, TaskFile, load,
};
use cryptomind_protocol::ErrorBody;
use serde_json::json;

use crate::cli::{CheckAs, ConfigCommand, Global};
use crate::context;
use crate::output::Output;
use crate::roles;

mod values;
use values::Values;

/// Runs a `config` command.
pub fn run(output: Output, global: &Global, command: ConfigCommand) -> Result<()> {
    match command {
        ConfigCommand::Check { file, role } => check(output, &file, role),
        ConfigCommand::Show { role } => show(output, global, role),
    }
}

/// By the beginning of its name: `miner.toml`, `miner-2.toml`; anything else is a task.
fn kind_of(file: &Path) -> CheckAs {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    let starts = |role: &str| name.starts_with(role);
    match () {
        () if starts("coordinator") => CheckAs::Coordinator,
        () if starts("miner") => CheckAs::Miner,
        () if starts("storage") => CheckAs::Storage,
        () if starts("client") => CheckAs::Client,
        () => CheckAs::Task,
    }
}

fn check(output: Output, file: &Path, role: Option<CheckAs>) -> Result<()> {
    let layers = Layers {
        file: Some(file.to_owned()),
        ..Layers::default()
    };
    match role.unwrap_or_else(|| kind_of(file)) {
        CheckAs::Coordinator => checked::<Coordinator>(&layers)?,
        CheckAs::Miner => checked::<Miner>(&layers)?,
        CheckAs::Storage => checked::<Storage>(&layers)?,
        CheckAs::Client => checked::<Client>(&layers)?,
        CheckAs::Task => TaskFile::read(file).map(drop)?,
    }
    let shown = file.display();
    output.value(&json!({ "ok": true, "file": file }), || format!("{shown} is in order"))?;
    Ok(())
}

fn checked<T: Settings>(layers: &Layers) -> Result<()> {
    Ok(load::<T>(layers).map(drop)?)
}

fn show(output: Output, global: &Global, role: CheckAs) -> Result<()> {
    let name = |role| roles::layers(role, global);
    match role {
        CheckAs::Client => listed(output, &context::settings(global)?),
        CheckAs::Coordinator => listed(output, &load::<Coordinator>(&name("coordinator"))?),
        CheckAs::Miner => listed(output, &load::<Miner>(&name("miner"))?),
        CheckAs::Storage => listed(output, &load::<Storage>(&name("storage"))?),
        CheckAs::Task => Err(ErrorBody::user("no_settings", "a task has no settings in force")
            .with_help("check its file: cryptomind config check FILE")
            .into()),
    }
}

/// A setting in force.
#[derive(serde::Serialize)]
struct Row {
    key: &'static str,
    value: String,
    from: String,
}

fn listed<T: Settings + Values>(output: Output, loaded: &Loaded<T>) -> Result<()> {
    let values = loaded.value.values();
    let origin = |key| loaded.origins.get(key).map(ToString::to_string);
    let rows: Vec<Row> = values
        .into_iter()
        .map(|(key, value)| Row {
            key,
            value,
            from: origin(key).unwrap_or_default(),
        })
        .collect();
    output.rows(
        &rows,
        &["key", "value", "from"],
        |row| vec![row.key.to_owned(), row.value.clone(), row.from.clone()],
        "nothing is set",
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_name_says_what_it_is_for() {
        assert_eq!(kind_of(Path::new("/etc/cryptomind/miner.toml")), CheckAs::Miner);
        assert_eq!(kind_of(Path::new("storage-2.toml")), CheckAs::Storage);
        assert_eq!(kind_of(Path::new("mlp.toml")), CheckAs::Task);
    }
}
