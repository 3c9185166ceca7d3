//! Values as they travel: rounded and written in one pass, read and folded in another, straight from received bytes.
//!
//! Every rank reads what it sent: [`write`] leaves in the place of the values what its bytes mean, and hands what was
//! rounded off to the residual, if there is one. So whoever owns a sum goes on with the very values that the others get.
//! All of it is arithmetic on single values without a choice of order: the same bits on every machine.

use cryptomind_core::ring::Kind;
use cryptomind_protocol::ring::{INT8_GROUP, Wire};

/// The largest magnitude of a byte's value.
const STEPS: f32 = 127.0;
/// Adding and taking away 1.5 · 2^23 rounds a small number to a whole one, ties to even: what is below its last place
/// is gone. Unlike `round_ties_even`, every processor has vectors for it.
const ROUNDER: f32 = 12_582_912.0;
const EXPONENT: u32 = 0x7f80_0000;
const SCALE_BYTES: usize = size_of::<f32>();

/// Values that are rounded and written at a time, by which a group is never cut: 64 KiB in f32.
pub(super) const VALUES_AT_ONCE: usize = 32 * INT8_GROUP;

/// Writes `values` to the beginning of `bytes`, leaves what the bytes mean in their place, and returns how many they are. What
/// is rounded off is lost, or kept in `residual`, whose old values are added first; it is empty, or as long as `values`.
///
/// `values` begin where a group does; `bytes` are as many as they need, or more.
pub(super) fn write(
    wire: Wire,
    values: &mut [f32],
    residual: &mut [f32],
    bytes: &mut [u8],
) -> usize {
    let written = wire.bytes(values.len());
    let places = &mut bytes[..written];
    on_vectors(
        (values, residual, places),
        |(values, residual, places)| match wire {
            Wire::F32 => write_f32(values, places),
            Wire::Bf16 => write_bf16(values, places),
            Wire::Int8 => write_int8(values, residual, places),
        },
    );
    written
}

/// Calls `work`, compiled for the vectors that this processor has. It must be marked to be inlined, and what it calls too:
/// what is not is compiled for the oldest processor. What it consumes comes as `arguments`: a closure that consumes what it
/// captured is called through a shim that nobody can mark.
#[inline(always)]
fn on_vectors<A, R>(arguments: A, work: impl Fn(A) -> R) -> R {
    struct Call<A, F>(A, F);
    impl<A, R, F: Fn(A) -> R> pulp::WithSimd for Call<A, F> {
        type Output = R;
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) -> R {
            (self.1)(self.0)
        }
    }
    pulp::Arch::new().dispatch(Call(arguments, work))
}

#[inline(always)]
fn write_f32(values: &[f32], places: &mut [u8]) {
    let places = places.as_chunks_mut().0.iter_mut();
    places
        .zip(values)
        .for_each(|(place, value)| *place = value.to_le_bytes());
}

#[inline(always)]
fn write_bf16(values: &mut [f32], places: &mut [u8]) {
    /// From here on, rounding up is to infinity, or there is nothing to round.
    const ROUNDS_TO_INFINITY: u32 = 0x7f7f_8000;
    if largest_magnitude(values).to_bits() < ROUNDS_TO_INFINITY {
        halve(values, places, nearest_upper_half);
    } else {
        halve(values, places, upper_half);
    }
}

#[inline(always)]
fn halve(values: &mut [f32], places: &mut [u8], upper_half: impl Fn(f32) -> u16) {
    let places = places.as_chunks_mut().0.iter_mut();
    places.zip(values).for_each(|(place, value)| {
        let upper = upper_half(*value);
        *place = upper.to_le_bytes();
        *value = from_upper_half(upper);
    });
}

/// Of a number that does not round to infinity: half as much work as for any.
#[inline(always)]
fn nearest_upper_half(value: f32) -> u16 {
    let bits = value.to_bits();
    // Cannot overflow, and is not looked at whether it does: that would take no vectors.
    (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// The nearest bfloat16, ties to even; of the largest numbers, which are nearest to infinity, the largest. What is no number stays
/// none: its payload's top bit is set.
#[inline(always)]
fn upper_half(value: f32) -> u16 {
    const LARGEST: u32 = 0x7f7f_ffff;
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let rounded = (magnitude + 0x7fff + ((bits >> 16) & 1)).min(LARGEST);
    let quiet = match magnitude > EXPONENT {
        true => magnitude | 0x0040_0000,
        false => magnitude,
    };
    let magnitude = if magnitude < EXPONENT { rounded } else { quiet };
    (((bits & 0x8000_0000) | magnitude) >> 16) as u16
}

#[inline(always)]
fn from_upper_half(upper: u16) -> f32 {
    f32::from_bits(u32::from(upper) << 16)
}

#[inline(always)]
fn write_int8(values: &mut [f32], residual: &mut [f32], places: &mut [u8]) {
    let places = places.chunks_mut(Wire::Int8.bytes(INT8_GROUP));
    let groups = values.chunks_mut(INT8_GROUP).zip(places);
    if residual.is_empty() {
        groups.for_each(|(group, places)| write_group(group, places));
    } else {
        let groups = groups.zip(residual.chunks_mut(INT8_GROUP));
        groups.for_each(|((group, places), owed)| write_owing(group, owed, places));
    }
}

/// A group with what is owed from before; what is rounded off is owed from now on.
#[inline(always)]
fn write_owing(group: &mut [f32], owed: &mut [f32], places: &mut [u8]) {
    let with_debt = group.iter_mut().zip(owed.iter_mut());
    with_debt.for_each(|(value, owed)| {
        *value += *owed;
        *owed = *value;
    });
    write_group(group, places);
    let sent = owed.iter_mut().zip(group.iter());
    sent.for_each(|(owed, sent)| *owed -= sent);
}

#[inline(always)]
fn write_group(group: &mut [f32], places: &mut [u8]) {
    let largest = largest_magnitude(group);
    let scale = scale_of(largest);
    // A group so small that its scale has no inverse is sent as zeros.
    let inverse = match scale >= f32::MIN_POSITIVE {
        true => STEPS / largest,
        false => 0.0,
    };
    let Some((place, places)) = places.split_first_chunk_mut() else {
        return;
    };
    *place = scale.to_le_bytes();
    places.iter_mut().zip(group).for_each(|(place, value)| {
        let rounded = *value * inverse + ROUNDER;
        // A whole number that was added to the rounder stands in its lowest bits.
        *place = rounded.to_bits() as u8;
        *value = (rounded - ROUNDER) * scale;
    });
}

/// Of a group with this largest magnitude. What is finite stays so: next to the largest number there is, a quotient that was rounded
/// up would make it infinite for whoever reads it.
fn scale_of(largest: f32) -> f32 {
    let scale = largest / STEPS;
    match largest.is_finite() && (scale * STEPS).is_infinite() {
        true => scale.next_down(),
        false => scale,
    }
}

/// In bits, where magnitudes are ordered as their numbers are, and infinity and what is no number are above all: they make
/// a scale that readers refuse.
#[inline(always)]
fn largest_magnitude(group: &[f32]) -> f32 {
    let magnitudes = group.iter().map(|value| value.to_bits() & 0x7fff_ffff);
    f32::from_bits(magnitudes.fold(0, u32::max))
}

/// Received bytes become values of a segment, whatever pieces they come in.
pub(super) struct Reader {
    wire: Wire,
    kind: Kind,
    /// Values of the segment that are there.
    done: usize,
    /// The beginning of a unit whose rest has not come: of a value, or of a group.
    partial: Vec<u8>,
}

/// A value that came, or the sum with it, is not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotFinite {
    /// It came so.
    Received,
    /// It was so here.
    Own,
    /// The sum overflowed.
    Sum,
}

impl Reader {
    pub(super) const fn new(wire: Wire, kind: Kind) -> Self {
        Self {
            wire,
            kind,
            done: 0,
            partial: Vec::new(),
        }
    }

    /// Values of the segment that are there.
    pub(super) const fn done(&self) -> usize {
        self.done
    }

    /// Bytes that are still to come of a segment of `values`.
    pub(super) const fn missing(&self, values: usize) -> usize {
        self.wire.bytes(values) - self.wire.bytes(self.done) - self.partial.len()
    }

    /// Takes the next bytes, at most [`Reader::missing`], and folds whole units into `own`, the segment. `collected` is
    /// empty, or what was collected of it.
    pub(super) fn take(
        &mut self,
        mut bytes: &[u8],
        own: &mut [f32],
        collected: &mut [f32],
    ) -> Result<(), NotFinite> {
        while !bytes.is_empty() {
            let unit = self.unit(own.len() - self.done);
            if self.partial.is_empty() && bytes.len() >= unit {
                let whole = self.whole(bytes.len(), own.len() - self.done);
                let (now, rest) = bytes.split_at(whole);
                self.fold(now, own, collected)?;
                bytes = rest;
            } else {
                let (now, rest) = bytes.split_at(bytes.len().min(unit - self.partial.len()));
                self.partial.extend_from_slice(now);
                bytes = rest;
                if self.partial.len() == unit {
                    let complete = std::mem::take(&mut self.partial);
                    self.fold(&complete, own, collected)?;
                }
            }
        }
        Ok(())
    }

    /// Bytes of the next unit, with `left` values to come.
    fn unit(&self, left: usize) -> usize {
        match self.wire {
            Wire::Int8 => self.wire.bytes(left.min(INT8_GROUP)),
            wire => wire.bytes(1),
        }
    }

    /// How many of `bytes` are whole units, with `left` values to come.
    fn whole(&self, bytes: usize, left: usize) -> usize {
        let unit = self.unit(left);
        match self.wire {
            Wire::Int8 if bytes >= self.wire.bytes(left) => self.wire.bytes(left),
            _ => bytes / unit * unit,
        }
    }

    /// Folds whole units.
    fn fold(
        &mut self,
        bytes: &[u8],
        own: &mut [f32],
        collected: &mut [f32],
    ) -> Result<(), NotFinite> {
        let values = self.values(bytes.len());
        let place = self.done..self.done + values;
        let own = &mut own[place.clone()];
        let collected = match collected.is_empty() {
            true => &mut [],
            false => &mut collected[place],
        };
        self.done += values;
        let (wire, kind) = (self.wire, self.kind);
        on_vectors(
            (bytes, own, collected),
            |(bytes, own, collected)| match wire {
                Wire::F32 => {
                    let units = bytes.as_chunks().0.iter();
                    fold(
                        kind,
                        units.map(|unit| f32::from_le_bytes(*unit)),
                        own,
                        collected,
                    )
                }
                Wire::Bf16 => {
                    let units = bytes.as_chunks().0.iter();
                    let upper = units.map(|unit| u16::from_le_bytes(*unit));
                    fold(kind, upper.map(from_upper_half), own, collected)
                }
                Wire::Int8 => fold_int8(kind, bytes, own, collected),
            },
        )
    }

    /// Values in whole units of so many bytes.
    const fn values(&self, bytes: usize) -> usize {
        match self.wire {
            Wire::F32 => bytes / 4,
            Wire::Bf16 => bytes / 2,
            Wire::Int8 => bytes - SCALE_BYTES * bytes.div_ceil(Wire::Int8.bytes(INT8_GROUP)),
        }
    }
}

#[inline(always)]
fn fold_int8(
    kind: Kind,
    bytes: &[u8],
    own: &mut [f32],
    collected: &mut [f32],
) -> Result<(), NotFinite> {
    let groups = bytes.chunks(Wire::Int8.bytes(INT8_GROUP));
    for (at, group) in groups.enumerate() {
        let Some((scale, steps)) = group.split_first_chunk::<SCALE_BYTES>() else {
            continue;
        };
        let scale = f32::from_le_bytes(*scale);
        let place = at * INT8_GROUP..at * INT8_GROUP + steps.len();
        let values = steps.iter().map(|step| f32::from(*step as i8) * scale);
        let collected = match collected.is_empty() {
            true => &mut [],
            false => &mut collected[place.clone()],
        };
        fold(kind, values, &mut own[place], collected)?;
    }
    Ok(())
}

/// 1 where it is no number, or infinite.
#[inline(always)]
fn is_bad(value: f32) -> u32 {
    u32::from(value.to_bits() & EXPONENT == EXPONENT)
}

/// What is not finite stays so in every sum, so the results say whether anything was; what came is looked at again then.
#[inline(always)]
fn fold(
    kind: Kind,
    values: impl Iterator<Item = f32> + Clone,
    own: &mut [f32],
    collected: &mut [f32],
) -> Result<(), NotFinite> {
    let received = values.clone();
    let found = match kind {
        Kind::Gather => put(values, own),
        Kind::Collect => add(values, collected),
        Kind::Reduce if collected.is_empty() => add(values, own),
        Kind::Reduce => {
            let sums = values.zip(collected.iter()).map(|(new, sum)| sum + new);
            add(sums, own)
        }
    };
    if found.results == 0 {
        return Ok(());
    }
    Err(if received.map(is_bad).any(|bad| bad > 0) {
        NotFinite::Received
    } else if found.before > 0 {
        NotFinite::Own
    } else {
        NotFinite::Sum
    })
}

/// Above zero where some value is not finite.
#[derive(Default)]
struct Found {
    before: u32,
    results: u32,
}

#[inline(always)]
fn put(values: impl Iterator<Item = f32>, own: &mut [f32]) -> Found {
    let mut found = Found::default();
    own.iter_mut().zip(values).for_each(|(own, value)| {
        found.results |= is_bad(value);
        *own = value;
    });
    found
}

#[inline(always)]
fn add(values: impl Iterator<Item = f32>, own: &mut [f32]) -> Found {
    let mut found = Found::default();
    own.iter_mut().zip(values).for_each(|(own, value)| {
        found.before |= is_bad(*own);
        *own += value;
        found.results |= is_bad(*own);
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(len: usize) -> Vec<f32> {
        (0..len)
            .map(|at| ((at * 7919 + 13) % 1009) as f32 * 0.37 - 150.0)
            .collect()
    }

    fn written(wire: Wire, values: &mut [f32]) -> Vec<u8> {
        let mut bytes = vec![0xaa; wire.bytes(values.len())];
        let mut at = 0;
        for part in values.chunks_mut(VALUES_AT_ONCE) {
            at += write(wire, part, &mut [], &mut bytes[at..]);
        }
        assert_eq!(bytes.len(), at);
        bytes
    }

    /// Takes the bytes in pieces of this length.
    fn read(
        (wire, kind): (Wire, Kind),
        bytes: &[u8],
        piece: usize,
        own: &mut [f32],
        collected: &mut [f32],
    ) -> Result<(), NotFinite> {
        let mut reader = Reader::new(wire, kind);
        for part in bytes.chunks(piece) {
            reader.take(part, own, collected)?;
        }
        assert_eq!((reader.done(), reader.missing(own.len())), (own.len(), 0));
        Ok(())
    }

    #[test]
    fn the_largest_numbers_stay_finite() {
        for largest in [f32::MAX, f32::MAX.next_down(), f32::MAX / 2.0] {
            let mut sent = vec![largest, -largest, largest / 3.0];
            let bytes = written(Wire::Int8, &mut sent);
            let mut own = vec![0.0; 3];
            read((Wire::Int8, Kind::Gather), &bytes, 7, &mut own, &mut []).unwrap();
            assert!(own == sent && own.iter().all(|value| value.is_finite()));
            assert!((own[0] / largest - 1.0).abs() < 1e-6, "{own:?}");
        }
    }

    #[test]
    fn any_cut_of_the_bytes_gives_what_the_sender_holds() {
        for (wire, len) in [
            (Wire::F32, 9),
            (Wire::Bf16, 9),
            (Wire::Int8, 9),
            (Wire::Int8, 512),
            (Wire::Int8, 1_100),
        ] {
            let mut sent = numbers(len);
            let bytes = written(wire, &mut sent);
            for piece in (1..20).chain([511, 515, 516, 517, bytes.len()]) {
                let mut own = vec![10.0; len];
                read((wire, Kind::Gather), &bytes, piece, &mut own, &mut []).unwrap();
                assert_eq!(own, sent, "{wire} in pieces of {piece}");
                let mut own = vec![10.0; len];
                read((wire, Kind::Reduce), &bytes, piece, &mut own, &mut []).unwrap();
                assert!(own.iter().zip(&sent).all(|(own, sent)| *own == 10.0 + sent));
                let (mut own, mut sum) = (vec![10.0; len], vec![1.0; len]);
                read((wire, Kind::Collect), &bytes, piece, &mut own, &mut sum).unwrap();
                assert!(own.iter().all(|own| *own == 10.0));
                assert!(sum.iter().zip(&sent).all(|(sum, sent)| *sum == 1.0 + sent));
                read((wire, Kind::Reduce), &bytes, piece, &mut own, &mut sum).unwrap();
                let expected = |sent: &f32| 10.0 + ((1.0 + sent) + sent);
                assert!(
                    own.iter()
                        .zip(&sent)
                        .all(|(own, sent)| *own == expected(sent))
                );
            }
        }
    }

    /// Every bfloat16 and its neighbourhood, against the definition.
    #[test]
    fn bf16_rounds_to_nearest_ties_to_even() {
        for upper in 0..=u16::MAX {
            let exact = from_upper_half(upper);
            if exact.is_nan() {
                assert!(from_upper_half(upper_half(exact)).is_nan());
                continue;
            }
            assert_eq!(upper_half(exact), upper);
            if !exact.is_finite() {
                continue;
            }
            let above = |lower: u32| {
                let value = f32::from_bits(exact.to_bits() + lower);
                let upper = upper_half(value);
                let far = value.abs().to_bits() < 0x7f7f_8000;
                assert!(!far || nearest_upper_half(value) == upper);
                upper
            };
            assert_eq!(above(0x7fff), upper, "below the middle: down");
            // Nothing finite becomes infinite.
            let up = (upper + 1) - u16::from(upper & 0x7fff == 0x7f7f);
            assert_eq!(above(0x8001), up, "above it: up");
            let even = if upper & 1 == 1 { up } else { upper };
            assert_eq!(above(0x8000), even, "a tie: to even");
        }
    }

    #[test]
    fn int8_errs_by_half_a_step_at_most_and_the_largest_by_nothing_much() {
        let exact = numbers(2_000);
        let mut sent = exact.clone();
        written(Wire::Int8, &mut sent);
        for (exact, sent) in exact.chunks(INT8_GROUP).zip(sent.chunks(INT8_GROUP)) {
            let step = largest_magnitude(exact) / STEPS;
            let errors = exact
                .iter()
                .zip(sent)
                .map(|(exact, sent)| (exact - sent).abs());
            assert!(errors.fold(0.0, f32::max) <= step * 0.50001);
        }
    }

    #[test]
    fn groups_of_zeros_and_of_the_smallest_numbers_are_sent_as_zeros() {
        for tiny in [0.0, f32::from_bits(1), f32::MIN_POSITIVE / 2.0] {
            let mut sent = vec![tiny; 3];
            let bytes = written(Wire::Int8, &mut sent);
            assert_eq!(sent, [0.0; 3]);
            let mut own = vec![7.0; 3];
            read((Wire::Int8, Kind::Gather), &bytes, 5, &mut own, &mut []).unwrap();
            assert_eq!(own, sent);
        }
    }

    /// What is rounded off is not lost: the sum of all that was sent differs from the sum of all that was to be sent by what is
    /// still owed.
    #[test]
    fn what_is_rounded_off_is_owed_and_paid() {
        let exact = numbers(700);
        let mut owed = vec![0.0; 700];
        let mut paid = vec![0.0_f64; 700];
        let rounds = 50;
        for _ in 0..rounds {
            let (mut values, mut bytes) = (exact.clone(), vec![0; 1_000]);
            write(Wire::Int8, &mut values, &mut owed, &mut bytes);
            let sent = paid.iter_mut().zip(&values);
            sent.for_each(|(paid, value)| *paid += f64::from(*value));
        }
        for ((exact, owed), paid) in exact.iter().zip(&owed).zip(paid) {
            let due = f64::from(*exact) * f64::from(rounds);
            assert!((due - paid - f64::from(*owed)).abs() < 0.01);
            assert!((due - paid).abs() < 1.5, "half a step, and never more");
        }
    }

    #[test]
    fn what_is_not_finite_is_found_and_whose_it_is() {
        for wire in Wire::ALL {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut sent = numbers(600);
                sent[555] = bad;
                let bytes = written(wire, &mut sent);
                for kind in [Kind::Gather, Kind::Reduce] {
                    let found = read((wire, kind), &bytes, 100, &mut numbers(600), &mut []);
                    assert_eq!(found, Err(NotFinite::Received), "{wire}, {bad}");
                }
                let mut sum = vec![1.0; 600];
                let found = read(
                    (wire, Kind::Collect),
                    &bytes,
                    64,
                    &mut numbers(600),
                    &mut sum,
                );
                assert_eq!(found, Err(NotFinite::Received));
            }
            let bytes = written(wire, &mut [1.0]);
            let found = read(
                (wire, Kind::Reduce),
                &bytes,
                3,
                &mut [f32::INFINITY],
                &mut [],
            );
            assert_eq!(found, Err(NotFinite::Own), "{wire}");
            let bytes = written(wire, &mut [f32::MAX * 0.9]);
            let found = read(
                (wire, Kind::Reduce),
                &bytes,
                3,
                &mut [f32::MAX * 0.9],
                &mut [],
            );
            assert_eq!(found, Err(NotFinite::Sum), "{wire}");
        }
    }
}
