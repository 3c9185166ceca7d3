//! Safetensors: batches from the file against the tensors that it was written from, and every refusal.

use serde_json::json;

use super::*;

/// Name, kind, shape and bytes.
pub(super) type Tensor = (&'static str, &'static str, Vec<u64>, Vec<u8>);

/// A file of these tensors, one after the other.
pub(super) fn file(tensors: &[Tensor]) -> Vec<u8> {
    let (mut header, mut start) = (serde_json::Map::new(), 0);
    for (name, dtype, shape, bytes) in tensors {
        let end = start + bytes.len();
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] });
        header.insert((*name).into(), entry);
        start = end;
    }
    let data: Vec<u8> = tensors.iter().flat_map(|t| t.3.iter().copied()).collect();
    with_header(&serde_json::Value::Object(header).to_string(), &data)
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let len = (header.len() as u64).to_le_bytes();
    [&len[..], header.as_bytes(), data].concat()
}

pub(super) fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn i64s(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Three samples of 2×2.
fn inputs() -> Tensor {
    let values: Vec<f32> = (0..12u8).map(|v| f32::from(v) - 2.5).collect();
    ("inputs", "F32", vec![3, 2, 2], f32s(&values))
}

fn labels() -> Tensor {
    ("labels", "I64", vec![3], i64s(&[2, 0, 1]))
}

fn targets() -> Tensor {
    (
        "targets",
        "F32",
        vec![3, 2],
        f32s(&[1.0, 1e9, 3.0, -4.0, 5.0, 6.0]),
    )
}

pub(super) fn folder(train: &[u8], test: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("train.safetensors"), train).unwrap();
    std::fs::write(folder.path().join("test.safetensors"), test).unwrap();
    folder
}

#[test]
fn tensors_are_described_and_read_by_batch() {
    let train = file(&[inputs(), labels()]);
    let test = file(&[
        ("labels", "U8", vec![1], vec![3]),
        ("inputs", "U8", vec![1, 2, 2], vec![0, 1, 128, 255]),
    ]);
    let folder = folder(&train, &test);
    let (info, files) = inspect_safetensors(folder.path()).unwrap();
    let names = ["train.safetensors", "test.safetensors"];
    assert_eq!(files, names.map(|name| folder.path().join(name)));
    assert_eq!((info.train_samples, info.test_samples), (3, 1));
    assert_eq!((&info.input[..], info.values.len()), (&[2, 2][..], 0));
    assert_eq!(info.classes, ["0", "1", "2", "3"]);
    let samples = load_in(folder.path(), &info, Split::Train).unwrap();
    let all = whole(&samples);
    assert_eq!((all.sizes, samples.len()), ([4, 4, 0, 1], 3));
    let expected: Vec<f32> = (0..12u8).map(|v| f32::from(v) - 2.5).collect();
    assert_eq!((&all.inputs, &all.labels[..]), (&expected, &[2, 0, 1][..]));
    for rows in [&[2, 0][..], &[1, 2, 2, 1], &[0, 1, 2, 0], &[]] {
        assert_eq!(rows_of(&samples, rows), all.picked(rows));
        assert_eq!(rows_of(&samples.clone(), rows), all.picked(rows));
    }
    let test = whole(&load_in(folder.path(), &info, Split::Test).unwrap());
    assert_eq!(
        (&test.inputs[..], &test.labels[..]),
        (&[0.0, 1.0, 128.0, 255.0][..], &[3][..])
    );
}

#[test]
fn numbers_to_predict_are_read_as_they_are() {
    let both = file(&[targets(), inputs()]);
    let folder = folder(&both, &both);
    let (info, _) = inspect_safetensors(folder.path()).unwrap();
    assert_eq!(
        (info.values.len(), info.classes.len(), info.outputs()),
        (2, 0, 2)
    );
    let all = whole(&load_in(folder.path(), &info, Split::Test).unwrap());
    assert_eq!(all.values, [1.0, 1e9, 3.0, -4.0, 5.0, 6.0]);
    assert_eq!((all.sizes, all.labels.len()), ([4, 0, 2, 0], 0));
}

#[test]
fn labels_may_be_integers_of_any_kind() {
    let of = |dtype, bytes: Vec<u8>| file(&[inputs(), ("labels", dtype, vec![3], bytes)]);
    let wide = |label: i32| label.to_le_bytes();
    let files = [
        of("U8", vec![2, 0, 1]),
        of("I32", [2, 0, 1].map(wide).concat()),
        of("U32", [2, 0, 1].map(wide).concat()),
        of("I64", i64s(&[2, 0, 1])),
    ];
    for train in files {
        let folder = folder(&train, &train);
        let (info, _) = inspect_safetensors(folder.path()).unwrap();
        let all = whole(&load_in(folder.path(), &info, Split::Train).unwrap());
        assert_eq!((&all.labels[..], info.classes.len()), (&[2, 0, 1][..], 3));
    }
}

#[test]
fn values_are_scaled_as_a_network_knows_it() {
    let train = file(&[inputs(), labels()]);
    let bytes = ("inputs", "U8", vec![3, 2, 2], (0..12).collect());
    let test = file(&[bytes, labels()]);
    let folder = folder(&train, &test);
    let (info, _) = inspect_safetensors(folder.path()).unwrap();
    for (split, shift) in [(Split::Train, 2.5), (Split::Test, 0.0)] {
        for known in [
            Scaling::divided_by(3.0),
            Scaling::of_columns([(1.0, 2.0), (0.0, 1.0), (0.5, 0.1), (9.0, 4.0)]),
        ] {
            let path = |name: &str| folder.path().join(name);
            let (samples, scaling) = load(&info, split, Some(&known), &path).unwrap();
            let mut expected: Vec<f32> = (0..12u8).map(|v| f32::from(v) - shift).collect();
            known.samples(4, &mut expected);
            assert_eq!((whole(&samples).inputs, scaling), (expected, known));
        }
    }
}

/// A file, and what its refusal must say.
fn broken() -> Vec<(Vec<u8>, &'static str)> {
    let good = file(&[inputs(), labels()]);
    let with = |name: Tensor| file(&[inputs(), name]);
    let of = |inputs: Tensor| file(&[inputs, labels()]);
    let nan = |values: &[f32]| f32s(values);
    let mut values = [0.5; 12];
    values[9] = f32::NAN;
    let mut numbers = [0.5; 6];
    numbers[3] = f32::NEG_INFINITY;
    let entry = |shape: &str, offsets: &str| {
        format!(r#"{{"inputs":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    vec![
        (vec![], "truncated"),
        (good[..7].to_vec(), "truncated"),
        (good[..40].to_vec(), "its header ends after it"),
        (good[..good.len() - 1].to_vec(), "but its header says"),
        ([good.clone(), vec![0]].concat(), "but its header says"),
        (u64::MAX.to_le_bytes().to_vec(), "exceeds 8388608"),
        (
            (8u64 << 20).to_le_bytes().to_vec(),
            "its header ends after it",
        ),
        (((8u64 << 20) + 1).to_le_bytes().to_vec(), "exceeds 8388608"),
        (b"<!DOCTYPE html><html>".to_vec(), "no safetensors file"),
        (with_header("", &[]), "not a safetensors file"),
        (with_header("[]", &[]), "not a safetensors file"),
        (with_header(&deep, &[]), "not a safetensors file"),
        (with_header("\u{7}", &[]), "not a safetensors file"),
        (with_header("{}", &[]), "`inputs` is missing"),
        (with_header("{}", &[1]), "but its header says"),
        (
            with_header(
                &entry("[4294967295,4294967295,4294967295]", "[0,4]"),
                &[0; 4],
            ),
            "not a safetensors file",
        ),
        (
            with_header(&entry("[1,1]", "[4,0]"), &[0; 4]),
            "not a safetensors file",
        ),
        (
            with_header(&entry("[1,1]", "[4,8]"), &[0; 8]),
            "not a safetensors file",
        ),
        (
            with_header(&entry("[1,1]", "[0,18446744073709551615]"), &[0; 4]),
            "not a safetensors file",
        ),
        (
            with_header(&entry("[1,-1]", "[0,4]"), &[0; 4]),
            "not a safetensors file",
        ),
        (
            with_header(&entry("[1099511627776,1]", "[0,4398046511104]"), &[]),
            "but its header says",
        ),
        (
            with_header(&entry("[0,4294967296]", "[0,0]"), &[]),
            "too large",
        ),
        (with_header(&entry("[0,4]", "[0,0]"), &[]), "empty"),
        (with_header(&entry("[4,0]", "[0,0]"), &[]), "empty"),
        (with_header(&entry("[268435457,0]", "[0,0]"), &[]), "empty"),
        (file(&[labels()]), "`inputs` is missing"),
        (file(&[inputs()]), "neither `labels` nor `targets`"),
        (file(&[inputs(), labels(), targets()]), "give one of them"),
        (
            file(&[inputs(), labels(), ("ids", "U8", vec![1], vec![0])]),
            "holds `ids`",
        ),
        (
            of(("inputs", "F64", vec![3, 1], vec![0; 24])),
            "is F64, must be F32 or U8",
        ),
        (
            of(("inputs", "F32", vec![3], vec![0; 12])),
            "one to four sizes",
        ),
        (
            of(("inputs", "F32", vec![], vec![0; 4])),
            "one to four sizes",
        ),
        (
            of(("inputs", "U8", vec![3, 1, 1, 1, 1, 1], vec![0; 3])),
            "one to four sizes",
        ),
        (
            of(("inputs", "F32", vec![3, 4], nan(&values))),
            "input 1 of sample 2 is infinite or not a number",
        ),
        (
            with(("labels", "I64", vec![2], i64s(&[0, 1]))),
            "`labels` is [2], must be [3]",
        ),
        (
            with(("labels", "I64", vec![3, 1], i64s(&[0, 1, 2]))),
            "must be [3]",
        ),
        (
            with(("labels", "F32", vec![3], f32s(&[0.0; 3]))),
            "is F32, must be I64",
        ),
        (
            with(("labels", "I64", vec![3], i64s(&[0, -1, 1]))),
            "sample 1 has label -1, but labels are 0 to",
        ),
        (
            with(("labels", "I64", vec![3], i64s(&[0, 1, i64::MAX]))),
            "sample 2 has label 9223372036854775807",
        ),
        (
            with((
                "labels",
                "U32",
                vec![3],
                [0, u32::MAX, 1].map(u32::to_le_bytes).concat(),
            )),
            "sample 1 has label 4294967295",
        ),
        (
            with(("targets", "F32", vec![3], f32s(&[0.0; 3]))),
            "must be [3, 1 to 10000]",
        ),
        (
            with(("targets", "F32", vec![2, 3], f32s(&[0.0; 6]))),
            "must be [3, 1 to 10000]",
        ),
        (
            with(("targets", "F32", vec![3, 0], vec![])),
            "must be [3, 1 to 10000]",
        ),
        (
            with(("targets", "F32", vec![3, 10_001], vec![0; 120_012])),
            "must be [3, 1 to 10000]",
        ),
        (
            with(("targets", "I64", vec![3, 1], i64s(&[0; 3]))),
            "is I64, must be F32",
        ),
        (
            with(("targets", "F32", vec![3, 2], nan(&numbers))),
            "target 1 of sample 1 is infinite or not a number",
        ),
    ]
}

#[test]
fn broken_tensors_are_refused() {
    let good = file(&[inputs(), labels()]);
    for (bytes, wanted) in broken() {
        says(inspect_safetensors(folder(&bytes, &good).path()), wanted);
        says(inspect_safetensors(folder(&good, &bytes).path()), wanted);
    }
    let zeros = file(&[inputs(), ("labels", "U8", vec![3], vec![0; 3])]);
    says(
        inspect_safetensors(folder(&zeros, &zeros).path()),
        "two classes",
    );
    let flat = file(&[("inputs", "U8", vec![3, 4], vec![0; 12]), labels()]);
    says(
        inspect_safetensors(folder(&good, &flat).path()),
        "test.safetensors: inputs of [4], training has [2, 2]",
    );
    let numbers = file(&[inputs(), targets()]);
    says(
        inspect_safetensors(folder(&good, &numbers).path()),
        "targets of [2], training has labels",
    );
    let empty = tempfile::tempdir().unwrap();
    says(
        inspect_safetensors(empty.path()),
        "no file train.safetensors",
    );
}

#[test]
fn a_description_that_differs_from_its_tensors_is_refused() {
    let good = file(&[inputs(), labels()]);
    let folder = folder(&good, &good);
    let (truth, _) = inspect_safetensors(folder.path()).unwrap();
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
    says(
        lie(&|i| i.classes.truncate(2)),
        "sample 0 has label 2, but labels are 0 to 1",
    );
    let values = |i: &mut DatasetInfo| (i.values, i.classes) = (vec!["a".into()], vec![]);
    says(lie(&values), "values 1, its files have 0");
    says(lie(&|i| i.train_samples = u64::MAX), "exceeds");
    std::fs::remove_file(folder.path().join("train.safetensors")).unwrap();
    assert!(matches!(lie(&|_| ()), Err(DataError::Io { .. })));
}

/// The miner's own trouble, not the task's: it was whole when it was opened.
#[test]
fn a_file_that_is_cut_later_is_refused_when_it_is_read() {
    let good = file(&[labels(), inputs()]);
    let folder = folder(&good, &good);
    let (info, _) = inspect_safetensors(folder.path()).unwrap();
    let samples = load_in(folder.path(), &info, Split::Train).unwrap();
    let path = folder.path().join("train.safetensors");
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(good.len() as u64 - 1).unwrap();
    let mut into = Vec::new();
    samples.inputs_of(&[1], &mut into).unwrap();
    let error = samples.inputs_of(&[2], &mut into).unwrap_err();
    assert!(matches!(error, DataError::Io { .. }), "{error}");
    assert!(!crate::EngineError::from(error).is_task_fault());
    says(
        samples.inputs_of(&[3], &mut into),
        "sample 3 is asked for, there are 3",
    );
}

/// A block holds many rows, and a row may be longer than a block.
#[test]
fn rows_of_any_length_are_read_whole() {
    for (count, len) in [(700_000, 1), (5, 300_000), (1100, 1000)] {
        let values: Vec<f32> = (0..count * len).map(|v| v as f32).collect();
        let inputs = ("inputs", "F32", vec![count, len], f32s(&values));
        let labels = (0..count).map(|row| (row % 2) as u8).collect();
        let bytes = file(&[inputs, ("labels", "U8", vec![count], labels)]);
        let folder = folder(&bytes, &bytes);
        let (info, _) = inspect_safetensors(folder.path()).unwrap();
        let samples = load_in(folder.path(), &info, Split::Train).unwrap();
        let all = whole(&samples);
        assert_eq!(all.inputs, values);
        let last = count as u32 - 1;
        let rows = [last, 0, 1, 2, last / 2, last - 1, last];
        assert_eq!(rows_of(&samples, &rows), all.picked(&rows));
    }
}
