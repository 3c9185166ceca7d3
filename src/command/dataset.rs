//! `dataset`: publish, list, fetch.

use std::path::{Path, PathBuf};

use anyhow::Result;
use cryptomind_config::TaskFile;
use cryptomind_gpu::dataset::{inspect_csv, inspect_idx};
use cryptomind_protocol::item::{Access, DatasetInfo, ItemKind, ItemView, Manifest};
use cryptomind_protocol::{Amount, ErrorBody};
use serde_json::json;

use crate::cli::{AccessArg, DatasetAddArgs, DatasetCommand, GetArgs};
use crate::command::{files, task};
use crate::context::Context;
use crate::resolve;

/// Runs a `dataset` command.
pub async fn run(context: &Context, command: DatasetCommand) -> Result<()> {
    match command {
        DatasetCommand::Add(args) => add(context, args).await,
        DatasetCommand::Ls => list(context).await,
        DatasetCommand::Get(args) => get(context, args).await,
    }
}

async fn get(context: &Context, args: GetArgs) -> Result<()> {
    let client = context.client().await?;
    let item = resolve::item(client, &args.item).await?;
    files::get_item(context.output, client, &item, args.output).await?;
    Ok(())
}

async fn list(context: &Context) -> Result<()> {
    let items = context.client().await?.items(Some("dataset")).await?;
    context.output.rows(
        &items,
        &[
            "dataset", "samples", "shape", "classes", "access", "uses", "id",
        ],
        row,
        "no dataset is published yet: cryptomind dataset add …",
    )?;
    Ok(())
}

fn row(item: &ItemView) -> Vec<String> {
    let (samples, shape, classes) = match &item.manifest.kind {
        ItemKind::Dataset(info) => (
            format!("{} + {}", info.train_samples, info.test_samples),
            shape(&info.input),
            info.classes.len().to_string(),
        ),
        ItemKind::Model(_) => Default::default(),
    };
    vec![
        item.path(),
        samples,
        shape,
        classes,
        access_text(&item.manifest.access),
        item.uses.to_string(),
        item.item.short(),
    ]
}

/// `8×8`.
pub fn shape(input: &[u32]) -> String {
    let sizes: Vec<String> = input.iter().map(ToString::to_string).collect();
    sizes.join("×")
}

/// Who may use an item, for people.
pub fn access_text(access: &Access) -> String {
    match access {
        Access::Free => "free".into(),
        Access::Paid { fee } => format!("{fee} a use"),
        Access::Owner => "owner".into(),
    }
}

/// What the command line says of access and fee.
pub fn access(access: AccessArg, fee: Option<Amount>) -> Result<Access, ErrorBody> {
    match (access, fee) {
        (AccessArg::Free, None) => Ok(Access::Free),
        (AccessArg::Owner, None) => Ok(Access::Owner),
        (AccessArg::Paid, Some(fee)) if !fee.is_zero() => Ok(Access::Paid { fee }),
        (AccessArg::Paid, _) => Err(ErrorBody::user("no_fee", "paid access needs a fee")
            .with_help("add --fee CTM, for example --fee 0.02")),
        (_, Some(_)) => Err(
            ErrorBody::user("fee_without_access", "a fee without paid access")
                .with_help("add --access paid, or leave the fee out"),
        ),
    }
}

async fn add(context: &Context, args: DatasetAddArgs) -> Result<()> {
    let access = access(args.access, args.fee)?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => name_of(&args.path),
    };
    let (path, label) = (args.path.clone(), args.label.clone());
    let inspected = tokio::task::spawn_blocking(move || inspect(&path, label.as_deref())).await?;
    let (info, paths) = inspected?;
    let draft = Draft {
        name,
        info,
        access,
        licence: args.licence,
        source: args.source,
    };
    publish(context, draft, paths, !args.no_task_file).await
}

/// A dataset before its files are stored.
struct Draft {
    name: String,
    info: DatasetInfo,
    access: Access,
    licence: String,
    source: String,
}

async fn publish(
    context: &Context,
    draft: Draft,
    paths: Vec<PathBuf>,
    task_file: bool,
) -> Result<()> {
    let client = context.client().await?;
    let stored = files::upload(context.output, client, named(paths)?).await?;
    let (files, receipts) = stored.into_iter().unzip();
    let manifest = Manifest {
        name: draft.name.clone(),
        kind: ItemKind::Dataset(draft.info.clone()),
        files,
        access: draft.access,
        licence: draft.licence,
        source: draft.source,
    };
    let item = client.publish(manifest, receipts).await?;
    let path = client.item_by_id(item).await?.path();
    let task_file = match task_file {
        true => write_task(&path, &draft.name, &draft.info)?,
        false => None,
    };
    let published =
        json!({ "item": item, "path": path, "dataset": draft.info, "task_file": task_file });
    context
        .output
        .value(&published, || told(&path, &draft.info))?;
    if let Some(file) = task_file {
        let file = file.display();
        context.output.note(format!(
            "{file} trains a small network on it\n\
             next: cryptomind task quote {file}\n      cryptomind task submit {file} --watch"
        ))?;
    }
    Ok(())
}

/// A task file beside the user, unless one with its name is there already.
fn write_task(path: &str, name: &str, info: &DatasetInfo) -> Result<Option<PathBuf>, ErrorBody> {
    let file = PathBuf::from(format!("{name}-task.toml"));
    if file.exists() {
        return Ok(None);
    }
    task::write_new(&file, &TaskFile::template(path, info, task::random_seed()?))?;
    Ok(Some(file))
}

fn told(path: &str, info: &DatasetInfo) -> String {
    format!(
        "{path}: {} training and {} test samples of {}, {} classes",
        info.train_samples,
        info.test_samples,
        shape(&info.input),
        info.classes.len()
    )
}

/// Looks into the files: a folder of IDX, or a table.
fn inspect(path: &Path, label: Option<&str>) -> Result<(DatasetInfo, Vec<PathBuf>), ErrorBody> {
    let bad = |e: &dyn std::fmt::Display| ErrorBody::user("bad_dataset", e);
    if !path.exists() {
        return Err(ErrorBody::not_found(
            "file",
            format!("{} is not there", path.display()),
        ));
    }
    match (path.is_dir(), label) {
        (true, None) => inspect_idx(path).map_err(|e| bad(&e)),
        (true, Some(_)) => Err(ErrorBody::user(
            "label_of_folder",
            "a folder of IDX files has its labels in a file",
        )
        .with_help("leave --label out, or name a CSV file")),
        (false, Some(label)) => {
            let (info, file) = inspect_csv(path, label).map_err(|e| bad(&e))?;
            Ok((info, vec![file]))
        }
        (false, None) => Err(
            ErrorBody::user("no_label", "a CSV file needs its column of labels")
                .with_help("add --label COLUMN"),
        ),
    }
}

/// Each file under its own name.
fn named(paths: Vec<PathBuf>) -> Result<Vec<(String, PathBuf)>, ErrorBody> {
    let one = |path: PathBuf| match path.file_name().and_then(|name| name.to_str()) {
        Some(name) => Ok((name.to_owned(), path)),
        None => Err(ErrorBody::user(
            "bad_file_name",
            format!("{} has no plain name", path.display()),
        )),
    };
    paths.into_iter().map(one).collect()
}

/// The file's or folder's name as a name of the catalog.
fn name_of(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let stem = absolute
        .file_stem()
        .map(|stem| stem.to_string_lossy().to_lowercase());
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '_' {
            c
        } else {
            '-'
        }
    };
    let name: String = stem
        .unwrap_or_default()
        .chars()
        .map(plain)
        .take(64)
        .collect();
    let name = name.trim_matches(['-', '_']).to_owned();
    if name.is_empty() {
        "dataset".into()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptomind_protocol::task::is_name;

    #[test]
    fn a_fee_goes_with_paid_access_only() {
        let fee = Some("0.02".parse().unwrap());
        assert_eq!(access(AccessArg::Free, None), Ok(Access::Free));
        assert!(matches!(
            access(AccessArg::Paid, fee),
            Ok(Access::Paid { .. })
        ));
        assert!(access(AccessArg::Paid, None).is_err());
        assert!(access(AccessArg::Paid, Some(Amount::ZERO)).is_err());
        assert!(access(AccessArg::Owner, fee).is_err());
    }

    #[test]
    fn any_path_gives_a_name() {
        for path in [
            "My Data (2).csv",
            "/tmp/x/iris.csv",
            ".",
            "ß.csv",
            "..",
            "-.csv",
        ] {
            let name = name_of(Path::new(path));
            assert!(is_name(&name), "{path} gives {name}");
        }
        assert_eq!(name_of(Path::new("a/Iris.csv")), "iris");
    }

    #[test]
    fn what_is_no_dataset_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let code = |path: &Path, label| inspect(path, label).unwrap_err().code;
        assert_eq!(code(&dir.path().join("none"), None), "file_not_found");
        assert_eq!(code(dir.path(), Some("x")), "label_of_folder");
        assert_eq!(code(dir.path(), None), "bad_dataset");
        let table = dir.path().join("t.csv");
        std::fs::write(&table, "a,b\n1,x\n").unwrap();
        assert_eq!(code(&table, None), "no_label");
        assert_eq!(code(&table, Some("missing")), "bad_dataset");
    }
}
