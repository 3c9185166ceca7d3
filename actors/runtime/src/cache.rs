//! Blobs that this node has fetched, for the next task that needs them.
//!
//! One file a blob, named by its id, in one folder. A file is hashed again whenever it is used, so that a disk that forgets
//! costs a download and no more. When room is needed, what was used longest ago goes first; what the present run needs
//! stays.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cryptomind_blob::FileReader;
use cryptomind_protocol::{BlobId, ErrorBody};
use tracing::{debug, warn};

/// The folder.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
    max_bytes: u64,
}

impl Cache {
    /// Opens the folder, making it where it is missing.
    pub fn open(folder: &Path, max_bytes: u64) -> Result<Self, ErrorBody> {
        let refuse = |e| ErrorBody::user("bad_cache", format!("{}: {e}", folder.display()));
        fs::create_dir_all(folder).map_err(refuse)?;
        Ok(Self {
            folder: folder.to_owned(),
            max_bytes,
        })
    }

    /// Where a blob lies or would lie.
    pub fn path(&self, blob: &BlobId) -> PathBuf {
        self.folder.join(blob.to_string())
    }

    /// Bytes that are still free for blobs.
    pub fn free_bytes(&self) -> u64 {
        let used: u64 = self.entries().iter().map(|e| e.bytes).sum();
        self.max_bytes.saturating_sub(used)
    }

    /// Whether the blob is here, whole and undamaged; marks it as used. Blocks for as long as hashing it takes.
    pub fn has(&self, blob: &BlobId) -> bool {
        let path = self.path(blob);
        let Ok(reader) = FileReader::open(&path) else {
            return false;
        };
        if reader.id() != *blob {
            warn!("{} is damaged: fetching it again", path.display());
            let _ = fs::remove_file(&path);
            return false;
        }
        if let Ok(file) = File::options().append(true).open(&path) {
            let _ = file.set_modified(SystemTime::now());
        }
        true
    }

    /// Removes what was used longest ago until `bytes` more fit, sparing `needed`.
    pub fn make_room(&self, bytes: u64, needed: &[BlobId]) -> Result<(), ErrorBody> {
        let needed: Vec<String> = needed.iter().map(BlobId::to_string).collect();
        let mut entries = self.entries();
        entries.sort_by_key(|e| e.used);
        let mut used: u64 = entries.iter().map(|e| e.bytes).sum();
        for entry in entries {
            if used.saturating_add(bytes) <= self.max_bytes {
                return Ok(());
            }
            if needed.iter().any(|n| entry.name.starts_with(n.as_str())) {
                continue;
            }
            debug!("out of the cache: {}", entry.name);
            if fs::remove_file(self.folder.join(&entry.name)).is_ok() {
                used -= entry.bytes;
            }
        }
        if used.saturating_add(bytes) <= self.max_bytes {
            return Ok(());
        }
        Err(ErrorBody::new(
            cryptomind_protocol::ErrorClass::Capacity,
            "cache_full",
            format!(
                "the task needs {bytes} bytes more than the {} that the cache may hold",
                self.max_bytes
            ),
        )
        .with_help("raise [cache] max_bytes in miner.toml"))
    }

    fn entries(&self) -> Vec<Entry> {
        let entry = |entry: std::io::Result<fs::DirEntry>| {
            let entry = entry.ok()?;
            let meta = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            Some(Entry {
                name: entry.file_name().into_string().ok()?,
                bytes: meta.len(),
                used: meta.modified().ok()?,
            })
        };
        let folder = fs::read_dir(&self.folder).into_iter().flatten();
        folder.filter_map(entry).collect()
    }
}

struct Entry {
    name: String,
    bytes: u64,
    used: SystemTime,
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptomind_blob::HashTree;
    use std::time::Duration;

    fn store(cache: &Cache, content: &[u8], age_s: u64) -> BlobId {
        let id = HashTree::of_bytes(content).root();
        fs::write(cache.path(&id), content).unwrap();
        let file = File::options().append(true).open(cache.path(&id)).unwrap();
        let used = SystemTime::now() - Duration::from_secs(age_s);
        file.set_modified(used).unwrap();
        id
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_what_is_needed_stays() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), 300).unwrap();
        let [a, b, c] = [(1u8, 30), (2, 20), (3, 10)].map(|(n, age)| store(&cache, &[n; 100], age));
        assert_eq!(cache.free_bytes(), 0);
        assert!(cache.has(&a));
        cache.make_room(100, &[b]).unwrap();
        assert!(cache.has(&a) && cache.has(&b) && !cache.has(&c));
        cache.make_room(100, &[]).unwrap();
        assert_eq!(
            cache.make_room(101, &[a, b]).unwrap_err().code,
            "cache_full"
        );
    }

    #[test]
    fn a_damaged_file_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), 1000).unwrap();
        let id = store(&cache, b"content", 0);
        fs::write(cache.path(&id), b"cOntent").unwrap();
        assert!(!cache.has(&id) && !cache.path(&id).exists());
    }
}
