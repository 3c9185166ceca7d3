//! A storage node's blobs.

use std::fs;
use std::path::PathBuf;

use cryptomind_blob::{BlobError, CHUNK_BYTES, HashTree, VerifyError};
use cryptomind_protocol::{BlobId, ErrorBody, ErrorClass};
use cryptomind_storage::StoreError;
use cryptomind_storage::blobs::{BlobStore, BlobWriter};
use cryptomind_storage::error::Damage;
use proptest::prelude::*;
use tempfile::TempDir;

const CHUNK: usize = CHUNK_BYTES;
const MAX: u64 = 10 * CHUNK as u64;

/// Bytes of a blob, different for each seed.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_be_bytes());
    hasher.finalize_xof().fill(&mut data);
    data
}

/// Writes the chunks that are missing, up to `until`.
fn feed(writer: &mut BlobWriter, data: &[u8], until: u64) {
    let hashes = HashTree::of_bytes(data).chunks().to_vec();
    writer.begin(hashes).unwrap();
    let chunks = data.chunks(CHUNK).zip(0..until);
    for (chunk, index) in chunks.skip(writer.first_missing_chunk() as usize) {
        writer.chunk(index, chunk).unwrap();
    }
}

/// Stores a blob as an upload does.
pub fn store(store: &BlobStore, data: &[u8]) -> BlobId {
    let id = BlobId::of_bytes(data);
    let mut writer = store.writer(id, data.len() as u64).unwrap();
    feed(&mut writer, data, u64::MAX);
    writer.finish().unwrap();
    id
}

/// Reads a blob whole, verified; `None` where it is not stored.
pub fn read(store: &BlobStore, id: &BlobId) -> Option<Vec<u8>> {
    let mut blob = store.reader(id).unwrap()?;
    let chunks = 0..blob.tree().count();
    let data = chunks
        .flat_map(|index| blob.chunk(index).unwrap())
        .collect::<Vec<_>>();
    assert_eq!(BlobId::of_bytes(&data), *id);
    assert_eq!(store.has(id).unwrap(), Some(data.len() as u64));
    Some(data)
}

struct Case {
    folder: TempDir,
    store: Option<BlobStore>,
}

impl Case {
    fn new() -> Self {
        let mut case = Self {
            folder: tempfile::tempdir().unwrap(),
            store: None,
        };
        case.reopen();
        case
    }

    fn reopen(&mut self) {
        // The old one goes first: one at a time has the folder.
        self.store = None;
        self.store = Some(BlobStore::open(self.folder.path(), MAX).unwrap());
    }

    fn store(&self) -> &BlobStore {
        self.store.as_ref().unwrap()
    }

    fn files(&self, folder: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.path().join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(path);
                }
            }
        }
        found
    }

    fn data_file(&self, id: &BlobId) -> PathBuf {
        let hex = id.as_bytes().map(|byte| format!("{byte:02x}")).concat();
        self.folder.path().join("blobs").join(&hex[..2]).join(hex)
    }
}

#[test]
fn blobs_of_every_edge_are_there_after_a_reopen() {
    let mut case = Case::new();
    let sizes = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK];
    let blobs = sizes.map(|len| pattern(1, len));
    let ids = blobs.each_ref().map(|data| store(case.store(), data));
    for _ in 0..2 {
        for (id, data) in ids.iter().zip(&blobs) {
            assert_eq!(read(case.store(), id).as_ref(), Some(data));
        }
        assert_eq!(case.store().count(), sizes.len());
        assert_eq!(
            case.store().used_bytes(),
            sizes.iter().sum::<usize>() as u64
        );
        assert_eq!(case.files("parts"), Vec::<PathBuf>::new());
        case.reopen();
    }
    let other = BlobId::of_bytes(b"other");
    assert_eq!(case.store().has(&other).unwrap(), None);
    assert!(case.store().reader(&other).unwrap().is_none());
}

#[test]
fn an_upload_that_broke_off_goes_on_even_after_a_restart() {
    let mut case = Case::new();
    let data = pattern(2, 4 * CHUNK + 1);
    let id = BlobId::of_bytes(&data);
    let open = |case: &Case| case.store().writer(id, data.len() as u64).unwrap();
    feed(&mut open(&case), &data, 2);
    assert_eq!(open(&case).first_missing_chunk(), 2);
    case.reopen();
    let mut writer = open(&case);
    assert_eq!(writer.first_missing_chunk(), 2);
    feed(&mut writer, &data, u64::MAX);
    assert_eq!(
        case.store().has(&id).unwrap(),
        None,
        "not before it is finished"
    );
    writer.finish().unwrap();
    assert_eq!(read(case.store(), &id), Some(data));
    assert_eq!(case.files("parts"), Vec::<PathBuf>::new());
}

#[test]
fn a_blob_that_is_stored_wants_nothing_more() {
    let case = Case::new();
    let data = pattern(3, 2 * CHUNK);
    let id = store(case.store(), &data);
    let mut again = case.store().writer(id, data.len() as u64).unwrap();
    assert_eq!(again.first_missing_chunk(), 2);
    again
        .begin(HashTree::of_bytes(&data).chunks().to_vec())
        .unwrap();
    assert!(again.begin(vec![[0; 32]; 2]).is_err());
    assert!(again.chunk(2, &[]).is_err());
    again.finish().unwrap();
    assert_eq!(case.store().used_bytes(), data.len() as u64);
    let refusal = case.store().writer(id, 7).unwrap_err();
    assert!(matches!(refusal, StoreError::Length { announced: 7, .. }));
}

#[test]
fn what_does_not_fit_is_refused_before_it_flows() {
    let case = Case::new();
    let id = |n: u64| BlobId::new([n as u8; 32]);
    let first = case.store().writer(id(1), 6 * CHUNK as u64).unwrap();
    let refusal = case.store().writer(id(2), 5 * CHUNK as u64).unwrap_err();
    let free = 4 * CHUNK as u64;
    assert!(matches!(refusal, StoreError::Full { free: f, max: MAX, .. } if f == free));
    assert_eq!(case.store().free_bytes(), free);
    let body = ErrorBody::from(refusal);
    assert_eq!(
        (body.code.as_str(), body.class),
        ("storage_full", ErrorClass::Capacity)
    );
    drop(first);
    assert_eq!(case.store().free_bytes(), MAX);
    let second = case.store().writer(id(2), 5 * CHUNK as u64).unwrap();
    drop(second);
    let refusal = case.store().writer(id(3), u64::MAX).unwrap_err();
    assert!(matches!(
        refusal,
        StoreError::Blob(BlobError::Verify(VerifyError::TooLarge { .. }))
    ));
    assert_eq!(case.store().free_bytes(), MAX);
}

#[test]
fn the_quota_counts_what_is_stored_after_a_restart() {
    let mut case = Case::new();
    let id = store(case.store(), &pattern(4, 7 * CHUNK));
    case.reopen();
    assert_eq!(case.store().free_bytes(), 3 * CHUNK as u64);
    let other = BlobId::new([1; 32]);
    assert!(case.store().writer(other, 4 * CHUNK as u64).is_err());
    assert!(case.store().remove(&id).unwrap());
    assert!(case.store().writer(other, 4 * CHUNK as u64).is_ok());
}

#[test]
fn broken_off_uploads_make_way_oldest_first() {
    let case = Case::new();
    let [old, new, big] = [5, 6, 7].map(|seed| pattern(seed, 4 * CHUNK));
    let writer = |data: &[u8]| {
        let id = BlobId::of_bytes(data);
        case.store().writer(id, data.len() as u64).unwrap()
    };
    feed(&mut writer(&old), &old, 3);
    feed(&mut writer(&new), &new, 3);
    // 3 + 3 + 4 chunks fit, one more does not.
    drop(writer(&big));
    assert_eq!(writer(&old).first_missing_chunk(), 3);
    // That made the other one the oldest.
    let five = case.store().writer(BlobId::new([9; 32]), 5 * CHUNK as u64);
    drop(five.unwrap());
    assert_eq!(writer(&new).first_missing_chunk(), 0);
    assert_eq!(writer(&old).first_missing_chunk(), 3);
}

#[test]
fn two_writers_of_one_blob_do_not_meet() {
    let case = Case::new();
    let data = pattern(8, 3 * CHUNK);
    let id = BlobId::of_bytes(&data);
    let writer = || case.store().writer(id, data.len() as u64).unwrap();
    let (mut first, mut second) = (writer(), writer());
    feed(&mut first, &data, 1);
    feed(&mut second, &data, 2);
    feed(&mut first, &data, 2);
    assert_eq!(second.first_missing_chunk(), 2);
    feed(&mut second, &data, 3);
    second.finish().unwrap();
    assert_eq!(read(case.store(), &id).as_ref(), Some(&data));
    feed(&mut first, &data, 3);
    first.finish().unwrap();
    assert_eq!(read(case.store(), &id).as_ref(), Some(&data));
    assert_eq!(case.store().used_bytes(), data.len() as u64, "counted once");
    assert_eq!(case.files("parts"), Vec::<PathBuf>::new());
}

#[test]
fn writers_of_one_blob_may_finish_at_once() {
    let case = Case::new();
    let data = pattern(9, 2 * CHUNK);
    let id = BlobId::of_bytes(&data);
    let mut writers = [(); 4].map(|()| case.store().writer(id, data.len() as u64).unwrap());
    writers
        .iter_mut()
        .for_each(|writer| feed(writer, &data, u64::MAX));
    let barrier = std::sync::Barrier::new(writers.len());
    std::thread::scope(|scope| {
        for writer in writers {
            scope.spawn(|| {
                barrier.wait();
                writer.finish().unwrap();
            });
        }
    });
    assert_eq!(read(case.store(), &id).as_ref(), Some(&data));
    assert_eq!(case.store().free_bytes(), MAX - data.len() as u64);
    assert_eq!(case.files("parts"), Vec::<PathBuf>::new());
}

#[test]
fn damaged_chunks_and_foreign_hashes_are_refused() {
    let case = Case::new();
    let data = pattern(10, 2 * CHUNK);
    let id = BlobId::of_bytes(&data);
    let mut writer = case.store().writer(id, data.len() as u64).unwrap();
    let other = HashTree::of_bytes(&pattern(11, 2 * CHUNK))
        .chunks()
        .to_vec();
    let refusal = writer.begin(other).unwrap_err();
    assert!(matches!(
        refusal,
        StoreError::Blob(BlobError::WrongRoot { .. })
    ));
    feed(&mut writer, &data, 1);
    let refusal = writer.chunk(1, &data[..CHUNK]).unwrap_err();
    let body = ErrorBody::from(refusal);
    assert_eq!(
        (body.code.as_str(), body.class),
        ("corrupt_chunk", ErrorClass::Network)
    );
    let refusal = writer.finish().unwrap_err();
    assert!(matches!(
        refusal,
        StoreError::Blob(BlobError::Incomplete { .. })
    ));
    assert_eq!(case.store().has(&id).unwrap(), None);
    store(case.store(), &data);
    assert_eq!(read(case.store(), &id), Some(data));
}

#[test]
fn bit_rot_is_seen_and_the_blob_can_come_again() {
    let case = Case::new();
    let data = pattern(12, 3 * CHUNK);
    let id = store(case.store(), &data);
    let path = case.data_file(&id);
    let mut rotten = data.clone();
    rotten[CHUNK + 3] ^= 0x20;
    fs::write(&path, &rotten).unwrap();
    let mut blob = case.store().reader(&id).unwrap().unwrap();
    assert_eq!(blob.chunk(0).unwrap(), data[..CHUNK]);
    let damage = |error| match error {
        StoreError::Damaged { blob, source } if blob == id => source,
        other => panic!("{other}"),
    };
    let hash = Damage::Chunk(VerifyError::ChunkHash { index: 1 });
    assert_eq!(damage(blob.chunk(1).unwrap_err()), hash);
    fs::write(&path, &data[..2 * CHUNK + 5]).unwrap();
    assert_eq!(
        damage(blob.chunk(2).unwrap_err()),
        Damage::CutOff { index: 2 }
    );
    fs::write(path.with_extension("tree"), b"torn").unwrap();
    assert_eq!(
        damage(case.store().reader(&id).unwrap_err()),
        Damage::Hashes
    );
    fs::remove_file(&path).unwrap();
    assert_eq!(damage(case.store().reader(&id).unwrap_err()), Damage::Gone);
    assert!(case.store().remove(&id).unwrap());
    assert!(!case.store().remove(&id).unwrap());
    store(case.store(), &data);
    assert_eq!(read(case.store(), &id), Some(data));
}

#[test]
fn a_chunk_beyond_the_end_is_no_damage() {
    let case = Case::new();
    let id = store(case.store(), &pattern(13, 10));
    let mut blob = case.store().reader(&id).unwrap().unwrap();
    let refusal = blob.chunk(1).unwrap_err();
    assert!(matches!(
        refusal,
        StoreError::Blob(BlobError::Verify(VerifyError::NoSuchChunk {
            index: 1,
            count: 1
        }))
    ));
}

#[test]
fn a_lost_index_is_made_again_from_the_files() {
    let mut case = Case::new();
    let blobs = [0, 5, 2 * CHUNK + 1].map(|len| pattern(14, len));
    let ids = blobs.each_ref().map(|data| store(case.store(), data));
    case.store = None;
    fs::remove_file(case.folder.path().join("index.redb")).unwrap();
    fs::remove_file(case.data_file(&ids[2]).with_extension("tree")).unwrap();
    case.reopen();
    for (id, data) in ids.iter().zip(&blobs) {
        assert_eq!(read(case.store(), id).as_ref(), Some(data));
    }
    assert_eq!(case.store().count(), 3);
}

#[test]
fn opening_removes_what_is_not_whole() {
    let mut case = Case::new();
    let kept = store(case.store(), &pattern(15, 100));
    let [cut, no_hashes, forged] = [16, 17, 18].map(|seed| pattern(seed, CHUNK + 9));
    let cut = store(case.store(), &cut);
    let no_hashes = store(case.store(), &no_hashes);
    let forged = BlobId::of_bytes(&forged);
    case.store = None;
    fs::write(case.data_file(&cut), b"short").unwrap();
    fs::remove_file(case.data_file(&no_hashes).with_extension("tree")).unwrap();
    fs::create_dir_all(case.data_file(&forged).parent().unwrap()).unwrap();
    fs::write(case.data_file(&forged), b"something else").unwrap();
    let parts = case.folder.path().join("parts");
    for litter in ["x.7.part", "x.7.part.tree", "y.part.tree", "z"] {
        fs::write(parts.join(litter), b"litter").unwrap();
    }
    case.reopen();
    assert!(read(case.store(), &kept).is_some());
    assert!(read(case.store(), &no_hashes).is_some(), "hashed again");
    assert_eq!(case.store().has(&cut).unwrap(), None);
    assert_eq!(case.store().has(&forged).unwrap(), None);
    assert_eq!(case.files("parts"), Vec::<PathBuf>::new());
    assert_eq!(case.files("blobs").len(), 4, "two blobs with their hashes");
    assert_eq!(case.store().used_bytes(), 100 + CHUNK as u64 + 9);
}

#[test]
fn one_process_has_the_folder() {
    let case = Case::new();
    let refusal = BlobStore::open(case.folder.path(), MAX).unwrap_err();
    assert!(matches!(refusal, StoreError::Open { .. }), "{refusal}");
}

#[derive(Debug, Clone)]
enum Act {
    Store { blob: usize, chunks: u64 },
    Remove { blob: usize },
    Reopen,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..4usize, 0..5u64).prop_map(|(blob, chunks)| Act::Store { blob, chunks }),
        1 => (0..4usize).prop_map(|blob| Act::Remove { blob }),
        1 => Just(Act::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is stored, broken off and removed, the store holds what was finished, and its
    /// account of bytes is right.
    #[test]
    fn the_account_is_right(acts in prop::collection::vec(act(), 0..25)) {
        let mut case = Case::new();
        let blobs = [1, CHUNK, 3 * CHUNK - 1, 4 * CHUNK].map(|len| pattern(19, len));
        let mut model = std::collections::BTreeSet::new();
        for act in acts {
            match act {
                Act::Store { blob, chunks } => {
                    let data = &blobs[blob];
                    let id = BlobId::of_bytes(data);
                    let mut writer = case.store().writer(id, data.len() as u64).unwrap();
                    if !model.contains(&blob) {
                        feed(&mut writer, data, chunks);
                    }
                    if writer.first_missing_chunk() == data.len().div_ceil(CHUNK) as u64 {
                        writer.finish().unwrap();
                        model.insert(blob);
                    }
                }
                Act::Remove { blob } => {
                    let id = BlobId::of_bytes(&blobs[blob]);
                    prop_assert_eq!(case.store().remove(&id).unwrap(), model.remove(&blob));
                }
                Act::Reopen => case.reopen(),
            }
            let used = model.iter().map(|blob| blobs[*blob].len() as u64).sum::<u64>();
            prop_assert_eq!(case.store().used_bytes(), used);
            prop_assert_eq!(case.store().free_bytes(), MAX - used);
            for (number, data) in blobs.iter().enumerate() {
                let found = read(case.store(), &BlobId::of_bytes(data));
                prop_assert_eq!(found.is_some(), model.contains(&number));
            }
        }
    }
}
