use std::io::Write;

use proptest::prelude::*;

use super::*;

mod hostile;
mod tensors;
mod text;

const NAMES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

fn idx(sizes: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, sizes.len() as u8];
    sizes
        .iter()
        .for_each(|size| bytes.extend_from_slice(&size.to_be_bytes()));
    bytes.extend_from_slice(values);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

/// Three training and two test images of 2×2 pixels.
fn good() -> [Vec<u8>; 4] {
    [
        idx(&[3, 2, 2], &[0, 1, 2, 3, 4, 3, 2, 1, 0, 0, 0, 2]),
        idx(&[3], &[0, 2, 1]),
        idx(&[2, 2, 2], &[4, 4, 4, 4, 8, 0, 0, 0]),
        idx(&[2], &[1, 1]),
    ]
}

fn folder(files: &[Vec<u8>; 4]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in NAMES.iter().zip(files) {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn load_in(folder: &Path, info: &DatasetInfo, split: Split) -> Result<Samples, DataError> {
    load(info, split, None, &|name| folder.join(name)).map(|(samples, _)| samples)
}

/// What a split holds, all of it at once.
#[derive(Debug, Clone, PartialEq)]
struct Whole {
    inputs: Vec<f32>,
    labels: Vec<u32>,
    values: Vec<f32>,
    /// Values of a sample, classes, values to predict, labels of a sample.
    sizes: [usize; 4],
}

fn rows_of(samples: &Samples, rows: &[u32]) -> Whole {
    let (mut inputs, mut labels, mut values) = (vec![7.0], vec![7], vec![7.0]);
    samples.inputs_of(rows, &mut inputs).unwrap();
    samples.labels_of(rows, &mut labels);
    samples.values_of(rows, &mut values);
    Whole {
        inputs,
        labels,
        values,
        sizes: [
            samples.input_len(),
            samples.classes(),
            samples.target_width(),
            samples.labels_per_sample(),
        ],
    }
}

fn whole(samples: &Samples) -> Whole {
    rows_of(samples, &(0..samples.len() as u32).collect::<Vec<_>>())
}

impl Whole {
    /// The same rows, picked from what was loaded whole.
    fn picked(&self, rows: &[u32]) -> Self {
        fn pick<T: Copy>(all: &[T], len: usize, rows: &[u32]) -> Vec<T> {
            let of = |row: &u32| &all[*row as usize * len..(*row as usize + 1) * len];
            rows.iter().flat_map(of).copied().collect()
        }
        let [input_len, _, width, labels] = self.sizes;
        Self {
            inputs: pick(&self.inputs, input_len, rows),
            labels: pick(&self.labels, labels, rows),
            values: pick(&self.values, width, rows),
            ..*self
        }
    }
}

#[track_caller]
fn says<T: std::fmt::Debug>(result: Result<T, DataError>, text: &str) {
    let error = result.unwrap_err().to_string();
    assert!(error.contains(text), "wanted {text}: {error}");
}

#[test]
fn idx_files_are_found_described_and_read() {
    let folder = folder(&good());
    let (info, files) = inspect_idx(folder.path()).unwrap();
    assert_eq!(files, NAMES.map(|name| folder.path().join(name)));
    assert_eq!((info.train_samples, info.test_samples), (3, 2));
    assert_eq!((&info.input[..], info.classes.len()), (&[2, 2][..], 3));
    let train = whole(&load_in(folder.path(), &info, Split::Train).unwrap());
    assert_eq!(train.inputs[..5], [0.0, 0.25, 0.5, 0.75, 1.0]);
    assert_eq!(
        (&train.labels[..], train.sizes),
        (&[0, 2, 1][..], [4, 3, 0, 1])
    );
    let test = load_in(folder.path(), &info, Split::Test).unwrap();
    assert_eq!((whole(&test).inputs[4], test.len()), (2.0, 2));
}

#[test]
fn gzip_makes_no_difference_and_test_files_may_be_named_so() {
    let plain = folder(&good());
    let (info, _) = inspect_idx(plain.path()).unwrap();
    let packed = tempfile::tempdir().unwrap();
    for (name, bytes) in NAMES.iter().zip(good()) {
        let name = format!("{}.gz", name.replace("t10k", "test"));
        std::fs::write(packed.path().join(name), gzip(&bytes)).unwrap();
    }
    let (packed_info, _) = inspect_idx(packed.path()).unwrap();
    for split in [Split::Train, Split::Test] {
        assert_eq!(
            whole(&load_in(packed.path(), &packed_info, split).unwrap()),
            whole(&load_in(plain.path(), &info, split).unwrap())
        );
    }
}

#[test]
fn the_bundled_digits_are_what_their_readme_says() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in crate::digits::files() {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let (info, _) = inspect_idx(folder.path()).unwrap();
    assert_eq!((info.train_samples, info.test_samples), (1437, 360));
    assert_eq!((&info.input[..], info.classes.len()), (&[8, 8][..], 10));
    let DataFormat::Idx { scale, .. } = info.format else {
        panic!("{:?}", info.format)
    };
    assert_eq!(scale, 16.0);
}

/// Each file broken in turn: where it is, and what the refusal must say.
#[test]
fn broken_idx_files_are_refused() {
    let huge = idx(&[u32::MAX, u32::MAX, u32::MAX], &[]);
    let big = idx(&[1 << 20, 1 << 5, 1 << 5], &[]);
    let mut wrong_type = good()[0].clone();
    wrong_type[2] = 0x0d;
    let mut cut_gzip = gzip(&good()[0]);
    cut_gzip.truncate(cut_gzip.len() - 9);
    let packed = gzip(&good()[0]);
    let (mut wrong_sum, mut wrong_stream) = (packed.clone(), packed);
    let sum = wrong_sum.len() - 8;
    wrong_sum[sum] ^= 1;
    wrong_stream[10] = 0xff;
    let mut bomb = good()[0].clone();
    bomb.resize(100 << 20, 0);
    let cases = [
        (0, vec![], "truncated"),
        (0, vec![0, 0, 8], "truncated"),
        (0, good()[0][..10].to_vec(), "truncated"),
        (0, good()[0][..20].to_vec(), "truncated"),
        (0, cut_gzip, "truncated"),
        (0, wrong_sum, "corrupt"),
        (0, wrong_stream, "corrupt"),
        (0, gzip(&bomb), "goes on after its 12 values"),
        (0, [good()[0].clone(), vec![1]].concat(), "goes on"),
        (0, huge, "exceed"),
        (0, big, "exceed"),
        (0, wrong_type, "begins with [00, 00, 0d, 03]"),
        (0, b"<!DOCTYPE html>".to_vec(), "begins with"),
        (0, good()[1].clone(), "begins with"),
        (0, idx(&[0, 2, 2], &[]), "empty"),
        (0, idx(&[3, 2, 2], &[0; 12]), "every value is 0"),
        (0, idx(&[2, 2, 2], &[1; 8]), "2 images, but 3 labels"),
        (1, good()[0].clone(), "begins with"),
        (1, idx(&[4], &[0; 4]), "3 images, but 4 labels"),
        (2, idx(&[2, 1, 4], &[1; 8]), "training has [2, 2]"),
        (3, idx(&[2], &[1; 1]), "truncated"),
        (0, idx(&[1 << 28], &[0; 99]), "begins with"),
        (
            0,
            idx(&[1 << 20, 1 << 8], &[0; 99]),
            "more than it can hold",
        ),
        (
            0,
            gzip(&idx(&[1 << 20, 1 << 8], &[0; 99])),
            "more than it can hold",
        ),
        (1, gzip(&idx(&[1 << 28], &[0; 99])), "more than it can hold"),
        (3, gzip(&[0, 0, 8]), "truncated"),
        (2, vec![0x1f, 0x8b, 8, 4, 1, 2], "truncated"),
    ];
    for (place, bytes, text) in cases {
        let mut files = good();
        files[place] = bytes;
        says(inspect_idx(folder(&files).path()), text);
    }
    let mut one_class = good();
    one_class[1] = idx(&[3], &[0; 3]);
    one_class[3] = idx(&[2], &[0; 2]);
    says(inspect_idx(folder(&one_class).path()), "two classes");
    let empty = tempfile::tempdir().unwrap();
    says(
        inspect_idx(empty.path()),
        "no file train-images-idx3-ubyte or",
    );
}

/// What the catalog says is held against the files.
#[test]
fn a_description_that_differs_from_its_idx_files_is_refused() {
    let folder = folder(&good());
    let (truth, _) = inspect_idx(folder.path()).unwrap();
    let lie = |change: &dyn Fn(&mut DatasetInfo)| {
        let mut info = truth.clone();
        change(&mut info);
        load_in(folder.path(), &info, Split::Train)
    };
    lie(&|_| ()).unwrap();
    says(lie(&|i| i.train_samples = 4), "samples 4, its files have 3");
    says(
        lie(&|i| i.input = vec![4]),
        "input [4], its files have [2, 2]",
    );
    says(lie(&|i| i.classes.truncate(2)), "sample 1 has label 2");
    says(lie(&|i| i.classes.truncate(1)), "2 to 10000");
    says(
        lie(&|i| i.classes = vec![String::new(); 10_001]),
        "2 to 10000",
    );
    says(lie(&|i| i.train_samples = 0), "empty");
    says(lie(&|i| i.train_samples = u64::MAX), "exceeds");
    says(lie(&|i| i.input = vec![]), "no shape");
    says(lie(&|i| i.input = vec![u32::MAX; 4]), "exceeds");
    let scaled = |by: f32| {
        lie(&move |i| match &mut i.format {
            DataFormat::Idx { scale, .. } => *scale = by,
            _ => unreachable!(),
        })
    };
    says(scaled(0.0), "not above 0");
    says(scaled(f32::NAN), "not above 0");
    std::fs::remove_file(folder.path().join(NAMES[1])).unwrap();
    assert!(matches!(lie(&|_| ()), Err(DataError::Io { .. })));
}

fn table(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("my table.csv");
    std::fs::write(&file, text).unwrap();
    (folder, file)
}

fn flowers(rows: usize) -> String {
    let row = |i: usize| format!("{},{},{}\n", i as f64 * 0.5, ["rose", "iris"][i % 2], 3 * i);
    let rows: String = (0..rows).map(row).collect();
    format!("\u{feff}length , kind,width\n{rows}")
}

#[test]
fn a_table_is_described_split_and_standardised() {
    let (folder, file) = table(&flowers(23));
    let (info, path) = inspect_csv(&file, "kind").unwrap();
    assert_eq!(path, file);
    assert_eq!((info.train_samples, info.test_samples), (19, 4));
    assert_eq!(
        (&info.input[..], &info.classes[..]),
        (&[2][..], &["iris".into(), "rose".into()][..])
    );
    let DataFormat::Csv { file: name, .. } = &info.format else {
        panic!("{:?}", info.format)
    };
    assert_eq!(name, "my-table.csv");
    let read = |split| whole(&load(&info, split, None, &|_| file.clone()).unwrap().0);
    let (train, test) = (read(Split::Train), read(Split::Test));
    assert_eq!((train.labels.len(), test.labels.len()), (19, 4));
    assert_eq!(read(Split::Train), train);
    for column in 0..2 {
        let values = || train.inputs.iter().skip(column).step_by(2);
        let mean = values().sum::<f32>() / 19.0;
        let variance = values().map(|v| v * v).sum::<f32>() / 19.0;
        assert!(
            mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5,
            "{mean} {variance}"
        );
    }
    // Every row is in one split, with its own label: width tells the row, its parity the label.
    let width = |samples: &Whole| -> Vec<(f32, u32)> {
        let widths = samples.inputs.iter().skip(1).step_by(2).copied();
        widths.zip(samples.labels.iter().copied()).collect()
    };
    let mut all = [width(&train), width(&test)].concat();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let labels: Vec<u32> = all.iter().map(|(_, label)| *label).collect();
    assert_eq!(labels, (0..23).map(|i| 1 - i % 2).collect::<Vec<u32>>());
    drop(folder);
}

#[test]
fn the_seed_decides_which_rows_are_held_out() {
    let (_folder, file) = table(&flowers(50));
    let (mut info, _) = inspect_csv(&file, "kind").unwrap();
    let (first, _) = load(&info, Split::Test, None, &|_| file.clone()).unwrap();
    if let DataFormat::Csv { split_seed, .. } = &mut info.format {
        *split_seed = 1;
    }
    let (second, _) = load(&info, Split::Test, None, &|_| file.clone()).unwrap();
    assert_eq!(first.len(), 10);
    assert_ne!(whole(&first).inputs, whole(&second).inputs);
}

#[test]
fn rows_are_scaled_as_a_network_knows_it_and_not_anew() {
    let (_folder, file) = table(&flowers(50));
    let (info, _) = inspect_csv(&file, "kind").unwrap();
    let (train, learnt) = load(&info, Split::Train, None, &|_| file.clone()).unwrap();
    let (again, _) = load(&info, Split::Train, Some(&learnt), &|_| file.clone()).unwrap();
    assert_eq!(whole(&again), whole(&train));
    // Fewer rows of the same kind have another mean; that is no reason to see them otherwise.
    let (_folder, few) = table(&flowers(10));
    let (info, _) = inspect_csv(&few, "kind").unwrap();
    let (rows, kept) = load(&info, Split::Train, Some(&learnt), &|_| few.clone()).unwrap();
    assert_eq!(kept, learnt);
    let samples = |samples: &Samples| -> Vec<Vec<u32>> {
        let samples = whole(samples).inputs;
        samples
            .chunks(2)
            .map(|s| s.iter().map(|v| v.to_bits()).collect())
            .collect()
    };
    let (all, _) = load(&info, Split::Test, Some(&learnt), &|_| few.clone()).unwrap();
    let mut seen = [samples(&rows), samples(&all)].concat();
    seen.sort();
    let mut expected: Vec<Vec<u32>> = (0..10)
        .map(|i| [0.5 * f64::from(i), 3.0 * f64::from(i)])
        .map(|row| {
            (0..2)
                .map(|at| learnt.value(at, row[at]).to_bits())
                .collect()
        })
        .collect();
    expected.sort();
    assert_eq!(seen, expected);
    let narrow = Scaling::of_columns([(0.0, 1.0); 3]);
    says(
        load(&info, Split::Test, Some(&narrow), &|_| few.clone()),
        "a sample has 2 values, the model was trained on 3",
    );
}

#[test]
fn a_constant_column_becomes_zeros() {
    let (_folder, file) = table("a,b,c\n1,5,x\n2,5,y\n3,5,x\n4,5,y\n5,5,x\n");
    let (info, _) = inspect_csv(&file, "c").unwrap();
    let (train, _) = load(&info, Split::Train, None, &|_| file.clone()).unwrap();
    let inputs = whole(&train).inputs;
    assert!(inputs.iter().skip(1).step_by(2).all(|v| *v == 0.0));
}

#[test]
fn broken_tables_are_refused_with_row_and_column() {
    let rows = "1,2,x\n3,4,y\n5,6,x\n7,8,y\n9,1,x\n";
    let with = |bad: &str| format!("a,b,c\n1,2,x\n{bad}\n{rows}");
    let many: String = (0..10_001).map(|i| format!("1,2,class{i}\n")).collect();
    let cases = [
        (String::new(), "empty"),
        ("\n\n".into(), "empty"),
        ("a,b,c\n".into(), "0 rows"),
        ("a,b,c\n1,2,x\n3,4,y\n".into(), "2 rows: at least 5"),
        (
            "a,b\n1,2\n".into(),
            "no column `c`; the columns are `a`, `b`",
        ),
        (
            format!("a;b;c\n{}", rows.replace(',', ";")),
            "not separated by commas",
        ),
        ("a,c,c\n1,2,3\n".into(), "two columns are named `c`"),
        ("c\nx\ny\nx\ny\nx\n".into(), "only column"),
        (
            with("3,,y"),
            "row 2 (line 3), column `b`: the value is missing",
        ),
        (
            with("3,4,"),
            "row 2 (line 3), column `c`: the label is missing",
        ),
        (
            with("many,4,y"),
            "row 2 (line 3), column `a`: `many` is not a number",
        ),
        (with("3,nan,y"), "column `b`: `nan` is not a number"),
        (with("3,1e999,y"), "column `b`: `1e999` is not a number"),
        (with("3,\"1,5\",y"), "column `b`: `1,5` is not a number"),
        (with("3,4"), "row 2 (line 3) has 2 cells, the header 3"),
        (with("3,4,y,5"), "row 2 (line 3) has 4 cells, the header 3"),
        (with(&format!("3,4,{}", "y".repeat(129))), "129 bytes"),
        (with("3,1e300,y"), "column `b` holds values too large"),
        (
            format!("a,b,c\n{}", rows.replace('y', "x")),
            "every label is `x`",
        ),
        (format!("a,b,c\n{many}"), "more than 10000 different labels"),
    ];
    for (text, wanted) in cases {
        let (_folder, file) = table(&text);
        says(inspect_csv(&file, "c"), wanted);
    }
    let (_folder, file) = table("");
    std::fs::write(&file, b"a,b,c\n1,2,\xff\n").unwrap();
    says(inspect_csv(&file, "c"), "cannot be read as CSV");
    says(inspect_csv(Path::new("/nowhere.csv"), "c"), "nowhere.csv");
}

#[test]
fn a_description_that_differs_from_its_table_is_refused() {
    let (_folder, file) = table(&flowers(23));
    let (truth, _) = inspect_csv(&file, "kind").unwrap();
    let lie = |change: &dyn Fn(&mut DatasetInfo)| {
        let mut info = truth.clone();
        change(&mut info);
        load(&info, Split::Test, None, &|_| file.clone())
    };
    says(
        lie(&|i| i.train_samples = 20),
        "training samples 20, its files have 19",
    );
    says(
        lie(&|i| i.test_samples = 5),
        "test samples 5, its files have 4",
    );
    says(lie(&|i| i.input = vec![3]), "input [3], its files have [2]");
    says(
        lie(&|i| i.classes.reverse()),
        "its files have [\"iris\", \"rose\"]",
    );
}

/// What was divided at once is divided a batch at a time now: to the same bits.
#[test]
fn grey_values_are_scaled_to_the_bits_of_one_division() {
    let values: Vec<u8> = (0..=255).collect();
    let files = [
        idx(&[64, 4], &values),
        idx(&[64], &[[0; 32], [1; 32]].concat()),
        idx(&[1, 4], &[9; 4]),
        idx(&[1], &[1]),
    ];
    let folder = folder(&files);
    let (mut info, _) = inspect_idx(folder.path()).unwrap();
    if let DataFormat::Idx { scale, .. } = &mut info.format {
        *scale = 78.6;
    }
    let known = Scaling::of_columns([(1.5, 3.0), (0.0, 1.0), (-2.0, 7.7), (0.1, 0.3)]);
    for known in [None, Some(&known)] {
        let file = |name: &str| folder.path().join(name);
        let (samples, scaling) = load(&info, Split::Train, known, &file).unwrap();
        let mut at_once: Vec<f32> = values.iter().map(|v| f32::from(*v)).collect();
        scaling.samples(4, &mut at_once);
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&whole(&samples).inputs), bits(&at_once));
    }
}

#[test]
fn a_header_may_have_a_mark_quotes_and_line_ends_of_any_kind() {
    let rows = "1,2,x\n3,4,\"y, or\nz\"\n5,6,x\n7,8,\"y, or\nz\"\n9,1,x\n";
    let headers = [
        "a,b,c\n",
        "\u{feff}a,b,c\n",
        "\u{feff}\"a\",\"b\",\"c\"\n",
        " a , b,c \r\n",
    ];
    let mut seen: Vec<(DatasetInfo, Whole)> = Vec::new();
    for header in headers {
        let (_folder, file) = table(&format!("{header}{rows}"));
        let (info, _) = inspect_csv(&file, "c").unwrap();
        assert_eq!(info.classes, ["x", "y, or\nz"]);
        let (train, _) = load(&info, Split::Train, None, &|_| file.clone()).unwrap();
        seen.push((info, whole(&train)));
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
    // A cell over two lines moves the lines below it, not the rows.
    let (_folder, file) = table(&format!("a,b,c\n{rows}1,,x\n"));
    says(
        inspect_csv(&file, "c"),
        "row 6 (line 9), column `b`: the value is missing",
    );
    let (_folder, file) = table(&format!("a,,c\n{rows}"));
    assert_eq!(inspect_csv(&file, "c").unwrap().0.input, [2]);
}

fn houses(rows: usize) -> String {
    let row = |i: usize| format!("{},{},{},{}\n", 100 * i, i % 3, 5 + i, i as f64 / 4.0);
    let rows: String = (0..rows).map(row).collect();
    format!("price,rooms,area,age\n{rows}")
}

#[test]
fn columns_to_predict_stay_as_they_are() {
    let (_folder, file) = table(&houses(20));
    let targets = ["area", "price"].map(str::to_owned);
    let (info, path) = inspect_csv_values(&file, &targets).unwrap();
    assert_eq!(path, file);
    assert_eq!((info.train_samples, info.test_samples), (16, 4));
    assert_eq!((&info.input[..], info.outputs()), (&[2][..], 2));
    assert_eq!((&info.values[..], info.classes.len()), (&targets[..], 0));
    let read = |split| whole(&load(&info, split, None, &|_| file.clone()).unwrap().0);
    let (train, test) = (read(Split::Train), read(Split::Test));
    assert_eq!((train.sizes, train.labels.len()), ([2, 0, 2, 0], 0));
    let mut pairs: Vec<[f32; 2]> = [train.values, test.values]
        .concat()
        .chunks(2)
        .map(|pair| [pair[0], pair[1]])
        .collect();
    pairs.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let expected = (0..20u8).map(|i| [5.0 + f32::from(i), 100.0 * f32::from(i)]);
    assert_eq!(pairs, expected.collect::<Vec<_>>());
    // The split is the rows', whatever is learnt of them.
    let (of_classes, _) = inspect_csv(&file, "rooms").unwrap();
    assert_eq!(
        (of_classes.train_samples, of_classes.test_samples),
        (info.train_samples, info.test_samples)
    );
}

#[test]
fn what_cannot_be_predicted_is_refused() {
    let refused = |text: &str, targets: &[&str], wanted: &str| {
        let (_folder, file) = table(text);
        let targets: Vec<String> = targets.iter().map(|t| (*t).to_owned()).collect();
        says(inspect_csv_values(&file, &targets), wanted);
    };
    let good = houses(9);
    refused(&good, &[], "0 columns to predict");
    refused(
        &good,
        &["prize"],
        "no column `prize`; the columns are `price`",
    );
    refused(
        &good,
        &["price", "price"],
        "`price` is to be predicted twice",
    );
    refused(
        &good,
        &["price", "rooms", "area", "age"],
        "every column is to be predicted",
    );
    refused("a\n1\n", &["a"], "only column");
    refused("a,a,b\n1,2,3\n", &["a"], "two columns are named `a`");
    refused(
        &good.replace("300,0,8", ",0,8"),
        &["price"],
        "row 4 (line 5), column `price`: the value is missing",
    );
    refused(
        &good.replace("300,0,8", "dear,0,8"),
        &["age", "price"],
        "row 4 (line 5), column `price`: `dear` is not a number",
    );
    refused(
        &good.replace("300,0,8", "1e39,0,8"),
        &["price"],
        "`1e39` is too large to be predicted",
    );
    let (_folder, file) = table(&good);
    let (truth, _) = inspect_csv_values(&file, &["price".into()]).unwrap();
    let lie = |change: &dyn Fn(&mut DatasetInfo)| {
        let mut info = truth.clone();
        change(&mut info);
        load(&info, Split::Train, None, &|_| file.clone())
    };
    lie(&|_| ()).unwrap();
    says(
        lie(&|i| i.values = vec!["area".into()]),
        "values [\"area\"]",
    );
    says(lie(&|i| i.values.clear()), "0 classes");
    says(lie(&|i| i.classes = i.values.clone()), "not both");
    says(
        lie(&|i| i.values = vec![String::new(); 10_001]),
        "10001 values",
    );
}

proptest! {
    /// A batch is the rows of the whole, whatever the format and whichever the rows.
    #[test]
    fn a_batch_is_rows_of_the_whole(picks in prop::collection::vec(any::<prop::sample::Index>(), 0..40)) {
        let folder = folder(&good());
        let (idx, _) = inspect_idx(folder.path()).unwrap();
        let (_classes, flowers) = table(&flowers(23));
        let (csv, _) = inspect_csv(&flowers, "kind").unwrap();
        let (_numbers, houses) = table(&houses(23));
        let (values, _) = inspect_csv_values(&houses, &["price".into(), "age".into()]).unwrap();
        for (info, file) in [(&idx, None), (&csv, Some(flowers)), (&values, Some(houses))] {
            let path = |name: &str| file.clone().unwrap_or_else(|| folder.path().join(name));
            let (samples, _) = load(info, Split::Train, None, &path).unwrap();
            let rows: Vec<u32> = picks.iter().map(|i| i.index(samples.len()) as u32).collect();
            prop_assert_eq!(rows_of(&samples, &rows), whole(&samples).picked(&rows));
        }
    }
}
