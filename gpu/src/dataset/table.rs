//! CSV tables: a line of names, numeric columns, one column of labels or some of numbers to predict.
//!
//! Columns are standardised by mean and deviation of the training rows, but not those that are predicted. Every fifth row
//! of a seeded shuffle is held out, so client and miner agree on the split without a second file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cryptomind_protocol::item::{DataFormat, DatasetInfo};
use cryptomind_protocol::task::Split;
use csv::StringRecord;

use super::records::Bounded;
use super::samples::{Inputs, Targets};
use super::{DataError, MAX_CLASSES, MAX_VALUES, Samples, agree, open, plain_name, shown};
use crate::random::Stream;
use crate::scaling::Scaling;

/// The largest table, 1 GiB.
const MAX_BYTES: u64 = 1 << 30;
/// The most columns.
const MAX_COLUMNS: usize = 100_000;
/// The longest class name, bytes.
const MAX_CLASS_BYTES: usize = 128;
/// One row in so many is held out.
const HELD_OUT: usize = 5;
const SPLIT_PURPOSE: &str = "cryptomind table split/1";
/// The seed that [`inspect`] proposes.
const SPLIT_SEED: u64 = 0;

/// What is learnt from a table's other columns.
#[derive(Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// The class that this column names.
    Label(&'a str),
    /// The numbers in these columns.
    Values(&'a [String]),
}

/// A table as it lies in the file.
struct Table {
    file: String,
    rows: usize,
    /// Names of the numeric columns.
    columns: Vec<String>,
    /// Row-major, rows × columns.
    values: Vec<f64>,
    /// Index into `classes`, one a row; none where values are wanted.
    labels: Vec<u32>,
    /// Sorted.
    classes: Vec<String>,
    /// Rows × the columns that are wanted.
    targets: Vec<f32>,
}

/// Reads one split and holds it to `info`.
pub(super) fn load(
    info: &DatasetInfo,
    split: Split,
    known: Option<&Scaling>,
    path: &Path,
    wanted: Wanted<'_>,
    split_seed: u64,
) -> Result<(Samples, Scaling), DataError> {
    let table = Table::read(path, wanted)?;
    agree("input", &info.input[..], &[table.columns.len() as u32])?;
    agree("classes", &info.classes[..], &table.classes)?;
    agree("values", &info.values[..], wanted.values())?;
    let (train, test) = table.split(split_seed);
    agree("training samples", info.train_samples, train.len() as u64)?;
    agree("test samples", info.test_samples, test.len() as u64)?;
    let scaling = match known {
        Some(known) => known.clone(),
        None => table.scaling(&train)?,
    };
    let rows = if split == Split::Train { &train } else { &test };
    Ok((table.samples(rows, &scaling)?, scaling))
}

/// See [`super::inspect_csv`].
pub(super) fn inspect(
    path: &Path,
    wanted: Wanted<'_>,
) -> Result<(DatasetInfo, PathBuf), DataError> {
    let table = Table::read(path, wanted)?;
    let (train, test) = table.split(SPLIT_SEED);
    let scaling = table.scaling(&train)?;
    // Both splits once, so that what cannot be loaded is never published.
    table.samples(&train, &scaling)?;
    table.samples(&test, &scaling)?;
    let info = DatasetInfo {
        format: DataFormat::Csv {
            file: plain_name(&table.file, "table.csv"),
            label: wanted.label().into(),
            split_seed: SPLIT_SEED,
            targets: wanted.values().to_vec(),
        },
        train_samples: train.len() as u64,
        test_samples: test.len() as u64,
        input: vec![table.columns.len() as u32],
        classes: table.classes,
        values: wanted.values().to_vec(),
    };
    Ok((info, path.to_path_buf()))
}

impl<'a> Wanted<'a> {
    /// Empty where values are wanted.
    const fn label(self) -> &'a str {
        match self {
            Self::Label(label) => label,
            Self::Values(_) => "",
        }
    }

    /// None where a label is wanted.
    const fn values(self) -> &'a [String] {
        match self {
            Self::Label(_) => &[],
            Self::Values(values) => values,
        }
    }
}

impl Table {
    fn read(path: &Path, wanted: Wanted<'_>) -> Result<Self, DataError> {
        let file = shown(path);
        let wrong = |reason: String| DataError::File {
            file: file.clone(),
            reason,
        };
        let source = open(path)?;
        let bytes = source.metadata().map_or(0, |metadata| metadata.len());
        if bytes > MAX_BYTES {
            return Err(wrong(format!("{bytes} bytes exceed {MAX_BYTES}")));
        }
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .flexible(true)
            .from_reader(Bounded::new(std::io::Read::take(source, MAX_BYTES)));
        let unreadable = |e: csv::Error| wrong(format!("cannot be read as CSV: {e}"));
        let header = reader.headers().map_err(unreadable)?.clone();
        let roles = roles(&header, wanted).map_err(wrong)?;
        let mut rows = Rows::new(&file, &header, roles);
        for record in reader.records() {
            rows.add(&record.map_err(unreadable)?)?;
        }
        rows.finish()
    }

    /// Rows for training and rows held out, in the order of the shuffle.
    fn split(&self, seed: u64) -> (Vec<usize>, Vec<usize>) {
        let mut order: Vec<usize> = (0..self.rows).collect();
        Stream::new(SPLIT_PURPOSE, seed, "").shuffle(&mut order);
        let held_out = |place: &usize| place % HELD_OUT == HELD_OUT - 1;
        let (test, train): (Vec<_>, Vec<_>) = order
            .into_iter()
            .enumerate()
            .partition(|(place, _)| held_out(place));
        let rows = |part: Vec<(usize, usize)>| part.into_iter().map(|(_, row)| row).collect();
        (rows(train), rows(test))
    }

    fn row(&self, row: usize) -> &[f64] {
        let columns = self.columns.len();
        &self.values[row * columns..(row + 1) * columns]
    }

    /// By mean and standard deviation of each column over these rows; a constant column has 1.
    fn scaling(&self, rows: &[usize]) -> Result<Scaling, DataError> {
        let n = rows.len() as f64;
        let columns = (0..self.columns.len()).map(|column| {
            let values = || rows.iter().map(|row| self.row(*row)[column]);
            let mean = values().map(|v| v / n).sum::<f64>();
            let deviation = (values().map(|v| (v - mean).powi(2) / n).sum::<f64>()).sqrt();
            match deviation {
                d if !d.is_finite() => Err(self.too_large(column)),
                0.0 => Ok((mean, 1.0)),
                d => Ok((mean, d)),
            }
        });
        Ok(Scaling::of_columns(columns.collect::<Result<Vec<_>, _>>()?))
    }

    fn samples(&self, rows: &[usize], scaling: &Scaling) -> Result<Samples, DataError> {
        let columns = self.columns.len();
        let mut inputs = Vec::with_capacity(rows.len() * columns);
        for row in rows {
            let values = self.row(*row).iter().enumerate();
            inputs.extend(values.map(|(column, value)| scaling.value(column, *value)));
        }
        if let Some(place) = inputs.iter().position(|v| !v.is_finite()) {
            return Err(self.too_large(place % columns));
        }
        let (inputs, targets) = (Inputs::Values(inputs), self.targets(rows));
        Ok(Samples::new(inputs, targets, columns))
    }

    fn targets(&self, rows: &[usize]) -> Targets {
        if !self.classes.is_empty() {
            let labels = rows.iter().map(|row| self.labels[*row]).collect();
            return Targets::labels(labels, self.classes.len());
        }
        let width = self.targets.len() / self.rows.max(1);
        let of_row = |row: &usize| &self.targets[row * width..(row + 1) * width];
        Targets::values(rows.iter().flat_map(of_row).copied().collect(), width)
    }

    fn too_large(&self, column: usize) -> DataError {
        DataError::File {
            file: self.file.clone(),
            reason: format!(
                "column `{}` holds values too large to be standardised",
                self.columns[column]
            ),
        }
    }
}

/// What a column is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Input,
    Label,
    /// Which of the wanted values.
    Target(usize),
}

/// What each column is for; refusals list what is there instead.
fn roles(header: &StringRecord, wanted: Wanted<'_>) -> Result<Vec<Role>, String> {
    if header.iter().all(str::is_empty) {
        return Err("the file is empty: it needs a line of column names, then rows".into());
    }
    if header.len() > MAX_COLUMNS {
        return Err(format!("{} columns exceed {MAX_COLUMNS}", header.len()));
    }
    let mut roles = vec![Role::Input; header.len()];
    match wanted {
        Wanted::Label(label) => roles[column(header, label)?] = Role::Label,
        Wanted::Values(values) => {
            if values.is_empty() || values.len() > MAX_CLASSES {
                return Err(format!(
                    "{} columns to predict: give 1 to {MAX_CLASSES}",
                    values.len()
                ));
            }
            for (number, name) in values.iter().enumerate() {
                let place = column(header, name)?;
                if roles[place] != Role::Input {
                    return Err(format!("`{name:.40}` is to be predicted twice"));
                }
                roles[place] = Role::Target(number);
            }
        }
    }
    match roles.contains(&Role::Input) {
        true => Ok(roles),
        false if header.len() == 1 => Err(format!(
            "`{:.40}` is the only column: nothing to learn from",
            &header[0]
        )),
        false => Err("every column is to be predicted: nothing to learn from".into()),
    }
}

/// Where the one column of this name is.
fn column(header: &StringRecord, wanted: &str) -> Result<usize, String> {
    let mut places = header
        .iter()
        .enumerate()
        .filter(|(_, name)| *name == wanted);
    match (places.next(), places.next()) {
        (Some((place, _)), None) => Ok(place),
        (Some(_), Some(_)) => Err(format!("two columns are named `{wanted:.40}`")),
        (None, _) if header.len() == 1 && header[0].contains([';', '\t']) => {
            Err("the columns are not separated by commas; save the table as comma-separated".into())
        }
        (None, _) => Err(format!(
            "no column `{wanted:.40}`; the columns are {}",
            listed(header)
        )),
    }
}

/// Names in quotes, the first twenty of them.
fn listed(names: &StringRecord) -> String {
    const SHOWN: usize = 20;
    let more = names.len().saturating_sub(SHOWN);
    let shown: Vec<String> = names
        .iter()
        .take(SHOWN)
        .map(|name| format!("`{name:.40}`"))
        .collect();
    match more {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Gathers rows, refusing the first that does not fit.
struct Rows<'a> {
    header: &'a StringRecord,
    roles: Vec<Role>,
    /// How many columns are predicted.
    width: usize,
    /// Classes by first sight; they are numbered anew when all are known.
    seen: BTreeMap<String, u32>,
    /// Its rows are those that are taken in whole.
    table: Table,
}

impl<'a> Rows<'a> {
    fn new(file: &str, header: &'a StringRecord, roles: Vec<Role>) -> Self {
        let named = |(place, name): (usize, &str)| match name {
            "" => format!("column {}", place + 1),
            name => name.into(),
        };
        let inputs = header
            .iter()
            .enumerate()
            .filter(|(place, _)| roles[*place] == Role::Input);
        let is_target = |role: &&Role| matches!(role, Role::Target(_));
        Self {
            header,
            width: roles.iter().filter(is_target).count(),
            seen: BTreeMap::new(),
            table: Table {
                file: file.into(),
                rows: 0,
                columns: inputs.map(named).collect(),
                values: Vec::new(),
                labels: Vec::new(),
                classes: Vec::new(),
                targets: Vec::new(),
            },
            roles,
        }
    }

    fn add(&mut self, record: &StringRecord) -> Result<(), DataError> {
        if record.len() != self.header.len() {
            let line = record.position().map_or(0, csv::Position::line);
            return Err(self.wrong(format!(
                "row {} (line {line}) has {} cells, the header {}",
                self.table.rows + 1,
                record.len(),
                self.header.len()
            )));
        }
        let (inputs, targets) = (self.table.values.len(), self.table.targets.len());
        let most = (inputs + self.table.columns.len()).max(targets + self.width);
        if most as u64 > MAX_VALUES {
            return Err(self.wrong(format!("more than {MAX_VALUES} numbers")));
        }
        self.table.targets.resize(targets + self.width, 0.0);
        for (place, cell) in record.iter().enumerate() {
            let added = match self.roles[place] {
                Role::Input => number(cell).map(|value| self.table.values.push(value)),
                Role::Label => self.label(cell),
                Role::Target(which) => target(cell).map(|value| {
                    self.table.targets[targets + which] = value;
                }),
            };
            added.map_err(|reason| self.cell(record, place, reason))?;
        }
        self.table.rows += 1;
        Ok(())
    }

    fn label(&mut self, cell: &str) -> Result<(), String> {
        if cell.is_empty() {
            return Err("the label is missing; fill it in or leave the row out".into());
        }
        if cell.len() > MAX_CLASS_BYTES {
            return Err(format!(
                "a label of {} bytes exceeds {MAX_CLASS_BYTES}",
                cell.len()
            ));
        }
        let next = self.seen.len() as u32;
        let class = match self.seen.get(cell) {
            Some(class) => *class,
            None if self.seen.len() == MAX_CLASSES => {
                return Err(format!(
                    "more than {MAX_CLASSES} different labels: is this the column of classes?"
                ));
            }
            None => *self.seen.entry(cell.into()).or_insert(next),
        };
        self.table.labels.push(class);
        Ok(())
    }

    /// Numbers the classes by their sorted names.
    fn finish(mut self) -> Result<Table, DataError> {
        let rows = self.table.rows;
        if rows < HELD_OUT {
            return Err(self.wrong(format!("{rows} rows: at least {HELD_OUT} are needed")));
        }
        if let [(only, _)] = self.seen.iter().collect::<Vec<_>>()[..] {
            return Err(self.wrong(format!("every label is `{only}`: two classes are needed")));
        }
        let mut numbers = vec![0; self.seen.len()];
        for (sorted, (name, first_seen)) in (0..).zip(&self.seen) {
            numbers[*first_seen as usize] = sorted;
            self.table.classes.push(name.clone());
        }
        self.table
            .labels
            .iter_mut()
            .for_each(|label| *label = numbers[*label as usize]);
        Ok(self.table)
    }

    fn wrong(&self, reason: String) -> DataError {
        DataError::File {
            file: self.table.file.clone(),
            reason,
        }
    }

    fn cell(&self, record: &StringRecord, place: usize, reason: String) -> DataError {
        DataError::Cell {
            file: self.table.file.clone(),
            row: self.table.rows + 1,
            line: record.position().map_or(0, csv::Position::line),
            column: self.header.get(place).unwrap_or_default().into(),
            reason,
        }
    }
}

fn number(cell: &str) -> Result<f64, String> {
    if cell.is_empty() {
        return Err("the value is missing; fill it in or leave the row out".into());
    }
    match cell.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(format!("`{cell:.40}` is not a number")),
    }
}

/// A number that is predicted as it is, so it must be one of f32.
fn target(cell: &str) -> Result<f32, String> {
    let value = number(cell)? as f32;
    match value.is_finite() {
        true => Ok(value),
        false => Err(format!("`{cell:.40}` is too large to be predicted")),
    }
}
