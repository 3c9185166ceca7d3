//! What was done to a disk, and what a power cut leaves of it.
//!
//! A disk keeps all that was done before the last sync. Of what came after it, any part may be
//! there: none, all, the first so many writes, some without the others, a write of which some
//! sectors are new and some old (a torn one), a write whose end is missing (a short one). A change of
//! the length is kept or lost like a write; what was written beyond the end is lost with it.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// One thing done to a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// These bytes at this offset.
    Write(u64, Box<[u8]>),
    /// The length in bytes; what is new is zero.
    SetLen(u64),
    /// All before it is durable.
    Sync,
    /// So many batches were acknowledged when the disk was here.
    Acknowledged(usize),
}

impl Access {
    pub fn acknowledged(&self) -> Option<usize> {
        match self {
            Self::Acknowledged(count) => Some(*count),
            _ => None,
        }
    }

    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => overwrite(image, *offset, data),
            Self::SetLen(len) => image.resize(*len as usize, 0),
            Self::Sync | Self::Acknowledged(_) => {}
        }
    }
}

/// Writes what lies before the end of the image.
pub fn overwrite(image: &mut [u8], offset: u64, data: &[u8]) {
    let start = (offset as usize).min(image.len());
    let end = (start + data.len()).min(image.len());
    image[start..end].copy_from_slice(&data[..end - start]);
}

/// A disk and all that was done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The disk before it.
    pub base: Vec<u8>,
    pub accesses: Vec<Access>,
}

/// The time between two syncs: the power may be cut anywhere in it.
#[derive(Debug, Clone)]
pub struct Cut<'a> {
    /// Syncs before it.
    pub number: usize,
    /// What is there for certain.
    pub durable: Vec<u8>,
    /// What may be there in part: writes and lengths.
    pub pending: Vec<&'a Access>,
    /// Batches that were acknowledged before the next sync was done.
    pub acknowledged: usize,
}

impl Trace {
    /// Whether the disk became longer.
    pub fn grows(&self) -> bool {
        !self.lengths().is_sorted_by(|one, next| one >= next)
    }

    /// Whether the disk became shorter.
    pub fn shrinks(&self) -> bool {
        !self.lengths().is_sorted()
    }

    /// The disk after it, when nothing is lost.
    pub fn image(&self) -> Vec<u8> {
        let mut image = self.base.clone();
        let accesses = self.accesses.iter();
        accesses.for_each(|access| access.apply(&mut image));
        image
    }

    fn lengths(&self) -> impl Iterator<Item = u64> {
        self.accesses.iter().filter_map(|access| match access {
            Access::SetLen(len) => Some(*len),
            _ => None,
        })
    }

    /// The times between two syncs, from before the first to after the last. `acknowledged` batches
    /// were so before the trace begins.
    pub fn cuts(&self, mut acknowledged: usize) -> impl Iterator<Item = Cut<'_>> {
        let mut durable = self.base.clone();
        let pieces = self.accesses.split(|access| matches!(access, Access::Sync));
        pieces.enumerate().map(move |(number, piece)| {
            let last = piece.iter().rev().find_map(Access::acknowledged);
            acknowledged = last.unwrap_or(acknowledged);
            let is_change = |access: &&Access| access.acknowledged().is_none();
            let cut = Cut {
                number,
                durable: durable.clone(),
                pending: piece.iter().filter(is_change).collect(),
                acknowledged,
            };
            piece.iter().for_each(|access| access.apply(&mut durable));
            cut
        })
    }
}

/// What is left of the writes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// None of them.
    Everything,
    /// All of them.
    Nothing,
    /// The first so many, by chance.
    Prefix(u64),
    /// Each by chance.
    Subset(u64),
    /// All but one, by chance.
    One(u64),
    /// All but the last: the disk wrote in another order.
    AllButLast,
    /// Each unit of so many bytes of each write by chance: torn writes.
    Torn { unit: usize, seed: u64 },
    /// The first so many writes, of the next one its beginning: a short write.
    Short(u64),
}

impl Loss {
    /// Every kind, those with chance in them `seeds` times.
    pub fn kinds(seeds: u64) -> Vec<Self> {
        let mut kinds = vec![Self::Everything, Self::Nothing, Self::AllButLast];
        for seed in 0..seeds {
            let torn = |unit| Self::Torn { unit, seed };
            kinds.extend([Self::Prefix(seed), Self::Subset(seed), Self::One(seed)]);
            kinds.extend([torn(512), torn(4096), Self::Short(seed)]);
        }
        kinds
    }
}

impl Cut<'_> {
    /// What each of the losses leaves, without images that are the same.
    pub fn images<'a>(&'a self, losses: &'a [Loss]) -> impl Iterator<Item = (Loss, Vec<u8>)> + 'a {
        let mut seen = HashSet::new();
        losses.iter().filter_map(move |loss| {
            let image = self.image(*loss);
            seen.insert(self.fingerprint(&image))
                .then_some((*loss, image))
        })
    }

    /// Tells images of this cut from each other: only what is pending can differ.
    fn fingerprint(&self, image: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        image.len().hash(&mut hasher);
        for access in &self.pending {
            if let Access::Write(offset, data) = access {
                let start = (*offset as usize).min(image.len());
                let end = (start + data.len()).min(image.len());
                image[start..end].hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    /// What is on the disk when the power is back.
    pub fn image(&self, loss: Loss) -> Vec<u8> {
        let mut image = self.durable.clone();
        let count = self.pending.len();
        let dice = |seed| Dice::new(seed ^ ((self.number as u64) << 32));
        let mut keep = |wanted: &mut dyn FnMut(usize) -> bool| {
            for (index, access) in self.pending.iter().enumerate() {
                if wanted(index) {
                    access.apply(&mut image);
                }
            }
        };
        match loss {
            Loss::Everything => {}
            Loss::Nothing => keep(&mut |_| true),
            Loss::Prefix(seed) => {
                let end = dice(seed).below(count + 1);
                keep(&mut |index| index < end);
            }
            Loss::Subset(seed) => {
                let mut dice = dice(seed);
                keep(&mut |_| dice.below(2) == 0);
            }
            Loss::One(seed) => {
                let lost = dice(seed).below(count.max(1));
                keep(&mut |index| index != lost);
            }
            Loss::AllButLast => keep(&mut |index| index + 1 == count),
            Loss::Torn { unit, seed } => self.tear(&mut image, unit, &mut dice(seed)),
            Loss::Short(seed) => self.cut_short(&mut image, &mut dice(seed)),
        }
        image
    }

    fn tear(&self, image: &mut Vec<u8>, unit: usize, dice: &mut Dice) {
        for access in &self.pending {
            match access {
                Access::Write(offset, data) => {
                    let units = data.chunks(unit).zip((*offset..).step_by(unit));
                    let kept = units.filter(|_| dice.below(2) == 0);
                    kept.for_each(|(data, offset)| overwrite(image, offset, data));
                }
                other if dice.below(2) == 0 => other.apply(image),
                _ => {}
            }
        }
    }

    fn cut_short(&self, image: &mut Vec<u8>, dice: &mut Dice) {
        let last = dice.below(self.pending.len().max(1));
        for (index, access) in self.pending.iter().take(last + 1).enumerate() {
            match access {
                Access::Write(offset, data) if index == last => {
                    overwrite(image, *offset, &data[..dice.below(data.len() + 1)]);
                }
                other => other.apply(image),
            }
        }
    }
}

/// Chance that is the same in every run.
#[derive(Debug, Clone)]
pub struct Dice(cryptomind_core::dice::Dice);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(cryptomind_core::dice::Dice::new(seed))
    }

    pub fn next(&mut self) -> u64 {
        self.0.bits()
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}
