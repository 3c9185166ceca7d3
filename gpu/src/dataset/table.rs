//! CSV tables: a line of names, numeric columns, one column of labels.
//!
//! Columns are standardised by mean and deviation of the training rows. Every fifth row of a seeded
//! shuffle is held out, so client and miner agree on the split without a second file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cryptomind_protocol::item::{DataFormat, DatasetInfo, is_file_name};
use cryptomind_protocol::task::Split;
use csv::StringRecord;

use super::{DataError, MAX_CLASSES, MAX_VALUES, Samples, agree, open, shown};
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

/// A table as it lies in the file.
struct Table {
    file: String,
    /// Names of the numeric columns.
    columns: Vec<String>,
    /// Row-major, rows × columns.
    values: Vec<f64>,
    /// Index into `classes`, one a row.
    labels: Vec<u32>,
    /// Sorted.
    classes: Vec<String>,
}

/// Reads one split and holds it to `info`.
pub(super) fn load(
    info: &DatasetInfo,
    split: Split,
    known: Option<&Scaling>,
    path: &Path,
    label: &str,
    split_seed: u64,
) -> Result<(Samples, Scaling), DataError> {
    let table = Table::read(path, label)?;
    agree("input", &info.input[..], &[table.columns.len() as u32])?;
    agree("classes", &info.classes[..], &table.classes)?;
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
pub(super) fn inspect(path: &Path, label: &str) -> Result<(DatasetInfo, PathBuf), DataError> {
    let table = Table::read(path, label)?;
    let (train, test) = table.split(SPLIT_SEED);
    let scaling = table.scaling(&train)?;
    // Both splits once, so that what cannot be loaded is never published.
    table.samples(&train, &scaling)?;
    table.samples(&test, &scaling)?;
    let info = DatasetInfo {
        format: DataFormat::Csv {
            file: plain_name(&table.file),
            label: label.into(),
            split_seed: SPLIT_SEED,
        },
        train_samples: train.len() as u64,
        test_samples: test.len() as u64,
        input: vec![table.columns.len() as u32],
        classes: table.classes,
    };
    Ok((info, path.to_path_buf()))
}

/// The name under which the file is published: what is not allowed there becomes a dash.
fn plain_name(file: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let plain: String = file
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .collect();
    match is_file_name(&plain) {
        true => plain,
        false => "table.csv".into(),
    }
}

impl Table {
    fn read(path: &Path, label: &str) -> Result<Self, DataError> {
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
            .from_reader(std::io::Read::take(source, MAX_BYTES));
        let unreadable = |e: csv::Error| wrong(format!("cannot be read as CSV: {e}"));
        let header = reader.headers().map_err(unreadable)?.clone();
        let label_column = label_column(&header, label).map_err(wrong)?;
        let mut rows = Rows::new(&file, &header, label_column);
        for record in reader.records() {
            rows.add(&record.map_err(unreadable)?)?;
        }
        rows.finish()
    }

    /// Rows for training and rows held out, in the order of the shuffle.
    fn split(&self, seed: u64) -> (Vec<usize>, Vec<usize>) {
        let mut order: Vec<usize> = (0..self.labels.len()).collect();
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
        Ok(Samples {
            inputs,
            labels: rows.iter().map(|row| self.labels[*row]).collect(),
            input_len: columns,
            classes: self.classes.len(),
        })
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

/// Where the labels are; refusals list what is there instead.
fn label_column(header: &StringRecord, label: &str) -> Result<usize, String> {
    if header.iter().all(str::is_empty) {
        return Err("the file is empty: it needs a line of column names, then rows".into());
    }
    if header.len() > MAX_COLUMNS {
        return Err(format!("{} columns exceed {MAX_COLUMNS}", header.len()));
    }
    let mut places = header.iter().enumerate().filter(|(_, name)| *name == label);
    match (places.next(), places.next()) {
        (Some(_), None) if header.len() < 2 => Err(format!(
            "`{label}` is the only column: nothing to learn from"
        )),
        (Some((place, _)), None) => Ok(place),
        (Some(_), Some(_)) => Err(format!("two columns are named `{label}`")),
        (None, _) if header.len() == 1 && header[0].contains([';', '\t']) => {
            Err("the columns are not separated by commas; save the table as comma-separated".into())
        }
        (None, _) => Err(format!(
            "no column `{label}`; the columns are {}",
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
    label_column: usize,
    /// Classes by first sight; they are numbered anew when all are known.
    seen: BTreeMap<String, u32>,
    /// Rows that are taken in whole.
    rows: usize,
    table: Table,
}

impl<'a> Rows<'a> {
    fn new(file: &str, header: &'a StringRecord, label_column: usize) -> Self {
        let named = |(place, name): (usize, &str)| match name {
            "" => format!("column {}", place + 1),
            name => name.into(),
        };
        let features = header
            .iter()
            .enumerate()
            .filter(|(place, _)| *place != label_column);
        Self {
            header,
            label_column,
            seen: BTreeMap::new(),
            rows: 0,
            table: Table {
                file: file.into(),
                columns: features.map(named).collect(),
                values: Vec::new(),
                labels: Vec::new(),
                classes: Vec::new(),
            },
        }
    }

    fn add(&mut self, record: &StringRecord) -> Result<(), DataError> {
        if record.len() != self.header.len() {
            let line = record.position().map_or(0, csv::Position::line);
            return Err(self.wrong(format!(
                "row {} (line {line}) has {} cells, the header {}",
                self.rows + 1,
                record.len(),
                self.header.len()
            )));
        }
        let values = self.table.values.len() + self.table.columns.len();
        if values as u64 > MAX_VALUES {
            return Err(self.wrong(format!("more than {MAX_VALUES} numbers")));
        }
        for (place, cell) in record.iter().enumerate() {
            let added = match place == self.label_column {
                true => self.label(cell),
                false => self.number(cell),
            };
            added.map_err(|reason| self.cell(record, place, reason))?;
        }
        self.rows += 1;
        Ok(())
    }

    fn number(&mut self, cell: &str) -> Result<(), String> {
        if cell.is_empty() {
            return Err("the value is missing; fill it in or leave the row out".into());
        }
        match cell.parse::<f64>() {
            Ok(value) if value.is_finite() => {
                self.table.values.push(value);
                Ok(())
            }
            _ => Err(format!("`{cell:.40}` is not a number")),
        }
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
        if self.rows < HELD_OUT {
            return Err(self.wrong(format!(
                "{} rows: at least {HELD_OUT} are needed",
                self.rows
            )));
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
            row: self.rows + 1,
            line: record.position().map_or(0, csv::Position::line),
            column: self.header.get(place).unwrap_or_default().into(),
            reason,
        }
    }
}
