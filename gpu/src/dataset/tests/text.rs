//! Texts: windows against a naive reading, and every refusal.

use super::*;

fn text(bytes: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a text.txt");
    std::fs::write(&file, bytes).unwrap();
    (folder, file)
}

fn read(file: &Path, info: &DatasetInfo, split: Split) -> Result<Samples, DataError> {
    load(info, split, None, &|_| file.to_owned()).map(|(samples, _)| samples)
}

const HALF: u32 = 500_000;

#[test]
fn a_text_becomes_windows_of_which_each_token_predicts_the_next() {
    let (_folder, file) = text("abcabcabca\nécabca");
    let (info, path) = inspect_text(&file, 3, TextLevel::Character, 300_000).unwrap();
    assert_eq!(path, file);
    let DataFormat::Text {
        file: name,
        level: TextLevel::Character,
        held_out_ppm: 300_000,
    } = &info.format
    else {
        panic!("{:?}", info.format)
    };
    assert_eq!(name, "a-text.txt");
    assert_eq!(info.classes, ["\n", "a", "b", "c", "é"]);
    assert_eq!((&info.input[..], info.outputs()), (&[3][..], 5));
    // 17 characters: 11 to train on, 6 held out.
    assert_eq!((info.train_samples, info.test_samples), (3, 1));
    let train = whole(&read(&file, &info, Split::Train).unwrap());
    assert_eq!(train.sizes, [3, 5, 0, 3]);
    assert_eq!(train.inputs, [1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
    assert_eq!(train.labels, [2, 3, 1, 2, 3, 1, 2, 3, 1]);
    let test = whole(&read(&file, &info, Split::Test).unwrap());
    assert_eq!(
        (&test.inputs[..], &test.labels[..]),
        (&[4.0, 3.0, 1.0][..], &[3, 1, 2][..])
    );
    assert!(test.values.is_empty());
}

#[test]
fn bytes_need_no_characters() {
    let (_folder, file) = text([0xff, 0, 0x80, 0xff, 1, 2, 3, 4]);
    let (info, _) = inspect_text(&file, 2, TextLevel::Byte, HALF).unwrap();
    assert_eq!((info.classes.len(), &info.classes[0x41][..]), (256, "0x41"));
    let train = whole(&read(&file, &info, Split::Train).unwrap());
    assert_eq!(
        (&train.inputs[..], &train.labels[..]),
        (&[255.0, 0.0][..], &[0, 128][..])
    );
}

/// More than 256 characters take two bytes each.
#[test]
fn a_large_vocabulary_is_numbered_as_a_small_one() {
    let characters: String = ('一'..).take(300).collect();
    let (_folder, file) = text(characters.repeat(2));
    let (info, _) = inspect_text(&file, 299, TextLevel::Character, HALF).unwrap();
    assert_eq!(
        (info.classes.len(), &info.classes[299][..]),
        (300, "\u{4f2b}")
    );
    let train = whole(&read(&file, &info, Split::Train).unwrap());
    assert_eq!((train.inputs[298], train.labels[298]), (298.0, 299));
}

#[test]
fn what_is_no_text_or_too_little_is_refused_with_its_place() {
    let cases: [(&[u8], u32, u32, &str); 11] = [
        (b"", 1, HALF, "a text.txt: the file is empty"),
        (b"aaaa", 1, HALF, "every character is 'a'"),
        (
            b"ab\ncd\xffe",
            1,
            HALF,
            "line 2, column 3 (byte 5 of the file): not UTF-8",
        ),
        ("aé\u{e9}b\n\u{4e00}".as_bytes(), 0, HALF, "0 tokens"),
        (
            b"a\xe4\xb8",
            1,
            HALF,
            "line 1, column 2 (byte 1 of the file)",
        ),
        (b"\x1f\x8b\x08\x00", 1, HALF, "not UTF-8"),
        (
            b"abcd",
            2,
            HALF,
            "the part to train on has 2 tokens: one window of 2 needs 3",
        ),
        (
            b"abcdefgh",
            2,
            250_000,
            "the part held out has 2 tokens: one window of 2 needs 3",
        ),
        (b"abcdefgh", u32::MAX, HALF, "needs 4294967296"),
        (b"abcdefgh", 1, 0, "0 millionths"),
        (b"abcdefgh", 1, 1_000_000, "1000000 millionths"),
    ];
    for (bytes, context, held_out, wanted) in cases {
        let (_folder, file) = text(bytes);
        says(
            inspect_text(&file, context, TextLevel::Character, held_out),
            wanted,
        );
    }
    let many: String = ('\u{10000}'..).take(10_001).collect();
    let (_folder, file) = text(many);
    says(
        inspect_text(&file, 1, TextLevel::Character, HALF),
        "10001 different characters exceed 10000",
    );
    inspect_text(&file, 1, TextLevel::Byte, HALF).unwrap();
    let gone = Path::new("/nowhere.txt");
    says(inspect_text(gone, 1, TextLevel::Byte, HALF), "nowhere.txt");
}

#[test]
fn a_text_is_not_read_where_it_is_too_large() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.txt");
    // Sparse: it takes no room.
    File::create(&path).unwrap().set_len((1 << 28) + 1).unwrap();
    says(
        inspect_text(&path, 1, TextLevel::Byte, HALF),
        "268435457 bytes exceed 268435456",
    );
}

#[test]
fn a_description_that_differs_from_its_text_is_refused() {
    let (_folder, file) = text("abcabc\nabcabc");
    let (truth, _) = inspect_text(&file, 2, TextLevel::Character, HALF).unwrap();
    let lie = |change: &dyn Fn(&mut DatasetInfo)| {
        let mut info = truth.clone();
        change(&mut info);
        read(&file, &info, Split::Test)
    };
    lie(&|_| ()).unwrap();
    // It may have characters that this text lacks: those of another, of which it is the rest.
    lie(&|i| i.classes.push("z".into())).unwrap();
    says(
        lie(&|i| drop(i.classes.pop())),
        "a text.txt: line 1, column 3: 'c' is none of the 3 classes",
    );
    says(
        lie(&|i| drop(i.classes.remove(0))),
        "line 1, column 7: '\\n' is none of the 3 classes",
    );
    says(lie(&|i| i.classes.reverse()), "class 1 is \"b\"");
    says(lie(&|i| i.classes[1] = "ab".into()), "class 1 is \"ab\"");
    says(lie(&|i| i.classes[0].clear()), "class 0 is \"\"");
    says(lie(&|i| i.input = vec![2, 1]), "no number of tokens");
    says(
        lie(&|i| i.train_samples = 1),
        "training samples 1, its files have 2",
    );
    says(
        lie(&|i| i.test_samples = 9),
        "test samples 9, its files have 3",
    );
    says(lie(&|i| i.test_samples = u64::MAX), "exceeds");
    let format = |change: &dyn Fn(&mut TextLevel, &mut u32)| {
        lie(&|i| match &mut i.format {
            DataFormat::Text {
                level,
                held_out_ppm,
                ..
            } => change(level, held_out_ppm),
            _ => unreachable!(),
        })
    };
    says(
        format(&|level, _| *level = TextLevel::Byte),
        "the dataset says classes",
    );
    says(format(&|_, ppm| *ppm = 0), "0 millionths");
    says(format(&|_, ppm| *ppm = u32::MAX), "millionths held out");
}

proptest! {
    /// The windows are those of a plain reading, and a batch is rows of them.
    #[test]
    fn windows_are_those_of_a_plain_reading(
        characters in prop::collection::vec(prop::sample::select("ab\né東🦀".chars().collect::<Vec<_>>()), 8..300),
        context in 1u32..12,
        held_out in 1u32..1_000_000,
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..9),
    ) {
        let (_folder, file) = text(characters.iter().collect::<String>());
        let mut vocabulary = characters.clone();
        vocabulary.sort_unstable();
        vocabulary.dedup();
        let number = |c: &char| vocabulary.binary_search(c).unwrap() as u32;
        let tokens: Vec<u32> = characters.iter().map(number).collect();
        let kept = tokens.len() as u64 * u64::from(1_000_000 - held_out) / 1_000_000;
        let parts = tokens.split_at(kept as usize);
        let windows = |part: &[u32]| -> Vec<(Vec<u32>, Vec<u32>)> {
            let context = context as usize;
            let starts = (0..part.len()).step_by(context);
            let window = |start: usize| {
                let (x, y) = (start..start + context, start + 1..start + 1 + context);
                Some((part.get(x)?.to_vec(), part.get(y)?.to_vec()))
            };
            starts.filter_map(window).collect()
        };
        let expected = [windows(parts.0), windows(parts.1)];
        let found = inspect_text(&file, context, TextLevel::Character, held_out);
        let possible = vocabulary.len() > 1 && expected.iter().all(|part| !part.is_empty());
        prop_assert_eq!(found.is_ok(), possible);
        if let Ok((info, _)) = found {
            for (split, expected) in [Split::Train, Split::Test].into_iter().zip(expected) {
                let samples = read(&file, &info, split).unwrap();
                let all = whole(&samples);
                let inputs = expected.iter().flat_map(|(x, _)| x).map(|t| *t as f32);
                prop_assert_eq!(&all.inputs, &inputs.collect::<Vec<_>>());
                let labels = expected.iter().flat_map(|(_, y)| y).copied();
                prop_assert_eq!(&all.labels, &labels.collect::<Vec<_>>());
                let rows: Vec<u32> = picks.iter().map(|i| i.index(samples.len()) as u32).collect();
                prop_assert_eq!(rows_of(&samples, &rows), all.picked(&rows));
            }
        }
    }
}
