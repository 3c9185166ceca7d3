//! Memory that is filled and read back: whether a machine has what it claims, and whether that forgets.
//!
//! Every word follows from the challenge and its place, so that none need be kept to know what it was. All of it is held at
//! once. Memory that the system does not give, or not in time, is not claimed; nor is what others come to need meanwhile.
//!
//! Not here: how much a machine may claim.

use std::time::{Duration, Instant};

use cryptomind_protocol::selftest::{FILL_LIMIT_MS, Filled};

use crate::error::EngineError;
use crate::memory;

/// What one thread fills at a time, words: 64 MiB.
const BLOCK: usize = (64 << 20) / WORD_BYTES;
const WORD_BYTES: usize = size_of::<u64>();
/// No further memory is filled after this, and none read back after twice this: what was not is not claimed.
const LIMIT: Duration = Duration::from_millis(FILL_LIMIT_MS);
/// So much of what is to be filled is to stay free besides.
const SPARED: u64 = 8;

/// Fills so many bytes, in whole blocks, on so many threads, and reads them back; `say` hears which part is done.
pub(crate) fn fill(
    challenge: u64,
    bytes: u64,
    threads: usize,
    say: &mut dyn FnMut(f32) -> Result<(), EngineError>,
) -> Result<Filled, EngineError> {
    let begin = Instant::now();
    let wanted = bytes;
    let whole = usize::try_from(bytes).unwrap_or(usize::MAX) / WORD_BYTES / BLOCK;
    let mut blocks: Vec<Vec<u64>> = Vec::new();
    // What is written at a time comes on top.
    let batch = (threads.max(1) * BLOCK * WORD_BYTES) as u64;
    let spared = (bytes / SPARED).saturating_add(batch);
    while blocks.len() < whole && begin.elapsed() < LIMIT && leaves(spared) {
        say(0.5 * blocks.len() as f32 / whole as f32)?;
        let first = blocks.len();
        let more = (0..threads.max(1).min(whole - first)).map_while(|_| reserve());
        blocks.extend(more);
        if blocks.len() == first {
            break;
        }
        let written = each(&mut blocks[first..], first, |words, place| {
            words.extend((place..place + BLOCK as u64).map(|place| word(challenge, place)));
            true
        });
        if written.is_none() {
            blocks.truncate(first);
            break;
        }
    }
    let (filled, mut read, mut right) = (blocks.len(), 0, true);
    while read < filled && begin.elapsed() < 2 * LIMIT {
        say(0.5 + 0.5 * read as f32 / filled as f32)?;
        let next = filled.min(read + threads.max(1));
        let some = each(&mut blocks[read..next], read, |words, place| {
            is_as_written(words, challenge, place)
        });
        let Some(some) = some else { break };
        (right, read) = (right && some, next);
    }
    Ok(Filled {
        wanted,
        bytes: (read * BLOCK * WORD_BYTES) as u64,
        ms: begin.elapsed().as_millis() as u64,
        right,
    })
}

/// Whether the machine has so much left; one that does not say is believed to.
fn leaves(bytes: u64) -> bool {
    memory::free().is_none_or(|free| free > bytes)
}

/// A block's room, where the system has it.
fn reserve() -> Option<Vec<u64>> {
    let mut block = Vec::new();
    block.try_reserve_exact(BLOCK).ok()?;
    Some(block)
}

/// Does this with each block and the place of its first word, a thread a block; whether all went well. Nothing where the system
/// gives too few threads.
fn each<'a>(
    blocks: &'a mut [Vec<u64>],
    first: usize,
    does: impl Fn(&mut Vec<u64>, u64) -> bool + Sync,
) -> Option<bool> {
    let does = &does;
    std::thread::scope(|scope| {
        let numbered = blocks.iter_mut().zip(first..);
        let start = |(block, number): (&'a mut Vec<u64>, usize)| {
            let one = move || does(block, (number * BLOCK) as u64);
            std::thread::Builder::new().spawn_scoped(scope, one)
        };
        let started: Vec<_> = numbered.map(start).collect();
        let ended = started.into_iter();
        let ended: Option<Vec<bool>> = ended.map(|one| one.ok()?.join().ok()).collect();
        ended.map(|all| all.into_iter().all(|one| one))
    })
}

/// Whether these are the words from a place on. Without early exit, so that it runs on vectors.
fn is_as_written(words: &[u64], challenge: u64, place: u64) -> bool {
    let numbered = words.iter().zip(place..);
    let differs = numbered.map(|(found, place)| found ^ word(challenge, place));
    differs.fold(0, |seen, differs| seen | differs) == 0
}

/// What belongs into a place: SplitMix64 (Steele, Lea and Flood, 2014), as a function of seed and place.
fn word(challenge: u64, place: u64) -> u64 {
    let mut z = challenge.wrapping_add(place.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK_BYTES: u64 = (BLOCK * WORD_BYTES) as u64;

    #[test]
    fn what_is_filled_is_whole_blocks_and_read_back() {
        let mut parts = Vec::new();
        let mut say = |part| {
            parts.push(part);
            Ok(())
        };
        let filled = fill(7, 3 * BLOCK_BYTES + 5, 2, &mut say).unwrap();
        assert_eq!((filled.bytes, filled.right), (3 * BLOCK_BYTES, true));
        assert_eq!(parts, [0.0, 0.5 * 2.0 / 3.0, 0.5, 0.5 + 0.5 * 2.0 / 3.0]);
        let nothing = fill(7, 5, 2, &mut |_| Ok(())).unwrap();
        assert_eq!((nothing.bytes, nothing.right), (0, true));
    }

    #[test]
    fn whoever_is_interrupted_stops() {
        let mut stop = |_| Err(EngineError::Stopped);
        let stopped = fill(7, BLOCK_BYTES, 1, &mut stop);
        assert!(matches!(stopped, Err(EngineError::Stopped)));
    }

    /// The words of SplitMix64 as published, seed 1234567.
    #[test]
    fn words_are_those_of_the_generator() {
        let words = [0, 1, 2].map(|place| word(1_234_567, place));
        assert_eq!(
            words,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn one_forgotten_bit_is_seen() {
        let mut words: Vec<u64> = (40..1_000).map(|place| word(7, place)).collect();
        assert!(is_as_written(&words, 7, 40));
        assert!(!is_as_written(&words, 7, 41) && !is_as_written(&words, 8, 40));
        words[900] ^= 1 << 40;
        assert!(!is_as_written(&words, 7, 40));
    }
}
