//! The disk under a benchmark: what it is, what a sync costs, what a file takes on it.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use cryptomind_protocol::ErrorBody;

use crate::exit;

/// What is written at a time: a page.
const BLOCK_BYTES: usize = 4096;
/// Blocks that are written in turn, so that the file does not grow while it is measured.
const BLOCKS: u64 = 256;
/// For how long.
const MEASURED: Duration = Duration::from_millis(500);

/// Syncs of one written block a second, one after the other, in `dir`: what a ledger without group commit could
/// reach at most. Blocks for half a second.
pub fn raw_fdatasync_per_s(dir: &Path) -> Result<f64, ErrorBody> {
    let path = dir.join("fdatasync.tmp");
    let measured = measure(&path).map_err(|e| exit::file(&path, &e));
    let removed = std::fs::remove_file(&path).map_err(|e| exit::file(&path, &e));
    let rate = measured?;
    removed.map(|()| rate)
}

fn measure(path: &Path) -> std::io::Result<f64> {
    let file = File::create(path)?;
    let block = [0x5a; BLOCK_BYTES];
    for at in 0..BLOCKS {
        system::write_at(&file, &block, at * BLOCK_BYTES as u64)?;
    }
    file.sync_all()?;
    let started = Instant::now();
    let mut syncs = 0u64;
    while started.elapsed() < MEASURED {
        system::write_at(&file, &block, syncs % BLOCKS * BLOCK_BYTES as u64)?;
        file.sync_data()?;
        syncs += 1;
    }
    Ok(syncs as f64 / started.elapsed().as_secs_f64())
}

/// Bytes that a file takes on the disk; not its length, which may have holes.
pub fn bytes_on_disk(file: &Path) -> Result<u64, ErrorBody> {
    let metadata = std::fs::metadata(file).map_err(|e| exit::file(file, &e))?;
    Ok(system::bytes_on_disk(&metadata))
}

/// Refuses a folder whose files are in memory alone: a sync costs nothing there and keeps nothing.
pub fn refuse_memory(dir: &Path) -> Result<(), ErrorBody> {
    if !system::is_in_memory(dir).map_err(|e| exit::file(dir, &e))? {
        return Ok(());
    }
    let message = format!(
        "{} is in memory (tmpfs): nothing is durable there",
        dir.display()
    );
    Err(ErrorBody::user("folder_in_memory", message)
        .with_help("name a folder on a disk: --dir DIR"))
}

#[cfg(unix)]
mod system {
    use std::fs::{File, Metadata};
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    /// Of a block in `st_blocks`, whatever the file system's own are.
    const STAT_BLOCK_BYTES: u64 = 512;

    pub(super) fn write_at(file: &File, bytes: &[u8], at: u64) -> std::io::Result<()> {
        file.write_all_at(bytes, at)
    }

    pub(super) fn bytes_on_disk(metadata: &Metadata) -> u64 {
        metadata.blocks() * STAT_BLOCK_BYTES
    }

    #[cfg(target_os = "linux")]
    pub(super) fn is_in_memory(dir: &std::path::Path) -> std::io::Result<bool> {
        /// From `linux/magic.h`: tmpfs and ramfs.
        const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
        let kind = rustix::fs::statfs(dir)?.f_type;
        Ok(IN_MEMORY.contains(&(kind as u64 & u64::from(u32::MAX))))
    }

    /// Elsewhere such a folder is made by hand alone.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn is_in_memory(_: &std::path::Path) -> std::io::Result<bool> {
        Ok(false)
    }
}

/// The twin for systems without `pwrite`.
#[cfg(not(unix))]
mod system {
    use std::fs::{File, Metadata};
    use std::io::{Seek as _, SeekFrom, Write as _};

    pub(super) fn write_at(mut file: &File, bytes: &[u8], at: u64) -> std::io::Result<()> {
        file.seek(SeekFrom::Start(at))?;
        file.write_all(bytes)
    }

    pub(super) fn bytes_on_disk(metadata: &Metadata) -> u64 {
        metadata.len()
    }

    pub(super) fn is_in_memory(_: &std::path::Path) -> std::io::Result<bool> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_is_measured_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        assert!(raw_fdatasync_per_s(dir.path()).unwrap() > 0.0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_no_disk() {
        let shm = Path::new("/dev/shm");
        if shm.is_dir() {
            assert_eq!(refuse_memory(shm).unwrap_err().code, "folder_in_memory");
        }
        assert_eq!(
            refuse_memory(Path::new("/nowhere")).unwrap_err().code,
            "file"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_hole_takes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sparse");
        let file = File::create(&path).unwrap();
        file.set_len(1 << 30).unwrap();
        assert!(bytes_on_disk(&path).unwrap() < 1 << 20);
    }
}
