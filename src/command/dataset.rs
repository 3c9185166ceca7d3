//! `dataset`: publish, list, fetch.

use std::path::{Path, PathBuf};

use anyhow::Result;
use cryptomind_config::TaskFile;
use cryptomind_protocol::item::{Access, DataFormat, DatasetInfo, ItemKind, ItemView, Manifest};
use cryptomind_protocol::{Amount, ErrorBody};
use serde_json::json;

use crate::cli::{AccessArg, DatasetAddArgs, DatasetCommand, GetArgs};
use crate::command::{data, files, task};
use crate::context::Context;
use crate::resolve;

/// Runs a `dataset` command.
pub async fn run(context: &Context, command: DatasetCommand) -> Result<()> {
    match command {
        DatasetCommand::Add(args) => add(context, *args).await,
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
            "dataset", "samples", "shape", "learnt", "access", "uses", "id",
        ],
        row,
        "no dataset is published yet: cryptomind dataset add …",
    )?;
    Ok(())
}

fn row(item: &ItemView) -> Vec<String> {
    let (samples, shape, learnt) = match &item.manifest.kind {
        ItemKind::Dataset(info) => (
            format!("{} + {}", info.train_samples, info.test_samples),
            shape(&info.input),
            learnt(info),
        ),
        ItemKind::Model(_) => Default::default(),
    };
    vec![
        item.path(),
        samples,
        shape,
        learnt,
        access_text(&item.manifest.access),
        item.uses.to_string(),
        item.item.short(),
    ]
}

/// What is learnt of a sample: `10 classes`.
fn learnt(info: &DatasetInfo) -> String {
    let count = info.outputs();
    let one = match (&info.format, info.values.is_empty()) {
        (_, false) => "value",
        (DataFormat::Text { .. }, true) => "token",
        (_, true) => "class",
    };
    match (count, one) {
        (1, one) => format!("1 {one}"),
        (_, "class") => format!("{count} classes"),
        (_, one) => format!("{count} {one}s"),
    }
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
        None => name_of(data::path(&args.data)?),
    };
    let asked = args.data;
    let inspected = tokio::task::spawn_blocking(move || data::inspect(&asked)).await?;
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
    let stored = files::upload(context.output, client, data::named(&draft.info, paths)).await?;
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
        "{path}: {} training and {} test samples of {}, {}",
        info.train_samples,
        info.test_samples,
        shape(&info.input),
        learnt(info)
    )
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
    use crate::cli::DataArgs;
    use crate::command::data::{inspect, named};
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

    fn args(line: &str, path: &Path) -> DataArgs {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: DataArgs,
        }
        let words = line.split(' ').map(|word| match word {
            "PATH" => path.to_str().unwrap(),
            word => word,
        });
        Line::try_parse_from(["add"].into_iter().chain(words))
            .unwrap()
            .args
    }

    #[test]
    fn what_is_no_dataset_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let code = |path: &Path, line: &str| inspect(&args(line, path)).unwrap_err().code;
        let none = dir.path().join("none");
        for line in ["PATH", "--csv PATH", "--text PATH", "--safetensors PATH"] {
            assert_eq!(code(&none, line), "file_not_found");
        }
        assert_eq!(code(dir.path(), "PATH --label x"), "label_of_folder");
        assert_eq!(code(dir.path(), "PATH --values x"), "label_of_folder");
        assert_eq!(code(dir.path(), "PATH"), "bad_dataset");
        assert_eq!(code(dir.path(), "--safetensors PATH"), "bad_dataset");
        assert_eq!(code(dir.path(), "--csv PATH --label x"), "bad_dataset");
        let table = dir.path().join("t.csv");
        std::fs::write(&table, "a,b\n1,x\n").unwrap();
        assert_eq!(code(&table, "PATH"), "no_label");
        assert_eq!(code(&table, "PATH --label missing"), "bad_dataset");
        assert_eq!(code(&table, "--csv PATH --values missing"), "bad_dataset");
        assert_eq!(code(&table, "--text PATH"), "bad_dataset");
    }

    #[test]
    fn files_go_under_the_names_that_their_dataset_has_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("my text.txt");
        std::fs::write(&text, "to be or not to be ".repeat(9)).unwrap();
        let found = |line: &str, path: &Path| inspect(&args(line, path)).unwrap();
        let (info, paths) = found("--text PATH --context 8 --held-out 0.25", &text);
        assert_eq!(named(&info, paths), [("my-text.txt".into(), text.clone())]);
        assert_eq!((info.train_samples, info.test_samples), (15, 5));
        let said = "a/b: 15 training and 5 test samples of 8, 7 tokens";
        assert_eq!(told("a/b", &info), said);
        let (info, _) = found("--text PATH --context 8 --level byte", &text);
        assert_eq!(info.outputs(), 256);
        let name = dir.path().join("c");
        let write = || write_task("a/b", name.to_str().unwrap(), &info).unwrap();
        let file = TaskFile::read(&write().unwrap()).unwrap();
        file.check_dataset(&info).unwrap();
        assert_eq!(write(), None, "one is there already");

        let table = dir.path().join("t.csv");
        std::fs::write(&table, "a,b,c\n".to_owned() + &"1,2,3\n".repeat(9)).unwrap();
        let (info, paths) = found("--csv PATH --values b,a", &table);
        assert_eq!(
            (&info.values[..], paths.len()),
            (&["b".into(), "a".into()][..], 1)
        );
        assert_eq!(learnt(&info), "2 values");
        let (info, _) = found("PATH --values b", &table);
        assert_eq!(learnt(&info), "1 value");
    }
}
