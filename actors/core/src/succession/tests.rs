//! Members on a network that loses, delays and repeats; whatever happens, one successor at most.

use super::*;

const TASK: TaskId = TaskId::new([1; 16]);

fn voter(n: usize) -> Voter {
    Voter {
        key: SecretKey::from_seed([n as u8 + 1; 32]),
        network: GenesisHash::new([7; 32]),
    }
}

fn node(n: usize) -> NodeId {
    voter(n).node()
}

fn at(committed: u64, prepared: bool) -> Paused {
    Paused {
        committed,
        prepared,
    }
}

/// Members, and the messages between them.
struct Group {
    now: Timestamp,
    dice: Dice,
    loss: u64,
    delay_ms: u64,
    suspect: Option<usize>,
    members: Vec<Option<Succession>>,
    standings: Vec<Paused>,
    mail: Vec<(Timestamp, usize, usize, Message)>,
    decided: Vec<Option<(Timestamp, Decision)>>,
}

impl Group {
    fn new(standings: &[Paused], seed: u64) -> Self {
        let world = standings.len();
        let nodes: Vec<_> = (0..world).map(node).collect();
        let member = |rank| {
            let seed = seed + rank as u64;
            let mut member = Succession::new(voter(rank), (TASK, 3), nodes.clone(), rank, seed);
            member.see(Coordinator::Away, Timestamp::from_ms(0));
            Some(member)
        };
        Self {
            now: Timestamp::from_ms(0),
            dice: Dice::new(seed),
            loss: 0,
            delay_ms: 10,
            suspect: None,
            members: (0..world).map(member).collect(),
            standings: standings.to_vec(),
            mail: Vec::new(),
            decided: vec![None; world],
        }
    }

    fn rest(&mut self, rank: usize) {
        let standing = Standing {
            at: self.standings[rank],
            ring_address: format!("h:{rank}"),
            suspect: self.suspect.map(node),
        };
        let member = self.members[rank].as_mut().unwrap();
        let effects = member.rest(standing, self.now);
        self.carry_out(rank, effects);
    }

    fn rest_all(&mut self, ranks: &[usize]) {
        ranks.iter().for_each(|rank| self.rest(*rank));
    }

    fn carry_out(&mut self, from: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, message } => {
                    let to = (0..self.members.len()).find(|n| node(*n) == to).unwrap();
                    for _ in 0..1 + u64::from(self.dice.below(10) == 0) {
                        if self.dice.below(100) >= self.loss {
                            let delay = self.dice.below(self.delay_ms) + 1;
                            let at = self.now.plus_ms(delay);
                            self.mail.push((at, from, to, message.clone()));
                        }
                    }
                }
                Effect::Rest => self.rest(from),
                Effect::Decided(decision) => {
                    assert!(self.decided[from].is_none(), "told once");
                    let nodes: Vec<_> = (0..self.members.len()).map(node).collect();
                    assert!(is_proven(&decision, TASK, &nodes));
                    self.decided[from] = Some((self.now, decision));
                }
            }
        }
    }

    fn see(&mut self, rank: usize, coordinator: Coordinator) {
        let now = self.now;
        let effects = self.members[rank].as_mut().unwrap().see(coordinator, now);
        self.carry_out(rank, effects);
    }

    fn live(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now = self.now.plus_ms(1);
            let now = self.now;
            let (due, rest) = std::mem::take(&mut self.mail)
                .into_iter()
                .partition(|(at, ..)| *at <= now);
            self.mail = rest;
            let due: Vec<_> = due;
            for (_, from, to, message) in due {
                if let Some(member) = &mut self.members[to] {
                    let effects = member.hear(node(from), message, now);
                    self.carry_out(to, effects);
                }
            }
            for rank in 0..self.members.len() {
                let due = |m: &&mut Succession| m.next_timer().is_some_and(|at| now >= at);
                if let Some(member) = self.members[rank].as_mut().filter(due) {
                    let effects = member.tick(now);
                    self.carry_out(rank, effects);
                }
            }
        }
    }

    fn decisions(&self) -> Vec<&Decision> {
        let decided = self.decided.iter().flatten();
        decided.map(|(_, decision)| decision).collect()
    }
}

#[test]
fn a_majority_goes_on_from_the_furthest_step_within_half_a_second() {
    for seed in 0..50 {
        let mut group = Group::new(&[at(7, true), at(8, false), at(0, false)], seed);
        group.members[2] = None;
        group.suspect = Some(2);
        group.rest_all(&[0, 1]);
        group.live(500);
        let decisions = group.decisions();
        assert_eq!(decisions.len(), 2, "seed {seed}");
        assert_eq!(decisions[0].successor, decisions[1].successor);
        let successor = &decisions[0].successor;
        assert_eq!(successor.members, [node(0), node(1)]);
        assert_eq!(successor.ring_addresses, ["h:0", "h:1"]);
        assert_eq!((decisions[0].attempt, successor.start_step), (4, 8));
    }
}

#[test]
fn exactly_half_and_a_minority_never_go_on() {
    for (world, there) in [(2, 1), (4, 2), (3, 1), (4, 1)] {
        let mut group = Group::new(&vec![at(5, false); world], 9);
        (there..world).for_each(|rank| group.members[rank] = None);
        (0..there).for_each(|rank| group.rest(rank));
        group.live(20_000);
        assert!(group.decisions().is_empty(), "{there} of {world}");
        let timers = group.members.iter().flatten().map(Succession::next_timer);
        assert!(timers.clone().all(|at| at.is_some()));
    }
}

#[test]
fn who_still_trains_is_called_to_rest_and_waited_for() {
    let mut group = Group::new(&[at(5, true); 4], 3);
    group.rest(2);
    group.live(500);
    assert_eq!(group.decisions().len(), 4);
    assert_eq!(group.decisions()[0].successor.members.len(), 4);
}

#[test]
fn who_hears_the_coordinator_keeps_all_others_waiting_for_it() {
    for seen in [Coordinator::Decides, Coordinator::Awaited] {
        let mut group = Group::new(&[at(5, true); 3], 4);
        group.see(1, seen);
        group.rest_all(&[0, 1, 2]);
        group.live(4_000);
        assert!(group.decisions().is_empty());
        group.see(1, Coordinator::Away);
        group.live(4_000);
        assert_eq!(group.decisions().len(), 3);
    }
}

#[test]
fn whose_connection_is_about_to_be_given_up_is_waited_for() {
    let mut group = Group::new(&[at(5, true); 3], 4);
    group.see(2, Coordinator::Awaited);
    group.rest_all(&[0, 1, 2]);
    group.live(300);
    group.see(2, Coordinator::Away);
    group.live(200);
    let members = group.decisions()[0].successor.members.len();
    assert_eq!((group.decisions().len(), members), (3, 3));
}

#[test]
fn who_lacks_the_state_is_left_behind_where_a_majority_has_it() {
    let mut group = Group::new(&[at(8, false), at(0, false), at(7, true)], 5);
    group.rest_all(&[0, 1, 2]);
    group.live(600);
    let successor = &group.decisions()[0].successor;
    assert_eq!(successor.members, [node(0), node(2)]);
    let mut group = Group::new(&[at(8, false), at(0, false)], 5);
    group.rest_all(&[0, 1]);
    group.live(5_000);
    assert!(group.decisions().is_empty(), "they need a checkpoint");
}

#[test]
fn a_proof_is_of_one_task_one_attempt_and_distinct_members() {
    let mut group = Group::new(&[at(5, true); 3], 6);
    group.rest_all(&[0, 1, 2]);
    group.live(500);
    let good = group.decisions()[0].clone();
    let nodes: Vec<_> = (0..3).map(node).collect();
    let holds = |d: &Decision| is_proven(d, TASK, &nodes);
    assert!(holds(&good) && !is_proven(&good, TaskId::new([2; 16]), &nodes));
    let with = |change: fn(&mut Decision)| {
        let mut decision = good.clone();
        change(&mut decision);
        decision
    };
    let bad = [
        with(|d| d.attempt += 1),
        with(|d| d.votes.clear()),
        with(|d| d.votes = vec![d.votes[0].clone(); 3]),
        with(|d| d.votes = vec![d.votes[0].clone(); 7]),
        with(|d| resign(d, 8, |_| ())),
        with(|d| resign(d, 0, |v| v.ballot.round += 1)),
        with(|d| resign(d, 0, |v| v.attempt += 1)),
        with(|d| resign(d, 0, |v| v.version += 1)),
        with(|d| d.votes[0].payload[3] ^= 1),
        with(|d| d.votes[0].signer = d.votes[1].signer),
        with(|d| d.successor.start_step += 1),
        with(|d| d.successor.members.reverse()),
    ];
    for (n, decision) in bad.iter().enumerate() {
        assert!(!holds(decision), "{n}");
    }
    let elsewhere = GenesisHash::new([8; 32]);
    assert!(Proof::of(&good, &elsewhere).is_none());
}

fn is_proven(decision: &Decision, task: TaskId, members: &[NodeId]) -> bool {
    let proof = Proof::of(decision, &voter(0).network);
    proof.is_some_and(|proof| proof.follows(task, members))
}

/// Has all votes signed by somebody, the first with a change.
fn resign(decision: &mut Decision, by: usize, change: fn(&mut Vote)) {
    let Voter { key, network } = voter(by);
    for (n, signed) in decision.votes.iter_mut().enumerate() {
        let mut vote: Vote = signed.verify(&network).unwrap();
        if n == 0 {
            change(&mut vote);
            *signed = Signed::sign(&vote, &network, &key);
        } else if by > 2 {
            *signed = Signed::sign(&vote, &network, &key);
        }
    }
}

/// Loss, delay, repetition, members that die: never two successors; and where a majority lives on a network that is quiet
/// again, one.
#[test]
fn never_two_successors_and_one_in_the_end() {
    for seed in 0..400 {
        let mut dice = Dice::new(seed).branch(1);
        let world = 3 + dice.below(3) as usize;
        let standing = |d: &mut Dice| at(6 + d.below(2), true);
        let standings: Vec<_> = (0..world).map(|_| standing(&mut dice)).collect();
        let mut group = Group::new(&standings, seed);
        (group.loss, group.delay_ms) = (dice.below(60), 1 + dice.below(300));
        let dead = dice.below(world as u64 / 2 + 1) as usize;
        for rank in 0..world {
            let wait = dice.below(100);
            group.live(wait);
            group.rest(rank);
        }
        for rank in dice.some(dead, world) {
            let wait = dice.below(400);
            group.live(wait);
            group.members[rank] = None;
        }
        group.live(3_000);
        (group.loss, group.delay_ms) = (0, 20);
        group.live(8_000);
        let decisions = group.decisions();
        let same = |d: &&Decision| d.successor == decisions[0].successor;
        assert!(decisions.iter().all(same), "seed {seed}");
        let alive = group.members.iter().flatten();
        assert!(
            (world - dead) * 2 <= world || alive.clone().all(|m| m.decision().is_some()),
            "seed {seed}: nobody decided"
        );
    }
}

#[test]
fn a_ballot_of_another_or_beyond_all_rounds_binds_nobody() {
    for (round, rank) in [(u32::MAX, 2), (MAX_ROUND + 1, 2), (9, 0), (9, 1), (9, 7)] {
        let mut group = Group::new(&[at(5, true); 3], 7);
        let ballot = Ballot { round, rank };
        for member in [0, 1] {
            let of = group.members[member].as_mut().unwrap();
            let effects = of.hear(node(2), Message::Prepare { ballot }, group.now);
            assert!(effects.is_empty(), "{ballot:?}: {effects:?}");
        }
        group.rest_all(&[0, 1, 2]);
        let of = group.members[0].as_mut().unwrap();
        let own = Ballot { round: 1, rank: 0 };
        let refused = Message::Refused {
            ballot: own,
            promised: ballot,
        };
        of.hear(node(2), refused, group.now);
        group.live(3_000);
        assert_eq!(group.decisions().len(), 3, "{ballot:?}");
    }
}

#[test]
fn nobody_votes_for_what_it_could_not_follow() {
    let good = || Successor {
        members: (0..3).map(node).collect(),
        ring_addresses: (0..3).map(|n| format!("h:{n}")).collect(),
        start_step: 6,
    };
    let changed = |change: fn(&mut Successor)| {
        let mut successor = good();
        change(&mut successor);
        successor
    };
    let votes = |successor: Successor| {
        let mut group = Group::new(&[at(5, true); 3], 8);
        group.rest(0);
        let ballot = Ballot { round: 9, rank: 2 };
        let of = group.members[0].as_mut().unwrap();
        let effects = of.hear(node(2), Message::Propose { ballot, successor }, group.now);
        let is_vote = |e: &Effect| {
            matches!(
                e,
                Effect::Send {
                    message: Message::Accepted(_),
                    ..
                }
            )
        };
        effects.iter().any(is_vote)
    };
    assert!(votes(good()));
    let bad: [fn(&mut Successor); 8] = [
        |s| s.start_step = 0,
        |s| s.start_step = 7,
        |s| s.start_step = u64::MAX,
        |s| s.ring_addresses[0] = "elsewhere:1".into(),
        |s| s.ring_addresses[1] = "nowhere".into(),
        |s| s.ring_addresses[2] = "h".repeat(300) + ":1",
        |s| drop(s.ring_addresses.pop()),
        |s| s.members.swap(0, 1),
    ];
    for (n, change) in bad.into_iter().enumerate() {
        assert!(!votes(changed(change)), "{n}");
    }
}

/// One that says that it is further than all others is left behind, and holds up nobody.
#[test]
fn one_that_boasts_is_left_behind() {
    for boast in [9, u64::MAX] {
        let mut group = Group::new(&[at(5, true), at(5, false), at(boast, true)], 6);
        group.rest_all(&[0, 1, 2]);
        group.live(3_000);
        let successor = &group.decisions()[0].successor;
        assert_eq!((successor.start_step, successor.members.len()), (5, 2));
    }
}

/// One that promises and says that it voted for what nobody can have voted for holds up nobody.
#[test]
fn who_says_that_it_voted_for_nonsense_is_not_believed() {
    let nonsense = |members: &[usize]| Successor {
        members: members.iter().map(|n| node(*n)).collect(),
        ring_addresses: members.iter().map(|n| format!("h:{n}")).collect(),
        start_step: 5,
    };
    let huge = Ballot { round: 9, rank: 2 };
    for (of, said) in [
        (Ballot::default(), nonsense(&[0, 7])),
        (Ballot::default(), nonsense(&[2])),
        (huge, nonsense(&[1, 2])),
    ] {
        let mut group = Group::new(&[at(5, true); 3], 6);
        group.members[2] = None;
        group.rest_all(&[0, 1]);
        // The liar's promise is there before any other.
        let (caller, ballot) = loop {
            group.live(1);
            let called = group
                .mail
                .iter()
                .find_map(|(_, from, _, message)| match message {
                    Message::Prepare { ballot } => Some((*from, *ballot)),
                    _ => None,
                });
            if let Some(called) = called {
                break called;
            }
        };
        let lie = Message::Promise {
            ballot,
            standing: Standing {
                at: at(5, true),
                ring_address: "h:2".into(),
                suspect: None,
            },
            accepted: Some((of, said)),
        };
        let now = group.now;
        let of_caller = group.members[caller].as_mut().unwrap();
        let effects = of_caller.hear(node(2), lie, now);
        group.carry_out(caller, effects);
        group.live(3_000);
        let decisions = group.decisions();
        assert_eq!(decisions.len(), 2);
        assert_eq!(decisions[0].successor, nonsense(&[0, 1, 2]));
    }
}
