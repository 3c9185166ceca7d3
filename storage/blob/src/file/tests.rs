use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{VerifyError, chunk_count};

const CHUNK: usize = CHUNK_BYTES;

fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i % 241) as u8 ^ (i >> 12) as u8)
        .collect()
}

fn chunk(data: &[u8], index: u64) -> &[u8] {
    data.chunks(CHUNK).nth(index as usize).unwrap()
}

/// A blob of `len` bytes and a place to fetch it to.
struct Case {
    folder: TempDir,
    data: Vec<u8>,
    tree: HashTree,
}

impl Case {
    fn new(len: usize) -> Self {
        let data = pattern(len);
        Self {
            folder: tempfile::tempdir().unwrap(),
            tree: HashTree::of_bytes(&data),
            data,
        }
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("digits.bin")
    }

    fn part(&self) -> PathBuf {
        self.folder.path().join("digits.bin.part")
    }

    fn writer(&self) -> FileWriter {
        FileWriter::create(&self.target(), self.tree.root()).unwrap()
    }

    fn begun(&self) -> FileWriter {
        let mut writer = self.writer();
        let hashes = self.tree.chunks().to_vec();
        writer.begin(self.tree.bytes(), hashes).unwrap();
        writer
    }

    fn write(&self, writer: &mut FileWriter, range: std::ops::Range<u64>) {
        for index in range {
            writer.chunk(index, chunk(&self.data, index)).unwrap();
        }
    }

    fn assert_arrives(&self, mut writer: FileWriter) {
        let from = writer.first_missing_chunk();
        self.write(&mut writer, from..self.tree.count());
        assert_eq!(writer.finish().unwrap(), self.target());
        assert_eq!(fs::read(self.target()).unwrap(), self.data);
        let left = fs::read_dir(self.folder.path()).unwrap().count();
        assert_eq!(left, 1, "nothing but the file is left");
    }
}

#[test]
fn blobs_of_every_edge_arrive() {
    for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK] {
        let case = Case::new(len);
        case.assert_arrives(case.begun());
    }
}

#[test]
fn a_transfer_that_broke_off_goes_on() {
    let case = Case::new(5 * CHUNK + 9);
    case.write(&mut case.begun(), 0..3);
    let writer = case.writer();
    assert_eq!(writer.first_missing_chunk(), 3);
    case.assert_arrives(writer);
}

#[test]
fn a_whole_part_only_needs_its_name() {
    let case = Case::new(2 * CHUNK);
    case.write(&mut case.begun(), 0..2);
    case.assert_arrives(case.writer());
}

#[test]
fn a_torn_or_damaged_part_keeps_its_good_chunks() {
    let case = Case::new(5 * CHUNK);
    case.write(&mut case.begun(), 0..4);
    let mut bytes = fs::read(case.part()).unwrap();
    bytes[2 * CHUNK + 5] ^= 1;
    fs::write(case.part(), &bytes).unwrap();
    assert_eq!(case.writer().first_missing_chunk(), 2);
    // What lay behind the damage is gone, and half a chunk counts for nothing.
    assert_eq!(fs::metadata(case.part()).unwrap().len(), 2 * CHUNK as u64);
    fs::write(case.part(), &bytes[..CHUNK + 100]).unwrap();
    let writer = case.writer();
    assert_eq!(writer.first_missing_chunk(), 1);
    case.assert_arrives(writer);
}

#[test]
fn a_part_without_good_hashes_starts_over() {
    let case = Case::new(3 * CHUNK);
    for hashes in [&b""[..], b"torn", &[9; 8 + 3 * 32]] {
        case.write(&mut case.begun(), 0..2);
        fs::write(Part::tree_path(&case.part()), hashes).unwrap();
        assert_eq!(case.writer().first_missing_chunk(), 0);
    }
    case.write(&mut case.begun(), 0..2);
    fs::remove_file(Part::tree_path(&case.part())).unwrap();
    case.assert_arrives(case.begun());
}

#[test]
fn the_part_of_another_blob_is_not_taken_up() {
    let case = Case::new(3 * CHUNK);
    case.write(&mut case.begun(), 0..2);
    let other = BlobId::of_bytes(b"other");
    let writer = FileWriter::create(&case.target(), other).unwrap();
    assert_eq!(writer.first_missing_chunk(), 0);
}

#[test]
fn a_damaged_chunk_is_refused_and_can_come_again() {
    let case = Case::new(3 * CHUNK);
    let mut writer = case.begun();
    let mut bad = chunk(&case.data, 0).to_vec();
    bad[77] ^= 4;
    let refusal = writer.chunk(0, &bad).unwrap_err();
    assert!(matches!(
        refusal,
        BlobError::Verify(VerifyError::ChunkHash { index: 0 })
    ));
    assert_eq!(writer.first_missing_chunk(), 0);
    case.assert_arrives(writer);
}

#[test]
fn hashes_of_another_blob_are_refused() {
    let case = Case::new(3 * CHUNK);
    let mut writer = case.writer();
    let other = HashTree::of_bytes(&vec![1; 3 * CHUNK]);
    let refusal = writer.begin(other.bytes(), other.chunks().to_vec());
    assert!(matches!(refusal, Err(BlobError::WrongRoot { .. })));
    let refusal = writer.begin(u64::MAX, Vec::new());
    assert!(matches!(refusal, Err(BlobError::Verify(_))));
    let hashes = case.tree.chunks().to_vec();
    writer.begin(case.tree.bytes(), hashes).unwrap();
    case.assert_arrives(writer);
}

#[test]
fn chunks_come_in_order_after_the_hashes() {
    let case = Case::new(3 * CHUNK);
    let mut early = case.writer();
    let refusal = early.chunk(0, chunk(&case.data, 0));
    assert!(matches!(refusal, Err(BlobError::NotBegun)));
    assert!(matches!(early.finish(), Err(BlobError::NotBegun)));
    let mut writer = case.begun();
    case.write(&mut writer, 0..1);
    let refusal = writer.chunk(2, chunk(&case.data, 2));
    assert!(matches!(
        refusal,
        Err(BlobError::Gap {
            expected: 1,
            got: 2
        })
    ));
    // Sent twice is no fault.
    case.write(&mut writer, 0..1);
    case.assert_arrives(writer);
}

#[test]
fn an_unfinished_file_does_not_get_its_name() {
    let case = Case::new(3 * CHUNK);
    let mut writer = case.begun();
    case.write(&mut writer, 0..2);
    let refusal = writer.finish().unwrap_err();
    assert!(matches!(
        refusal,
        BlobError::Incomplete {
            missing: 1,
            of: 3,
            next: 2
        }
    ));
    assert!(!case.target().exists());
    case.assert_arrives(case.writer());
}

#[test]
fn a_source_that_lied_about_the_length_does_not_spoil_the_rest() {
    let case = Case::new(2 * CHUNK + 10);
    let mut writer = case.writer();
    let hashes = case.tree.chunks().to_vec();
    // The root does not fix the length of the last chunk, so this is only found out by its bytes.
    writer.begin(2 * CHUNK as u64 + 11, hashes.clone()).unwrap();
    case.write(&mut writer, 0..2);
    assert!(writer.chunk(2, &[0; 11]).is_err());
    drop(writer);
    let mut writer = case.writer();
    writer.begin(case.tree.bytes(), hashes).unwrap();
    assert_eq!(writer.first_missing_chunk(), 2);
    case.assert_arrives(writer);
}

#[test]
fn inner_nodes_sent_as_chunk_hashes_do_not_spoil_the_rest() {
    let case = Case::new(3 * CHUNK);
    // The blob's left half as if it were one chunk: the root is the same.
    let half = HashTree::of_bytes(&case.data);
    let pair = blake3::hazmat::merge_subtrees_non_root(
        &half.chunks()[0],
        &half.chunks()[1],
        blake3::hazmat::Mode::Hash,
    );
    let mut writer = case.writer();
    writer
        .begin(2 * CHUNK as u64, vec![pair, half.chunks()[2]])
        .unwrap();
    assert!(writer.chunk(0, chunk(&case.data, 0)).is_err());
    let hashes = case.tree.chunks().to_vec();
    writer.begin(case.tree.bytes(), hashes).unwrap();
    case.assert_arrives(writer);
}

#[test]
fn one_writer_at_a_time() {
    let case = Case::new(3 * CHUNK);
    let first = case.begun();
    let refusal = FileWriter::create(&case.target(), case.tree.root()).unwrap_err();
    assert_eq!(refusal.kind(), io::ErrorKind::ResourceBusy);
    case.assert_arrives(first);
}

#[test]
fn a_transfer_given_up_leaves_nothing() {
    let case = Case::new(3 * CHUNK);
    let mut writer = case.begun();
    case.write(&mut writer, 0..2);
    writer.discard().unwrap();
    assert_eq!(fs::read_dir(case.folder.path()).unwrap().count(), 0);
}

#[test]
fn a_reader_sees_that_its_file_changed() {
    let case = Case::new(3 * CHUNK);
    fs::write(case.target(), &case.data).unwrap();
    let mut reader = FileReader::open(&case.target()).unwrap();
    assert_eq!(reader.id(), case.tree.root());
    let mut changed = case.data.clone();
    changed[CHUNK] ^= 1;
    fs::write(case.target(), &changed).unwrap();
    assert_eq!(reader.chunk(0).unwrap(), chunk(&case.data, 0));
    let refusal = reader.chunk(1).unwrap_err();
    assert_eq!(refusal.kind(), io::ErrorKind::InvalidData);
    fs::write(case.target(), &changed[..CHUNK]).unwrap();
    let refusal = reader.chunk(2).unwrap_err();
    assert_eq!(refusal.kind(), io::ErrorKind::UnexpectedEof);
    let refusal = reader.chunk(3).unwrap_err();
    assert_eq!(refusal.kind(), io::ErrorKind::InvalidInput);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// However often a transfer breaks off and whatever the disk loses then, the file arrives.
    #[test]
    fn transfers_that_break_off_arrive(
        len in 0..6 * CHUNK,
        breaks in prop::collection::vec((1..4u64, any::<prop::sample::Index>()), 0..5),
    ) {
        let case = Case::new(len);
        for (chunks, lost) in breaks {
            let mut writer = case.begun();
            let from = writer.first_missing_chunk();
            case.write(&mut writer, from..(from + chunks).min(case.tree.count()));
            drop(writer);
            let bytes = fs::read(case.part()).unwrap();
            fs::write(case.part(), &bytes[..lost.index(bytes.len() + 1)]).unwrap();
        }
        case.assert_arrives(case.begun());
    }

    #[test]
    fn what_a_reader_sends_a_writer_takes(len in 0..4 * CHUNK) {
        let case = Case::new(len);
        let source = case.folder.path().join("source");
        fs::write(&source, &case.data).unwrap();
        let mut reader = FileReader::open(&source).unwrap();
        fs::remove_file(&source).unwrap();
        let mut writer = FileWriter::create(&case.target(), reader.id()).unwrap();
        let tree = reader.tree().clone();
        writer.begin(tree.bytes(), tree.chunks().to_vec()).unwrap();
        for index in 0..chunk_count(tree.bytes()) {
            writer.chunk(index, &reader.chunk(index).unwrap()).unwrap();
        }
        case.assert_arrives(writer);
    }
}
