//! Files to and from storage, with a bar on a terminal.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use cryptomind_protocol::api::Placement;
use cryptomind_protocol::item::{FileEntry, ItemView};
use cryptomind_protocol::task::ResultFile;
use cryptomind_protocol::transaction::StoredReceipt;
use cryptomind_sdk::{Client, Progress};
use indicatif::ProgressBar;

use crate::output::Output;

const TEMPLATE: &str = "{prefix:>24} {bar:32} {binary_bytes}/{binary_total_bytes}";

fn report(bar: &ProgressBar) -> impl FnMut(Progress<'_>) + Send + '_ {
    |progress| {
        if bar.prefix() != progress.file {
            bar.set_prefix(progress.file.to_owned());
            bar.set_length(progress.total);
        }
        bar.set_position(progress.done);
    }
}

/// Stores files.
pub async fn upload(
    output: Output,
    client: &Client,
    files: Vec<(String, PathBuf)>,
) -> Result<Vec<(FileEntry, StoredReceipt)>> {
    let bar = output.bar(0, TEMPLATE);
    let stored = client.upload(files, &mut report(&bar)).await;
    bar.finish_and_clear();
    Ok(stored?)
}

/// Fetches files into a folder.
pub async fn download(
    output: Output,
    client: &Client,
    placement: &Placement,
    files: &[FileEntry],
    dir: &Path,
) -> Result<Vec<PathBuf>> {
    let bar = output.bar(0, TEMPLATE);
    let paths = client
        .download(placement, files, dir, &mut report(&bar))
        .await;
    bar.finish_and_clear();
    Ok(paths?)
}

/// Fetches an item's files and says where they are.
pub async fn get_item(
    output: Output,
    client: &Client,
    item: &ItemView,
    dir: Option<PathBuf>,
) -> Result<Vec<PathBuf>> {
    let dir = dir.unwrap_or_else(|| PathBuf::from(&item.manifest.name));
    let placement = client.locate_item(item.item).await?;
    let paths = download(output, client, &placement, &item.manifest.files, &dir).await?;
    tell(output, &paths)?;
    Ok(paths)
}

/// One path a line; in JSON as objects.
pub fn tell(output: Output, paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        output.value(&serde_json::json!({ "path": path }), || {
            path.display().to_string()
        })?;
    }
    Ok(())
}

/// A task's result files as entries, each name once.
pub fn entries(files: &[ResultFile]) -> Vec<FileEntry> {
    let mut names = BTreeSet::new();
    let first = files.iter().filter(|file| names.insert(&file.name));
    first
        .map(|file| FileEntry {
            name: file.name.clone(),
            blob: file.blob,
            bytes: file.bytes,
        })
        .collect()
}
