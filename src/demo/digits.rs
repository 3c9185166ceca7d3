//! The bundled digits: written to a folder, read back for checking, drawn in characters.

use std::path::{Path, PathBuf};

use cryptomind_gpu::dataset::{self, Samples};
use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::item::DatasetInfo;
use cryptomind_protocol::task::Split;

use crate::exit;

/// From white to black.
const SHADES: [char; 6] = [' ', '·', '░', '▒', '▓', '█'];
const WIDTH: usize = 8;

/// Where the files lie in the demo's folder.
pub fn folder(dir: &Path) -> PathBuf {
    dir.join("digits")
}

/// Writes the bundled files and looks into them, as for any dataset.
pub fn write(dir: &Path) -> Result<(DatasetInfo, Vec<PathBuf>), ErrorBody> {
    let folder = folder(dir);
    std::fs::create_dir_all(&folder).map_err(|e| exit::file(&folder, &e))?;
    for (name, bytes) in cryptomind_gpu::digits::files() {
        let file = folder.join(name);
        std::fs::write(&file, bytes).map_err(|e| exit::file(&file, &e))?;
    }
    dataset::inspect_idx(&folder).map_err(ErrorBody::internal)
}

/// The test split.
pub fn test_set(dir: &Path, info: &DatasetInfo) -> Result<Samples, ErrorBody> {
    let folder = folder(dir);
    let loaded = dataset::load(info, Split::Test, None, &|name| folder.join(name));
    loaded
        .map(|(samples, _)| samples)
        .map_err(ErrorBody::internal)
}

/// Samples side by side, two characters a pixel, each under its caption.
pub fn draw(samples: &[&[f32]], captions: &[String]) -> String {
    let mut lines = Vec::new();
    for row in 0..WIDTH {
        let rows = samples.iter().map(|sample| drawn_row(sample, row));
        lines.push(rows.collect::<Vec<_>>().join("     "));
    }
    let caption = |text: &String| format!("{text:<width$}", width = WIDTH * 2);
    let captions: Vec<String> = captions.iter().map(caption).collect();
    lines.push(captions.join("     "));
    lines.join("\n")
}

fn drawn_row(sample: &[f32], row: usize) -> String {
    let pixels = sample.iter().skip(row * WIDTH).take(WIDTH);
    pixels.flat_map(|grey| [shade(*grey); 2]).collect()
}

fn shade(grey: f32) -> char {
    let step = (grey.clamp(0.0, 1.0) * (SHADES.len() - 1) as f32).round() as usize;
    SHADES[step]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_digits_are_a_dataset() {
        let dir = tempfile::tempdir().unwrap();
        let (info, paths) = write(dir.path()).unwrap();
        assert_eq!((info.train_samples, info.test_samples), (1437, 360));
        assert_eq!((info.input.as_slice(), paths.len()), (&[8, 8][..], 4));
        let test = test_set(dir.path(), &info).unwrap();
        assert_eq!((test.len(), test.input_len()), (360, 64));
    }

    #[test]
    fn drawings_stand_side_by_side() {
        let (white, black) = (vec![0.0; 64], vec![1.0; 64]);
        let text = draw(&[&white, &black], &["0".into(), "1".into()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 9);
        assert_eq!(lines[0].chars().count(), 16 + 5 + 16);
        assert_eq!(lines[0].chars().filter(|c| *c == '█').count(), 16);
    }
}
