//! A file of which bits, pages or the end are not what was written: it is refused, or what it holds
//! is right all the same. Never is it wrong.
//!
//! What sees the damage is redb's own check of the whole file when it is opened: every page that
//! belongs to a committed tree is hashed into the page above it, and the roots into the header's two
//! slots. What nothing covers:
//!
//! - pages and ends of pages that hold nothing: harmless,
//! - the header's first 64 bytes, most of which are checked for sense or not used. One bit there says
//!   which of the two slots counts. A commit is the change of that bit, so the file with the bit
//!   turned back is, byte for byte, the one that a power cut just before the commit leaves: no reader
//!   can tell, and the store holds one transaction less. Whoever has seen that transaction can,
//! - what is changed while the file is open: redb looks at the hashes when it opens a file, not when
//!   it reads a page.

use std::fs::File;

use cryptomind_storage::StoreError;
use cryptomind_storage::state::StateStore;

use crate::matrix::{Script, Violation, in_parts, is_unborn};
use crate::money::Money;
use crate::trace::{Dice, Loss};

const STEPS: usize = 120;
const HEADER_BYTES: usize = 320;
const PAGE_BYTES: usize = 4096;
const FLIPS: usize = 5000;
/// The bit that says which slot counts: the lowest of the byte after the magic number.
const COMMIT_BIT: usize = 9 * 8;

/// What a damaged file turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Refused,
    Harmless,
    /// All is right, but as it was before.
    Back(usize),
    Wrong(Violation),
}

struct Files<'a> {
    script: &'a Script<'a, Money>,
    /// How the process or the power left it, and the number of batches in it.
    crashed: (Vec<u8>, usize),
    /// As the store left it when it was closed.
    closed: (Vec<u8>, usize),
    /// The number of batches before the last transaction.
    before: usize,
    /// The file as it was some transactions earlier.
    old: Vec<u8>,
}

impl<'a> Files<'a> {
    fn new(script: &'a Script<'a, Money>) -> Self {
        let trace = script.record(|disk| disk);
        let cuts = trace.cuts(0).collect::<Vec<_>>();
        let crashed = trace.image();
        let found = script.examine(crashed.clone(), STEPS).unwrap();
        let closed = script.recover(crashed.clone(), STEPS).unwrap().image();
        Self {
            script,
            crashed: (crashed, found),
            closed: (closed, found),
            before: cuts[cuts.len() - 2].acknowledged,
            old: cuts[cuts.len() - 9].durable.clone(),
        }
    }

    fn both(&self) -> [&(Vec<u8>, usize); 2] {
        [&self.crashed, &self.closed]
    }

    fn outcome(&self, image: Vec<u8>, whole: usize) -> Outcome {
        match self.script.examine(image, 0) {
            Ok(found) if found == whole => Outcome::Harmless,
            Ok(found) => Outcome::Back(found),
            Err(Violation::Refused(_)) => Outcome::Refused,
            Err(violation) => Outcome::Wrong(violation),
        }
    }

    /// Damages both files as `damage` says, once for each number below `count`, which is whatever
    /// `damage` makes of it; fails where one is neither refused nor right. Returns how many of how
    /// many were refused.
    fn expect_seen(
        &self,
        count: usize,
        damage: impl Fn(&mut Vec<u8>, usize) + Sync,
    ) -> (usize, usize) {
        let part = |part, parts| {
            let numbers = (0..count).skip(part).step_by(parts);
            let outcomes = numbers.flat_map(|number| {
                let damaged = self.both().map(|(image, whole)| {
                    let mut copy = image.clone();
                    damage(&mut copy, number);
                    let changed = copy != *image;
                    changed.then(|| (number, self.outcome(copy, *whole)))
                });
                damaged.into_iter().flatten()
            });
            outcomes.collect::<Vec<_>>()
        };
        let outcomes = in_parts(part).concat();
        let mut refused = 0;
        for (number, outcome) in &outcomes {
            match outcome {
                Outcome::Refused => refused += 1,
                Outcome::Harmless => {}
                other => panic!("damage number {number}: {other:?}"),
            }
        }
        (refused, outcomes.len())
    }
}

fn flip(image: &mut [u8], bit: usize) {
    image[bit / 8] ^= 1 << (bit % 8);
}

#[test]
fn a_flipped_bit_of_the_header_is_seen_or_harmless_but_for_the_one_that_commits() {
    let script = Script::new(&Money, STEPS);
    let files = Files::new(&script);
    let seen = files.expect_seen(HEADER_BYTES * 8, |image, bit| {
        if bit != COMMIT_BIT {
            flip(image, bit);
        }
    });
    println!("refused: {seen:?}");
    let turned_back = |(mut image, whole): (Vec<u8>, usize)| {
        flip(&mut image, COMMIT_BIT);
        files.outcome(image, whole)
    };
    let before = files.before;
    assert_eq!(turned_back(files.crashed.clone()), Outcome::Back(before));
    // Closing takes a transaction of its own, which changes no record.
    assert_eq!(turned_back(files.closed.clone()), Outcome::Harmless);
}

#[test]
fn flipped_bits_of_pages_are_seen_or_harmless() {
    let script = Script::new(&Money, STEPS);
    let files = Files::new(&script);
    let (refused, all) = files.expect_seen(FLIPS, |image, number| {
        let mut dice = Dice::new(number as u64);
        let count = if number % 2 == 0 {
            1
        } else {
            1 + dice.below(64)
        };
        for _ in 0..count {
            let bit = PAGE_BYTES * 8 + dice.below((image.len() - PAGE_BYTES) * 8);
            flip(image, bit);
        }
    });
    println!("refused: {refused} of {all}");
    assert!(
        refused > all / 10,
        "{refused} of {all}: the check sees little"
    );
}

#[test]
fn pages_that_are_old_lost_or_in_each_others_place_are_seen_or_harmless() {
    let script = Script::new(&Money, STEPS);
    let files = Files::new(&script);
    let pages = files.crashed.0.len() / PAGE_BYTES;
    // The header's page is not among them: an old header makes the whole file old.
    let page = |number: usize| (number + 1) * PAGE_BYTES..(number + 2) * PAGE_BYTES;
    let old = files.expect_seen(pages - 1, |image, number| {
        let new = image.get_mut(page(number));
        if let Some((new, old)) = new.zip(files.old.get(page(number))) {
            new.copy_from_slice(old);
        }
    });
    let lost = files.expect_seen(pages - 1, |image, number| {
        image
            .get_mut(page(number))
            .into_iter()
            .for_each(|page| page.fill(0));
    });
    let swapped = files.expect_seen(pages - 2, |image, number| {
        let two = page(number).start..page(number + 1).end;
        if let Some(two) = image.get_mut(two) {
            two.rotate_left(PAGE_BYTES);
        }
    });
    println!("refused: old {old:?}, lost {lost:?}, swapped {swapped:?}");
    assert!([old, lost, swapped].iter().all(|(refused, _)| *refused > 0));
}

#[test]
fn a_file_that_is_cut_or_longer_is_seen_or_harmless() {
    let script = Script::new(&Money, STEPS);
    let files = Files::new(&script);
    let sectors = files.crashed.0.len().min(files.closed.0.len()) / 512;
    // Not to nothing: that is another test, as redb makes a new database of an empty file.
    let cut = files.expect_seen(sectors * 3, |image, number| {
        image.truncate(number / 3 * 512 + [1, 511, 512][number % 3]);
    });
    let longer = files.expect_seen(64, |image, number| {
        let len = image.len() + 1 + number * 512;
        image.resize(len, number as u8);
    });
    println!("refused: cut {cut:?}, longer {longer:?}");
    assert!(cut.0 > 0);
}

#[test]
fn a_file_cut_to_nothing_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let script = Script::new(&Money, 3);
    let store = StateStore::open(&path).unwrap();
    store.commit(script.batch(0)).wait().unwrap();
    drop(store);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(0)
        .unwrap();
    let refusal = StateStore::open(&path).unwrap_err();
    assert!(matches!(refusal, StoreError::Open { .. }), "{refusal}");
    assert_eq!(path.metadata().unwrap().len(), 0, "nothing was written");
}

#[test]
fn a_file_whose_making_broke_off_is_made_again() {
    let script = Script::new(&Money, 3);
    let trace = script.record(|disk| disk);
    let mut unborn = 0;
    for cut in trace.cuts(0).take_while(|cut| cut.acknowledged == 0) {
        for (_, image) in cut.images(&Loss::kinds(2)) {
            unborn += usize::from(is_unborn(&image));
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("state.redb");
            std::fs::write(folder.path().join("state.redb.new"), image).unwrap();
            let store = StateStore::open(&path).unwrap();
            store.commit(script.batch(0)).wait().unwrap();
            drop(store);
            let image = std::fs::read(&path).unwrap();
            assert_eq!(script.examine(image, 1), Ok(1));
            assert_eq!(folder.path().read_dir().unwrap().count(), 1);
        }
    }
    assert!(unborn > 2, "{unborn} broken off");
}
