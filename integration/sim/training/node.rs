//! One miner's machine: it carries out what its [`Machine`] decides, with a thread that computes and a ring whose hops are those of
//! the real schedule.

use super::*;

/// Of ring links.
const RING_TICK_MS: u64 = 50;
/// What parts of a task take, milliseconds.
const PREPARE_MS: u64 = 60;
const APPLY_MS: u64 = 3;
const UPLOAD_MS: u64 = 120;
const STORE_MS: u64 = 200;
/// What the end of an attempt gets to arrive at a newcomer that was called.
const END_MS: u64 = 200;

/// What a node says to the coordinator.
#[derive(Debug, Clone)]
pub enum Request {
    Offer { ring_address: String },
    Free,
    Report { attempt: u32, report: Report },
    Succeeded(Decision),
}

/// What the coordinator says to a node.
#[derive(Debug, Clone)]
pub enum Command {
    Announce,
    Withdraw,
    Order(Order),
}

/// What ends on the machine itself.
#[derive(Debug, Clone, Copy)]
pub enum Local {
    Prepared,
    Stood,
    Bound,
    JoinLimit,
    Computed,
    Applied,
    Rested,
    Saved,
    Stored,
    FollowEnds,
}

/// What a member passes on to a newcomer.
#[derive(Debug, Clone)]
pub enum Piece {
    State(Weights, Lineage),
    Sums(Vec<Value>, Shares),
    Committed,
    End,
}

/// A newcomer, as the member sees it.
#[derive(Debug, Clone, Copy)]
pub struct FollowerEnd {
    to: usize,
    session: u64,
    sent: u64,
}

/// A newcomer's way to a member.
#[derive(Debug, Clone, Default)]
pub struct Following {
    session: u64,
    taken: u64,
    early: BTreeMap<u64, Piece>,
    /// When it turned to this member, and when any was heard last.
    since: u64,
    heard: u64,
    is_level: bool,
}

#[derive(Debug, Clone)]
pub enum Packet {
    Link,
    Linked,
    Ping,
    Close,
    Data { sequence: u64, values: Vec<Value> },
}

/// What the thread is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    #[default]
    Idle,
    Joining,
    Computing,
    Hop(usize),
    Applying,
    Barrier(usize),
}

/// One end of a ring.
#[derive(Debug, Clone)]
pub struct RingEnd {
    pub key: u64,
    rank: usize,
    members: Vec<usize>,
    shares: Shares,
    linked: [bool; 2],
    /// When the rank before and the next one were heard.
    heard: [u64; 2],
    sent: u64,
    received: u64,
    inbox: BTreeMap<u64, Vec<Value>>,
    ticks: u64,
    /// All steps are done: nobody minds who closes it.
    lingers: bool,
}

impl RingEnd {
    fn neighbours(&self) -> [usize; 2] {
        let world = self.members.len();
        let back = (self.rank + world - 1) % world;
        [self.members[back], self.members[(self.rank + 1) % world]]
    }
}

#[derive(Default)]
pub struct Node {
    pub is_alive: bool,
    pub life: u32,
    pub stopped_until: u64,
    pub member: Option<Machine>,
    pub offer: Option<String>,
    sockets: u32,
    bound: Option<String>,
    // Its thread.
    weights: Weights,
    pub lineage: Lineage,
    shadow: Option<Weights>,
    buffer: Vec<Value>,
    pub stage: Stage,
    pub epoch: u64,
    footing: Option<Footing>,
    /// How the group divided the batch that the shadow comes from.
    shadow_shares: Shares,
    leaves: bool,
    /// Whether it was called to leave where a step ends, and how many members are known to be.
    calls: bool,
    called: u64,
    waiting: Vec<FollowerEnd>,
    followers: Vec<FollowerEnd>,
    following: Option<Following>,
    turns: usize,
    broken: Option<(Option<NodeId>, String)>,
    pub ring: Option<RingEnd>,
    // Its connection to the coordinator, as each end sees it.
    pub link: Option<u64>,
    pub coordinators_link: Option<u64>,
    pub link_heard: u64,
    pub outbox: VecDeque<(u64, Request)>,
    pub said: u64,
    pub is_asking: bool,
    pub orders: VecDeque<(u64, Command)>,
}

impl Node {
    pub fn alive() -> Self {
        Self {
            is_alive: true,
            ..Self::default()
        }
    }

    pub fn at(&self) -> Paused {
        Paused {
            committed: self.lineage.len() as u64,
            prepared: self.shadow.is_some(),
        }
    }
}

impl World {
    pub fn kill(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        let sockets = this.sockets;
        let links = (
            this.coordinators_link,
            this.link_heard,
            this.life,
            this.said,
        );
        *this = Node {
            sockets,
            coordinators_link: links.0,
            link_heard: links.1,
            life: links.2 + 1,
            said: links.3,
            ..Node::default()
        };
        self.watch.killed(node, self.now);
    }

    /// Says that a node gets to a point; true where the schedule has it die there.
    fn reach(&mut self, node: usize, point: Point) -> bool {
        let dies = self.watch.reach(node, point);
        if dies {
            self.kill(node);
        }
        dies
    }

    /// Gives a node's machine news, and carries out what it decides.
    pub fn apply(&mut self, node: usize, input: MemberInput) {
        let now = self.time();
        let Some(member) = self.nodes[node].member.as_mut() else {
            return;
        };
        let effects = member.apply(input, now);
        self.carry(node, effects);
    }

    fn carry(&mut self, node: usize, effects: Vec<MemberEffect>) {
        let life = self.nodes[node].life;
        for effect in effects {
            if self.nodes[node].life != life {
                return;
            }
            self.carry_one(node, effect);
        }
        let next = self.nodes[node]
            .member
            .as_ref()
            .and_then(Machine::next_timer);
        if let Some(next) = next {
            let ms = next.ms_since(self.time()).max(1);
            self.after(ms, Event::Timer(node));
        }
    }

    pub fn timer(&mut self, node: usize) {
        let now = self.time();
        let next = self.nodes[node]
            .member
            .as_ref()
            .and_then(Machine::next_timer);
        if next.is_some_and(|at| at <= now) {
            self.apply(node, MemberInput::Tick);
        }
    }

    pub fn commanded(&mut self, node: usize, command: Command) {
        if matches!(command, Command::Order(Order::Stop { .. })) {
            // As the worker does it: the coordinator wants no more news of this run.
            self.nodes[node].outbox.clear();
            self.nodes[node].is_asking = false;
        }
        match command {
            Command::Announce => {
                if self.nodes[node].member.is_none() {
                    // Asked again, it says the same again.
                    let open = self.nodes[node].offer.clone();
                    let ring_address = open.unwrap_or_else(|| self.bind(node));
                    self.nodes[node].offer = Some(ring_address.clone());
                    self.say(node, Request::Offer { ring_address });
                }
            }
            Command::Withdraw => self.nodes[node].offer = None,
            Command::Order(order) if self.nodes[node].member.is_some() => {
                self.apply(node, MemberInput::Order(order));
            }
            Command::Order(Order::Match(place)) => self.start(node, place),
            Command::Order(Order::Pause { attempt, .. }) => self.is_not_in_it(node, attempt),
            Command::Order(_) => self.nodes[node].offer = None,
        }
    }

    fn start(&mut self, node: usize, place: Place) {
        let Some(offer) = self.nodes[node].offer.take() else {
            return self.is_not_in_it(node, place.attempt);
        };
        let this = &mut self.nodes[node];
        (this.weights, this.shadow) = (Weights::default(), None);
        this.following = None;
        this.lineage.clear();
        this.bound = Some(offer);
        let seed = self.dice.roll(u64::from(u32::MAX));
        let (member, effects) = Machine::start(self.run.task, VOTERS[node].clone(), place, seed);
        self.nodes[node].member = Some(member);
        self.carry(node, effects);
    }

    fn is_not_in_it(&mut self, node: usize, attempt: u32) {
        let report = Report::Failed {
            task_fault: false,
            reason: "this miner is not in that run".into(),
        };
        self.say(node, Request::Report { attempt, report });
    }

    fn bind(&mut self, node: usize) -> String {
        self.nodes[node].sockets += 1;
        format!("{node}:{}", self.nodes[node].sockets)
    }

    /// Something that ends later; whatever was under way before does not count any more.
    fn begin(&mut self, node: usize, ms: u64, what: Local) {
        self.nodes[node].epoch += 1;
        self.later(node, ms, what);
    }

    fn later(&mut self, node: usize, ms: u64, what: Local) {
        let (life, epoch) = (self.nodes[node].life, self.nodes[node].epoch);
        let local = Event::Local {
            node,
            life,
            epoch,
            what,
        };
        self.after(ms, local);
    }

    fn carry_one(&mut self, node: usize, effect: MemberEffect) {
        match effect {
            MemberEffect::Report { attempt, report } => {
                let is_answer = matches!(report, Report::Paused { .. });
                self.say(node, Request::Report { attempt, report });
                if is_answer {
                    self.reach(node, Point::Paused);
                }
            }
            MemberEffect::Succeeded(decision) => {
                self.watch.formed(node, &decision);
                self.say(node, Request::Succeeded(decision));
                self.reach(node, Point::Decided);
            }
            MemberEffect::Send {
                to,
                attempt,
                message,
            } => {
                let point = match &message {
                    Message::Promise { .. } => Some(Point::Promised),
                    Message::Propose { .. } => Some(Point::Proposed),
                    Message::Accepted(_) => Some(Point::Voted),
                    _ => None,
                };
                self.send(Event::Peer {
                    to: number(to),
                    from: node,
                    attempt,
                    message,
                });
                if let Some(point) = point {
                    self.reach(node, point);
                }
            }
            MemberEffect::Prepare => {
                if !self.reach(node, Point::Preparing) {
                    let ms = PREPARE_MS + self.dice.roll(PREPARE_MS);
                    self.begin(node, ms, Local::Prepared);
                }
            }
            MemberEffect::Fetch(_) => {
                let ms = 20 + self.dice.roll(PREPARE_MS);
                self.begin(node, ms, Local::Prepared);
            }
            MemberEffect::Stand(footing) => {
                self.nodes[node].footing = Some(footing);
                self.begin(node, 2, Local::Stood);
            }
            MemberEffect::Bind => {
                self.close_ring(node);
                if !self.reach(node, Point::Resting) {
                    self.begin(node, 1, Local::Bound);
                }
            }
            MemberEffect::Join { limit_ms } => self.join(node, limit_ms),
            MemberEffect::Train => {
                self.nodes[node].calls = false;
                self.next_step(node);
            }
            MemberEffect::Follow => self.follow(node),
            MemberEffect::LeaveAtStepEnd => self.nodes[node].calls = true,
            MemberEffect::Leave => self.leave(node),
            MemberEffect::Abandon => {
                self.nodes[node].epoch += 1;
                self.nodes[node].stage = Stage::Idle;
                self.close_ring(node);
            }
            MemberEffect::Settle => {}
            MemberEffect::Finish => self.begin(node, 1, Local::Saved),
            MemberEffect::Save => {
                self.checkpoint(node);
                self.begin(node, UPLOAD_MS + 5, Local::Saved);
            }
            MemberEffect::Store => self.begin(node, STORE_MS, Local::Stored),
            MemberEffect::End(ending) => self.end(node, &ending),
        }
    }

    fn end(&mut self, node: usize, ending: &Ending) {
        self.close_ring(node);
        let this = &mut self.nodes[node];
        (this.member, this.stage) = (None, Stage::Idle);
        this.following = None;
        this.epoch += 1;
        self.watch.ended(node, ending, &self.nodes[node].lineage);
        self.say(node, Request::Free);
    }

    pub fn local(&mut self, node: usize, what: Local) {
        match what {
            Local::Prepared => self.apply(node, MemberInput::Loaded { fetched_bytes: 1 }),
            Local::Stood => self.stood(node),
            Local::Bound => {
                let ring_address = self.bind(node);
                self.nodes[node].bound = Some(ring_address.clone());
                self.apply(node, MemberInput::Bound { ring_address });
            }
            Local::JoinLimit => {
                if self.nodes[node].stage == Stage::Joining {
                    let ring = self.nodes[node].ring.as_ref().unwrap();
                    let silent = ring.linked.iter().position(|linked| !linked);
                    let suspect = silent.map(|side| id(ring.neighbours()[side]));
                    self.ring_broke(node, suspect, "the ring did not close");
                }
            }
            Local::Computed => self.computed(node),
            Local::Applied => self.applied(node),
            Local::Rested => {
                let at = self.nodes[node].at();
                self.apply(node, MemberInput::Rested(at));
            }
            Local::FollowEnds => self.follow_ends(node),
            Local::Saved => self.apply(node, MemberInput::Saved),
            Local::Stored => {
                let finished = Report::Finished {
                    files: vec![file()],
                    receipts: Vec::new(),
                    metrics: Metrics::default(),
                };
                self.apply(node, MemberInput::Stored(finished));
            }
        }
    }

    fn stood(&mut self, node: usize) {
        let before = self.nodes[node].lineage.len();
        match self.nodes[node].footing.take().unwrap() {
            Footing::Stay => {}
            Footing::Commit => {
                let shadow = self.nodes[node].shadow.take().unwrap();
                self.nodes[node].weights = shadow;
                let shares = self.nodes[node].shadow_shares.clone();
                self.nodes[node].lineage.push(shares);
            }
            Footing::Begin => {
                self.nodes[node].weights = Weights::default();
                self.nodes[node].lineage.clear();
            }
            Footing::Restore(file) => {
                let (weights, lineage) = self.files[&file.blob].clone();
                (self.nodes[node].weights, self.nodes[node].lineage) = (weights, lineage);
            }
        }
        self.nodes[node].shadow = None;
        let this = &self.nodes[node];
        self.watch
            .stands(node, before, &this.lineage, &this.weights);
        let at = this.at();
        self.apply(node, MemberInput::Standing(at));
    }

    // The ring.

    fn join(&mut self, node: usize, limit_ms: u64) {
        if self.reach(node, Point::Joining) {
            return;
        }
        let place = self.nodes[node].member.as_ref().unwrap().place().clone();
        let rank = place.rank as usize;
        let socket = self.nodes[node].bound.take();
        assert_eq!(
            socket.as_ref(),
            Some(&place.ring_addresses[rank]),
            "it joins where it is reached"
        );
        let members: Vec<_> = place.members.iter().map(|node| number(*node)).collect();
        let world = members.len();
        let key = key(&place);
        self.watch.joins(key, &place);
        self.nodes[node].epoch += 1;
        self.nodes[node].stage = Stage::Joining;
        self.nodes[node].ring = Some(RingEnd {
            key,
            rank,
            members,
            shares: place.shares,
            linked: [world == 1; 2],
            heard: [self.now; 2],
            sent: 0,
            received: 0,
            inbox: BTreeMap::new(),
            ticks: 0,
            lingers: false,
        });
        self.later(node, limit_ms, Local::JoinLimit);
        self.after(0, Event::RingTick { node, key });
    }

    fn ring_of(&mut self, node: usize, key: u64) -> Option<&mut RingEnd> {
        self.nodes[node]
            .ring
            .as_mut()
            .filter(|ring| ring.key == key)
    }

    pub fn ring_tick(&mut self, node: usize, key: u64) {
        let now = self.now;
        let Some(ring) = self.ring_of(node, key) else {
            return;
        };
        ring.ticks += 1;
        let pings = ring.ticks.is_multiple_of(PING_MS / RING_TICK_MS);
        let (linked, heard, lingers) = (ring.linked, ring.heard, ring.lingers);
        let [before, next] = ring.neighbours();
        if linked == [true; 2] && self.nodes[node].stage == Stage::Joining {
            self.joined(node);
        }
        if before == node || lingers {
            return;
        }
        for (side, neighbour) in [before, next].into_iter().enumerate() {
            if linked[side] && now - heard[side] >= EVICT_MS {
                return self.ring_broke(node, Some(id(neighbour)), "silence");
            }
            if linked[side] && pings {
                self.packet(node, neighbour, key, Packet::Ping);
            }
        }
        if !linked[1] {
            self.packet(node, next, key, Packet::Link);
        }
        self.after(RING_TICK_MS, Event::RingTick { node, key });
    }

    fn packet(&mut self, from: usize, to: usize, key: u64, packet: Packet) {
        self.send(Event::Ring {
            to,
            from,
            key,
            packet,
        });
    }

    pub fn ring_packet(&mut self, to: usize, from: usize, key: u64, packet: Packet) {
        let again = matches!(packet, Packet::Data { .. });
        let is_lost =
            self.is_parted(to, from) || (again && self.dice.roll(100) < self.conditions.loss);
        if is_lost {
            if again && self.ring_of(from, key).is_some() {
                let packet = Event::Ring {
                    to,
                    from,
                    key,
                    packet,
                };
                self.after(RESENT_MS, packet);
            }
            return;
        }
        let now = self.now;
        let Some(ring) = self.ring_of(to, key) else {
            return;
        };
        let neighbours = ring.neighbours();
        for (side, neighbour) in neighbours.into_iter().enumerate() {
            if neighbour == from {
                ring.heard[side] = now;
            }
        }
        match packet {
            Packet::Link => {
                ring.linked[0] = true;
                self.packet(to, from, key, Packet::Linked);
            }
            Packet::Linked => ring.linked[1] = true,
            Packet::Ping => {}
            Packet::Close => self.ring_broke(to, None, "a neighbour left"),
            Packet::Data { sequence, values } => {
                ring.inbox.insert(sequence, values);
                self.progress(to);
            }
        }
    }

    fn close_ring(&mut self, node: usize) {
        self.pass(node, &Piece::End);
        self.nodes[node].followers.clear();
        self.nodes[node].waiting.clear();
        if let Some(ring) = self.nodes[node].ring.take() {
            for neighbour in ring.neighbours() {
                if neighbour != node {
                    self.packet(node, neighbour, ring.key, Packet::Close);
                }
            }
        }
    }

    fn ring_broke(&mut self, node: usize, suspect: Option<NodeId>, reason: &str) {
        if self.nodes[node]
            .ring
            .as_ref()
            .is_none_or(|ring| ring.lingers)
        {
            return;
        }
        self.close_ring(node);
        if self.nodes[node].stage == Stage::Computing {
            // The thread sees it when it comes to the ring.
            self.nodes[node].broken = Some((suspect, reason.into()));
        } else {
            self.tell_broken(node, suspect, reason.into());
        }
    }

    fn tell_broken(&mut self, node: usize, suspect: Option<NodeId>, reason: String) {
        self.nodes[node].epoch += 1;
        self.nodes[node].stage = Stage::Idle;
        let at = self.nodes[node].at();
        self.apply(
            node,
            MemberInput::Broken {
                suspect,
                reason,
                at,
            },
        );
    }

    fn joined(&mut self, node: usize) {
        self.nodes[node].stage = Stage::Idle;
        self.nodes[node].epoch += 1;
        self.apply(node, MemberInput::Joined);
    }

    fn leave(&mut self, node: usize) {
        if self.nodes[node].following.is_some() {
            return self.later(node, END_MS, Local::FollowEnds);
        }
        if self.nodes[node].stage == Stage::Computing {
            self.nodes[node].leaves = true;
        } else {
            self.close_ring(node);
            self.nodes[node].stage = Stage::Idle;
            self.begin(node, 1, Local::Rested);
        }
    }

    // The thread.

    fn next_step(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        (this.leaves, this.broken) = (false, None);
        if this.lineage.len() as u64 == STEPS {
            self.checkpoint(node);
            return self.done(node);
        }
        self.nodes[node].stage = Stage::Computing;
        self.welcome(node);
        if !self.reach(node, Point::Computing) {
            let half = self.conditions.compute_ms / 2;
            let ms = half + self.dice.roll(half + 1);
            self.begin(node, ms, Local::Computed);
        }
    }

    fn computed(&mut self, node: usize) {
        if let Some((suspect, reason)) = self.nodes[node].broken.take() {
            return self.tell_broken(node, suspect, reason);
        }
        if std::mem::take(&mut self.nodes[node].leaves) {
            self.close_ring(node);
            self.nodes[node].stage = Stage::Idle;
            return self.local(node, Local::Rested);
        }
        let this = &mut self.nodes[node];
        let ring = this.ring.as_ref().unwrap();
        let (rank, world, step) = (
            ring.rank as u32,
            ring.members.len(),
            this.lineage.len() as u64,
        );
        this.buffer = gradients(&this.weights, step, rank, &ring.shares);
        this.shadow_shares = ring.shares.clone();
        match world {
            1 => self.begin_apply(node),
            _ => self.enter_hop(node, 0),
        }
    }

    fn enter_hop(&mut self, node: usize, number: usize) {
        self.nodes[node].stage = Stage::Hop(number);
        if self.reach(node, Point::Hop(number)) {
            return;
        }
        let this = &self.nodes[node];
        let ring = this.ring.as_ref().unwrap();
        let schedule = ring::Schedule::ring(ring.rank, ring.members.len(), this.buffer.len());
        let sent = schedule.hops[number].send;
        let values = this.buffer[schedule.segments[sent].clone()].to_vec();
        self.send_data(node, values);
        self.progress(node);
    }

    fn send_data(&mut self, node: usize, values: Vec<Value>) {
        let ring = self.nodes[node].ring.as_mut().unwrap();
        let (key, sequence, [_, to]) = (ring.key, ring.sent, ring.neighbours());
        ring.sent += 1;
        let delay = self.delay();
        let packet = Packet::Data { sequence, values };
        let data = Event::Ring {
            to,
            from: node,
            key,
            packet,
        };
        self.after(delay, data);
    }

    /// Takes what has come, where it is what the thread waits for.
    fn progress(&mut self, node: usize) {
        let stage = self.nodes[node].stage;
        if !matches!(stage, Stage::Hop(_) | Stage::Barrier(_)) {
            return;
        }
        let ring = self.nodes[node].ring.as_mut().unwrap();
        let Some(values) = ring.inbox.remove(&ring.received) else {
            return;
        };
        ring.received += 1;
        let world = ring.members.len();
        match stage {
            Stage::Hop(number) => {
                self.take(node, number, values);
                match number + 1 < ring::hops(world) {
                    true => self.enter_hop(node, number + 1),
                    false => self.begin_apply(node),
                }
            }
            Stage::Barrier(number) => {
                self.nodes[node].called += values[0].1;
                match number + 2 < world {
                    true => self.enter_barrier(node, number + 1, values),
                    false => self.commit(node),
                }
            }
            _ => unreachable!("it waits for nothing"),
        }
    }

    fn take(&mut self, node: usize, number: usize, values: Vec<Value>) {
        let this = &mut self.nodes[node];
        let ring = this.ring.as_ref().unwrap();
        let schedule = ring::Schedule::ring(ring.rank, ring.members.len(), this.buffer.len());
        let hop = schedule.hops[number];
        let own = &mut this.buffer[schedule.segments[hop.receive].clone()];
        assert_eq!(own.len(), values.len(), "out of step");
        match hop.kind {
            ring::Kind::Reduce => own.iter_mut().zip(values).for_each(|(a, b)| add(a, b)),
            ring::Kind::Gather => own.copy_from_slice(&values),
            ring::Kind::Collect => unreachable!("nothing is collected in a ring"),
        }
    }

    fn begin_apply(&mut self, node: usize) {
        self.nodes[node].stage = Stage::Applying;
        if !self.reach(node, Point::Applying) {
            self.begin(node, APPLY_MS, Local::Applied);
        }
    }

    fn applied(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        this.shadow = Some(applied(&this.weights, &this.buffer));
        let own = u64::from(this.calls);
        this.called = own;
        let ring = this.ring.as_ref().unwrap();
        let (world, sums) = (
            ring.members.len(),
            (this.buffer.clone(), ring.shares.clone()),
        );
        self.pass(node, &Piece::Sums(sums.0, sums.1));
        match world {
            1 => self.commit(node),
            _ => self.enter_barrier(node, 0, vec![(0.0, own)]),
        }
    }

    /// Passes on who was called: the member's own word first, then what came of those before it.
    fn enter_barrier(&mut self, node: usize, number: usize, word: Vec<Value>) {
        self.nodes[node].stage = Stage::Barrier(number);
        if !self.reach(node, Point::Barrier(number)) {
            self.send_data(node, word);
            self.progress(node);
        }
    }

    fn commit(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        let ring = this.ring.as_ref().unwrap();
        let (key, rank, world) = (ring.key, ring.rank, ring.members.len());
        this.weights = this.shadow.take().unwrap();
        this.lineage.push(ring.shares.clone());
        let step = this.lineage.len() as u64;
        let this = &self.nodes[node];
        let (lineage, weights) = (&this.lineage, &this.weights);
        self.watch
            .committed((node, key), self.now, lineage, weights);
        self.pass(node, &Piece::Committed);
        if self.reach(node, Point::Committed) {
            return;
        }
        if step == 2 && self.watch.coordinator_leaves_after_two {
            self.fail(Fault::CoordinatorDown);
        }
        if rank == 0 && step.is_multiple_of(2) {
            let progress = Report::Progress {
                step,
                loss: 1.0,
                samples_per_s: 1,
                timeline: Vec::new(),
            };
            self.apply(node, MemberInput::News(progress));
        }
        if step.is_multiple_of(CHECKPOINT_STEPS) || step == STEPS {
            self.checkpoint(node);
            if self.reach(node, Point::Uploading) {
                return;
            }
        }
        match step == STEPS {
            true => self.done(node),
            false if self.nodes[node].called == world as u64 => self.leaves_as_called(node),
            false => self.next_step(node),
        }
    }

    fn leaves_as_called(&mut self, node: usize) {
        self.close_ring(node);
        self.nodes[node].stage = Stage::Idle;
        self.begin(node, 1, Local::Rested);
    }

    fn done(&mut self, node: usize) {
        self.pass(node, &Piece::End);
        self.nodes[node].followers.clear();
        self.nodes[node].stage = Stage::Idle;
        if let Some(ring) = &mut self.nodes[node].ring {
            ring.lingers = true;
        }
        let at = self.nodes[node].at();
        self.apply(node, MemberInput::Done(at));
    }

    // Newcomers.

    fn follow(&mut self, node: usize) {
        self.sessions += 1;
        let (session, now) = (self.sessions, self.now);
        let this = &mut self.nodes[node];
        let place = this.member.as_ref().unwrap().place();
        let to = number(place.members[this.turns % place.members.len()]);
        let attempt = place.attempt;
        this.turns += 1;
        let before = this.following.take();
        let (is_level, heard) = before.map_or((false, now), |f| (f.is_level, f.heard));
        this.following = Some(Following {
            session,
            since: now,
            heard,
            is_level,
            ..Following::default()
        });
        let delay = self.delay();
        let follow = Event::Follow {
            to,
            from: node,
            attempt,
            session,
        };
        self.after(delay, follow);
        self.after(EVICT_MS, Event::FollowCheck { node, session });
    }

    /// A stream in which nothing comes for long is broken.
    pub fn check_following(&mut self, node: usize, session: u64) {
        let following = self.nodes[node].following.as_ref();
        let Some(following) = following.filter(|f| f.session == session) else {
            return;
        };
        let silent = self.now - following.heard.max(following.since);
        if self.now - following.heard >= FOLLOW_LIMIT_MS {
            let reason = "no member lets it follow".into();
            return self.apply(
                node,
                MemberInput::Failed {
                    task_fault: false,
                    reason,
                },
            );
        }
        match silent >= EVICT_MS {
            true => self.follow(node),
            false => self.after(EVICT_MS - silent, Event::FollowCheck { node, session }),
        }
    }

    /// Is asked for its state, which it gives where the next step begins.
    pub fn followed(&mut self, node: usize, to: usize, attempt: u32, session: u64) {
        let this = &mut self.nodes[node];
        let is_here = this.member.as_ref().map(|m| m.place().attempt) == Some(attempt);
        if this.is_alive && is_here && this.ring.is_some() {
            let sent = 0;
            this.waiting.push(FollowerEnd { to, session, sent });
        }
    }

    fn welcome(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        let state = Piece::State(this.weights.clone(), this.lineage.clone());
        for mut follower in std::mem::take(&mut this.waiting) {
            self.send_piece(node, &mut follower, state.clone());
            self.nodes[node].followers.push(follower);
        }
    }

    fn pass(&mut self, node: usize, piece: &Piece) {
        let mut followers = std::mem::take(&mut self.nodes[node].followers);
        for follower in &mut followers {
            self.send_piece(node, follower, piece.clone());
        }
        self.nodes[node].followers = followers;
    }

    fn send_piece(&mut self, from: usize, follower: &mut FollowerEnd, piece: Piece) {
        let delay = self.delay();
        let FollowerEnd { to, session, sent } = *follower;
        follower.sent += 1;
        let piece = Event::Piece {
            to,
            from,
            session,
            number: sent,
            piece,
        };
        self.after(delay, piece);
    }

    /// A piece has come: those that are next are taken.
    pub fn passed(&mut self, node: usize, session: u64, number: u64, piece: Piece) {
        let now = self.now;
        let following = self.nodes[node].following.as_mut();
        let Some(following) = following.filter(|f| f.session == session) else {
            return;
        };
        following.heard = now;
        following.early.insert(number, piece);
        while let Some(following) = &mut self.nodes[node].following
            && let Some(piece) = following.early.remove(&following.taken)
        {
            following.taken += 1;
            self.take_piece(node, piece);
        }
    }

    fn take_piece(&mut self, node: usize, piece: Piece) {
        let this = &mut self.nodes[node];
        match piece {
            Piece::State(weights, lineage) => {
                let before = this.lineage.len().min(lineage.len());
                (this.weights, this.lineage, this.shadow) = (weights, lineage, None);
                self.watch
                    .stands(node, before, &this.lineage, &this.weights);
            }
            Piece::Sums(sums, shares) => {
                this.shadow = Some(applied(&this.weights, &sums));
                this.shadow_shares = shares;
            }
            Piece::Committed => {
                this.weights = this.shadow.take().expect("its sums came before");
                this.lineage.push(this.shadow_shares.clone());
                self.watch.stands(node, 0, &this.lineage, &this.weights);
                self.is_level(node);
            }
            Piece::End => self.follow_ends(node),
        }
    }

    fn is_level(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        let step = this.lineage.len() as u64;
        let following = this.following.as_mut();
        if following.is_some_and(|f| !std::mem::replace(&mut f.is_level, true)) {
            self.apply(node, MemberInput::News(Report::Level { step }));
            self.reach(node, Point::Level);
        }
    }

    fn follow_ends(&mut self, node: usize) {
        if self.nodes[node].following.take().is_some() {
            self.begin(node, 1, Local::Rested);
        }
    }

    /// The first rank tells its fingerprint with the stored file, later; the others at once.
    fn checkpoint(&mut self, node: usize) {
        let this = &self.nodes[node];
        let place = this.member.as_ref().unwrap().place();
        let (rank, attempt, life) = (place.rank, place.attempt, this.life);
        let (step, fingerprint) = (this.lineage.len() as u64, fingerprint(&this.weights));
        let state = (this.weights.clone(), this.lineage.clone());
        let report = |stored| Report::Checkpoint {
            step,
            fingerprint,
            computed_ms: 0,
            stored,
        };
        if rank > 0 {
            return self.apply(node, MemberInput::News(report(None)));
        }
        let blob = BlobId::new(*Hash::of(format!("{:?}", state).as_bytes()).as_bytes());
        self.files.insert(blob, state);
        let file = ResultFile {
            name: "checkpoint".into(),
            blob,
            bytes: 10,
        };
        let uploaded = Event::Uploaded {
            node,
            life,
            attempt,
            report: report(Some((file, RECEIPT.clone()))),
        };
        self.after(UPLOAD_MS, uploaded);
    }
}

fn key(place: &Place) -> u64 {
    let text = format!(
        "{} {:?}",
        place.attempt,
        (&place.members, &place.ring_addresses)
    );
    let hash = Hash::of(text.as_bytes());
    u64::from_be_bytes(hash.as_bytes()[..8].try_into().unwrap())
}
