//! What groups are timed on: a text that is one global batch, the same in every run.

use std::path::{Path, PathBuf};

use cryptomind_gpu::dataset::{DataError, inspect_text};
use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::item::{DatasetInfo, TextLevel};

use crate::bench::shapes::Shape;
use crate::dev::fresh_dir;
use crate::exit;

/// The first of the text's characters; the others follow it.
const FIRST: u8 = b'0';
/// Windows beyond the batch, of which the reader holds one out.
const MORE: u32 = 2;
const MILLION: u32 = 1_000_000;

/// The text in a folder of its own, which goes with this.
pub(super) struct Text(PathBuf);

impl Text {
    /// Writes it.
    pub(super) fn write(shape: &Shape) -> Result<Self, ErrorBody> {
        let dir = fresh_dir("bench-scale")?;
        let text = Self(dir.join("text.txt"));
        let written = std::fs::create_dir_all(&dir).and_then(|()| {
            let tokens = (shape.batch + MORE) * context(shape);
            let character = |place: u32| FIRST + (place * 7 % classes(shape)) as u8;
            std::fs::write(&text.0, (0..tokens).map(character).collect::<Vec<u8>>())
        });
        written.map_err(|e| exit::file(&text.0, &e))?;
        Ok(text)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        // What is left behind is small, and named by the moment.
        let _ = self.0.parent().map(std::fs::remove_dir_all);
    }
}

/// What a member knows of it.
pub(super) fn info(path: &Path, shape: &Shape) -> Result<DatasetInfo, DataError> {
    // Half a window more than the one that is held out: of both parts the rest is no window.
    let held_out = 3 * MILLION / 2 / (shape.batch + MORE);
    let (info, _) = inspect_text(path, context(shape), TextLevel::Character, held_out)?;
    Ok(info)
}

fn context(shape: &Shape) -> u32 {
    shape.model.input_len() as u32
}

fn classes(shape: &Shape) -> u32 {
    shape.model.output_len().map_or(1, |classes| classes as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::TrainedModel;

    #[test]
    fn the_text_is_one_batch_of_the_model() {
        let shape = Shape::of(TrainedModel::Gpt);
        let text = Text::write(&shape).unwrap();
        let info = info(text.path(), &shape).unwrap();
        assert_eq!(info.train_samples, u64::from(shape.batch));
        assert_eq!((info.test_samples, info.outputs()), (1, 65));
        let dir = text.path().parent().unwrap().to_owned();
        drop(text);
        assert!(!dir.exists());
    }
}
