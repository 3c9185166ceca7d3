//! What is seen from outside: who gets where, who is to die there, and whether all of it is right.

use super::*;

/// Where a member may die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    Preparing,
    Joining,
    Computing,
    Hop(usize),
    Applying,
    Barrier(usize),
    Committed,
    Uploading,
    Resting,
    Paused,
    Promised,
    Proposed,
    Voted,
    Decided,
    /// A newcomer has the state.
    Level,
}

/// Who dies, on its how manieth visit to which point.
#[derive(Debug, Clone, Copy)]
pub struct Victim {
    /// In the first attempt.
    pub rank: usize,
    pub point: Point,
    pub visit: u32,
}

thread_local! {
    static ORACLE: RefCell<Oracle> = RefCell::default();
}

#[derive(Default)]
pub struct Watch {
    pub victims: VecDeque<Victim>,
    visits: u32,
    pub coordinator_leaves_after_two: bool,
    pub is_parted_in_half: bool,
    members: usize,
    /// Who has which rank in the first attempt.
    ranks: Vec<NodeId>,
    pub killed: Vec<(usize, u64)>,
    /// Groups that were granted or formed, by attempt.
    groups: BTreeMap<u32, BTreeSet<Vec<NodeId>>>,
    granted: BTreeSet<(u32, Vec<NodeId>)>,
    pub formed: Vec<Decision>,
    /// Members of each ring.
    rings: BTreeMap<u64, Vec<NodeId>>,
    pasts: BTreeMap<(u64, usize), Lineage>,
    commits: Vec<(usize, u64, u64)>,
    earned: Vec<(u64, Vec<usize>, Lineage)>,
    pub steps_lost: u64,
}

impl Watch {
    pub fn new(members: usize) -> Self {
        Self {
            members,
            ..Self::default()
        }
    }

    /// Only the first victim is awaited; the next one from its death on.
    pub fn reach(&mut self, node: usize, point: Point) -> bool {
        let Some(victim) = self.victims.front() else {
            return false;
        };
        if victim.point != point || self.ranks.get(victim.rank) != Some(&id(node)) {
            return false;
        }
        self.visits += 1;
        let dies = self.visits == victim.visit;
        if dies {
            self.visits = 0;
            self.victims.pop_front();
        }
        dies
    }

    pub fn killed(&mut self, node: usize, now: u64) {
        self.killed.push((node, now));
    }

    pub fn granted(&mut self, attempt: u32, members: &[NodeId]) {
        if attempt == 1 {
            self.ranks = members.to_vec();
        }
        self.granted.insert((attempt, members.to_vec()));
        self.note(attempt, members.to_vec());
    }

    fn note(&mut self, attempt: u32, members: Vec<NodeId>) {
        self.groups.entry(attempt).or_default().insert(members);
    }

    /// A majority of some group agreed on it, and no part of that group on anything else.
    pub fn formed(&mut self, node: usize, decision: &Decision) {
        assert!(decision.successor.members.contains(&id(node)));
        assert!(!self.is_parted_in_half, "half a group went on by itself");
        let before = self.groups[&(decision.attempt - 1)].clone();
        let task = TaskId::new([7; 16]);
        let follows = |decision: &Decision, group: &[NodeId]| {
            let proof = Proof::of(decision, &NETWORK);
            proof.is_some_and(|proof| proof.follows(task, group))
        };
        let proven: Vec<_> = before
            .iter()
            .filter(|group| follows(decision, group))
            .collect();
        assert!(!proven.is_empty(), "a minority went on by itself");
        for other in self.formed.iter().filter(|d| d.attempt == decision.attempt) {
            let same_group = proven.iter().any(|group| follows(other, group));
            assert!(
                !same_group || other.successor == decision.successor,
                "two successors"
            );
        }
        if !self
            .formed
            .iter()
            .any(|d| d.successor == decision.successor)
        {
            self.formed.push(decision.clone());
        }
        self.note(decision.attempt, decision.successor.members.clone());
    }

    /// How many formed attempts the coordinator made its own.
    pub fn adopted(&self) -> usize {
        let is_adopted = |d: &&Decision| {
            self.granted
                .contains(&(d.attempt, d.successor.members.clone()))
        };
        self.formed.iter().filter(is_adopted).count()
    }

    pub fn joins(&mut self, key: u64, place: &Place) {
        let groups = &self.groups[&place.attempt];
        assert!(groups.contains(&place.members), "nobody granted this");
        self.rings.insert(key, place.members.clone());
    }

    pub fn stands(&mut self, node: usize, before: usize, lineage: &Lineage, weights: &Weights) {
        self.steps_lost += before.saturating_sub(lineage.len()) as u64;
        self.check(node, lineage, weights);
    }

    pub fn committed(
        &mut self,
        (node, key): (usize, u64),
        now: u64,
        lineage: &Lineage,
        weights: &Weights,
    ) {
        self.commits.push((node, key, now));
        let past = self.pasts.entry((key, lineage.len()));
        let past = past.or_insert_with(|| lineage.clone());
        assert_eq!(past, lineage, "members of one ring have different pasts");
        self.check(node, lineage, weights);
    }

    /// The state is that of one machine: in integers of any, in floats of one that folds as these groups did.
    fn check(&self, node: usize, lineage: &Lineage, weights: &Weights) {
        let (same, alone) = ORACLE.with_borrow_mut(|oracle| {
            let alone = vec![Shares::equal(1); lineage.len()];
            (oracle.after(lineage), oracle.after(&alone))
        });
        let bits = |w: &Weights| w.0.map(|(float, int)| (float.to_bits(), int));
        assert_eq!(bits(&same), bits(weights), "node {node} after {lineage:?}");
        let ints = |w: &Weights| w.0.map(|(_, int)| int);
        assert_eq!(ints(&alone), ints(weights), "node {node}: other steps");
    }

    pub fn earned(&mut self, checkpoint: u64, earners: Vec<usize>, lineage: Lineage) {
        assert_eq!(
            lineage.len() as u64,
            checkpoint,
            "the file is of another step"
        );
        if let Some((before, _, past)) = self.earned.last() {
            assert!(
                *before < checkpoint && lineage.starts_with(past),
                "two pasts earned"
            );
        }
        self.earned.push((checkpoint, earners, lineage));
    }

    /// Who earned last.
    pub fn last_earners(&self) -> Vec<usize> {
        let mut earners = self
            .earned
            .last()
            .map_or(Vec::new(), |(_, who, _)| who.clone());
        earners.sort_unstable();
        earners
    }

    pub fn ended(&self, node: usize, ending: &Ending, lineage: &Lineage) {
        let is_whole = lineage.len() as u64 == STEPS;
        let is_finished = *ending == Ending::Finished;
        assert!(!is_finished || is_whole, "node {node} ended early");
    }

    pub fn check_end(&self, world: &World) {
        assert!(world.run.state.is_final() && !world.run.reason.is_empty());
        if world.run.state == TaskState::Finished {
            assert_eq!(self.earned.last().map(|(step, ..)| *step), Some(STEPS));
        }
        assert!(
            self.victims.is_empty() || self.killed.len() == 1,
            "nobody died"
        );
    }

    /// When all who were never killed had committed a step on a ring without any who were.
    pub fn recovered(&self) -> Option<u64> {
        let dead: Vec<_> = self.killed.iter().map(|(node, _)| id(*node)).collect();
        let last = self.killed.last()?.1;
        let is_without = |key: &u64| !self.rings[key].iter().any(|node| dead.contains(node));
        let first = |node: usize| {
            let commits = self.commits.iter();
            let mut after =
                commits.filter(|(n, key, now)| *n == node && *now >= last && is_without(key));
            after.next().map(|(.., now)| *now)
        };
        let survivors = (0..self.members).filter(|node| !dead.contains(&id(*node)));
        let times: Option<Vec<_>> = survivors.map(first).collect();
        times?.into_iter().max()
    }

    /// The longest that one member who was never killed stood between two commits on different rings, after this time.
    pub fn longest_gap(&self, from: u64) -> u64 {
        let is_dead = |node: usize| self.killed.iter().any(|(dead, _)| *dead == node);
        let gaps = (0..self.members).filter(|node| !is_dead(*node));
        let gaps = gaps.flat_map(|node| {
            let own = self.commits.iter().filter(move |commit| commit.0 == node);
            let own: Vec<_> = own.filter(|(.., now)| *now >= from).collect();
            let turns = own.windows(2).filter(|pair| pair[0].1 != pair[1].1);
            turns.map(|pair| pair[1].2 - pair[0].2).collect::<Vec<_>>()
        });
        gaps.max().unwrap_or(0)
    }

    /// How long that took from the last death on.
    pub fn recovery(&self) -> Option<u64> {
        Some(self.recovered()? - self.killed.last()?.1)
    }

    pub fn check_recovery(&self, limit_ms: u64) -> u64 {
        assert_eq!(self.killed.len(), 1, "nobody died");
        let ms = self.recovery().expect("a survivor went no further");
        assert!(ms <= limit_ms, "it took {ms} ms");
        assert_eq!(self.steps_lost, 0, "steps were lost");
        ms
    }
}
