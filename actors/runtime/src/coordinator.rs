//! A coordinator: the ledger, the catalog, the ratings and the market, behind one UDP port.
//!
//! ```text
//! Tree ── ledger ── rating ── catalog ── matchmaker ── control   actors, restarted one for one
//!   ▲        ▲         ▲         ▲           ▲                   calls go down, each with a limit
//! doors: one task a connection, one a request             clients (api), nodes (node)
//! surveyor: one task, has miners measure their links
//! ```
//!
//! State lies in one redb file, written by the ledger's postings alone. A door reads what is durable from the
//! store and asks actors for decisions.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cryptomind_config::Coordinator;
use cryptomind_core::control::{Allowance, Bounds};
use cryptomind_core::journal::GenesisRecord;
use cryptomind_core::posting::PostingRule;
use cryptomind_core::price::FloatingRule;
use cryptomind_core::run::Limits;
use cryptomind_net::Endpoint;
use cryptomind_protocol::frame::{ALPN_API, ALPN_NODE};
use cryptomind_protocol::genesis::Genesis;
use cryptomind_protocol::{ErrorBody, GenesisHash, NodeAddress, NodeId, SecretKey};
use cryptomind_storage::state::{Batch, StateStore};

use tokio::sync::watch;

use crate::cache::Cache;
use crate::catalog::{CatalogActor, CatalogArguments, CatalogRef};
use crate::clock;
use crate::control::{ControlActor, ControlArguments, ControlRule, Desk, Doubts, Purse};
use crate::ledger::{LedgerActor, LedgerArguments, LedgerRef, NetworkClock};
use crate::matchmaker::{
    MatchmakerActor, MatchmakerArguments, MatchmakerRef, PRICE_INTERVAL, Tariff,
};
use crate::rating::{RatingActor, RatingArguments, RatingRef};
use crate::supervisor::{self, Child, Tree, seat};
use crate::transfer::Transfer;

mod api;
pub mod directory;
mod door;
mod enrolment;
mod knock;
mod ledger;
pub mod links;
mod nodes;
mod prices;
mod runs;
pub mod surveyor;
pub mod tickets;
mod transactions;
mod views;
pub mod watchers;

use directory::Directory;
use enrolment::Enrolments;
use links::Links;
use surveyor::Surveyor;
use tickets::Tickets;
use watchers::Watchers;

/// The file that holds a coordinator's state, in its data folder.
pub const STATE_FILE: &str = "state.redb";
/// What is left of requests in flight when a coordinator stops.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// The most steps of a control task: what rounding makes of one is small after so many.
const MAX_CONTROL_STEPS: u64 = 5_000;
/// The largest dataset of a control task, bytes.
const MAX_CONTROL_BYTES: u64 = CONTROL_CACHE_BYTES / 4;
/// Datasets of control tasks that are kept, bytes.
const CONTROL_CACHE_BYTES: u64 = 1 << 30;
/// A thousandth of 10¹² floating-point operations.
const FLOPS_OF_MILLI_CU: u128 = 1_000_000_000;
/// The largest model of a control task: it is held in memory several times over when an answer is judged.
const MAX_CONTROL_PARAMETERS: u64 = 10_000_000;

/// What every door needs.
pub(crate) struct Office {
    pub(crate) genesis: Genesis,
    /// The genesis' hash.
    pub(crate) network: GenesisHash,
    pub(crate) directory: Directory,
    pub(crate) clock: NetworkClock,
    /// Says which block was stored last.
    pub(crate) grown: watch::Sender<u64>,
    pub(crate) store: StateStore,
    pub(crate) ledger: LedgerRef,
    pub(crate) rating: RatingRef,
    pub(crate) catalog: CatalogRef,
    pub(crate) matchmaker: MatchmakerRef,
    pub(crate) links: Links,
    pub(crate) surveyor: Surveyor,
    /// Its name in tables.
    pub(crate) name: String,
    /// This coordinator's own node.
    pub(crate) node: NodeId,
    pub(crate) tickets: Tickets,
    pub(crate) watchers: Watchers,
    pub(crate) enrolments: Enrolments,
    pub(crate) knocker: knock::Knocker,
}

/// A running coordinator.
pub struct CoordinatorNode {
    /// Reaches the ledger.
    pub ledger: LedgerRef,
    /// Reaches the ratings.
    pub rating: RatingRef,
    /// Reaches the catalog.
    pub catalog: CatalogRef,
    /// Reaches the matchmaker.
    pub matchmaker: MatchmakerRef,
    address: NodeAddress,
    genesis: Genesis,
    endpoint: Endpoint,
    tree: Tree,
    doors: tokio::task::JoinHandle<()>,
    surveying: tokio::task::JoinHandle<()>,
}

/// Starts a coordinator: makes its network at the first start, goes on with it afterwards.
///
/// # Errors
/// Where its folder, key or port cannot be used, or where its state is damaged.
pub async fn start(config: Coordinator, key: SecretKey) -> Result<CoordinatorNode, ErrorBody> {
    let store = open(&config.node.data_dir)?;
    let genesis = genesis(&store, &config, &key)?;
    let network = genesis.hash();
    let limits = cryptomind_net::Limits {
        max_connections: config.limits.max_connections,
        max_per_address: config.limits.max_per_address,
        exempt: config.limits.exempt_addresses.clone(),
        ..cryptomind_net::Limits::default()
    };
    let listen = config.node.listen;
    let endpoint = Endpoint::serve(listen, key.clone(), network, &[ALPN_API, ALPN_NODE], limits)?;
    let tickets = Tickets {
        key: key.clone(),
        network,
    };
    let (office, tree) = staff(config, genesis.clone(), store, tickets).await?;
    let local = endpoint.local_addr();
    let address = NodeAddress {
        node: NodeId::of_key(&key.public()),
        host: reachable_host(local.ip()),
        port: local.port(),
    };
    let (ledger, rating) = (office.ledger.clone(), office.rating.clone());
    let (catalog, matchmaker) = (office.catalog.clone(), office.matchmaker.clone());
    let (surveyor, tickets) = (office.surveyor.clone(), office.tickets.clone());
    let surveying = tokio::spawn(surveyor.keep(office.links.clone(), tickets));
    let doors = tokio::spawn(door::open(endpoint.clone(), Arc::new(office)));
    Ok(CoordinatorNode {
        ledger,
        rating,
        catalog,
        matchmaker,
        address,
        genesis,
        endpoint,
        tree,
        doors,
        surveying,
    })
}

/// A socket that listens everywhere is reached on this machine by loopback.
fn reachable_host(ip: std::net::IpAddr) -> String {
    match ip {
        std::net::IpAddr::V4(v4) if v4.is_unspecified() => "127.0.0.1".to_owned(),
        std::net::IpAddr::V6(v6) if v6.is_unspecified() => "::1".to_owned(),
        ip => ip.to_string(),
    }
}

fn open(dir: &Path) -> Result<StateStore, ErrorBody> {
    let cannot = |what: &str, error: &dyn std::fmt::Display| {
        ErrorBody::user(
            "data_dir",
            format!("cannot {what} {}: {error}", dir.display()),
        )
        .with_help("set node.data_dir to a folder that this user may write")
    };
    std::fs::create_dir_all(dir).map_err(|e| cannot("make", &e))?;
    StateStore::open(&dir.join(STATE_FILE)).map_err(|e| cannot("open the state in", &e))
}

/// The stored genesis, or a new one.
fn genesis(
    store: &StateStore,
    config: &Coordinator,
    key: &SecretKey,
) -> Result<Genesis, ErrorBody> {
    let stored = store.load::<GenesisRecord>().map_err(ErrorBody::internal)?;
    if let Some(record) = stored.into_iter().next() {
        if record.genesis.coordinator != key.public() {
            let message = "the state belongs to a coordinator with another key";
            return Err(ErrorBody::user("wrong_key", message)
                .with_help("restore the node.key that lay beside it, or choose another folder"));
        }
        return Ok(record.genesis);
    }
    let genesis = config.genesis(clock::now(), key.public());
    let mut batch = Batch::new();
    batch.put(&GenesisRecord {
        genesis: genesis.clone(),
    });
    store.commit(batch).wait().map_err(ErrorBody::internal)?;
    Ok(genesis)
}

/// The actors under their supervisor, in the order in which they need each other.
async fn staff(
    config: Coordinator,
    genesis: Genesis,
    store: StateStore,
    tickets: Tickets,
) -> Result<(Office, Tree), ErrorBody> {
    let (ledger_seat, ledger) = seat("ledger");
    let (rating_seat, rating) = seat("rating");
    let (catalog_seat, catalog) = seat("catalog");
    let (matchmaker_seat, matchmaker) = seat("matchmaker");
    let (control_seat, control) = seat("control");
    let doubts = Doubts::default();
    let (links, watchers) = (Links::default(), Watchers::default());
    let (directory, clock) = (Directory::default(), NetworkClock::start());
    let grown = watch::Sender::new(0);
    let node = NodeId::of_key(&tickets.key.public());
    let surveyor = Surveyor::new(node)?;
    let for_ledger = LedgerArguments {
        store: store.clone(),
        genesis: genesis.clone(),
        key: tickets.key.clone(),
        directory: directory.clone(),
        clock: clock.clone(),
        matchmaker: matchmaker.clone(),
        grown: grown.clone(),
    };
    let for_rating = RatingArguments {
        store: store.clone(),
        ledger: ledger.clone(),
        doubts: doubts.clone(),
    };
    let for_catalog = CatalogArguments {
        store: store.clone(),
        ledger: ledger.clone(),
    };
    let for_matchmaker = MatchmakerArguments {
        store: store.clone(),
        ledger: ledger.clone(),
        clock: clock.clone(),
        catalog: catalog.clone(),
        rating: rating.clone(),
        control,
        links: links.clone(),
        surveyor: surveyor.clone(),
        tickets: tickets.clone(),
        watchers: watchers.clone(),
        tariff: tariff(&config, &genesis),
        price_interval: PRICE_INTERVAL,
        withheld_max_ppm: genesis.withholding.max_ppm,
        allowance: (config.control.accounts > 0).then_some(config.control.allowance),
        limits: limits(&config),
        posting: posting(&config),
    };
    let for_control = ControlArguments {
        store: store.clone(),
        ledger: ledger.clone(),
        clock: clock.clone(),
        catalog: catalog.clone(),
        rating: rating.clone(),
        matchmaker: matchmaker.clone(),
        links: links.clone(),
        tickets: tickets.clone(),
        genesis: genesis.clone(),
        desk: control_desk(&config, &tickets.key)?,
        rule: control_rule(&config),
        doubts,
    };
    let children = vec![
        Child::new(ledger_seat, move || (LedgerActor, for_ledger.clone())),
        Child::new(rating_seat, move || (RatingActor, for_rating.clone())),
        Child::new(catalog_seat, move || (CatalogActor, for_catalog.clone())),
        Child::new(matchmaker_seat, move || {
            (MatchmakerActor, for_matchmaker.clone())
        }),
        Child::new(control_seat, move || (ControlActor, for_control.clone())),
    ];
    let tree = Tree::start(supervisor::Limits::default(), children).await?;
    let enrolments = Enrolments::default();
    let office = Office {
        network: genesis.hash(),
        genesis,
        directory,
        clock: clock.clone(),
        grown,
        store,
        ledger,
        rating,
        catalog,
        matchmaker,
        links,
        surveyor,
        name: config.node.name,
        node,
        tickets,
        watchers,
        enrolments,
        knocker: knock::Knocker::default(),
    };
    Ok((office, tree))
}

const fn tariff(config: &Coordinator, genesis: &Genesis) -> Tariff {
    let market = &config.market;
    Tariff {
        work: FloatingRule {
            start: market.unit_price,
            floor: market.floor,
            ceiling: market.ceiling,
            account_share_ppm: market.account_share_ppm,
        },
        storage_per_mib: market.storage_price_per_mib,
        network_fee_ppm: genesis.fees.network_fee_ppm,
    }
}

/// What control tasks need beside the other actors; nothing where there are to be none.
fn control_desk(config: &Coordinator, key: &SecretKey) -> Result<Option<Desk>, ErrorBody> {
    let folder = config.node.data_dir.join("control");
    let Some(purse) = Purse::open(&folder, config.control.accounts)? else {
        return Ok(None);
    };
    for account in purse.accounts() {
        tracing::info!(%account, "posts control tasks");
    }
    if config.control.trusted.is_empty() {
        tracing::warn!(
            "control.trusted names nobody: until ten answers in a row of somebody's were right, no wrong answer can be proved"
        );
    }
    Ok(Some(Desk {
        purse,
        transfer: Transfer::new(Endpoint::dialler()?, key.clone()),
        cache: Cache::open(&folder.join("cache"), CONTROL_CACHE_BYTES)?,
        folder,
    }))
}

fn control_rule(config: &Coordinator) -> ControlRule {
    let control = &config.control;
    ControlRule {
        bounds: Bounds {
            most_flops: u128::from(control.max_milli_cu) * FLOPS_OF_MILLI_CU,
            most_steps: MAX_CONTROL_STEPS,
            most_parameters: MAX_CONTROL_PARAMETERS,
            most_bytes: MAX_CONTROL_BYTES,
        },
        allowance: Allowance {
            share_ppm: control.share_ppm,
            daily: control.daily,
        },
        trusted: control.trusted.clone(),
    }
}

const fn limits(config: &Coordinator) -> Limits {
    Limits {
        offer_window_ms: config.market.offer_window_ms,
        wait_ms: config.market.wait_limit_s * 1000,
        prepare_ms: config.market.prepare_limit_s * 1000,
        hold_ms: config.market.hold_limit_s * 1000,
    }
}

const fn posting(config: &Coordinator) -> PostingRule {
    PostingRule {
        open_tasks: config.market.open_tasks_per_account,
        free_cancels: config.market.free_cancels,
    }
}

impl CoordinatorNode {
    /// Who it is and where it listens.
    pub fn address(&self) -> NodeAddress {
        self.address.clone()
    }

    /// The network that it keeps.
    pub const fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// Waits until its actors can no longer be restarted, and says why.
    pub async fn failed(&self) -> String {
        self.tree.failed().await
    }

    /// Closes the doors, finishes what was begun, and returns when all is written.
    pub async fn shutdown(self) {
        self.surveying.abort();
        self.endpoint.close("the coordinator stops").await;
        // Doors end with their endpoint; one that does not is cut off.
        drop(tokio::time::timeout(STOP_LIMIT, self.doors).await);
        self.tree.stop().await;
    }
}
