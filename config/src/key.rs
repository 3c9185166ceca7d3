//! Key files: one line with a secret key, readable by its owner alone, never overwritten.
//!
//! A key that its account was given later, by rotation, says on a second line which account that is: an id comes from
//! the first key, so this one alone would not tell.
//!
//! The randomness is the caller's. Whoever reads a key file has the account's money or the node's
//! name, so a file that others can read is refused rather than used.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use cryptomind_protocol::key::KEY_FILE_ACCOUNT;
use cryptomind_protocol::{AccountId, ErrorBody, SecretKey};

/// No key file is longer.
const MAX_BYTES: u64 = 1024;

/// Why a key file cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is a file already; keys are never overwritten.
    #[error("{} is there already and is never overwritten", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// There is no such file.
    #[error("there is no key file {}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Others than its owner may read or write it.
    #[error("{} is open to others than its owner (mode {mode:03o})", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Cut short, or something else.
    #[error("{} holds no whole secret key ({bytes} bytes)", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// The system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        error: std::io::Error,
    },
}

impl KeyFileError {
    fn io(path: &Path, error: std::io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            ErrorKind::AlreadyExists => Self::Exists { path },
            ErrorKind::NotFound => Self::Missing { path },
            _ => Self::Io { path, error },
        }
    }

    /// Why a new file cannot be written. Only a file that is there already is one to be used.
    fn unwritable(path: &Path, error: std::io::Error) -> Self {
        let path = path.to_owned();
        if error.kind() == ErrorKind::AlreadyExists && path.is_file() {
            return Self::Exists { path };
        }
        Self::Io { path, error }
    }

    /// What to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::Exists { .. } => "use it, or name another file".into(),
            Self::Missing { .. } => "make one with: cryptomind key new".into(),
            Self::Exposed { path, .. } => {
                format!("close it with: chmod 600 {}", shell_word(path))
            }
            Self::Damaged { .. } => {
                "restore it from your backup: it is one line, `cryptomind-secret-key-1` and 64 hex digits".into()
            }
            Self::Io { .. } => "check that the folder is there and belongs to you".into(),
        }
    }
}

/// The path as one word of a shell.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(is_plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

impl From<KeyFileError> for ErrorBody {
    fn from(error: KeyFileError) -> Self {
        let code = match &error {
            KeyFileError::Exists { .. } => "key_file_exists",
            KeyFileError::Missing { .. } => "key_file_missing",
            KeyFileError::Exposed { .. } => "key_file_exposed",
            KeyFileError::Damaged { .. } => "key_file_damaged",
            KeyFileError::Io { .. } => "key_file_unusable",
        };
        Self::user(code, &error).with_help(error.help())
    }
}

/// What a key file says.
#[derive(Debug, Clone)]
pub struct KeyFile {
    /// The secret key.
    pub key: SecretKey,
    /// The account that it signs for: that whose first key it is, where the file names no other.
    pub account: AccountId,
}

impl KeyFile {
    fn parse(text: &str) -> Option<Self> {
        let key: SecretKey = text.parse().ok()?;
        let named = text.trim().split_once('\n');
        let account = match named.and_then(|(_, rest)| rest.strip_prefix(KEY_FILE_ACCOUNT)) {
            Some(account) => account.trim().parse().ok()?,
            None => AccountId::of_key(&key.public()),
        };
        Some(Self { key, account })
    }

    fn text(&self) -> String {
        let key = self.key.to_file_text();
        if self.account == AccountId::of_key(&self.key.public()) {
            return key;
        }
        format!("{key}{KEY_FILE_ACCOUNT}{}\n", self.account)
    }
}

/// Makes a key of 32 random bytes and writes it to a new file, and its folder where that is missing.
/// The file is on disk when this returns.
///
/// # Errors
/// A file that is there already is left as it is.
pub fn create(path: &Path, seed: [u8; 32]) -> Result<SecretKey, KeyFileError> {
    let key = SecretKey::from_seed(seed);
    let account = AccountId::of_key(&key.public());
    let file = KeyFile { key, account };
    create_file(path, &file).map(|()| file.key)
}

/// As [`create`], for a key that may sign for another account than its own.
///
/// # Errors
/// A file that is there already is left as it is.
pub fn create_file(path: &Path, file: &KeyFile) -> Result<(), KeyFileError> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        std::fs::create_dir_all(folder).map_err(|e| KeyFileError::unwritable(folder, e))?;
    }
    write_new(path, &file.text()).map_err(|e| KeyFileError::unwritable(path, e))?;
    sync_folder_of(path).map_err(|e| KeyFileError::io(path, e))
}

fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    rights::owner_only(&mut options);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn sync_folder_of(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|f| !f.as_os_str().is_empty());
    rights::sync_folder(folder.unwrap_or(Path::new(".")))
}

/// Puts the key file `new` in the place of `path`, which has a copy elsewhere: at every moment one of the two is there.
///
/// # Errors
/// Where the system refuses; then both are as they were.
pub fn replace(path: &Path, new: &Path) -> Result<(), KeyFileError> {
    std::fs::rename(new, path).map_err(|e| KeyFileError::io(new, e))?;
    sync_folder_of(path).map_err(|e| KeyFileError::io(path, e))
}

/// Reads the key of a key file.
///
/// # Errors
/// A file that is missing, open to others, cut short or something else.
pub fn read(path: &Path) -> Result<SecretKey, KeyFileError> {
    read_file(path).map(|file| file.key)
}

/// Reads a key file.
///
/// # Errors
/// As [`read`].
pub fn read_file(path: &Path) -> Result<KeyFile, KeyFileError> {
    let file = File::open(path).map_err(|e| KeyFileError::io(path, e))?;
    if let Some(mode) = rights::exposed(&file).map_err(|e| KeyFileError::io(path, e))? {
        let path = path.to_owned();
        return Err(KeyFileError::Exposed { path, mode });
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|e| KeyFileError::io(path, e))?;
    let file = std::str::from_utf8(&bytes).ok().and_then(KeyFile::parse);
    file.ok_or_else(|| KeyFileError::Damaged {
        path: path.to_owned(),
        bytes: bytes.len(),
    })
}

/// Reads a key file, or makes it with `seed` where there is none.
///
/// # Errors
/// As [`read`] and [`create`].
pub fn read_or_create(path: &Path, seed: [u8; 32]) -> Result<SecretKey, KeyFileError> {
    match read(path) {
        Err(KeyFileError::Missing { .. }) => create(path, seed),
        other => other,
    }
}

/// Who may read a file, by permission bits. The twin below is for systems without them.
#[cfg(unix)]
mod rights {
    use std::fs::{File, OpenOptions};
    use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
    use std::path::Path;

    pub(super) fn owner_only(options: &mut OpenOptions) {
        options.mode(0o600);
    }

    /// The permission bits, where others than the owner have any.
    pub(super) fn exposed(file: &File) -> std::io::Result<Option<u32>> {
        let mode = file.metadata()?.mode() & 0o777;
        Ok((mode & 0o077 != 0).then_some(mode))
    }

    pub(super) fn sync_folder(folder: &Path) -> std::io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

/// On Windows a file has its folder's rights: a user's own folder is closed to other users.
#[cfg(not(unix))]
mod rights {
    use std::fs::{File, OpenOptions};
    use std::path::Path;

    pub(super) fn owner_only(_: &mut OpenOptions) {}

    pub(super) fn exposed(_: &File) -> std::io::Result<Option<u32>> {
        Ok(None)
    }

    pub(super) fn sync_folder(_: &Path) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_once_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new folder/node.key");
        let key = create(&path, [7; 32]).unwrap();
        assert_eq!(read(&path).unwrap().seed(), key.seed());
        let again = create(&path, [8; 32]).unwrap_err();
        assert!(matches!(again, KeyFileError::Exists { .. }), "{again}");
        assert_eq!(read_or_create(&path, [9; 32]).unwrap().seed(), &[7; 32]);
    }

    #[test]
    fn what_is_no_key_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        let missing = read(&path).unwrap_err();
        assert!(matches!(missing, KeyFileError::Missing { .. }), "{missing}");
        create(&path, [7; 32]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in [0, 10, 30, whole.len() - 2] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let cut = read(&path).unwrap_err();
            assert!(
                matches!(cut, KeyFileError::Damaged { bytes, .. } if bytes == length),
                "{cut}"
            );
            assert!(ErrorBody::from(cut).help.unwrap().contains("backup"));
        }
    }

    #[test]
    fn a_rotated_key_names_its_account_wherever_the_file_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (path, new) = (dir.path().join("ada.key"), dir.path().join("ada.key.new"));
        let first = create(&path, [7; 32]).unwrap();
        let account = AccountId::of_key(&first.public());
        assert_eq!(read_file(&path).unwrap().account, account);
        let rotated = KeyFile {
            key: SecretKey::from_seed([8; 32]),
            account,
        };
        create_file(&new, &rotated).unwrap();
        replace(&path, &new).unwrap();
        let found = read_file(&path).unwrap();
        assert_eq!((found.account, found.key.seed()), (account, &[8; 32]));
        assert!(!new.exists());
        let whole = std::fs::read_to_string(&path).unwrap();
        let first_line = whole.find('\n').unwrap();
        for length in first_line + 2..whole.len() - 1 {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(read_file(&path).is_err(), "{length}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_cure() {
        use std::fs::Permissions;
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        create(&path, [7; 32]).unwrap();
        let mode = |m| std::fs::set_permissions(&path, Permissions::from_mode(m)).unwrap();
        for m in [0o640, 0o604, 0o620] {
            mode(m);
            let error = read(&path).unwrap_err();
            assert!(error.help().contains("chmod 600 "), "{error}");
        }
        mode(0o400);
        read(&path).unwrap();
    }
}
