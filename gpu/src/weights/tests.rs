use proptest::prelude::*;

use super::*;

fn expected() -> Vec<Tensor> {
    let tensor = |name: &str, shape: &[usize]| Tensor {
        name: name.into(),
        shape: shape.to_vec(),
    };
    vec![tensor("b", &[2]), tensor("a", &[2, 3])]
}

fn values() -> Vec<f32> {
    (0..8).map(|v| v as f32 - 2.5).collect()
}

fn file() -> Vec<u8> {
    let metadata = [("k", "v"), ("a", "ü\"\n")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    write(&expected(), &[&values()], &BTreeMap::from(metadata))
}

/// A file with this header over these values.
fn with_header(header: &str, values: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend(std::iter::repeat_n(0, values * VALUE_BYTES));
    file
}

#[test]
fn what_is_written_is_read_and_its_data_is_aligned() {
    let read = read(&file(), &expected()).unwrap();
    assert_eq!(read.values, values());
    assert_eq!(read.metadata["k"], "v");
    assert_eq!(read.metadata["a"], "ü\"\n");
    assert_eq!((file().len() - 8 * VALUE_BYTES) % 8, 0);
    assert_eq!(file(), file());
}

#[test]
fn hostile_files_are_refused_and_say_why() {
    const A: &str = r#""a":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]}"#;
    const B: &str = r#""b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
    let header = |a: &str, b: &str| with_header(&format!("{{{a},{b}}}"), 8);
    read(&header(A, B), &expected()).unwrap();
    let mut nan = file();
    let last = nan.len() - 4;
    nan[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    let mut huge_header = file();
    huge_header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut long_header = file();
    long_header[..8].copy_from_slice(&(file().len() as u64 * 2).to_le_bytes());
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "0 bytes"),
        (vec![1; 7], "7 bytes"),
        (file()[..file().len() - 1].to_vec(), "tensors make"),
        ([file(), vec![0]].concat(), "tensors make"),
        (huge_header, "exceeds"),
        (long_header, "tensors make"),
        (nan, "`a` is infinite or not a number at 5"),
        (with_header("not json", 8), "not a safetensors file"),
        (
            with_header(&"[".repeat(100_000), 8),
            "not a safetensors file",
        ),
        (with_header("{}", 8), "not a safetensors file"),
        (header(&A.replace("F32", "I32"), B), "must be F32"),
        (header(&A.replace("[2,3]", "[3,2]"), B), "must be [2, 3]"),
        (header(&A.replace("[2,3]", "[6]"), B), "must be [2, 3]"),
        (
            header(&A.replace("\"a\"", "\"c\""), B),
            "`c`, which the model has not",
        ),
        (
            header(&A.replace("[8,32]", "[0,24]"), B),
            "not a safetensors file",
        ),
        (
            header(&A.replace("[8,32]", "[8,9999]"), B),
            "not a safetensors file",
        ),
        (
            header(&A.replace("[8,32]", "[32,8]"), B),
            "not a safetensors file",
        ),
        (
            header(&A.replace("[2,3]", "[4294967296,4294967296]"), B),
            "not a safetensors file",
        ),
        (
            with_header(&format!("{{{}}}", A.replace("[8,32]", "[0,24]")), 8),
            "not a safetensors",
        ),
    ];
    for (file, says) in cases {
        let error = read(&file, &expected()).unwrap_err();
        assert!(error.to_string().contains(says), "wanted {says}: {error}");
    }
    let one = [expected().remove(1)];
    let alone = with_header(&format!("{{{}}}", A.replace("[8,32]", "[0,24]")), 6);
    read(&alone, &one).unwrap();
    let renamed = [
        Tensor {
            name: "z".into(),
            ..one[0].clone()
        },
        expected().remove(0),
    ];
    let error = read(&header(A, B), &renamed).unwrap_err();
    assert!(
        error.to_string().contains("`a`, which the model has not"),
        "{error}"
    );
    // Two entries of one name: the parser keeps one, which then does not cover the data.
    let twice = A.replace("[8,32]", "[0,24]");
    assert!(read(&header(A, &twice), &expected()).is_err());
}

proptest! {
    /// Whatever is changed in a file, reading it ends in values or in a refusal.
    #[test]
    fn no_bytes_bring_the_reader_down(place in 0usize..200, byte: u8, cut in 0usize..400) {
        let mut bytes = file();
        let place = place % bytes.len();
        bytes[place] = byte;
        let _ = read(&bytes, &expected());
        bytes.truncate(cut);
        let _ = read(&bytes, &expected());
    }
}
