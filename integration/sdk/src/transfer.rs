//! Files to and from storage nodes, verified on both ways.
//!
//! What a download wrote is a `.part` beside its place until the last chunk is verified and the file
//! is on disk; a second try goes on from there. One storage node after the other is asked: the
//! first that has a file gives it.

use std::path::{Path, PathBuf};

use cryptomind_blob::{FileReader, FileWriter};
use cryptomind_net::Connection;
use cryptomind_net::bulk::{self, Origin, Sink};
use cryptomind_net::samples::Metered;
use cryptomind_protocol::api::{Placement, Request};
use cryptomind_protocol::blob::{CHUNK_BYTES, Source};
use cryptomind_protocol::frame::ALPN_BLOB;
use cryptomind_protocol::item::{FileEntry, is_file_name};
use cryptomind_protocol::node::Ack;
use cryptomind_protocol::probe::{LinkReport, MAX_REPORTS};
use cryptomind_protocol::transaction::StoredReceipt;
use cryptomind_protocol::{ErrorBody, NodeAddress, Signed};

use crate::Client;
use crate::retry::Retry;

/// How far a transfer is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The file that moves.
    pub file: &'a str,
    /// Bytes of it that are there.
    pub done: u64,
    /// Its length.
    pub total: u64,
}

type Report<'r> = &'r mut (dyn FnMut(Progress<'_>) + Send);

/// Sending.
impl Client {
    /// Stores files, each under a name without folders. Gives each file's entry for a manifest and the
    /// storage node's receipt, in the order of `files`. What is there already is not sent again.
    pub async fn upload(
        &self,
        files: Vec<(String, PathBuf)>,
        report: Report<'_>,
    ) -> Result<Vec<(FileEntry, StoredReceipt)>, ErrorBody> {
        let readers = open_all(files).await?;
        let bytes = readers
            .iter()
            .map(|(_, reader)| reader.tree().bytes())
            .sum();
        let placement = self.place(bytes).await?;
        let mut stored = Vec::with_capacity(readers.len());
        for (name, reader) in readers {
            stored.push(self.upload_one(&placement, name, reader, report).await?);
        }
        self.tell_samples().await;
        Ok(stored)
    }

    /// Where files of this size in all may be put, with the ticket for it.
    pub async fn place(&self, bytes: u64) -> Result<Placement, ErrorBody> {
        self.link().request(&Request::Place { bytes }).await
    }

    async fn upload_one(
        &self,
        placement: &Placement,
        name: String,
        reader: FileReader,
        report: Report<'_>,
    ) -> Result<(FileEntry, StoredReceipt), ErrorBody> {
        let entry = FileEntry {
            blob: reader.id(),
            bytes: reader.tree().bytes(),
            name,
        };
        let mut origin = Outgoing {
            reader,
            entry: &entry,
            report,
        };
        let mut retry = Retry::new(self.limits().patience);
        let mut turn = 0;
        let receipt = loop {
            let source = pick(placement, turn)?;
            match self.put(source, &placement.ticket, &mut origin).await {
                Ok(receipt) => break receipt,
                Err(error) => {
                    self.next_source(placement, &mut turn, error, &mut retry)
                        .await?
                }
            }
        };
        (origin.report)(Progress {
            file: &entry.name,
            done: entry.bytes,
            total: entry.bytes,
        });
        check_receipt(&receipt, &entry)?;
        Ok((entry, receipt))
    }

    async fn put(
        &self,
        source: &Source,
        ticket: &Signed,
        origin: &mut Outgoing<'_, '_>,
    ) -> Result<StoredReceipt, ErrorBody> {
        let connection = self.dial_storage(source).await?;
        let blob = origin.entry.blob;
        let mut origin = Metered::new(origin);
        let receipt = bulk::put(&connection, blob, ticket, &mut origin).await;
        if receipt.is_ok() {
            let (bytes, took) = (origin.bytes, origin.took());
            self.link().samples.add(&connection, bytes, took);
        }
        connection.close("stored");
        receipt
    }

    /// Tells the coordinator how fast that was, so that quotes know this client's line. What is not heard comes with the next
    /// transfer: it is worth no more than one try.
    async fn tell_samples(&self) {
        let mut reports = self.link().samples.take();
        if reports.is_empty() {
            return;
        }
        if let Ok((_, connection)) = self.link().connection().await {
            let own = connection.peer_node();
            let rtt_us = u64::try_from(connection.rtt().as_micros()).unwrap_or(u64::MAX);
            reports.truncate(MAX_REPORTS - 1);
            reports.push(LinkReport {
                to: own,
                rtt_us,
                bytes_per_s: None,
            });
            let request = Request::ReportLinks { reports };
            let told = connection.request::<_, Ack>(&request, self.limits().request);
            drop(told.await);
        }
    }

    async fn dial_storage(&self, source: &Source) -> Result<Connection, ErrorBody> {
        let address: NodeAddress = format!("cm://{}@{}", source.node, source.address)
            .parse()
            .map_err(|e| ErrorBody::network("bad_source", e))?;
        let link = self.link();
        link.endpoint.dial(&address, ALPN_BLOB, &link.key).await
    }

    /// Turns to the next storage node; pauses after each round of all of them.
    async fn next_source(
        &self,
        placement: &Placement,
        turn: &mut usize,
        error: ErrorBody,
        retry: &mut Retry,
    ) -> Result<(), ErrorBody> {
        *turn += 1;
        if turn.is_multiple_of(placement.sources.len()) {
            retry.pause(error).await?;
        }
        Ok(())
    }
}

/// Receiving.
impl Client {
    /// Fetches `files` into the folder `dir`, which is made where it is missing. Gives their paths.
    /// A file that is there and whole is not fetched again; a partial one is completed.
    pub async fn download(
        &self,
        placement: &Placement,
        files: &[FileEntry],
        dir: &Path,
        report: Report<'_>,
    ) -> Result<Vec<PathBuf>, ErrorBody> {
        std::fs::create_dir_all(dir).map_err(|e| local(dir, &e))?;
        let mut paths = Vec::with_capacity(files.len());
        for entry in files {
            paths.push(self.download_one(placement, entry, dir, report).await?);
        }
        self.tell_samples().await;
        Ok(paths)
    }

    async fn download_one(
        &self,
        placement: &Placement,
        entry: &FileEntry,
        dir: &Path,
        report: Report<'_>,
    ) -> Result<PathBuf, ErrorBody> {
        if !is_file_name(&entry.name) {
            let message = format!("`{}` is no plain file name", entry.name);
            return Err(ErrorBody::user("bad_file_name", message));
        }
        let path = dir.join(&entry.name);
        let mut retry = Retry::new(self.limits().patience);
        let mut turn = 0;
        while !is_whole(&path, entry).await? {
            let source = pick(placement, turn)?;
            let got = self.get(source, &placement.ticket, entry, &path, report);
            if let Err(error) = got.await {
                self.next_source(placement, &mut turn, error, &mut retry)
                    .await?;
            }
        }
        report(Progress {
            file: &entry.name,
            done: entry.bytes,
            total: entry.bytes,
        });
        Ok(path)
    }

    async fn get(
        &self,
        source: &Source,
        ticket: &Signed,
        entry: &FileEntry,
        path: &Path,
        report: Report<'_>,
    ) -> Result<(), ErrorBody> {
        let connection = self.dial_storage(source).await?;
        let writer = FileWriter::create(path, entry.blob).map_err(|e| local(path, &e))?;
        let first = writer.first_missing_chunk();
        let mut sink = Metered::new(Incoming {
            writer,
            entry,
            path,
            report,
        });
        let got = bulk::get(&connection, entry.blob, first, ticket, &mut sink).await;
        if got.is_ok() {
            let (bytes, took) = (sink.bytes, sink.took());
            self.link().samples.add(&connection, bytes, took);
        }
        connection.close("fetched");
        got?;
        sink.inner.writer.finish().map_err(|e| local(path, &e))?;
        Ok(())
    }
}

/// A file on its way to a storage node.
struct Outgoing<'a, 'r> {
    reader: FileReader,
    entry: &'a FileEntry,
    report: Report<'r>,
}

impl Origin for Outgoing<'_, '_> {
    fn bytes(&self) -> u64 {
        self.entry.bytes
    }

    fn hashes(&self) -> Vec<[u8; 32]> {
        self.reader.tree().chunks().to_vec()
    }

    fn chunk(&mut self, index: u64) -> Result<Vec<u8>, ErrorBody> {
        let data = self.reader.chunk(index).map_err(|e| {
            ErrorBody::user("file_changed", format!("{}: {e}", self.entry.name))
                .with_help("leave the file alone while it is uploaded, and try again")
        })?;
        (self.report)(Progress {
            file: &self.entry.name,
            done: reached(index, data.len()),
            total: self.entry.bytes,
        });
        Ok(data)
    }
}

/// A file on its way from a storage node.
struct Incoming<'a, 'r> {
    writer: FileWriter,
    entry: &'a FileEntry,
    path: &'a Path,
    report: Report<'r>,
}

impl Sink for Incoming<'_, '_> {
    fn begin(&mut self, bytes: u64, hashes: Vec<[u8; 32]>) -> Result<(), ErrorBody> {
        if bytes != self.entry.bytes {
            let expected = self.entry.bytes;
            return Err(corrupt(
                &self.entry.name,
                format!("{bytes} bytes, not {expected}"),
            ));
        }
        self.writer
            .begin(bytes, hashes)
            .map_err(|e| corrupt(&self.entry.name, e))
    }

    fn chunk(&mut self, index: u64, data: &[u8]) -> Result<(), ErrorBody> {
        self.writer
            .chunk(index, data)
            .map_err(|e| corrupt(&self.path.display().to_string(), e))?;
        (self.report)(Progress {
            file: &self.entry.name,
            done: reached(index, data.len()),
            total: self.entry.bytes,
        });
        Ok(())
    }
}

/// Bytes that are there once chunk `index` of `len` bytes is.
fn reached(index: u64, len: usize) -> u64 {
    index * CHUNK_BYTES as u64 + len as u64
}

async fn open_all(files: Vec<(String, PathBuf)>) -> Result<Vec<(String, FileReader)>, ErrorBody> {
    let open = move || -> Result<Vec<_>, ErrorBody> {
        let opened = files.into_iter().map(|(name, path)| {
            let reader = FileReader::open(&path).map_err(|e| local(&path, &e))?;
            Ok((name, reader))
        });
        opened.collect()
    };
    blocking(open).await?
}

/// Whether the file is there with the content of `entry`.
async fn is_whole(path: &Path, entry: &FileEntry) -> Result<bool, ErrorBody> {
    let (path, expected) = (path.to_owned(), entry.blob);
    blocking(move || {
        path.is_file() && FileReader::open(&path).is_ok_and(|reader| reader.id() == expected)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ErrorBody> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| ErrorBody::internal(format!("reading a file ended early: {e}")))
}

fn pick(placement: &Placement, turn: usize) -> Result<&Source, ErrorBody> {
    let count = placement.sources.len();
    turn.checked_rem(count)
        .and_then(|at| placement.sources.get(at))
        .ok_or_else(|| {
            ErrorBody::new(
                cryptomind_protocol::ErrorClass::Capacity,
                "no_storage",
                "no storage node is online that could do this",
            )
            .with_help("try again when one is back: see `cryptomind network status`")
        })
}

fn check_receipt(receipt: &StoredReceipt, entry: &FileEntry) -> Result<(), ErrorBody> {
    let fits = receipt.blob == entry.blob && receipt.bytes == entry.bytes;
    if fits && receipt.is_signed() {
        return Ok(());
    }
    let message = format!(
        "the storage node's receipt for `{}` is not good",
        entry.name
    );
    Err(ErrorBody::network("bad_receipt", message))
}

fn local(path: &Path, error: &dyn std::fmt::Display) -> ErrorBody {
    ErrorBody::user("file", format!("{}: {error}", path.display()))
        .with_help("check that the path exists, may be used by you and that the disk has room")
}

fn corrupt(name: &str, error: impl std::fmt::Display) -> ErrorBody {
    ErrorBody::network("corrupt_blob", format!("`{name}`: {error}"))
        .with_help("the bytes do not belong to the address; another storage node is asked")
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptomind_protocol::{BlobId, Timestamp};

    fn entry(bytes: &[u8]) -> FileEntry {
        FileEntry {
            name: "a.bin".into(),
            blob: BlobId::of_bytes(bytes),
            bytes: bytes.len() as u64,
        }
    }

    #[test]
    fn a_receipt_for_other_bytes_or_by_nobody_is_refused() {
        let entry = entry(b"hello");
        let key = crate::SecretKey::from_seed([1; 32]);
        let sign = |blob, bytes| StoredReceipt::sign(blob, bytes, Timestamp::from_ms(1), &key);
        check_receipt(&sign(entry.blob, 5), &entry).unwrap();
        assert!(check_receipt(&sign(BlobId::of_bytes(b"hallo"), 5), &entry).is_err());
        assert!(check_receipt(&sign(entry.blob, 4), &entry).is_err());
        let mut forged = sign(entry.blob, 5);
        forged.at = Timestamp::from_ms(2);
        assert!(check_receipt(&forged, &entry).is_err());
    }

    #[tokio::test]
    async fn only_the_right_content_counts_as_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        assert!(!is_whole(&path, &entry(b"hello")).await.unwrap());
        std::fs::write(&path, b"hallo").unwrap();
        assert!(!is_whole(&path, &entry(b"hello")).await.unwrap());
        std::fs::write(&path, b"hello").unwrap();
        assert!(is_whole(&path, &entry(b"hello")).await.unwrap());
    }

    #[test]
    fn progress_counts_whole_chunks_and_the_last() {
        assert_eq!(reached(0, 10), 10);
        assert_eq!(reached(2, 5), 2 * CHUNK_BYTES as u64 + 5);
    }
}
