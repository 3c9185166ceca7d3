//! Data of one's own on the command line: which files they are, and what these hold.

use std::path::{Path, PathBuf};

use cryptomind_gpu::dataset::{
    DataError, inspect_csv, inspect_csv_values, inspect_idx, inspect_safetensors, inspect_text,
};
use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::item::DatasetInfo;

use crate::cli::{DataArgs, LevelArg};

/// Tokens of a sample of text, where nothing is said.
const CONTEXT: u32 = 64;
/// Share of a text that is held out where nothing is said, millionths.
const HELD_OUT_PPM: u32 = 100_000;

/// Where the data lie; the command line has exactly one of them.
pub fn path(args: &DataArgs) -> Result<&Path, ErrorBody> {
    let tables = args.path.as_ref().or(args.csv.as_ref());
    let path = tables.or(args.text.as_ref()).or(args.safetensors.as_ref());
    let none = || ErrorBody::user("no_data", "a dataset needs its files");
    path.map(PathBuf::as_path).ok_or_else(none)
}

/// Looks into the files: a folder of IDX, a table, a text, or tensors.
pub fn inspect(args: &DataArgs) -> Result<(DatasetInfo, Vec<PathBuf>), ErrorBody> {
    let path = path(args)?;
    if !path.exists() {
        return Err(ErrorBody::not_found(
            "file",
            format!("{} is not there", path.display()),
        ));
    }
    if args.safetensors.is_some() {
        return inspect_safetensors(path).map_err(bad);
    }
    if args.text.is_some() {
        let context = args.context.unwrap_or(CONTEXT);
        let level = args.level.unwrap_or(LevelArg::Character).into();
        let held_out_ppm = args.held_out.unwrap_or(HELD_OUT_PPM);
        return one(inspect_text(path, context, level, held_out_ppm));
    }
    if path.is_dir() && args.csv.is_none() {
        return match args.label.is_none() && args.values.is_empty() {
            true => inspect_idx(path).map_err(bad),
            false => Err(ErrorBody::user(
                "label_of_folder",
                "a folder of IDX files has its labels in a file",
            )
            .with_help("leave --label and --values out, or name a CSV file")),
        };
    }
    match (&args.label, &args.values[..]) {
        (Some(label), _) => one(inspect_csv(path, label)),
        (None, []) => Err(
            ErrorBody::user("no_label", "a CSV file needs its column of labels")
                .with_help("add --label COLUMN, or --values COLUMN,COLUMN to predict numbers; a text is named by --text"),
        ),
        (None, values) => one(inspect_csv_values(path, values)),
    }
}

fn bad(error: DataError) -> ErrorBody {
    ErrorBody::user("bad_dataset", error)
}

fn one(
    found: Result<(DatasetInfo, PathBuf), DataError>,
) -> Result<(DatasetInfo, Vec<PathBuf>), ErrorBody> {
    let (info, file) = found.map_err(bad)?;
    Ok((info, vec![file]))
}

/// Each file under the name by which its dataset knows it.
pub fn named(info: &DatasetInfo, paths: Vec<PathBuf>) -> Vec<(String, PathBuf)> {
    let names = info.format.files().into_iter().map(str::to_owned);
    names.zip(paths).collect()
}
