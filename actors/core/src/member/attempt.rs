//! An attempt of a member's, from its place to its last word.

use super::*;

impl Member {
    /// What the thread, the ring and the transfers say.
    pub(super) fn happened(&mut self, input: Input, now: Timestamp, effects: &mut Vec<Effect>) {
        match (self.phase, input) {
            (Phase::Preparing, Input::Loaded { fetched_bytes }) => {
                self.is_loaded = true;
                self.has = self.fetches.take().or(self.has.take());
                self.fetched_bytes += fetched_bytes;
                self.settle_in(effects);
            }
            (Phase::Following, Input::News(report)) => self.report(report, effects),
            (Phase::Following, Input::Rested(at)) => {
                self.at = at;
                match self.pause {
                    Some(_) => self.come_to_rest(now, effects),
                    // The word that the attempt is over may be on its way, or this one left by itself.
                    None => effects.push(Effect::Follow),
                }
            }
            (Phase::Standing { rests }, Input::Standing(at)) => {
                self.stands(rests, at, now, effects);
            }
            (Phase::Joining, Input::Joined) => {
                let fetched_bytes = std::mem::take(&mut self.fetched_bytes);
                self.report(Report::Ready { fetched_bytes }, effects);
                self.phase = Phase::Training;
                effects.push(Effect::Train);
            }
            (
                Phase::Joining | Phase::Training,
                Input::Broken {
                    suspect,
                    reason,
                    at,
                },
            ) => {
                self.broke(suspect, reason, at, now, effects);
            }
            (Phase::Training | Phase::Leaving, Input::News(report)) => self.report(report, effects),
            (Phase::Training, Input::Done(at)) => self.done(at, now, effects),
            // Where a step ended, as all were called to; or as somebody says that all were.
            (Phase::Training, Input::Rested(at)) if self.pause.is_some() => {
                self.is_called = true;
                self.order_by = Some(now.plus_ms(PAUSE_LIMIT_MS + ORDER_LIMIT_MS));
                self.has_left(at, now, effects);
            }
            (Phase::Training, Input::Rested(at)) => {
                let reason = "the members left as called, and this one was not called";
                self.broke(None, reason.to_owned(), at, now, effects);
            }
            (Phase::Leaving, Input::Rested(at) | Input::Done(at) | Input::Broken { at, .. }) => {
                self.has_left(at, now, effects)
            }
            (Phase::Saving, Input::News(report)) => self.report(report, effects),
            (Phase::Saving, Input::Saved) => self.depart(now, effects),
            (Phase::Storing, Input::News(report)) => self.report(report, effects),
            (Phase::Storing, Input::Stored(report)) => {
                self.report(report, effects);
                self.phase = Phase::Farewell { since: now };
            }
            (Phase::Resting { .. }, Input::Bound { ring_address }) => {
                self.bound(ring_address, now, effects);
            }
            // Of something that was broken off meanwhile.
            _ => {}
        }
    }

    /// Takes a place in a later attempt.
    pub(super) fn enter(&mut self, place: Place, effects: &mut Vec<Effect>) {
        self.succession = successor_of(self.task, &self.voter, &place, self.seed);
        self.place = place;
        (self.pause, self.bound, self.broken) = (None, None, None);
        self.leaves_at_step_end = false;
        self.fetches = None;
        (self.suspect, self.order_by, self.is_called) = (None, None, false);
        if self.is_loaded {
            self.settle_in(effects);
        } else {
            self.phase = Phase::Preparing;
            effects.push(Effect::Prepare);
        }
    }

    /// Follows the members, or takes up the state to be one of them.
    fn settle_in(&mut self, effects: &mut Vec<Effect>) {
        if self.place.follows() {
            self.phase = Phase::Following;
            effects.push(Effect::Follow);
        } else {
            self.stand(effects);
        }
    }

    pub(super) fn matched(&mut self, place: Place, effects: &mut Vec<Effect>) {
        if self.place.follows() && place.follows() {
            return self.follow_on(place, effects);
        }
        let called = place.attempt;
        let is_ready = matches!(self.phase, Phase::Resting { .. }) && self.bound.is_some();
        if is_ready {
            return self.enter(place, effects);
        }
        let here = self.place.attempt;
        let reason = format!("attempt {called} was called while this miner was in attempt {here}");
        self.fail(false, reason, effects);
    }

    /// The members that it follows are in another attempt.
    fn follow_on(&mut self, place: Place, effects: &mut Vec<Effect>) {
        match self.phase {
            // What it fetches, the next attempt needs too.
            Phase::Preparing => self.place = place,
            _ => self.enter(place, effects),
        }
    }

    fn stand(&mut self, effects: &mut Vec<Effect>) {
        let (start, resume) = (self.place.start_step, self.place.resume.as_ref());
        if let Some(footing) = Footing::of(self.at, start, resume) {
            return self.stand_on(footing, effects);
        }
        let here = self.at.committed;
        let reason = format!(
            "the attempt starts after step {start}, this miner is after step {here} and was given no checkpoint"
        );
        self.fail(false, reason, effects);
    }

    fn stand_on(&mut self, footing: Footing, effects: &mut Vec<Effect>) {
        if let Footing::Restore(file) = &footing
            && self.has.as_ref() != Some(file)
        {
            self.phase = Phase::Preparing;
            self.fetches = Some(file.clone());
            return effects.push(Effect::Fetch(file.clone()));
        }
        self.phase = Phase::Standing { rests: false };
        effects.push(Effect::Stand(footing));
    }

    fn stands(&mut self, rests: bool, at: Paused, now: Timestamp, effects: &mut Vec<Effect>) {
        let (start, here) = (self.place.start_step, at.committed);
        self.at = at;
        if here != start {
            let reason = format!("the checkpoint is of step {here}, not of step {start}");
            return self.fail(false, reason, effects);
        }
        if rests {
            return self.come_to_rest(now, effects);
        }
        self.phase = Phase::Joining;
        // Where somebody may have to fetch a checkpoint, or all have to fetch their data, a neighbour's silence says nothing.
        let is_at_hand = self.place.attempt > 1 && self.place.resume.is_none() && here > 0;
        let limit_ms = match is_at_hand {
            true => REJOIN_LIMIT_MS,
            false => JOIN_LIMIT_MS,
        };
        effects.push(Effect::Join { limit_ms });
    }

    fn broke(
        &mut self,
        suspect: Option<NodeId>,
        reason: String,
        at: Paused,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let report = Report::RingBroken {
            committed: at.committed,
            suspect,
            reason,
        };
        if self.is_connected {
            self.report(report, effects);
            self.order_by = Some(now.plus_ms(ORDER_LIMIT_MS));
        } else {
            self.broken = Some(report);
        }
        self.suspect = suspect;
        if self.phase == Phase::Training {
            effects.push(Effect::Settle);
        }
        self.at = at;
        self.come_to_rest(now, effects);
    }

    fn done(&mut self, at: Paused, now: Timestamp, effects: &mut Vec<Effect>) {
        // Nobody joins any more.
        (self.at, self.pause) = (at, None);
        if self.place.rank == 0 {
            self.phase = Phase::Storing;
            effects.push(Effect::Store);
        } else {
            self.phase = Phase::Farewell { since: now };
        }
    }

    fn has_left(&mut self, at: Paused, now: Timestamp, effects: &mut Vec<Effect>) {
        self.at = at;
        if self.departs.is_some() {
            self.phase = Phase::Saving;
            return effects.push(Effect::Save);
        }
        // What is stored after a step's end still counts: the group goes on from there.
        if self.pause.is_some() && !self.leaves_at_step_end {
            self.phase = Phase::Saving;
            return effects.push(Effect::Finish);
        }
        effects.push(Effect::Settle);
        self.come_to_rest(now, effects);
    }

    /// What a member does that is to leave: it says so and goes on, for others depend on it. Who is alone saves what it did before it
    /// says so, and who stores the result ends that first.
    pub(super) fn leave(&mut self, reason: String, effects: &mut Vec<Effect>) {
        let has_stored = matches!(self.phase, Phase::Farewell { .. }) && self.place.rank == 0;
        match self.phase {
            Phase::Storing => {}
            // It has nothing more to do, and says why it goes once.
            _ if has_stored || self.departs.is_some() => {}
            Phase::Training if self.place.members.len() == 1 => {
                self.departs = Some(reason);
                self.phase = Phase::Leaving;
                effects.push(Effect::Leave);
            }
            _ => self.report(Report::Leaving { reason }, effects),
        }
    }

    fn depart(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if let Some(reason) = self.departs.take() {
            self.report(Report::Leaving { reason }, effects);
        }
        self.come_to_rest(now, effects);
    }
}
