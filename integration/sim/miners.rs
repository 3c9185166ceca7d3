//! What miners, their failures and time do to the market.

use super::*;

impl Market {
    /// A free miner offers, declines, or says nothing.
    pub(super) fn asked(&mut self, at: usize, node: NodeId) {
        // The matchmaker takes no offer of a member of another group.
        let seated = self.is_seated(node);
        let (miner, mood) = (self.miners.get_mut(&node).unwrap(), self.dice.roll(10));
        let number = node.as_bytes()[0];
        if miner.dead || mood == 0 {
            return;
        }
        if miner.engaged.is_some() || seated || mood == 1 {
            let reason = "busy".into();
            return self.inbox.push_back((at, Input::Declined { node, reason }));
        }
        miner.engaged = Some(self.runs[at].task);
        let member = Member {
            node,
            name: format!("m{number}"),
            owner: account(number),
        };
        let rating = &self.ratings[&node];
        let rating = rating::view(rating, rating, self.now);
        let offer = Offer {
            member,
            ring_address: "r".into(),
            engine: Engine::Cpu,
            ability: Ability::new(100, 0).rated(&rating),
        };
        self.inbox.push_back((at, Input::Offered(offer)));
    }

    fn is_seated(&self, node: NodeId) -> bool {
        let mut open = self.runs.iter().filter(|run| !run.state.is_final());
        open.any(|run| {
            let newcomers = run.newcomers.iter().map(|n| n.offer.member.node);
            let mut all = run
                .seats
                .iter()
                .map(|seat| seat.member.node)
                .chain(newcomers);
            all.any(|other| other == node)
        })
    }

    pub(super) fn release(&mut self, node: NodeId, task: TaskId) {
        let miner = self.miners.get_mut(&node).unwrap();
        if miner.engaged == Some(task) {
            (miner.engaged, miner.position) = (None, None);
            let runs = 0..self.runs.len();
            self.inbox.extend(
                runs.filter(|_| !miner.dead)
                    .map(|at| (at, Input::Free(node))),
            );
        }
    }

    pub(super) fn matched(&mut self, at: usize, only: Option<NodeId>) {
        let run = &self.runs[at];
        let (task, attempt, committed) = (run.task, run.attempt, run.start_step);
        for seat in run
            .seats
            .iter()
            .filter(|s| only.is_none_or(|n| n == s.member.node))
        {
            let miner = self.miners.get_mut(&seat.member.node).unwrap();
            miner.position = (!miner.dead).then_some(Position {
                task,
                attempt,
                committed,
            });
        }
    }

    pub(super) fn paused(&mut self, at: usize, node: NodeId, attempt: u32) {
        if self.miners[&node].dead || self.dice.one_in(6) {
            return;
        }
        let (committed, prepared) = (self.runs[at].step + self.dice.roll(2), !self.dice.one_in(4));
        let report = Report::Paused {
            committed,
            prepared,
            ring_address: "s".into(),
        };
        self.inbox
            .push_back((at, self.report(node, attempt, report, None)));
    }

    pub(super) fn report(
        &self,
        node: NodeId,
        attempt: u32,
        report: Report,
        stored_by: Option<AccountId>,
    ) -> Input {
        Input::Reported {
            node,
            attempt,
            report,
            stored_by,
        }
    }

    /// One member of one group does what comes next, or goes wrong.
    pub(super) fn work(&mut self) {
        let at = self.dice.roll(self.runs.len() as u64) as usize;
        if self.dice.one_in(8) {
            self.follow(at);
        }
        let (dice, run) = (&mut self.dice, &self.runs[at]);
        let Some(seat) = run.seats.get(dice.roll(3) as usize) else {
            return;
        };
        let node = seat.member.node;
        if self.miners[&node].dead || run.state.is_final() {
            return;
        }
        let next = (run.verified_step / 10 + 1).min(4) * 10;
        let lie = u8::from(dice.one_in(60));
        let stored = (!dice.one_in(10)).then(|| (file(), self.receipt.clone()));
        let report = match dice.roll(24) {
            0..=5 => Report::Ready { fetched_bytes: 1 },
            6..=8 => Report::Progress {
                step: (run.step + dice.roll(8)).min(STEPS + 1),
                loss: 1.0,
                samples_per_s: 1,
                timeline: Vec::new(),
            },
            9..=20 => Report::Checkpoint {
                step: next,
                fingerprint: Hash::of(&[lie, next as u8]),
                computed_ms: 0,
                stored,
            },
            21 if dice.one_in(3) => {
                let suspect = run.seats.last().map(|seat| seat.member.node);
                Report::RingBroken {
                    committed: run.step,
                    suspect,
                    reason: "silence".into(),
                }
            }
            23 if dice.one_in(6) => Report::Leaving {
                reason: "its owner stops it".into(),
            },
            22 if dice.one_in(4) => Report::Failed {
                task_fault: dice.one_in(3),
                reason: "no room".into(),
            },
            _ => Report::Finished {
                files: vec![file()],
                receipts: Vec::new(),
                metrics: Metrics::default(),
            },
        };
        let attempt = run.attempt - u32::from(run.attempt > 0 && dice.one_in(12));
        let input = self.report(node, attempt, report, Some(STORAGE));
        for _ in 0..1 + self.dice.roll(2) {
            self.feed(at, input.clone());
        }
    }

    /// A newcomer is level, or goes wrong.
    fn follow(&mut self, at: usize) {
        let run = &self.runs[at];
        let Some(node) = run.newcomers.first().map(|n| n.offer.member.node) else {
            return;
        };
        let (attempt, step) = (run.attempt, run.step);
        let report = match self.dice.roll(6) {
            0 => Report::Failed {
                task_fault: false,
                reason: "no room".into(),
            },
            1 => Report::Leaving {
                reason: "its owner stops it".into(),
            },
            _ => Report::Level { step },
        };
        if !self.miners[&node].dead {
            let input = self.report(node, attempt, report, None);
            self.feed(at, input);
        }
    }

    /// A miner's connection breaks or its machine dies; or it comes back, with its state or without.
    pub(super) fn die_or_return(&mut self) {
        let node = NodeId::new([1 + self.dice.roll(MINERS.into()) as u8; 32]);
        let seated = self.is_seated(node);
        let miner = self.miners.get_mut(&node).unwrap();
        miner.dead = !miner.dead;
        if !seated {
            (miner.engaged, miner.position) = (None, None);
        }
        if miner.dead {
            return self.feed_all(&Input::Disconnected(node));
        }
        miner.position = miner.position.filter(|_| self.dice.roll(3) > 0);
        let position = miner.position;
        self.feed_all(&Input::Joined { node, position });
    }

    /// The coordinator restarts, perhaps after days: offers are forgotten, groups are not.
    pub(super) fn restart(&mut self) {
        let away_ms = match self.dice.roll(10) {
            0 => 2 * HOLD_MS,
            1 => DAY_MS,
            _ => self.dice.roll(60_000),
        };
        self.tick_clocks(away_ms);
        self.begin_block();
        self.drain();
        let seats = self
            .runs
            .iter()
            .flat_map(|run| run.seats.iter().map(|seat| (run.task, seat.member.node)));
        let seats: BTreeSet<_> = seats.collect();
        for (node, miner) in &mut self.miners {
            miner.engaged = miner.engaged.filter(|task| seats.contains(&(*task, *node)));
        }
        for at in 0..self.runs.len() {
            let free = self.free();
            let effects = self.runs[at].resume(free, self.now);
            self.carry_out(at, effects);
        }
        self.drain();
        let back: Vec<_> = self
            .miners
            .iter()
            .filter(|(_, m)| !m.dead)
            .map(|(n, m)| (*n, m.position))
            .collect();
        back.into_iter()
            .for_each(|(node, position)| self.feed_all(&Input::Joined { node, position }));
    }

    /// The coordinator's clock is set, up to a day off.
    pub(super) fn set_clock(&mut self) {
        let off = self.dice.roll(2 * DAY_MS + 1);
        self.now = Timestamp::from_ms(self.time.as_ms() - DAY_MS + off);
        self.feed_all(&Input::ClockSet);
    }

    fn tick_clocks(&mut self, ms: u64) {
        (self.time, self.now) = (self.time.plus_ms(ms), self.now.plus_ms(ms));
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.tick_clocks(ms);
        self.feed_all(&Input::Tick);
    }

    pub(super) fn live(&mut self, moments: u64) {
        for _ in 0..moments {
            match self.dice.roll(100) {
                _ if self.runs.is_empty() => self.post(),
                0..=2 => self.post(),
                3..=4 => self.die_or_return(),
                5 if self.dice.one_in(4) => self.restart(),
                6 if self.dice.one_in(8) => {
                    let at = self.dice.roll(self.runs.len() as u64) as usize;
                    self.feed(at, Input::Cancel);
                }
                7 if self.dice.one_in(4) => self.set_clock(),
                8..=20 => {
                    let ms = self.dice.roll(600);
                    self.pass(ms);
                }
                _ => self.work(),
            }
            self.check();
        }
    }

    /// Nobody works any more: timers alone must end every task.
    pub(super) fn fall_silent(&mut self) {
        for _ in 0..5000 {
            let Some(next) = self.runs.iter().filter_map(Run::next_timer).min() else {
                return;
            };
            self.pass(next.ms_since(self.now).max(20));
            self.check();
        }
        panic!(
            "tasks are open for ever: {:?}",
            self.runs
                .iter()
                .filter(|run| !run.state.is_final())
                .map(|run| (run.state, &run.reason, run.next_timer(), self.now))
                .collect::<Vec<_>>()
        );
    }
}
