//! The idle command's output, in a file that cannot fill the disk.
//!
//! The command writes into a pipe; a thread copies it to `idle.log` and, when that is full, starts it anew and
//! keeps the part before as `idle.log.1`. The thread ends when the last process of the tree has closed the pipe.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::path::{Path, PathBuf};

struct Log {
    path: PathBuf,
    file: File,
    written: u64,
    max_bytes: u64,
}

/// The writing end for a new command, appended to the log in `data_dir`.
pub(super) fn open(data_dir: &Path, max_bytes: u64) -> io::Result<PipeWriter> {
    let (reader, writer) = io::pipe()?;
    let log = Log::open(data_dir.join("idle.log"), max_bytes)?;
    std::thread::Builder::new()
        .name("idle-log".into())
        .spawn(move || copy(reader, log))?;
    Ok(writer)
}

fn copy(mut reader: PipeReader, mut log: Log) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => log.append(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

impl Log {
    fn open(path: PathBuf, max_bytes: u64) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(&path)?;
        let written = file.metadata()?.len();
        Ok(Self {
            path,
            file,
            written,
            max_bytes,
        })
    }

    /// The command must not stall because its log cannot be written: what cannot is lost.
    fn append(&mut self, bytes: &[u8]) {
        if self.written + bytes.len() as u64 > self.max_bytes {
            let _ = self.turn_over();
        }
        if self.file.write_all(bytes).is_ok() {
            self.written += bytes.len() as u64;
        }
    }

    fn turn_over(&mut self) -> io::Result<()> {
        std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
        self.file = File::options().create(true).append(true).open(&self.path)?;
        self.written = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_keeps_its_size_and_the_latest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("idle.log");
        let mut log = Log::open(path.clone(), 1000).unwrap();
        for n in 0..200 {
            log.append(format!("line {n:04}\n").as_bytes());
        }
        let (new, old) = (
            std::fs::read_to_string(&path).unwrap(),
            std::fs::read_to_string(dir.path().join("idle.log.1")).unwrap(),
        );
        assert!(new.ends_with("line 0199\n"));
        assert!(new.len() <= 1000 && old.len() <= 1000);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
