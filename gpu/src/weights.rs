//! Weights as safetensors files: written so that equal weights give equal bytes, read as what a
//! stranger sent.
//!
//! Writing is done here, as the `safetensors` crate writes metadata in the random order of a hash
//! map and our files are addressed by their content. Reading is done by that crate, after this
//! module bounded header and file, and is followed by checks that every tensor is there, alone, of
//! the expected shape, and finite.

use std::collections::{BTreeMap, HashMap};

use cryptomind_protocol::model::ModelSpec;
use safetensors::{Dtype, SafeTensors};

use crate::error::EngineError;

/// The longest header that is read, bytes. The scaling of a table of 100,000 columns takes 5 MB.
pub(crate) const MAX_HEADER_BYTES: usize = 8 << 20;
/// Length of the length of the header, bytes.
const PREFIX_BYTES: usize = 8;
const VALUE_BYTES: usize = size_of::<f32>();
/// End of the names of tensors that hold variances, of which a root is taken.
const VARIANCE: &str = ".running_var";
/// Values that are turned into bytes at once: what BLAKE3 takes on the widest vectors, 16 KiB.
const BLOCK_VALUES: usize = 4096;

/// Name and shape of a tensor of f32 values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
}

impl Tensor {
    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What a file held: the values of the expected tensors one after the other, and its metadata.
#[derive(Debug)]
pub(crate) struct Weights {
    pub(crate) values: Vec<f32>,
    pub(crate) metadata: HashMap<String, String>,
}

/// The tensors of a model, canonical order.
pub(crate) fn tensors(model: &ModelSpec) -> Vec<Tensor> {
    let tensor = |p: cryptomind_protocol::model::Parameter| Tensor {
        name: p.name,
        shape: p.shape,
    };
    model.parameters().into_iter().map(tensor).collect()
}

/// A safetensors file of these tensors, whose values lie one after the other in `arenas`.
pub(crate) fn write(
    tensors: &[Tensor],
    arenas: &[&[f32]],
    metadata: &BTreeMap<String, String>,
) -> Vec<u8> {
    let header = header(tensors, metadata);
    let values: usize = arenas.iter().map(|arena| arena.len()).sum();
    let mut file = Vec::with_capacity(PREFIX_BYTES + header.len() + values * VALUE_BYTES);
    file.extend_from_slice(&(header.len() as u64).to_le_bytes());
    file.extend_from_slice(header.as_bytes());
    for arena in arenas {
        each_block(arena, |bytes| file.extend_from_slice(bytes));
    }
    file
}

fn header(tensors: &[Tensor], metadata: &BTreeMap<String, String>) -> String {
    let mut fields = serde_json::Map::new();
    if !metadata.is_empty() {
        fields.insert("__metadata__".into(), serde_json::json!(metadata));
    }
    let mut start = 0;
    for tensor in tensors {
        let end = start + tensor.len() * VALUE_BYTES;
        let entry = serde_json::json!({
            "dtype": "F32", "shape": tensor.shape, "data_offsets": [start, end],
        });
        fields.insert(tensor.name.clone(), entry);
        start = end;
    }
    let mut header = serde_json::Value::Object(fields).to_string();
    // The format asks for data that begins at a multiple of 8, and allows spaces.
    let padding = header.len().next_multiple_of(PREFIX_BYTES) - header.len();
    header.extend(std::iter::repeat_n(' ', padding));
    header
}

/// Hands over the arena's bytes, little-endian, a block at a time.
pub(crate) fn each_block(arena: &[f32], mut block: impl FnMut(&[u8])) {
    let mut bytes = [0; BLOCK_VALUES * VALUE_BYTES];
    for values in arena.chunks(BLOCK_VALUES) {
        let bytes = &mut bytes[..values.len() * VALUE_BYTES];
        for (bytes, value) in bytes.chunks_exact_mut(VALUE_BYTES).zip(values) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
        block(bytes);
    }
}

/// Reads a file that must hold exactly these tensors, f32, in any order, all values finite.
pub(crate) fn read(file: &[u8], expected: &[Tensor]) -> Result<Weights, EngineError> {
    check_lengths(file, expected)?;
    let not_safetensors = |e| EngineError::Weights(format!("not a safetensors file: {e}"));
    let (_, header) = SafeTensors::read_metadata(file).map_err(not_safetensors)?;
    let found = SafeTensors::deserialize(file).map_err(not_safetensors)?;
    if let Some(name) = found
        .names()
        .iter()
        .find(|n| expected.iter().all(|t| t.name != **n))
    {
        return Err(EngineError::Weights(format!(
            "the file holds `{name:.80}`, which the model has not"
        )));
    }
    let mut values = Vec::with_capacity(expected.iter().map(Tensor::len).sum());
    for tensor in expected {
        read_tensor(&found, tensor, &mut values)?;
    }
    let metadata = header.metadata().clone().unwrap_or_default();
    Ok(Weights { values, metadata })
}

/// Bounds what the parser sees before it sees it.
fn check_lengths(file: &[u8], expected: &[Tensor]) -> Result<(), EngineError> {
    let refuse = |reason: String| Err(EngineError::Weights(reason));
    let Some(prefix) = file.first_chunk::<PREFIX_BYTES>() else {
        return refuse(format!("{} bytes are no safetensors file", file.len()));
    };
    let header = u64::from_le_bytes(*prefix);
    if header > MAX_HEADER_BYTES as u64 {
        return refuse(format!(
            "a header of {header} bytes exceeds {MAX_HEADER_BYTES}"
        ));
    }
    let values: usize = expected.iter().map(Tensor::len).sum();
    let whole = PREFIX_BYTES as u64 + header + (values * VALUE_BYTES) as u64;
    if file.len() as u64 != whole {
        return refuse(format!(
            "the file has {} bytes, this model's tensors make {whole}",
            file.len()
        ));
    }
    Ok(())
}

fn read_tensor(
    file: &SafeTensors<'_>,
    expected: &Tensor,
    values: &mut Vec<f32>,
) -> Result<(), EngineError> {
    let name = &expected.name;
    let refuse = |reason: String| EngineError::Weights(format!("`{name}` {reason}"));
    let found = file.tensor(name).map_err(|_| refuse("is missing".into()))?;
    if found.dtype() != Dtype::F32 {
        return Err(refuse(format!("is {:?}, must be F32", found.dtype())));
    }
    if found.shape() != expected.shape {
        let (found, expected) = (found.shape(), &expected.shape);
        return Err(refuse(format!("is {found:?}, must be {expected:?}")));
    }
    let start = values.len();
    let floats = found.data().as_chunks::<VALUE_BYTES>().0.iter();
    values.extend(floats.map(|bytes| f32::from_le_bytes(*bytes)));
    let values = &values[start..];
    if let Some(place) = values.iter().position(|v| !v.is_finite()) {
        return Err(refuse(format!("is infinite or not a number at {place}")));
    }
    if name.ends_with(VARIANCE) && values.iter().any(|v| *v < 0.0) {
        return Err(refuse("has a negative variance".into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
