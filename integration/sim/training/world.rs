//! Virtual time, the network, and the coordinator's carrier.

use super::*;

/// Of the network and the machines, milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Conditions {
    /// A message takes 1 up to this.
    pub delay_ms: u64,
    /// Of a hundred datagrams.
    pub loss: u64,
    /// Of a hundred datagrams.
    pub repeated: u64,
    /// A step's forward and backward take half of this up to all of it.
    pub compute_ms: u64,
    /// A connection to the coordinator that is silent this long is given up by both ends.
    pub link_ms: u64,
}

/// What happens from outside.
#[derive(Debug, Clone)]
pub enum Fault {
    Kill(usize),
    /// A killed miner's machine comes back, without any state.
    Restart(usize),
    Stop(usize, u64),
    /// No message passes between these; the coordinator's number is that of the nodes.
    Part(Vec<(usize, usize)>),
    Heal,
    CoordinatorDown,
    CoordinatorUp,
}

#[derive(Debug, Clone)]
pub enum Event {
    Peer {
        to: usize,
        from: usize,
        attempt: u32,
        message: Message,
    },
    Ring {
        to: usize,
        from: usize,
        key: u64,
        packet: Packet,
    },
    Local {
        node: usize,
        life: u32,
        epoch: u64,
        what: Local,
    },
    Uploaded {
        node: usize,
        life: u32,
        attempt: u32,
        report: Report,
    },
    RingTick {
        node: usize,
        key: u64,
    },
    Follow {
        to: usize,
        from: usize,
        attempt: u32,
        session: u64,
    },
    FollowCheck {
        node: usize,
        session: u64,
    },
    Piece {
        to: usize,
        from: usize,
        session: u64,
        number: u64,
        piece: Piece,
    },
    Timer(usize),
    Order {
        node: usize,
        connection: u64,
    },
    Request {
        node: usize,
        connection: u64,
        id: u64,
    },
    Ack {
        node: usize,
        connection: u64,
        id: u64,
    },
    LinkCheck(usize),
    CoordinatorTimer,
    Fault(Fault),
}

/// A connection is looked after this often.
const LINK_CHECK_MS: u64 = 250;
/// What is lost of a reliable stream comes again after this.
pub const RESENT_MS: u64 = 40;
/// No schedule takes longer.
const MOST_MS: u64 = 3 * 3_600_000;

pub struct World {
    pub name: String,
    pub dice: Dice,
    pub now: u64,
    pub conditions: Conditions,
    queue: BTreeMap<(u64, u64), Event>,
    events: u64,
    pub nodes: Vec<Node>,
    pub run: Run,
    pub coordinator_is_up: bool,
    parted: Vec<(usize, usize)>,
    /// Streams between newcomers and members.
    pub sessions: u64,
    pub files: BTreeMap<BlobId, (Weights, Lineage)>,
    pub watch: Watch,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this happened in schedule {}", self.name);
        }
    }
}

impl World {
    pub fn new(name: String, seed: u64, world: usize, conditions: Conditions) -> Self {
        let (task, now) = (TaskId::new([7; 16]), at(0));
        let spec = spec(world as u32);
        let terms = terms(&spec);
        let (run, effects) = Run::open(task, account(80), spec, terms, LIMITS, Vec::new(), now);
        let mut this = Self {
            name,
            dice: Dice::new(seed),
            now: 0,
            conditions,
            queue: BTreeMap::new(),
            events: 0,
            nodes: (0..world).map(|_| Node::alive()).collect(),
            run,
            coordinator_is_up: true,
            parted: Vec::new(),
            sessions: 0,
            files: BTreeMap::new(),
            watch: Watch::new(world),
        };
        this.carry_out(effects);
        (0..world).for_each(|node| this.after(0, Event::LinkCheck(node)));
        this
    }

    pub fn time(&self) -> Timestamp {
        at(self.now)
    }

    pub fn after(&mut self, ms: u64, event: Event) {
        self.events += 1;
        self.queue.insert((self.now + ms, self.events), event);
    }

    pub fn delay(&mut self) -> u64 {
        1 + self.dice.roll(self.conditions.delay_ms)
    }

    pub fn is_parted(&self, a: usize, b: usize) -> bool {
        self.parted.contains(&(a, b)) || self.parted.contains(&(b, a))
    }

    /// A datagram.
    pub fn send(&mut self, event: Event) {
        let copies = 1 + u64::from(self.dice.roll(100) < self.conditions.repeated);
        for _ in 0..copies {
            if self.dice.roll(100) >= self.conditions.loss {
                let delay = self.delay();
                self.after(delay, event.clone());
            }
        }
    }

    /// Lives until the run is over and everybody has heard it, or nobody is left.
    pub fn live(&mut self) {
        while let Some(((now, _), event)) = self.queue.pop_first() {
            assert!(now < MOST_MS, "it never ends: {:?}", self.run.reason);
            self.now = now;
            self.happen(event);
            if self.is_over() {
                return;
            }
        }
        panic!("nothing happens any more");
    }

    fn is_over(&self) -> bool {
        let is_done = |node: &Node| !node.is_alive || node.member.is_none();
        self.run.state.is_final() && self.nodes.iter().all(is_done)
    }

    fn happen(&mut self, event: Event) {
        if let Some(until) = self.stopped_until(&event) {
            return self.after(until - self.now, event);
        }
        match event {
            Event::Peer {
                to,
                from,
                attempt,
                message,
            } => {
                if !self.is_parted(to, from) {
                    let from = id(from);
                    self.apply(
                        to,
                        MemberInput::Heard {
                            from,
                            attempt,
                            message,
                        },
                    );
                }
            }
            Event::Ring {
                to,
                from,
                key,
                packet,
            } => self.ring_packet(to, from, key, packet),
            Event::Local {
                node,
                life,
                epoch,
                what,
            } => {
                let is_present = self.nodes[node].life == life && self.nodes[node].epoch == epoch;
                if self.nodes[node].is_alive && is_present {
                    self.local(node, what);
                }
            }
            Event::Uploaded {
                node,
                life,
                attempt,
                report,
            } => {
                if self.nodes[node].is_alive && self.nodes[node].life == life {
                    self.say(node, Request::Report { attempt, report });
                }
            }
            Event::RingTick { node, key } => self.ring_tick(node, key),
            Event::FollowCheck { node, session } => self.check_following(node, session),
            // Of a reliable stream.
            Event::Follow { to, from, .. } | Event::Piece { to, from, .. }
                if self.is_parted(to, from) =>
            {
                self.after(RESENT_MS, event);
            }
            Event::Follow {
                to,
                from,
                attempt,
                session,
            } => self.followed(to, from, attempt, session),
            Event::Piece {
                to,
                session,
                number,
                piece,
                ..
            } => self.passed(to, session, number, piece),
            Event::Timer(node) => self.timer(node),
            Event::Order { node, connection } => self.order(node, connection),
            Event::Request {
                node,
                connection,
                id,
            } => self.request(node, connection, id),
            Event::Ack {
                node,
                connection,
                id,
            } => self.acknowledged(node, connection, id),
            Event::LinkCheck(node) => self.check_link(node),
            Event::CoordinatorTimer => self.coordinator_timer(),
            Event::Fault(fault) => self.fail(fault),
        }
    }

    /// A stopped process handles nothing; what came waits in its sockets.
    fn stopped_until(&self, event: &Event) -> Option<u64> {
        let node = match event {
            Event::Peer { to, .. }
            | Event::Ring { to, .. }
            | Event::Follow { to, .. }
            | Event::Piece { to, .. } => *to,
            Event::Local { node, .. }
            | Event::Uploaded { node, .. }
            | Event::RingTick { node, .. }
            | Event::FollowCheck { node, .. }
            | Event::Timer(node)
            | Event::Order { node, .. }
            | Event::Ack { node, .. } => *node,
            _ => return None,
        };
        let until = self.nodes[node].stopped_until;
        (until > self.now).then_some(until)
    }

    pub fn fail(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(node) => self.kill(node),
            Fault::Restart(node) => {
                self.nodes[node].is_alive = true;
                self.nodes[node].stopped_until = 0;
            }
            Fault::Stop(node, ms) => self.nodes[node].stopped_until = self.now + ms,
            Fault::Part(pairs) => self.parted = pairs,
            Fault::Heal => {
                self.parted.clear();
                self.watch.is_parted_in_half = false;
            }
            Fault::CoordinatorDown => self.coordinator_is_up = false,
            Fault::CoordinatorUp if !self.coordinator_is_up => {
                self.coordinator_is_up = true;
                for node in &mut self.nodes {
                    node.coordinators_link = None;
                }
                let effects = self.run.resume(Vec::new(), self.time());
                self.carry_out(effects);
                self.set_coordinator_timer();
            }
            Fault::CoordinatorUp => {}
        }
    }

    // The coordinator.

    fn feed(&mut self, input: Input) {
        if self.coordinator_is_up {
            let now = self.time();
            let effects = self.run.apply(input, &Surroundings::default(), now);
            self.carry_out(effects);
            self.set_coordinator_timer();
        }
    }

    fn set_coordinator_timer(&mut self) {
        if let Some(next) = self.run.next_timer() {
            let ms = next.ms_since(self.time()).max(1);
            self.after(ms, Event::CoordinatorTimer);
        }
    }

    fn coordinator_timer(&mut self) {
        if self.run.next_timer().is_some_and(|at| at <= self.time()) {
            self.feed(Input::Tick);
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Announce(nodes) => {
                    nodes
                        .iter()
                        .for_each(|node| self.command(*node, Command::Announce));
                }
                Effect::AskFree => self.ask_free(),
                Effect::Withdraw { node, .. } => self.command(node, Command::Withdraw),
                Effect::Match { only } => self.match_members(only),
                Effect::Pause {
                    nodes,
                    attempt,
                    at_step_end,
                } => {
                    let pause = Order::Pause {
                        attempt,
                        at_step_end,
                    };
                    let order = |node: &NodeId| self.command(*node, Command::Order(pause.clone()));
                    nodes.iter().for_each(order);
                }
                Effect::Stop { node, reason } => {
                    self.command(node, Command::Order(Order::Stop { reason }));
                }
                Effect::Earn { checkpoint, shares } => {
                    let earners = shares.iter().map(|share| number(share.node)).collect();
                    let file = self.run.verified_file.as_ref().unwrap();
                    let lineage = self.files[&file.blob].1.clone();
                    self.watch.earned(checkpoint, earners, lineage);
                }
                Effect::Settle(_) => drop(self.run.settled(Vec::new())),
                _ => {}
            }
        }
    }

    fn ask_free(&mut self) {
        for node in 0..self.nodes.len() {
            let is_free = self.nodes[node].coordinators_link.is_some();
            if is_free && self.nodes[node].member.is_none() {
                self.feed(Input::Free(id(node)));
            }
        }
    }

    fn match_members(&mut self, only: Option<NodeId>) {
        let run = &self.run;
        let resume = run.verified_file.clone();
        let resume = resume.filter(|_| run.verified_step == run.start_step);
        let place = |rank: usize| Place {
            attempt: run.attempt,
            members: run.seats.iter().map(|seat| seat.member.node).collect(),
            ring_addresses: run.seats.iter().map(|s| s.ring_address.clone()).collect(),
            shares: run.shares(),
            rank: rank as u32,
            start_step: run.start_step,
            resume: resume.clone(),
        };
        let seats = run.seats.iter().map(|seat| seat.member.node).enumerate();
        let newcomers = run.newcomers.iter().map(|n| n.offer.member.node);
        let newcomers = newcomers.map(|node| (run.seats.len(), node));
        let all = seats.chain(newcomers);
        let wanted = all.filter(|(_, node)| only.is_none_or(|only| only == *node));
        let orders: Vec<_> = wanted.map(|(rank, node)| (node, place(rank))).collect();
        self.watch.granted(run.attempt, &orders[0].1.members);
        for (node, place) in orders {
            self.command(node, Command::Order(Order::Match(place)));
        }
    }

    /// Told to whoever has a connection, in order.
    fn command(&mut self, node: NodeId, command: Command) {
        let node = number(node);
        if let Some(connection) = self.nodes[node].coordinators_link {
            self.nodes[node].orders.push_back((connection, command));
            let delay = self.delay();
            self.after(delay, Event::Order { node, connection });
        }
    }

    fn order(&mut self, node: usize, connection: u64) {
        if self.nodes[node].link != Some(connection) {
            return;
        }
        if self.is_parted(node, self.nodes.len()) {
            return self.after(RESENT_MS, Event::Order { node, connection });
        }
        let place = self.nodes[node]
            .orders
            .iter()
            .position(|(c, _)| *c == connection);
        if let Some((_, command)) = place.and_then(|at| self.nodes[node].orders.remove(at)) {
            self.commanded(node, command);
        }
    }

    // What nodes say to it.

    pub fn say(&mut self, node: usize, request: Request) {
        let number = self.nodes[node].said;
        self.nodes[node].said += 1;
        self.nodes[node].outbox.push_back((number, request));
        self.pump(node);
    }

    pub fn pump(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        let (Some(connection), Some((id, _)), false) =
            (this.link, this.outbox.front(), this.is_asking)
        else {
            return;
        };
        let id = *id;
        this.is_asking = true;
        let delay = self.delay();
        let request = Event::Request {
            node,
            connection,
            id,
        };
        self.after(delay, request);
    }

    fn request(&mut self, node: usize, connection: u64, id: u64) {
        let is_present = self.nodes[node].coordinators_link == Some(connection);
        if !self.coordinator_is_up || !is_present {
            return;
        }
        if self.is_parted(node, self.nodes.len()) {
            let again = Event::Request {
                node,
                connection,
                id,
            };
            return self.after(RESENT_MS, again);
        }
        let request = self.nodes[node].outbox.front().filter(|(n, _)| *n == id);
        if let Some((_, request)) = request.cloned() {
            self.requested(node, request);
        }
        let delay = self.delay();
        let ack = Event::Ack {
            node,
            connection,
            id,
        };
        self.after(delay, ack);
    }

    fn requested(&mut self, number: usize, request: Request) {
        let node = id(number);
        let input = match request {
            Request::Offer { ring_address } => Input::Offered(Offer {
                member: Member {
                    node,
                    name: format!("m{number}"),
                    owner: account(number as u8 + 1),
                },
                ring_address,
                engine: Engine::Cpu,
                // No two are as fast, so no two compute as much of a batch.
                ability: Ability::new(1000 / (number as u64 + 2), 0),
            }),
            Request::Free => Input::Free(node),
            Request::Succeeded(decision) => Input::Succeeded {
                node,
                proof: Box::new(Proof::of(&decision, &NETWORK).unwrap()),
            },
            Request::Report { attempt, report } => Input::Reported {
                node,
                attempt,
                stored_by: Some(STORAGE),
                report,
            },
        };
        self.feed(input);
    }

    fn acknowledged(&mut self, node: usize, connection: u64, id: u64) {
        if self.nodes[node].link == Some(connection) {
            if self.is_parted(node, self.nodes.len()) {
                let again = Event::Ack {
                    node,
                    connection,
                    id,
                };
                return self.after(RESENT_MS, again);
            }
            self.nodes[node].outbox.retain(|(other, _)| *other != id);
            self.nodes[node].is_asking = false;
            self.pump(node);
        }
    }

    // Connections.

    fn check_link(&mut self, node: usize) {
        self.after(LINK_CHECK_MS, Event::LinkCheck(node));
        let now = self.now;
        let this = &self.nodes[node];
        let is_open = self.coordinator_is_up
            && this.is_alive
            && this.stopped_until <= now
            && !self.is_parted(node, self.nodes.len());
        if is_open {
            self.nodes[node].link_heard = now;
        }
        let is_lost = now - self.nodes[node].link_heard >= self.conditions.link_ms;
        if is_lost && self.nodes[node].coordinators_link.is_some() && self.coordinator_is_up {
            self.nodes[node].coordinators_link = None;
            self.feed(Input::Disconnected(id(node)));
        }
        let this = &mut self.nodes[node];
        if is_lost && this.link.take().is_some() && this.is_alive {
            this.is_asking = false;
            self.apply(node, MemberInput::Connected(false));
        }
        let this = &self.nodes[node];
        if is_open && (this.link.is_none() || this.link != this.coordinators_link) {
            self.connect(node);
        }
    }

    fn connect(&mut self, node: usize) {
        let connection = self.events;
        let task = self.run.task;
        let this = &mut self.nodes[node];
        this.orders.clear();
        (this.link, this.coordinators_link) = (Some(connection), Some(connection));
        this.is_asking = false;
        let position = this.member.as_ref().map(|member| Position {
            task,
            attempt: member.place().attempt,
            committed: this.lineage.len() as u64,
        });
        let is_free = this.member.is_none() && this.offer.is_none();
        self.feed(Input::Joined {
            node: id(node),
            position,
        });
        if is_free {
            self.feed(Input::Free(id(node)));
        }
        self.apply(node, MemberInput::Connected(true));
        self.pump(node);
    }
}
