//! The surveyor: has links measured, keeps what is known of them, and makes tables of it to match by.
//!
//! Doors tell it who is there and what nodes report; one task of its own hands out orders each second. Miners are ordered to
//! measure each other; links to storage nodes are known from what both ends see of real transfers. The matchmaker and the API
//! take tables. It outlives the matchmaker, so that a restarted one chooses as well as its predecessor. What is
//! known lies in memory alone: it expires in minutes, and is measured anew.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cryptomind_core::dice::Dice;
use cryptomind_core::market::link::{Link, LinkTable, Links, Measure, Pair, Party};
use cryptomind_core::market::survey::{Order, Orders, Place, Survey};
use cryptomind_protocol::node::Command;
use cryptomind_protocol::probe::{Echo, LinkReport, MAX_PEERS, Peer};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::{AccountId, ErrorBody, NodeId, Timestamp};
use tokio::time::MissedTickBehavior;

use super::links;
use super::tickets::Tickets;
use crate::clock;

/// How often orders are handed out.
const TICK: Duration = Duration::from_secs(1);
/// Ticks from one forgetting of what is expired to the next.
const FORGET_TICKS: u32 = 60;
/// A table is made anew at most this often,
const TABLE_PAUSE: Duration = Duration::from_secs(1);
/// and after so many times what the last one took: tables take a twentieth of a thread at most.
const TABLE_PARTS: u32 = 20;
/// Of more parties than this it is made on a thread of its own, from a copy: whoever wants one meanwhile has the last.
const SMALL: usize = 256;
/// It is made anew after this even where nothing was reported: what it holds expires.
const TABLE_AGE: Duration = Duration::from_secs(60);

/// What nodes measured, and who shall measure what.
#[derive(Debug, Clone)]
pub struct Surveyor(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    coordinator: NodeId,
    survey: Survey,
    /// Storage nodes that are there: they are not ordered to measure, and many have links to each.
    stores: BTreeSet<NodeId>,
    links: Links,
    dice: Dice,
    table: Cached,
}

/// The last table.
#[derive(Debug)]
struct Cached {
    table: Arc<LinkTable>,
    made: Instant,
    pause: Duration,
    is_stale: bool,
    /// Since when the next one is being made elsewhere.
    making: Option<Instant>,
}

/// What one node says of links.
#[derive(Debug)]
pub struct News {
    /// Who.
    pub node: NodeId,
    /// The round trip of its connection to the coordinator, as the coordinator's side estimates it.
    pub rtt: Duration,
    /// What it measured.
    pub reports: Vec<LinkReport>,
    /// What it saw of clients.
    pub clients: Vec<(AccountId, LinkReport)>,
    /// Who measured it.
    pub echoes: Vec<Echo>,
}

impl Surveyor {
    /// Of the coordinator with this id.
    ///
    /// # Errors
    /// `internal` where the system has no randomness.
    pub fn new(coordinator: NodeId) -> Result<Self, ErrorBody> {
        let (mut secret, mut seed) = ([0; 32], [0; 8]);
        getrandom::fill(&mut secret).map_err(ErrorBody::internal)?;
        getrandom::fill(&mut seed).map_err(ErrorBody::internal)?;
        let mut links = Links::default();
        links.set_hub(Party::Node(coordinator));
        Ok(Self(Arc::new(Mutex::new(Inner {
            coordinator,
            survey: Survey::new(secret),
            stores: BTreeSet::new(),
            links,
            dice: Dice::new(u64::from_be_bytes(seed)),
            table: Cached {
                table: Arc::default(),
                made: Instant::now(),
                pause: TABLE_PAUSE,
                is_stale: false,
                making: None,
            },
        }))))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // What a panic elsewhere could leave half done is measurements: they expire.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A miner joined from `seen`; `probe` is where it says that others measure it.
    pub fn enter(&self, node: NodeId, seen: IpAddr, probe: Option<SocketAddr>) {
        let Inner { survey, dice, .. } = &mut *self.inner();
        match probe {
            Some(probe) => survey.enter(node, Place::new(seen, probe), dice, clock::now()),
            None => survey.leave(&node),
        }
    }

    /// A storage node joined.
    pub fn enter_store(&self, node: NodeId) {
        let mut inner = self.inner();
        inner.stores.insert(node);
        inner.links.set_hub(Party::Node(node));
    }

    /// It is gone.
    pub fn leave(&self, node: &NodeId) {
        let mut inner = self.inner();
        inner.survey.leave(node);
        if inner.stores.remove(node) {
            inner.links.unset_hub(&Party::Node(*node));
        }
    }

    /// Takes what a node reports. What is of nodes that are not measured is ignored.
    pub fn hear(&self, news: &News) {
        self.inner().hear(news, clock::now());
    }

    /// Takes what a client reports, and the round trip to it as the coordinator's side estimates it.
    pub fn hear_client(&self, client: (AccountId, Duration), reports: &[LinkReport]) {
        self.inner().hear_client(client, reports, clock::now());
    }

    /// The link between two parties, as it counts; estimated where little is known, nothing where nothing is.
    pub fn link(&self, a: Party, b: Party) -> Option<Link> {
        self.table().link(a, b)
    }

    /// The links as they count, a second old at most while tables are made quickly. Never waits for a large one.
    pub fn table(&self) -> Arc<LinkTable> {
        let Inner { links, table, .. } = &mut *self.inner();
        if table.is_due() {
            table.begin();
            if links.reporters() <= SMALL {
                table.make(links);
            } else {
                self.make_elsewhere(links.clone());
            }
        }
        Arc::clone(&table.table)
    }

    fn make_elsewhere(&self, links: Links) {
        let surveyor = self.clone();
        // Where this is cut off, the next one is made after a while.
        drop(tokio::task::spawn_blocking(move || {
            let start = Instant::now();
            let table = links.table(clock::now());
            drop(links);
            surveyor.inner().table.replace(table, start.elapsed());
        }));
    }

    /// The pairs of which anything is known, and how they count; only those of one node, where it is named.
    pub fn pairs(&self, of: Option<NodeId>, limit: usize) -> Vec<(Pair, Option<Link>)> {
        let table = self.table();
        let pairs = self
            .inner()
            .links
            .pairs(of.map(Party::Node), limit, clock::now());
        let link = |pair: Pair| (pair, table.link(pair.a, pair.b));
        pairs.into_iter().map(link).collect()
    }

    /// Hands out orders for as long as it is polled.
    pub(super) async fn keep(self, nodes: links::Links, tickets: Tickets) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for tick in 0u32.. {
            ticks.tick().await;
            for (node, orders) in self.orders(&nodes) {
                for orders in orders.chunks(MAX_PEERS) {
                    let peers = orders.iter().map(|order| peer(node, order, &tickets));
                    let peers = peers.collect();
                    nodes.tell(node, Command::Probe { peers });
                }
            }
            if tick % FORGET_TICKS == 0 {
                self.inner().links.forget_expired(clock::now());
            }
        }
    }

    fn orders(&self, nodes: &links::Links) -> Orders {
        let at_rest = nodes.at_rest(Role::Miner);
        let Inner {
            survey,
            links,
            dice,
            ..
        } = &mut *self.inner();
        survey.orders(links, &|node| at_rest.contains(node), dice, clock::now())
    }
}

/// An order as it travels: with the word that lets its bearer in.
fn peer(bearer: NodeId, order: &Order, tickets: &Tickets) -> Peer {
    let Order {
        node,
        address,
        nonce,
        bulk_bytes,
    } = *order;
    Peer {
        node,
        address: address.to_string(),
        nonce,
        ticket: tickets.probe((bearer, node), bulk_bytes, clock::now()),
        bulk_bytes,
    }
}

impl Inner {
    fn hear(&mut self, news: &News, now: Timestamp) {
        if !self.has(&news.node) {
            return;
        }
        let own = Party::Node(news.node);
        let to_coordinator = Measure {
            rtt_us: micros(news.rtt),
            bytes_per_s: None,
        };
        let coordinator = Party::Node(self.coordinator);
        self.links.report(own, coordinator, to_coordinator, now);
        for report in &news.reports {
            self.take(news.node, report, now);
        }
        for (client, report) in &news.clients {
            let client = Party::Client(*client);
            self.links.report(own, client, measure(report), now);
        }
        for echo in &news.echoes {
            if self.survey.proves_lan(news.node, echo, now) {
                self.links.prove_lan(own, Party::Node(echo.from), now);
            }
        }
        self.table.is_stale = true;
    }

    fn hear_client(
        &mut self,
        (client, rtt): (AccountId, Duration),
        reports: &[LinkReport],
        now: Timestamp,
    ) {
        let (client, coordinator) = (Party::Client(client), Party::Node(self.coordinator));
        let seen = Measure {
            rtt_us: micros(rtt),
            bytes_per_s: None,
        };
        self.links.report(coordinator, client, seen, now);
        for report in reports {
            if self.stores.contains(&report.to) || report.to == self.coordinator {
                let node = Party::Node(report.to);
                self.links.report(client, node, measure(report), now);
            }
        }
        self.table.is_stale = true;
    }

    /// Whether this node's links are of interest.
    fn has(&self, node: &NodeId) -> bool {
        self.survey.has(node) || self.stores.contains(node)
    }

    fn take(&mut self, from: NodeId, report: &LinkReport, now: Timestamp) {
        if !self.has(&report.to) {
            return;
        }
        let (own, other) = (Party::Node(from), Party::Node(report.to));
        self.links.report(own, other, measure(report), now);
        if report.bytes_per_s.is_some() {
            self.survey.moved(from, report.to, now);
        }
    }
}

fn measure(report: &LinkReport) -> Measure {
    Measure {
        rtt_us: report.rtt_us,
        bytes_per_s: report.bytes_per_s,
    }
}

impl Cached {
    fn is_due(&self) -> bool {
        let age = self.made.elapsed();
        let is_old = age >= self.pause && (self.is_stale || age >= TABLE_AGE);
        is_old && self.making.is_none_or(|since| since.elapsed() >= TABLE_AGE)
    }

    /// What is reported from now on is not in the next one.
    fn begin(&mut self) {
        self.is_stale = false;
        self.making = Some(Instant::now());
    }

    fn make(&mut self, links: &Links) {
        let start = Instant::now();
        self.replace(links.table(clock::now()), start.elapsed());
    }

    fn replace(&mut self, table: LinkTable, took: Duration) {
        self.table = Arc::new(table);
        self.made = Instant::now();
        self.pause = TABLE_PAUSE.max(took * TABLE_PARTS);
        self.making = None;
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
