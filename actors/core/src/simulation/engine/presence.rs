//! Miners come and go.

use cryptomind_protocol::node::Report;

use super::{Engine, Event};
use crate::run::Input;
use crate::simulation::measured::node;

/// From a member's death to its neighbour's word.
const SILENCE_MS: f64 = 1_500.0;

impl Engine {
    /// Half of the miners stay three times as long as the others, with the scenario's mean over all.
    pub(super) fn leave_later(&mut self, miner: usize) {
        if let Some(stay_ms) = self.scenario.miners.stay_ms {
            let steadiness = if miner.is_multiple_of(2) { 1.5 } else { 0.5 };
            let ms = self.dice.wait(stay_ms as f64 * steadiness);
            self.after(ms, Event::Leave(miner));
        }
    }

    pub(super) fn leave(&mut self, miner: usize) {
        let gone = node(miner);
        self.online[miner] = false;
        self.engaged[miner] = None;
        let away_ms = self.dice.wait(self.scenario.miners.away_ms as f64);
        self.after(away_ms, Event::Return(miner));
        let open = self.open.iter().copied();
        let concerned: Vec<_> = open
            .filter(|at| self.tasks[*at].run.concerns(&gone))
            .collect();
        for at in concerned {
            self.feed(at, Input::Disconnected(gone));
            self.ring_breaks(at, miner);
        }
    }

    /// The rest of a group notices that a member is silent.
    fn ring_breaks(&mut self, at: usize, miner: usize) {
        let members = self.members(at);
        let witness = members.iter().find(|m| self.online[**m]);
        let (Some(witness), true) = (witness, members.contains(&miner)) else {
            return;
        };
        let broken = Report::RingBroken {
            committed: self.tasks[at].done,
            suspect: Some(node(miner)),
            reason: "silence".into(),
        };
        let attempt = self.tasks[at].run.attempt;
        self.report(at, SILENCE_MS, node(*witness), attempt, broken);
    }

    pub(super) fn comes_back(&mut self, miner: usize) {
        let node = node(miner);
        self.online[miner] = true;
        self.leave_later(miner);
        let open: Vec<_> = self.open.iter().copied().collect();
        for at in open {
            let position = None;
            self.feed(at, Input::Joined { node, position });
        }
    }
}
