use cryptomind_protocol::TaskId;
use cryptomind_protocol::audit::{Roots, VERSION};
use cryptomind_protocol::key::Hash;
use proptest::prelude::*;

use super::*;

const ATTEMPT: u32 = 3;
/// What each rank computes of each step.
const SHARE: u32 = 8;

fn node(n: usize) -> NodeId {
    NodeId::new([n as u8 + 1; 32])
}

fn nodes(world: usize) -> Vec<NodeId> {
    (0..world).map(node).collect()
}

/// What an honest member says of a step.
fn honest(step: u64) -> Commitment {
    let root = |what: &str| Hash::of(format!("{what} {step}").as_bytes());
    Commitment {
        loss: 1.0 / step as f32,
        samples: SHARE,
        roots: step.is_multiple_of(2).then(|| Roots {
            gradients: root("gradients"),
            parameters: root("parameters"),
        }),
    }
}

/// Otherwise in this part; `how` tells one liar from another.
fn otherwise(mut said: Commitment, part: Part, how: u8) -> Commitment {
    let root = Hash::of(&[how]);
    match (part, &mut said.roots) {
        (Part::Gradients, Some(roots)) => roots.gradients = root,
        (Part::Parameters, Some(roots)) => roots.parameters = root,
        (Part::Loss, _) => said.loss += f32::from(how) + 1.0,
        (Part::Samples, _) => said.samples += u32::from(how) + 1,
        // No root to change: it is as if there was none.
        (_, None) => {}
    }
    said
}

fn said(first: u64, steps: Vec<Commitment>) -> Commitments {
    Commitments {
        version: VERSION,
        task: TaskId::new([1; 16]),
        attempt: ATTEMPT,
        rank: 0,
        first,
        steps,
    }
}

/// A trail and the group that it is of.
struct Court {
    trail: Trail,
    ranks: Vec<NodeId>,
    present: Vec<NodeId>,
}

impl Court {
    fn new(world: usize) -> Self {
        Self {
            trail: Trail::default(),
            ranks: nodes(world),
            present: nodes(world),
        }
    }

    fn group(&self) -> Group<'_> {
        Group {
            attempt: ATTEMPT,
            ranks: &self.ranks,
            present: &self.present,
        }
    }

    /// As the run does it. Whether it was news, and who is named.
    fn hear(&mut self, n: usize, first: u64, steps: Vec<Commitment>) -> (Option<u64>, Vec<Odd>) {
        let number = self.trail.take(node(n), &said(first, steps));
        let (ranks, present) = (self.ranks.clone(), self.present.clone());
        let group = Group {
            attempt: ATTEMPT,
            ranks: &ranks,
            present: &present,
        };
        let odd = self.trail.compare(&group, |_, _| SHARE);
        for Odd { node, step, part } in &odd {
            self.trail.parted.push(Parting {
                attempt: ATTEMPT,
                step: *step,
                node: *node,
                name: String::new(),
                part: *part,
            });
        }
        (number, odd)
    }

    fn named(&self) -> Vec<(NodeId, u64, Part)> {
        let parted = self.trail.parted.iter();
        parted.map(|p| (p.node, p.step, p.part)).collect()
    }
}

fn honestly(steps: std::ops::RangeInclusive<u64>) -> Vec<Commitment> {
    steps.map(honest).collect()
}

#[test]
fn members_that_say_the_same_are_compared_and_nobody_is_named() {
    let mut court = Court::new(3);
    for n in 0..3 {
        assert_eq!(court.trail.compared, 0);
        let (number, odd) = court.hear(n, 1, honestly(1..=4));
        assert_eq!((number, odd), (Some(0), vec![]));
    }
    assert_eq!((court.trail.compared, court.trail.last), (4, 4));
    assert!(court.trail.waiting.steps.is_empty());
}

#[test]
fn the_one_that_parts_from_a_majority_is_named_and_of_two_both_are() {
    for part in [Part::Gradients, Part::Parameters, Part::Loss] {
        for world in [2, 3, 4] {
            let mut court = Court::new(world);
            let mut lie = honestly(1..=6);
            lie[3] = otherwise(lie[3], part, 1);
            court.hear(0, 1, lie);
            (1..world).for_each(|n| drop(court.hear(n, 1, honestly(1..=6))));
            let named = match world {
                2 => vec![(node(0), 4, part), (node(1), 4, part)],
                _ => vec![(node(0), 4, part)],
            };
            assert_eq!(court.named(), named, "{part} of {world}");
            assert_eq!(court.trail.compared, 6);
        }
    }
}

#[test]
fn two_that_part_from_two_are_four_of_whom_nobody_knows() {
    let mut court = Court::new(4);
    for n in 0..4 {
        let how = u8::from(n < 2);
        court.hear(n, 2, vec![otherwise(honest(2), Part::Loss, how)]);
    }
    assert_eq!(court.named().len(), 4);
}

#[test]
fn who_is_named_has_no_vote_any_more() {
    let mut court = Court::new(4);
    let mut first = honestly(1..=4);
    first[1] = otherwise(first[1], Part::Parameters, 1);
    first[3] = otherwise(first[3], Part::Parameters, 1);
    let mut second = honestly(1..=4);
    second[3] = otherwise(second[3], Part::Parameters, 1);
    court.hear(0, 1, first);
    court.hear(1, 1, second);
    court.hear(2, 1, honestly(1..=4));
    court.hear(3, 1, honestly(1..=4));
    // Two against two, were the first one heard.
    let parameters = Part::Parameters;
    let named = [(node(0), 2, parameters), (node(1), 4, parameters)];
    assert_eq!(court.named(), named);
}

#[test]
fn a_root_that_is_missing_where_others_name_one_is_a_difference() {
    let mut court = Court::new(3);
    let without = Commitment {
        roots: None,
        ..honest(2)
    };
    court.hear(0, 2, vec![without]);
    court.hear(1, 2, honestly(2..=2));
    court.hear(2, 2, honestly(2..=2));
    assert_eq!(court.named(), [(node(0), 2, Part::Gradients)]);
}

#[test]
fn samples_are_each_ranks_share_whatever_the_others_say() {
    let mut court = Court::new(2);
    let more = otherwise(honest(1), Part::Samples, 1);
    court.hear(0, 1, vec![more]);
    court.hear(1, 1, honestly(1..=1));
    assert_eq!(court.named(), [(node(0), 1, Part::Samples)]);
    // Also of one that is alone.
    let mut court = Court::new(1);
    court.hear(0, 1, vec![more]);
    assert_eq!(court.named(), [(node(0), 1, Part::Samples)]);
}

#[test]
fn a_members_first_word_counts() {
    let mut court = Court::new(2);
    assert_eq!(court.hear(0, 1, honestly(1..=4)).0, Some(0));
    // As it came, in part, with more, and otherwise.
    assert_eq!(court.hear(0, 1, honestly(1..=4)).0, None);
    assert_eq!(court.hear(0, 2, honestly(2..=3)).0, None);
    assert_eq!(court.hear(0, 4, honestly(4..=5)).0, None);
    let lie = otherwise(honest(2), Part::Loss, 1);
    assert_eq!(court.hear(0, 2, vec![lie]).0, None);
    assert_eq!(court.hear(0, 5, honestly(5..=5)).0, Some(1));
    court.hear(1, 1, honestly(1..=5));
    assert_eq!((court.named(), court.trail.compared), (vec![], 5));
}

#[test]
fn a_step_that_a_member_left_out_is_passed_over() {
    let mut court = Court::new(2);
    court.hear(0, 1, honestly(1..=6));
    court.hear(1, 1, honestly(1..=2));
    court.hear(1, 5, honestly(5..=6));
    assert_eq!((court.trail.compared, court.trail.last), (4, 6));
    assert!(court.trail.waiting.steps.is_empty());
}

#[test]
fn the_lost_are_not_waited_for() {
    let mut court = Court::new(3);
    court.hear(0, 1, honestly(1..=2));
    court.hear(1, 1, honestly(1..=2));
    assert_eq!(court.trail.compared, 0);
    court.present.pop();
    court.hear(0, 3, honestly(3..=3));
    assert_eq!(court.trail.compared, 2);
}

#[test]
fn what_waits_for_a_silent_member_is_bounded() {
    let mut court = Court::new(2);
    let many = MAX_WAITING_STEPS as u64 + 500;
    for step in 1..=many {
        court.hear(0, step, vec![honest(step)]);
    }
    assert_eq!(court.trail.waiting.steps.len(), MAX_WAITING_STEPS);
    court.hear(1, 1, honestly(1..=many));
    assert_eq!(court.trail.compared, MAX_WAITING_STEPS as u64);
}

/// What a member says in parts: of which steps, and what of them is otherwise.
#[derive(Debug, Clone)]
struct Testimony {
    /// Lengths of the parts, and whether each one is told.
    parts: Vec<(usize, bool)>,
    lies: Vec<(u64, Part, u8)>,
}

const STEPS: u64 = 30;

impl Testimony {
    fn of(&self, step: u64) -> Commitment {
        let lies = self.lies.iter().filter(|(at, ..)| *at == step);
        lies.fold(honest(step), |said, (_, part, how)| {
            otherwise(said, *part, *how)
        })
    }

    /// First step and steps of each part that is told.
    fn told(&self) -> Vec<(u64, Vec<Commitment>)> {
        let mut first = 1;
        let mut told = Vec::new();
        for (len, is_told) in &self.parts {
            let steps: Vec<_> = (first..first + *len as u64)
                .map(|step| self.of(step))
                .collect();
            if *is_told {
                told.push((first, steps));
            }
            first += *len as u64;
        }
        told
    }
}

fn testimony() -> impl Strategy<Value = Testimony> {
    let parts = prop::collection::vec((1usize..7, prop::bool::weighted(0.9)), 1..8);
    let part = prop::sample::select(vec![
        Part::Gradients,
        Part::Parameters,
        Part::Loss,
        Part::Samples,
    ]);
    let lies = prop::collection::vec((1..=STEPS, part, 0u8..2), 0..3);
    (parts, lies).prop_map(|(parts, lies)| Testimony { parts, lies })
}

/// Step by step, from all that was said: who is named, and how many steps are compared.
fn naively(said: &[Testimony]) -> (Vec<(NodeId, u64, Part)>, u64) {
    let (mut named, mut compared): (Vec<(NodeId, u64, Part)>, u64) = (Vec::new(), 0);
    let told: Vec<BTreeMap<u64, Commitment>> = said
        .iter()
        .map(|said| {
            let told = said.told().into_iter();
            told.flat_map(|(first, steps)| (first..).zip(steps))
                .collect()
        })
        .collect();
    // Whoever ends earlier leaves the rest waiting.
    let last = |told: &BTreeMap<u64, Commitment>| told.keys().last().copied().unwrap_or(0);
    let through = told.iter().map(last).min().unwrap_or(0);
    for step in 1..=through {
        let words: Vec<_> = told.iter().filter_map(|told| told.get(&step)).collect();
        if words.len() < said.len() {
            continue;
        }
        compared += 1;
        let voters: Vec<usize> = (0..said.len())
            .filter(|n| !named.iter().any(|(known, ..)| *known == node(*n)))
            .collect();
        let mut of_step: Vec<(NodeId, u64, Part)> = Vec::new();
        for part in [Part::Gradients, Part::Parameters, Part::Loss, Part::Samples] {
            for n in 0..said.len() {
                let same = |a: &Commitment, b: &Commitment| match part {
                    Part::Gradients => a.roots.map(|r| r.gradients) == b.roots.map(|r| r.gradients),
                    Part::Parameters => {
                        a.roots.map(|r| r.parameters) == b.roots.map(|r| r.parameters)
                    }
                    Part::Loss => a.loss.to_bits() == b.loss.to_bits(),
                    Part::Samples => unreachable!(),
                };
                let is_odd = if part == Part::Samples {
                    words[n].samples != SHARE
                } else {
                    let alike = voters.iter().filter(|v| same(words[**v], words[n])).count();
                    voters.contains(&n) && alike * 2 <= voters.len()
                };
                let mut known = named.iter().chain(&of_step);
                if is_odd && !known.any(|(known, ..)| *known == node(n)) {
                    of_step.push((node(n), step, part));
                }
            }
        }
        named.extend(of_step);
    }
    (named, compared)
}

proptest! {
    /// Whatever is told in which parts, in whatever order, and twice.
    #[test]
    fn who_is_named_is_whom_a_look_at_each_step_names(
        said in prop::collection::vec(testimony(), 1..6),
        order in prop::collection::vec((0usize..6, prop::bool::weighted(0.2)), 100),
    ) {
        let mut court = Court::new(said.len());
        let mut left: Vec<_> = said.iter().map(|said| said.told().into_iter()).collect();
        let rest = (0..said.len()).flat_map(|n| [(n, false); 8]);
        for (n, is_repeated) in order.into_iter().chain(rest) {
            let n = n % said.len();
            let Some((first, steps)) = left[n].next() else { continue };
            prop_assert!(court.hear(n, first, steps.clone()).0.is_some());
            if is_repeated {
                prop_assert_eq!(court.hear(n, first, steps), (None, vec![]));
            }
        }
        let (named, compared) = naively(&said);
        prop_assert_eq!(court.named(), named);
        prop_assert_eq!(court.trail.compared, compared);
        let through = court.trail.through(&court.group());
        prop_assert!(court.trail.waiting.steps.keys().all(|step| *step > through));
    }

    /// Nobody is named where all say the same.
    #[test]
    fn the_honest_are_never_named(mut said in prop::collection::vec(testimony(), 1..6)) {
        let mut court = Court::new(said.len());
        for (n, said) in said.iter_mut().enumerate() {
            said.lies.clear();
            for (first, steps) in said.told() {
                court.hear(n, first, steps);
            }
        }
        prop_assert_eq!(court.named(), vec![]);
    }
}
