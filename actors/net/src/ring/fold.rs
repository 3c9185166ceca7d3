//! Values as they travel: raw little-endian f32, folded into place as their bytes arrive.

use cryptomind_core::ring::Kind;

const VALUE_BYTES: usize = size_of::<f32>();

/// Appends `values` as bytes.
pub(super) fn append(buffer: &mut Vec<u8>, values: &[f32]) {
    let start = buffer.len();
    buffer.resize(start + values.len() * VALUE_BYTES, 0);
    let places = buffer[start..].as_chunks_mut::<VALUE_BYTES>().0;
    for (place, value) in places.iter_mut().zip(values) {
        *place = value.to_le_bytes();
    }
}

/// Takes bytes in pieces of any length and folds whole values into `own`.
pub(super) struct Fold<'a> {
    own: &'a mut [f32],
    kind: Kind,
    done: usize,
    /// The beginning of a value whose rest has not come.
    partial: [u8; VALUE_BYTES],
    partial_len: usize,
}

impl<'a> Fold<'a> {
    pub(super) const fn new(own: &'a mut [f32], kind: Kind) -> Self {
        Self {
            own,
            kind,
            done: 0,
            partial: [0; VALUE_BYTES],
            partial_len: 0,
        }
    }

    /// Bytes that are still to come.
    pub(super) const fn missing(&self) -> usize {
        (self.own.len() - self.done) * VALUE_BYTES - self.partial_len
    }

    /// Takes the next bytes, at most [`Fold::missing`].
    pub(super) fn take(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(self.head_len().min(bytes.len()));
        self.keep(head);
        let (whole, tail) = rest.as_chunks();
        self.fold(whole);
        self.keep(tail);
    }

    /// How many bytes complete the value that has begun.
    const fn head_len(&self) -> usize {
        (VALUE_BYTES - self.partial_len) % VALUE_BYTES
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.partial[self.partial_len..][..bytes.len()].copy_from_slice(bytes);
        self.partial_len += bytes.len();
        if self.partial_len == VALUE_BYTES {
            self.partial_len = 0;
            self.fold(&[self.partial]);
        }
    }

    fn fold(&mut self, values: &[[u8; VALUE_BYTES]]) {
        let own = &mut self.own[self.done..][..values.len()];
        let values = values.iter().map(|value| f32::from_le_bytes(*value));
        match self.kind {
            // What has come is the sum of the ranks before; of two addends the order does not matter.
            Kind::Reduce => own
                .iter_mut()
                .zip(values)
                .for_each(|(own, sum)| *own += sum),
            Kind::Gather => own.iter_mut().zip(values).for_each(|(own, sum)| *own = sum),
        }
        self.done += own.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_of_the_bytes_gives_the_same_values() {
        let values: Vec<f32> = (0..9).map(|at| at as f32 * 0.3 - 1.0).collect();
        let mut bytes = Vec::new();
        append(&mut bytes, &values);
        for piece in 1..=bytes.len() {
            for kind in [Kind::Reduce, Kind::Gather] {
                let mut own = vec![10.0; values.len()];
                let mut fold = Fold::new(&mut own, kind);
                for part in bytes.chunks(piece) {
                    fold.take(part);
                }
                assert_eq!(fold.missing(), 0);
                let expected = values.iter().map(|value| match kind {
                    Kind::Reduce => value + 10.0,
                    Kind::Gather => *value,
                });
                assert!(own.iter().copied().eq(expected));
            }
        }
    }
}
