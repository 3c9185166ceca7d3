//! Bytes of strangers: whatever a file holds, the answer is samples or a refusal, never a panic, and no memory is taken for
//! what a file merely says.

use super::*;

/// A file, and where it is changed into what.
fn changed(mut bytes: Vec<u8>, changes: &[(prop::sample::Index, u8)], cut: usize) -> Vec<u8> {
    for (place, to) in changes {
        let at = place.index(bytes.len());
        bytes[at] = *to;
    }
    bytes.truncate(bytes.len().saturating_sub(cut));
    bytes
}

/// What was published can be loaded, whole and in parts.
fn loads(folder: &Path, found: Result<(DatasetInfo, Vec<PathBuf>), DataError>) {
    let Ok((info, files)) = found else {
        return;
    };
    for split in [Split::Train, Split::Test] {
        let path = |name: &str| match files.len() {
            1 => files[0].clone(),
            _ => folder.join(name),
        };
        let (samples, _) = load(&info, split, None, &path).unwrap();
        let all = whole(&samples);
        assert_eq!(samples.len() as u64, info.samples(split));
        let last = samples.len() as u32 - 1;
        assert_eq!(rows_of(&samples, &[last]), all.picked(&[last]));
    }
}

fn one((info, file): (DatasetInfo, PathBuf)) -> (DatasetInfo, Vec<PathBuf>) {
    (info, vec![file])
}

fn safetensors() -> Vec<u8> {
    super::tensors::file(&[
        ("inputs", "U8", vec![3, 2, 2], (0..12).collect()),
        ("labels", "U8", vec![3], vec![0, 2, 1]),
    ])
}

fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    // Digits and marks keep JSON what it is more often than any byte does.
    let to = prop_oneof![
        any::<u8>(),
        prop::sample::select(b"0123456789[]{},:\"".to_vec())
    ];
    prop::collection::vec((any::<prop::sample::Index>(), to), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn changed_tensors_are_read_or_refused(changes in changes(), cut in 0usize..3) {
        let bytes = changed(safetensors(), &changes, cut / 2);
        let folder = super::tensors::folder(&bytes, &safetensors());
        loads(folder.path(), inspect_safetensors(folder.path()));
    }

    #[test]
    fn any_header_is_read_or_refused(
        header in prop::collection::vec(any::<u8>(), 0..80),
        said in prop_oneof![0u64..90, any::<u64>()],
    ) {
        let bytes = [&said.to_le_bytes()[..], &header].concat();
        let folder = super::tensors::folder(&bytes, &safetensors());
        inspect_safetensors(folder.path()).unwrap_err();
    }

    #[test]
    fn sizes_and_offsets_of_any_kind_are_read_or_refused(
        sizes in prop::collection::vec(prop_oneof![0u64..5, any::<u64>()], 0..7),
        offsets in prop::collection::vec(prop_oneof![0u64..20, any::<u64>()], 2),
    ) {
        let header = format!(
            r#"{{"inputs":{{"dtype":"U8","shape":{sizes:?},"data_offsets":{offsets:?}}},"labels":{{"dtype":"U8","shape":[3],"data_offsets":[12,15]}}}}"#
        );
        let data = [(0..12).collect(), vec![0, 1, 1]].concat();
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
        let folder = super::tensors::folder(&bytes, &bytes);
        loads(folder.path(), inspect_safetensors(folder.path()));
    }

    #[test]
    fn changed_images_are_read_or_refused(
        changes in changes(),
        cut in 0usize..3,
        which in 0usize..4,
        packed: bool,
    ) {
        let mut files = good();
        let bytes = match packed {
            true => gzip(&files[which]),
            false => files[which].clone(),
        };
        files[which] = changed(bytes, &changes, cut / 2);
        let folder = folder(&files);
        loads(folder.path(), inspect_idx(folder.path()));
    }

    #[test]
    fn any_text_is_read_or_refused(
        bytes in prop::collection::vec(prop_oneof![4 => b'a'..b'f', 1 => any::<u8>()], 0..200),
        context in 0u32..20,
        held_out in 0u32..1_100_000,
        byte: bool,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        std::fs::write(&path, bytes).unwrap();
        let level = if byte { TextLevel::Byte } else { TextLevel::Character };
        loads(folder.path(), inspect_text(&path, context, level, held_out).map(one));
    }

    #[test]
    fn changed_tables_are_read_or_refused(changes in changes(), cut in 0usize..3) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, changed(houses(9).into_bytes(), &changes, cut)).unwrap();
        loads(folder.path(), inspect_csv(&path, "rooms").map(one));
        let values = ["price".to_owned(), "age".to_owned()];
        loads(folder.path(), inspect_csv_values(&path, &values).map(one));
    }
}
