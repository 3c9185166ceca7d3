//! Second checkers in league with the first, or against everybody.
//!
//! Of a hundred proven owners thirty collude. Cases come one after another: half of the suspects are wrongdoers, whom all
//! colluders know; the others are honest, and one time in a hundred it is *our* expected answer that is wrong. A colluder
//! that is found out is replaced by a fresh one, so that there are thirty all the time.

use cryptomind_protocol::rating::{Bar, Evidence};
use cryptomind_protocol::{AccountId, NodeId, Timestamp};
use serde::Serialize;

use super::miner::{node, number, owner};
use crate::check::{Answer, Case, Finding, Next, Witness};
use crate::dice::Dice;
use crate::rating::{Rating, view};

/// Cases that are played.
pub const CASES: u64 = 10_000;
const OWNERS: usize = 100;
const COLLUDERS: usize = 30;
/// One time in so many the expected answer is wrong.
const OUR_ERRORS: u64 = 100;
/// The number of whoever is suspected first.
const SUSPECT: usize = OWNERS;
/// From one case to the next, milliseconds.
const GAP_MS: u64 = 60_000;

/// What colluders do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Plot {
    /// They repeat what a wrongdoer answered.
    ApproveAll,
    /// They answer something else, whoever asks.
    RejectAll,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Colluded {
    /// What they did.
    pub plot: Plot,
    /// Cases that were played.
    pub cases: u64,
    /// Honest owners found wrong: suspects and checkers.
    pub honest_punished: u64,
    /// Wrongdoers that were suspects.
    pub wrongdoers: u64,
    /// Of those, whom nothing was proved against.
    pub let_off: u64,
    /// Colluders that were excluded.
    pub excluded: u64,
    /// Second checks that these did, all together.
    pub checks_until_excluded: u64,
}

impl Colluded {
    /// Nothing yet.
    pub const fn none(plot: Plot) -> Self {
        Self {
            plot,
            cases: 0,
            honest_punished: 0,
            wrongdoers: 0,
            let_off: 0,
            excluded: 0,
            checks_until_excluded: 0,
        }
    }

    /// Adds what came of others.
    pub const fn add(&mut self, other: &Self) {
        self.cases += other.cases;
        self.honest_punished += other.honest_punished;
        self.wrongdoers += other.wrongdoers;
        self.let_off += other.let_off;
        self.excluded += other.excluded;
        self.checks_until_excluded += other.checks_until_excluded;
    }

    /// Wrongdoers let off, in millionths of all.
    pub fn let_off_ppm(&self) -> u64 {
        (self.let_off * 1_000_000)
            .checked_div(self.wrongdoers)
            .unwrap_or_default()
    }

    /// Second checks that a colluder did until it was excluded, in the mean. Nothing where none was.
    pub fn checks_to_be_found(&self) -> Option<f64> {
        (self.excluded > 0).then(|| self.checks_until_excluded as f64 / self.excluded as f64)
    }
}

/// A checker that is proven.
#[derive(Debug, Clone, Default)]
struct Checker {
    rating: Rating,
    checks: u64,
}

struct Scene {
    plot: Plot,
    dice: Dice,
    now: Timestamp,
    /// The colluders first.
    checkers: Vec<Checker>,
    came_of_it: Colluded,
}

/// Plays all cases.
pub fn collude(plot: Plot, seed: u64) -> Colluded {
    let mut scene = Scene {
        plot,
        dice: Dice::new(seed).branch(5),
        now: Timestamp::from_ms(0),
        checkers: vec![Checker::default(); OWNERS],
        came_of_it: Colluded::none(plot),
    };
    for _ in 0..CASES {
        scene.case();
        scene.now = scene.now.plus_ms(GAP_MS);
    }
    scene.came_of_it
}

impl Scene {
    fn case(&mut self) {
        let truth = Answer::Other([0; 32]);
        let is_wrongdoer = self.dice.below(2) == 0;
        let we_err = !is_wrongdoer && self.dice.below(OUR_ERRORS) == 0;
        let right = if we_err { truth } else { Answer::Expected };
        let suspects = if is_wrongdoer { self.nonsense() } else { right };
        let mut case = Case::open();
        let mut findings = case.hear(witness(SUSPECT, suspects));
        while let Next::Ask { apart_from } = case.next() {
            let at = self.draw(&apart_from);
            let answer = self.answer(at, is_wrongdoer.then_some(suspects), right);
            findings.extend(case.hear(witness(at, answer)));
        }
        self.came_of_it.cases += 1;
        self.came_of_it.wrongdoers += u64::from(is_wrongdoer);
        let is_found = findings.contains(&Finding::Wrong(node(SUSPECT)));
        self.came_of_it.let_off += u64::from(is_wrongdoer && !is_found);
        for finding in findings {
            if let Finding::Wrong(node) = finding {
                self.punish(node, is_wrongdoer);
            }
        }
    }

    /// By lot.
    fn draw(&mut self, apart_from: &[AccountId]) -> usize {
        let able = (0..OWNERS).filter(|at| !apart_from.contains(&owner(*at)));
        let able: Vec<_> = able.collect();
        able[self.dice.below(able.len() as u64) as usize]
    }

    /// What a checker says; `friends` is what a wrongdoer told the colluders that it answered.
    fn answer(&mut self, at: usize, friends: Option<Answer>, right: Answer) -> Answer {
        self.checkers[at].checks += 1;
        match (at < COLLUDERS, self.plot) {
            (true, Plot::ApproveAll) => friends.unwrap_or(right),
            (true, Plot::RejectAll) => self.nonsense(),
            (false, _) => right,
        }
    }

    fn punish(&mut self, node: NodeId, is_wrongdoer: bool) {
        let at = number(&node);
        if at == SUSPECT {
            self.came_of_it.honest_punished += u64::from(!is_wrongdoer);
            return;
        }
        self.came_of_it.honest_punished += u64::from(at >= COLLUDERS);
        let checker = &mut self.checkers[at];
        let reason = String::new();
        checker.rating.hear(&Evidence::Wrong { reason }, self.now);
        let bar = view(&checker.rating, &checker.rating, self.now).bar;
        if matches!(bar, Some(Bar::Excluded { .. })) && at < COLLUDERS {
            self.came_of_it.excluded += 1;
            self.came_of_it.checks_until_excluded += checker.checks;
            *checker = Checker::default();
        }
    }

    fn nonsense(&mut self) -> Answer {
        Answer::Other(self.dice.bytes())
    }
}

fn witness(at: usize, answer: Answer) -> Witness {
    Witness {
        node: node(at),
        owner: owner(at),
        answer,
    }
}
