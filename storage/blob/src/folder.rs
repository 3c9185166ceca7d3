//! What a file system promises differs by platform; here is the little that depends on it.

use std::fs::File;
use std::io;
use std::path::Path;

/// Makes the names in `folder` survive a power cut: a rename alone is only in memory until then.
///
/// Elsewhere than on Unix folders cannot be opened for this; NTFS journals renames by itself.
#[cfg(unix)]
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Windows twin: a folder has no such call, and NTFS journals renames by itself.
#[cfg(not(unix))]
pub fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

/// Whether `path` still names the open `file`, and not one that came after it.
#[cfg(unix)]
pub(crate) fn still_names(path: &Path, file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let ours = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Windows twin: files have no stable number there, so this only sees that the name is gone.
#[cfg(not(unix))]
pub(crate) fn still_names(path: &Path, _file: &File) -> io::Result<bool> {
    path.try_exists()
}

/// The folder that holds `path`.
pub(crate) fn of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Removes a file that may be gone already.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
