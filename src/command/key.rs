//! `key`: key files. No network is needed but to rotate one.

use std::path::{Path, PathBuf};

use anyhow::Result;
use cryptomind_config::key::{self, KeyFile};
use cryptomind_protocol::{AccountId, ErrorBody};
use serde::Serialize;

use crate::cli::KeyCommand;
use crate::context::Context;
use crate::exit;

mod rotate;

/// A key file, without its secret.
#[derive(Serialize)]
struct KeyView {
    file: PathBuf,
    account: AccountId,
    public_key: String,
}

impl KeyView {
    fn of(file: PathBuf, found: &KeyFile) -> Self {
        Self {
            file,
            account: found.account,
            public_key: found.key.public().to_string(),
        }
    }

    fn read(file: PathBuf) -> Result<Self, ErrorBody> {
        let found = key::read_file(&file)?;
        Ok(Self::of(file, &found))
    }

    fn text(&self) -> String {
        format!(
            "account     {}\npublic key  {}\nfile        {}",
            self.account,
            self.public_key,
            self.file.display()
        )
    }
}

/// Runs a `key` command.
pub async fn run(context: &Context, command: KeyCommand) -> Result<()> {
    match command {
        KeyCommand::Rotate => rotate::run(context).await,
        KeyCommand::New { file } => new(context, file),
        KeyCommand::Show { file } => show(context, file),
        KeyCommand::Ls => list(context),
    }
}

fn new(context: &Context, file: Option<PathBuf>) -> Result<()> {
    let file = file.unwrap_or_else(|| context.key_file());
    let seed = *cryptomind_sdk::new_key()?.seed();
    key::create(&file, seed).map_err(ErrorBody::from)?;
    let view = KeyView::read(file)?;
    context.output.value(&view, || view.text())?;
    context.output.note(
        "Whoever has this file has the account's money. Back it up.\nnext: cryptomind register NICKNAME",
    )?;
    Ok(())
}

fn show(context: &Context, file: Option<PathBuf>) -> Result<()> {
    let file = file.unwrap_or_else(|| context.key_file());
    let view = KeyView::read(file)?;
    context.output.value(&view, || view.text())?;
    if rotate::is_retired(&view.file) {
        context
            .output
            .note("retired: it signs nothing for this account any more")?;
    }
    Ok(())
}

fn list(context: &Context) -> Result<()> {
    let file = context.key_file();
    let folder = file.parent().unwrap_or(Path::new("."));
    let keys = keys_in(folder)?;
    context.output.rows(
        &keys,
        &["account", "file"],
        |key| vec![key.account.to_string(), key.file.display().to_string()],
        "no key file here; make one with: cryptomind key new",
    )?;
    Ok(())
}

/// Key files are named `*.key`. A folder that is missing has none.
fn keys_in(folder: &Path) -> Result<Vec<KeyView>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(exit::file(folder, &e).into()),
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|ext| ext == "key"));
    files.sort();
    let read = files
        .into_iter()
        .filter_map(|path| KeyView::read(path).ok());
    Ok(read.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_key_files_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        key::create(&dir.path().join("a.key"), [1; 32]).unwrap();
        std::fs::write(dir.path().join("b.key"), "torn").unwrap();
        std::fs::write(dir.path().join("c.txt"), "other").unwrap();
        let keys = keys_in(dir.path()).unwrap();
        assert_eq!(keys.len(), 1);
        assert!(keys[0].file.ends_with("a.key"));
        assert!(keys_in(&dir.path().join("missing")).unwrap().is_empty());
    }
}
