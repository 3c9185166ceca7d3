//! The dataset that comes with the program: 1,797 handwritten digits of 8×8 pixels.
//!
//! Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning
//! Repository, CC BY 4.0; see `data/digits/README.md`.

/// Where the digits come from, for a catalog's `source`.
pub const SOURCE: &str = "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, \
                          UCI Machine Learning Repository; 1,797 images, shuffled and divided";
/// Their licence, for a catalog's `licence`.
pub const LICENCE: &str = "CC-BY-4.0";

/// Name and content of the four files, as [`crate::dataset::inspect_idx`] finds them in a folder.
pub fn files() -> [(&'static str, &'static [u8]); 4] {
    macro_rules! file {
        ($name:literal) => {
            ($name, include_bytes!(concat!("../data/digits/", $name)))
        };
    }
    [
        file!("train-images-idx3-ubyte.gz"),
        file!("train-labels-idx1-ubyte.gz"),
        file!("test-images-idx3-ubyte.gz"),
        file!("test-labels-idx1-ubyte.gz"),
    ]
}
