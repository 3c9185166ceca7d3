//! A member's side of a training run: what it does on an order, on what its thread and its ring say, on the others' word, and
//! when nobody says anything.
//!
//! **Owns**: where one member is in one run, over all attempts. **Talked to by**: whoever carries out its [`Effect`]s and feeds it
//! [`Input`]s and time: the miner's run, and the seeded simulation.
//!
//! | state | waits for | timer | when it comes | when nobody answers |
//! |---|---|---|---|---|
//! | preparing | the data, and a checkpoint where it takes one | the carrier's | standing | the carrier's [`Input::Failed`] |
//! | standing | the thread, at the attempt's first step | – | joining | – |
//! | joining | a closed ring | [`Effect::Join`]'s | training | the ring breaks |
//! | following, a newcomer | the end of the attempt that it follows | the carrier's, which turns from one member to another: [`FOLLOW_LIMIT_MS`] | resting | the carrier's [`Input::Failed`] |
//! | training | the end of all steps | the ring's links | storing, or farewell | the ring breaks: resting |
//! | training, called to pause where a step ends | that all members have heard it | the ring's links | resting | the ring breaks: resting |
//! | leaving | the thread, on its way out of a ring | the carrier's | saving, or resting | the carrier's [`Input::Failed`] |
//! | saving | checkpoints under way; of who goes, one more | the carrier's | resting | the carrier's [`Input::Saved`] |
//! | resting | a place in the next attempt: the coordinator's word, or the members' where it is away | [`COORDINATOR_LIMIT_MS`] | standing | failed |
//! | resting, connected | the coordinator's order | [`ORDER_LIMIT_MS`] | obeyed | the coordinator counts as away: [`crate::succession`] |
//! | storing | the stored result; the first rank only | the carrier's | farewell | the carrier's [`Input::Failed`] |
//! | farewell | the coordinator's last word, or that the group forms again | [`FAREWELL_LIMIT_MS`] | over | over |
//!
//! **Invariants**: an order of the coordinator for a later attempt is obeyed wherever it finds the run; a formed attempt is told to it
//! before any other news of that attempt. Between its promise and the next attempt the state does not change. A member has one
//! thread, and gives it one thing to do at a time.
//!
//! **Is not**: the computing, the ring or the transfers; nor inference and sessions, which have no attempts to agree on.

use cryptomind_protocol::node::{Match, Report};
use cryptomind_protocol::ring::EVICT_MS;
use cryptomind_protocol::task::ResultFile;
use cryptomind_protocol::{NodeId, TaskId, Timestamp};

use crate::batch::Shares;
use crate::run::{AWAY_LIMIT_MS, CONFIRM_LIMIT_MS, PAUSE_LIMIT_MS, STALL_LIMIT_MS, STORE_LIMIT_MS};
use crate::succession::{
    self, Coordinator, Decision, Message, Paused, Standing, Succession, Voter,
};

mod attempt;
mod rest;

/// How long a run that cannot go on by itself waits for the coordinator.
pub const COORDINATOR_LIMIT_MS: u64 = 600_000;
/// How long a member that is done keeps its state, in case the group must form again: longer than the first rank has for the last
/// checkpoint and for the result after it, and than it takes to notice that it is gone.
pub const FAREWELL_LIMIT_MS: u64 =
    STORE_LIMIT_MS + CONFIRM_LIMIT_MS + STALL_LIMIT_MS + 2 * AWAY_LIMIT_MS;
/// How long a newcomer looks for a member that lets it follow.
pub const FOLLOW_LIMIT_MS: u64 = 60_000;
/// How long a coordinator to which there is a connection may leave a broken ring unanswered before it counts as away: a
/// connection to a dead one lasts for seconds. Where it was slow, it adopts what the members formed meanwhile.
pub const ORDER_LIMIT_MS: u64 = 250;
/// What a group gets to fetch its data and join.
pub const JOIN_LIMIT_MS: u64 = 600_000;
/// What members get to join that have the state already, and have just spoken: as long as a neighbour may be silent.
pub const REJOIN_LIMIT_MS: u64 = EVICT_MS;

/// A place in an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The attempt.
    pub attempt: u32,
    /// The members by rank.
    pub members: Vec<NodeId>,
    /// Their ring sockets by rank.
    pub ring_addresses: Vec<String>,
    /// How they divide their batches.
    pub shares: Shares,
    /// This member's rank; of a newcomer that follows them, their number.
    pub rank: u32,
    /// Steps that are done.
    pub start_step: u64,
    /// The checkpoint of `start_step`, for members that have not that state.
    pub resume: Option<ResultFile>,
}

impl Place {
    /// Whether this is a newcomer's, that is no member yet.
    pub const fn follows(&self) -> bool {
        self.rank as usize >= self.members.len()
    }
}

impl From<&Match> for Place {
    fn from(matched: &Match) -> Self {
        Self {
            attempt: matched.attempt,
            members: matched.members.iter().map(|m| m.node).collect(),
            ring_addresses: matched.ring_addresses.clone(),
            // A match about another number of members is refused where it arrives.
            shares: Shares::told(&matched.weights, matched.members.len())
                .unwrap_or_else(|| Shares::new(matched.weights.clone())),
            rank: matched.rank,
            start_step: matched.start_step,
            resume: matched.resume.clone(),
        }
    }
}

/// How a member comes to the state after `start_step` steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Footing {
    /// It has it. A prepared step is discarded.
    Stay,
    /// It is prepared and was confirmed by others.
    Commit,
    /// It begins.
    Begin,
    /// It reads this checkpoint.
    Restore(ResultFile),
}

impl Footing {
    /// How a member that stands here comes to `start_step`; nothing where it cannot.
    pub fn of(here: Paused, start_step: u64, resume: Option<&ResultFile>) -> Option<Self> {
        match resume {
            _ if here.committed == start_step => Some(Self::Stay),
            _ if here.reaches(start_step) => Some(Self::Commit),
            Some(file) => Some(Self::Restore(file.clone())),
            None => (start_step == 0).then_some(Self::Begin),
        }
    }
}

/// What is wanted of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// From the coordinator: a place in an attempt.
    Match(Place),
    /// From the coordinator: leave the attempt before this one.
    Pause {
        /// The attempt to come.
        attempt: u32,
        /// Whether where a step ends, all members where the same one does.
        at_step_end: bool,
    },
    /// From the coordinator: it is over.
    Stop {
        /// Why.
        reason: String,
    },
    /// From the owner: say that this member wants to go.
    Leave {
        /// Why.
        reason: String,
    },
}

/// What happens to a member.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// An order.
    Order(Order),
    /// The connection to the coordinator is there, or gone.
    Connected(bool),
    /// What was to be prepared or fetched is here, and the thread runs.
    Loaded {
        /// Bytes that had to be fetched.
        fetched_bytes: u64,
    },
    /// The thread took up its footing, and stands here.
    Standing(Paused),
    /// A ring socket for the next attempt is bound.
    Bound {
        /// Where others reach it.
        ring_address: String,
    },
    /// The ring is closed.
    Joined,
    /// The ring broke, or did not close. The thread has come to rest.
    Broken {
        /// Whom it suspects.
        suspect: Option<NodeId>,
        /// What that one did, to be read after its name; what happened, where nobody is suspected.
        reason: String,
        /// Where it stands.
        at: Paused,
    },
    /// The thread has left its ring, as it was told.
    Rested(Paused),
    /// News from the middle of an attempt.
    News(Report),
    /// All steps are done.
    Done(Paused),
    /// The checkpoint of a member that leaves alone is stored, or was given up.
    Saved,
    /// The result is stored; what to say of it.
    Stored(Report),
    /// This member cannot go on.
    Failed {
        /// Whether nobody else could either.
        task_fault: bool,
        /// What happened.
        reason: String,
    },
    /// Another member says something of how an attempt is left.
    Heard {
        /// Who.
        from: NodeId,
        /// Which attempt.
        attempt: u32,
        /// What.
        message: Message,
    },
    /// Time has passed.
    Tick,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// This member's part is done.
    Finished,
    /// The coordinator said so.
    Stopped(String),
    /// It could not go on; the report is on its way.
    Failed {
        /// Whether nobody else could either.
        task_fault: bool,
        /// What happened.
        reason: String,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Report to the coordinator, now or when it is back, in this order.
    Report {
        /// In which attempt.
        attempt: u32,
        /// What.
        report: Report,
    },
    /// Report an attempt that the members formed, in the same order.
    Succeeded(Decision),
    /// Tell another member.
    Send {
        /// Whom.
        to: NodeId,
        /// Which attempt is left.
        attempt: u32,
        /// What.
        message: Message,
    },
    /// Stop the owner's program, fetch and load the data.
    Prepare,
    /// Fetch this checkpoint.
    Fetch(ResultFile),
    /// Have the thread take up a state. A checkpoint is here.
    Stand(Footing),
    /// Have a ring socket that others reach in the attempt to come.
    Bind,
    /// Close the ring of [`Member::place`] with the socket that was bound for it.
    Join {
        /// How long it may take.
        limit_ms: u64,
    },
    /// Have the thread train on the ring.
    Train,
    /// Take the state from a member of [`Member::place`], and follow it until its ring is left: then the carrier says
    /// [`Input::Rested`]. Where it follows already, it turns to that place.
    Follow,
    /// Have the thread leave its ring where a step ends, once all members are told to. It answers as to [`Effect::Leave`].
    LeaveAtStepEnd,
    /// Have the thread leave its ring, or whom it follows. It answers [`Input::Rested`], [`Input::Broken`] or [`Input::Done`], whatever came first.
    Leave,
    /// Drop the preparation, the joining or the storing that is under way: no answer to it counts.
    Abandon,
    /// Give the checkpoints that are under way a moment, beside everything else.
    Settle,
    /// Give them a shorter moment, and say [`Input::Saved`]: while the attempt is not over for the coordinator, they earn.
    Finish,
    /// Have the thread make a checkpoint of where it stands, and store it with those that are under way.
    Save,
    /// Store the result.
    Store,
    /// The run is over for this member.
    End(Ending),
}

/// What a member does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It gets its data.
    Preparing,
    /// Its thread takes up a state.
    Standing {
        /// Whether it rests after that.
        rests: bool,
    },
    /// Its ring closes.
    Joining,
    /// It takes the members' state, and keeps up with them.
    Following,
    /// Its thread trains.
    Training,
    /// Its thread leaves the ring.
    Leaving,
    /// Its checkpoints are stored before it rests: where it goes, the last one.
    Saving,
    /// It holds its state.
    Resting {
        /// Since then.
        since: Timestamp,
    },
    /// It stores the result.
    Storing,
    /// Its part is done.
    Farewell {
        /// Since then.
        since: Timestamp,
    },
    /// The run is over.
    Over,
}

/// One member.
#[derive(Debug, Clone)]
pub struct Member {
    task: TaskId,
    voter: Voter,
    seed: u64,
    place: Place,
    phase: Phase,
    is_connected: bool,
    /// Until when the coordinator has to answer, where it owes an answer.
    order_by: Option<Timestamp>,
    /// Whether it answers, as far as is known.
    is_heard: bool,
    /// Whether it called the next attempt.
    is_called: bool,
    is_loaded: bool,
    /// The checkpoint that was fetched last.
    has: Option<ResultFile>,
    /// The one that is being fetched.
    fetches: Option<ResultFile>,
    fetched_bytes: u64,
    /// Where it stood when it last came to rest.
    at: Paused,
    /// The attempt whose pause is to be answered.
    pause: Option<u32>,
    /// Whether it was called to leave where a step ends.
    leaves_at_step_end: bool,
    /// Whether a socket for the attempt to come is on its way.
    binds: bool,
    /// Where it listens.
    bound: Option<String>,
    /// A broken ring that the coordinator has not heard of.
    broken: Option<Report>,
    suspect: Option<NodeId>,
    departs: Option<String>,
    succession: Succession,
    /// The last attempt that the members formed, for those that have not heard.
    formed: Option<Decision>,
}

impl Member {
    /// A member that was just matched, by a coordinator to which it has a connection. `seed` spreads its pauses.
    pub fn start(task: TaskId, voter: Voter, place: Place, seed: u64) -> (Self, Vec<Effect>) {
        let succession = successor_of(task, &voter, &place, seed);
        let member = Self {
            task,
            voter,
            seed,
            place,
            phase: Phase::Preparing,
            is_connected: true,
            order_by: None,
            is_heard: true,
            is_called: false,
            is_loaded: false,
            has: None,
            fetches: None,
            fetched_bytes: 0,
            at: Paused::default(),
            pause: None,
            leaves_at_step_end: false,
            binds: false,
            bound: None,
            broken: None,
            suspect: None,
            departs: None,
            succession,
            formed: None,
        };
        (member, vec![Effect::Prepare])
    }

    /// Where it is in which attempt.
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// What it does now.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Takes news. What does not belong to what it does now changes nothing.
    pub fn apply(&mut self, input: Input, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.phase == Phase::Over {
            return effects;
        }
        match input {
            Input::Order(order) => self.ordered(order, now, &mut effects),
            Input::Connected(is_connected) => self.connected(is_connected, now, &mut effects),
            Input::Heard {
                from,
                attempt,
                message,
            } => self.heard((from, attempt), message, now, &mut effects),
            Input::Failed { task_fault, reason } => self.fail(task_fault, reason, &mut effects),
            Input::Tick => self.tick(now, &mut effects),
            of_attempt => self.happened(of_attempt, now, &mut effects),
        }
        self.look_for_coordinator(now, &mut effects);
        effects
    }

    /// When it wants an [`Input::Tick`] next.
    pub fn next_timer(&self) -> Option<Timestamp> {
        let limit = match self.phase {
            Phase::Over => return None,
            Phase::Resting { since } => Some(since.plus_ms(COORDINATOR_LIMIT_MS)),
            Phase::Farewell { since } => Some(since.plus_ms(FAREWELL_LIMIT_MS)),
            _ => None,
        };
        if self.place.follows() {
            return limit;
        }
        let timers = [limit, self.order_by, self.succession.next_timer()];
        timers.into_iter().flatten().min()
    }

    fn ordered(&mut self, order: Order, now: Timestamp, effects: &mut Vec<Effect>) {
        if !matches!(order, Order::Leave { .. }) {
            (self.order_by, self.is_heard) = (None, true);
        }
        match order {
            Order::Stop { reason } => self.end(Ending::Stopped(reason), effects),
            Order::Pause {
                attempt,
                at_step_end,
            } if attempt > self.place.attempt => {
                if at_step_end && self.takes_call(attempt, effects) {
                    return;
                }
                self.pause = Some(attempt);
                self.is_called = true;
                self.order_by = Some(now.plus_ms(PAUSE_LIMIT_MS + ORDER_LIMIT_MS));
                self.halt(now, effects);
                if !matches!(self.phase, Phase::Resting { .. } | Phase::Over) {
                    let report = Report::Coming {};
                    effects.push(Effect::Report { attempt, report });
                }
            }
            Order::Match(place) if place.attempt > self.place.attempt => {
                self.matched(place, effects);
            }
            // A pause before the attempt that it is in, or the place that it has, is old news.
            Order::Pause { .. } | Order::Match(_) => {}
            Order::Leave { reason } => self.leave(reason, effects),
        }
    }

    /// Takes the word to leave where a step ends, where that says something to what it does.
    fn takes_call(&mut self, attempt: u32, effects: &mut Vec<Effect>) -> bool {
        match self.phase {
            Phase::Training => effects.push(Effect::LeaveAtStepEnd),
            // The end of what it follows comes by itself.
            Phase::Following => {}
            // There is no further step.
            Phase::Storing | Phase::Farewell { .. } => return true,
            _ => return false,
        }
        (self.pause, self.leaves_at_step_end) = (Some(attempt), true);
        true
    }

    /// What it could not say is said when the coordinator is back.
    fn connected(&mut self, is_connected: bool, now: Timestamp, effects: &mut Vec<Effect>) {
        (self.is_connected, self.is_heard) = (is_connected, true);
        (self.order_by, self.is_called) = (None, false);
        if !is_connected || !matches!(self.phase, Phase::Resting { .. }) {
            return;
        }
        if let Some(report) = self.broken.take() {
            self.report(report, effects);
        }
        self.order_by = Some(now.plus_ms(ORDER_LIMIT_MS));
    }

    /// A coordinator that leaves a broken ring unanswered is as good as away.
    fn look_for_coordinator(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.place.follows() {
            return;
        }
        let is_silent = self.order_by.is_some_and(|by| now >= by);
        if is_silent {
            (self.order_by, self.is_heard) = (None, false);
        }
        let seen = match self.is_connected && self.is_heard {
            false => Coordinator::Away,
            true if self.is_called => Coordinator::Decides,
            true => Coordinator::Awaited,
        };
        let next = self.succession.see(seen, now);
        self.agree(next, now, effects);
    }

    fn tick(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if let Phase::Farewell { since } = self.phase
            && now.ms_since(since) >= FAREWELL_LIMIT_MS
        {
            return self.end(Ending::Finished, effects);
        }
        if let Phase::Resting { since } = self.phase
            && now.ms_since(since) >= COORDINATOR_LIMIT_MS
        {
            let limit = COORDINATOR_LIMIT_MS / 1000;
            let reason = format!("the ring is broken, and nobody formed a new group for {limit} s");
            return self.fail(false, reason, effects);
        }
        if !self.place.follows() {
            let next = self.succession.tick(now);
            self.agree(next, now, effects);
        }
    }

    fn report(&self, report: Report, effects: &mut Vec<Effect>) {
        let attempt = self.place.attempt;
        effects.push(Effect::Report { attempt, report });
    }

    fn fail(&mut self, task_fault: bool, reason: String, effects: &mut Vec<Effect>) {
        let report = Report::Failed {
            task_fault,
            reason: reason.clone(),
        };
        self.report(report, effects);
        self.end(Ending::Failed { task_fault, reason }, effects);
    }

    fn end(&mut self, ending: Ending, effects: &mut Vec<Effect>) {
        self.phase = Phase::Over;
        effects.push(Effect::End(ending));
    }
}

fn successor_of(task: TaskId, voter: &Voter, place: &Place, seed: u64) -> Succession {
    let seed = seed ^ (u64::from(place.attempt) << 32) ^ u64::from(place.rank);
    let (members, rank) = (place.members.clone(), place.rank as usize);
    Succession::new(voter.clone(), (task, place.attempt), members, rank, seed)
}

#[cfg(test)]
mod tests;
