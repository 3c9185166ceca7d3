use std::io::Write;

use super::*;

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
    let train = load_in(folder.path(), &info, Split::Train).unwrap();
    assert_eq!(train.inputs[..5], [0.0, 0.25, 0.5, 0.75, 1.0]);
    assert_eq!(
        (&train.labels[..], train.input_len, train.classes),
        (&[0, 2, 1][..], 4, 3)
    );
    let test = load_in(folder.path(), &info, Split::Test).unwrap();
    assert_eq!((test.inputs[4], test.len()), (2.0, 2));
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
            load_in(packed.path(), &packed_info, split).unwrap(),
            load_in(plain.path(), &info, split).unwrap()
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
    let mut bomb = good()[0].clone();
    bomb.resize(100 << 20, 0);
    let cases = [
        (0, vec![], "truncated"),
        (0, vec![0, 0, 8], "truncated"),
        (0, good()[0][..10].to_vec(), "truncated"),
        (0, good()[0][..20].to_vec(), "truncated"),
        (0, cut_gzip, "truncated"),
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
            DataFormat::Csv { .. } => unreachable!(),
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
    let read = |split| load(&info, split, None, &|_| file.clone()).unwrap().0;
    let (train, test) = (read(Split::Train), read(Split::Test));
    assert_eq!((train.len(), test.len()), (19, 4));
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
    let width = |samples: &Samples| -> Vec<(f32, u32)> {
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
    assert_ne!(first.inputs, second.inputs);
}

#[test]
fn rows_are_scaled_as_a_network_knows_it_and_not_anew() {
    let (_folder, file) = table(&flowers(50));
    let (info, _) = inspect_csv(&file, "kind").unwrap();
    let (train, learnt) = load(&info, Split::Train, None, &|_| file.clone()).unwrap();
    let (again, _) = load(&info, Split::Train, Some(&learnt), &|_| file.clone()).unwrap();
    assert_eq!(again, train);
    // Fewer rows of the same kind have another mean; that is no reason to see them otherwise.
    let (_folder, few) = table(&flowers(10));
    let (info, _) = inspect_csv(&few, "kind").unwrap();
    let (rows, kept) = load(&info, Split::Train, Some(&learnt), &|_| few.clone()).unwrap();
    assert_eq!(kept, learnt);
    let samples = |samples: &Samples| -> Vec<Vec<u32>> {
        let samples = samples.inputs.chunks(2);
        samples
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
    assert!(train.inputs.iter().skip(1).step_by(2).all(|v| *v == 0.0));
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
