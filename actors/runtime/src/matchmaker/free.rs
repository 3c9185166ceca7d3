//! The miners that are free, kept as they come and go, and whom of them a task asks next.
//!
//! A miner is free while it is connected and in no group. Whom to ask is decided by `cryptomind_core::market::shortlist`;
//! here is who was asked and said no, which is not asked again for that task before it is free anew.

use std::collections::{BTreeMap, BTreeSet};

use cryptomind_core::dice::Dice;
use cryptomind_core::market::shortlist::{Asking, FreeMiners, OWED};
use cryptomind_core::market::{Ability, Wanted};
use cryptomind_core::run::Input;
use cryptomind_protocol::rating::RatingView;
use cryptomind_protocol::role::Role;
use cryptomind_protocol::{Amount, NodeId, TaskId, Timestamp};

use super::Desk;
use super::exposure::{Groups, group_of};
use crate::clock;
use crate::coordinator::links::Link;

/// The oldest tasks that are looked at when one miner comes free, and how many of these may ask it at once.
const LOOKED_AT: usize = 256;
const ASK_ONE: usize = 8;
/// For how long a miner waits at most to hear what it is asked first, milliseconds.
const HOLD_LIMIT_MS: u64 = 5_000;
/// When a miner is looked at again whose rating could not be had, milliseconds.
const LOOK_AGAIN_MS: u64 = 5_000;

/// Connected miners, those of them that are free, and who declined what.
#[derive(Default)]
pub(super) struct Free {
    /// What each connected miner can do, as far as is known.
    abilities: BTreeMap<NodeId, Ability>,
    miners: FreeMiners,
    /// Who gets no work until when.
    resting: BTreeSet<(Timestamp, NodeId)>,
    declined: BTreeSet<(TaskId, NodeId)>,
    /// Of these, who held too much then: asked again when anybody's work is done.
    exposed: BTreeSet<(TaskId, NodeId)>,
    /// Who waits to hear what it is asked first, and until when at most.
    held: BTreeMap<NodeId, Timestamp>,
    /// What they count as, where it is looked at how much somebody holds.
    pub(super) groups: Groups,
}

impl Free {
    /// How many miners are connected, and how many of these are free.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.abilities.len(), self.miners.len())
    }

    /// A task is over: nobody is asked for it any more.
    pub(super) fn forget(&mut self, task: &TaskId) {
        let (first, last) = (
            NodeId::new([0; NodeId::LEN]),
            NodeId::new([u8::MAX; NodeId::LEN]),
        );
        let of_task = self.declined.range((*task, first)..=(*task, last));
        for key in of_task.copied().collect::<Vec<_>>() {
            self.declined.remove(&key);
            self.exposed.remove(&key);
        }
    }
}

/// What a miner can do whatever the task, by what it says of itself and how it is rated.
fn ability(link: &Link, rating: &RatingView) -> Ability {
    let record = &link.record;
    let ability = Ability {
        memory_bytes: record.capacity.memory_bytes,
        reserve: record.reserve,
        ..Ability::new(record.capacity.mflops, 0)
    };
    ability.rated(rating)
}

impl Desk {
    /// Looks who is connected: after a restart of the matchmaker alone, most are.
    pub(super) async fn look_who_is_there(&mut self) {
        let links = self.world.links.of_role(Role::Miner);
        let nodes = links.iter().map(|link| link.record.node).collect();
        // Without ratings nobody is known yet; offers bring them.
        let ratings = self.ratings(nodes).await.unwrap_or_default();
        for (link, rating) in links.iter().zip(ratings) {
            self.look_at_withheld(link).await;
            self.is_rated(link, &rating);
        }
    }

    /// A miner connected, or is rated otherwise than before. Without its rating it is not known: its offer brings that.
    pub(super) async fn rated_anew(&mut self, node: NodeId) {
        let Some(link) = self.world.links.get(&node) else {
            return;
        };
        if link.record.role != Role::Miner {
            return;
        }
        self.look_at_withheld(&link).await;
        match self.ratings(vec![node]).await {
            Ok(ratings) => ratings
                .iter()
                .for_each(|rating| self.is_rated(&link, rating)),
            // It is looked at again soon.
            Err(_) => {
                let soon = clock::now().plus_ms(LOOK_AGAIN_MS);
                self.free.resting.insert((soon, node));
            }
        }
    }

    /// A connected miner is rated so. Where it gets no work for a while, it is looked at again then.
    pub(super) fn is_rated(&mut self, link: &Link, rating: &RatingView) {
        let node = link.record.node;
        if let Some(until) = rating.bar.and_then(|bar| bar.until()) {
            self.free.resting.insert((until, node));
        }
        self.free.groups.enter(node, group_of(link, rating));
        self.knows(node, ability(link, rating));
    }

    /// Whose rest is over.
    pub(super) fn rested(&mut self, now: Timestamp) -> Vec<NodeId> {
        let mut rested = Vec::new();
        while let Some((until, node)) = self.free.resting.first().copied()
            && until <= now
        {
            self.free.resting.pop_first();
            rested.push(node);
        }
        rested
    }

    /// A miner connected, or is rated otherwise than before.
    fn knows(&mut self, node: NodeId, ability: Ability) {
        self.free.abilities.insert(node, ability);
        self.sort_in(node);
    }

    /// A miner is gone.
    pub(super) fn knows_no_more(&mut self, node: &NodeId) {
        self.free.abilities.remove(node);
        self.free.groups.leave(node);
        self.free.held.remove(node);
        self.free.miners.leave(node);
    }

    /// A miner gets no work until the control actor has said whether it is asked something first: so nobody can tell by the order
    /// what is a control task. Where nobody is checked nobody waits.
    pub(super) fn hold(&mut self, node: NodeId) {
        if self.world.allowance.is_some() {
            let until = clock::now().plus_ms(HOLD_LIMIT_MS);
            self.free.held.insert(node, until);
            self.sort_in(node);
        }
    }

    /// The control actor has said it.
    pub(super) async fn released(&mut self, node: NodeId) {
        if self.free.held.remove(&node).is_some() {
            self.sort_in(node);
            self.offer_work(node).await;
            self.ask_free = true;
        }
    }

    /// Whoever waited long enough.
    pub(super) fn held_too_long(&self, now: Timestamp) -> Vec<NodeId> {
        let held = self.free.held.iter().filter(|(_, until)| **until <= now);
        held.map(|(node, _)| *node).collect()
    }

    /// Whether a miner may be asked for clients' tasks: what waits for it alone comes first.
    fn is_for_all(&self, node: &NodeId) -> bool {
        !self.free.held.contains_key(node) && self.runs.only_for(node).is_none()
    }

    /// A miner said no, for one task.
    pub(super) fn turned_down(&mut self, task: TaskId, node: NodeId) {
        if self.runs.get(&task).is_some() {
            self.free.declined.insert((task, node));
        }
    }

    /// A miner has shown too little for a task: until somebody's work is done.
    pub(super) fn turned_down_for_now(&mut self, task: TaskId, node: NodeId) {
        self.turned_down(task, node);
        self.free.exposed.insert((task, node));
    }

    /// A miner may have come free, or not be free any more.
    pub(super) fn sort_in(&mut self, node: NodeId) {
        match self.free.abilities.get(&node).copied() {
            Some(ability)
                if self.is_free(&node) && ability.bar.is_none() && self.is_for_all(&node) =>
            {
                self.free.miners.enter(node, ability);
            }
            _ => self.free.miners.leave(&node),
        }
    }

    /// The group of a task changed: who was in it is free, and may be asked for what it had no time for; who is in it is
    /// not.
    pub(super) fn regrouped(&mut self, before: &[NodeId], after: &[NodeId]) {
        if before == after {
            return;
        }
        let is_out = |node: &NodeId| before.contains(node) && !after.contains(node);
        self.free.declined.retain(|(_, node)| !is_out(node));
        for key in std::mem::take(&mut self.free.exposed) {
            self.free.declined.remove(&key);
        }
        for node in before.iter().chain(after) {
            self.sort_in(*node);
        }
        self.ask_free = true;
    }

    /// Whom to ask first for a task that is not posted yet.
    pub(super) fn shortlist(&mut self, wanted: &Wanted, unit_price: Amount) -> Vec<NodeId> {
        let around = self.world.around();
        let owes = |node: &NodeId| self.runs.owed(node) >= OWED;
        let asking = Asking {
            wanted,
            unit_price,
            skip: &owes,
            around: &around,
        };
        self.free.miners.shortlist(&asking, &mut self.dice)
    }

    /// Asks the next miners for a task that has too few offers and waits for no answer.
    pub(super) async fn ask_more(&mut self, task: TaskId) {
        for node in self.next_to_ask(task) {
            self.feed(task, Input::Free(node), None).await;
        }
    }

    fn next_to_ask(&mut self, task: TaskId) -> Vec<NodeId> {
        let Some(run) = self.runs.get(&task).filter(|run| run.is_short()) else {
            return Vec::new();
        };
        if let Some(node) = run.only {
            let may = self.is_free(&node) && run.wants(node);
            let may = may && !self.free.declined.contains(&(task, node));
            return Vec::from_iter(may.then_some(node));
        }
        let (wanted, unit_price) = (run.wanted(), run.terms.prices.unit_price);
        let skip = |node: &NodeId| {
            let declined = self.free.declined.contains(&(task, *node));
            declined || !run.wants(*node) || self.runs.owed(node) >= OWED
        };
        let asking = Asking {
            wanted: &wanted,
            unit_price,
            skip: &skip,
            around: &self.around,
        };
        self.free.miners.shortlist(&asking, &mut self.dice)
    }

    /// Asks more for the tasks that wait, the oldest first.
    pub(super) async fn ask_more_for_all(&mut self) {
        let waiting: Vec<TaskId> = self.runs.waiting().take(LOOKED_AT).collect();
        for task in waiting {
            let is_for_all = self.runs.get(&task).is_some_and(|run| run.only.is_none());
            if is_for_all && self.free.miners.is_empty() {
                continue;
            }
            self.ask_more(task).await;
        }
    }

    /// Asks a miner that has just come free for the oldest tasks that wait and have room, whatever it said before.
    pub(super) async fn offer_work(&mut self, node: NodeId) {
        let ability = self.free.abilities.get(&node);
        if ability.is_some_and(|ability| ability.bar.is_some()) {
            return;
        }
        let waiting: Vec<TaskId> = match self.runs.only_for(&node) {
            Some(task) => vec![task],
            None if self.is_for_all(&node) => self.runs.waiting().take(LOOKED_AT).collect(),
            None => Vec::new(),
        };
        let mut asked = 0;
        for task in waiting {
            self.free.declined.remove(&(task, node));
            let run = self.runs.get(&task);
            let wanted = run.is_some_and(|run| run.wants(node) && run.has_room());
            if wanted && asked < ASK_ONE && self.is_free(&node) {
                self.feed(task, Input::Free(node), None).await;
                asked += 1;
            }
        }
    }
}

/// Lots that nobody can know beforehand.
///
/// # Errors
/// Where the system has no randomness.
pub(crate) fn dice() -> Result<Dice, getrandom::Error> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed)?;
    Ok(Dice::new(u64::from_be_bytes(seed)))
}
