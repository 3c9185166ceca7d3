//! Links: which nodes are connected now, and how to tell them something.
//!
//! Sessions enter and leave; the matchmaker looks. The registry outlives the matchmaker, so that a
//! restarted one knows who is there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cryptomind_core::check;
use cryptomind_core::journal::NodeRecord;
use cryptomind_protocol::blob::Source;
use cryptomind_protocol::node::Command;
use cryptomind_protocol::role::Role;
use cryptomind_protocol::task::Activity;
use cryptomind_protocol::{AccountId, NodeId};
use tokio::sync::mpsc;

/// Commands that may wait for a slow node before its connection is given up.
pub const MAX_WAITING_COMMANDS: usize = 256;

/// The most storage nodes that are named at once.
const MAX_SOURCES: usize = 16;

/// A connected node.
#[derive(Debug, Clone)]
pub struct Link {
    /// Tells this connection from an earlier one of the same node.
    pub session: u64,
    /// Who it is.
    pub record: NodeRecord,
    /// What its machine is busy with.
    pub activity: Activity,
    /// Where its connection comes from.
    pub seen: IpAddr,
    commands: mpsc::Sender<Command>,
}

#[derive(Debug, Default)]
struct Inner {
    last_session: u64,
    nodes: BTreeMap<NodeId, Link>,
    /// Those of them that store: few among many, and looked for at each match.
    stores: BTreeSet<NodeId>,
}

impl Inner {
    fn remove(&mut self, node: &NodeId) {
        self.nodes.remove(node);
        self.stores.remove(node);
    }
}

/// All connected nodes.
#[derive(Debug, Clone, Default)]
pub struct Links(Arc<Mutex<Inner>>);

impl Links {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change is a single insert, remove or assignment: a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node connected; an earlier connection of it is forgotten and its commands end.
    pub fn enter(
        &self,
        record: NodeRecord,
        activity: Activity,
        seen: IpAddr,
    ) -> (u64, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(MAX_WAITING_COMMANDS);
        let mut inner = self.inner();
        inner.last_session += 1;
        let session = inner.last_session;
        inner.remove(&record.node);
        if record.role == Role::Storage {
            inner.stores.insert(record.node);
        }
        inner.nodes.insert(
            record.node,
            Link {
                session,
                record,
                activity,
                seen,
                commands,
            },
        );
        (session, receiver)
    }

    /// A connection ended. Whether the node is gone with it: it may have connected anew.
    pub fn leave(&self, node: NodeId, session: u64) -> bool {
        let mut inner = self.inner();
        if inner
            .nodes
            .get(&node)
            .is_some_and(|link| link.session == session)
        {
            inner.remove(&node);
        }
        !inner.nodes.contains_key(&node)
    }

    /// Lets go of a node that no longer works for this owner: its connection ends, and its place with it.
    pub fn dismiss(&self, node: NodeId, owner: AccountId) {
        let mut inner = self.inner();
        let works_for = inner.nodes.get(&node).map(|link| link.record.owner);
        if works_for == Some(owner) {
            inner.remove(&node);
        }
    }

    /// Tells a node something. A node that is not connected asks again when it joins; one that does
    /// not keep up loses its connection.
    pub fn tell(&self, node: NodeId, command: Command) {
        let mut inner = self.inner();
        let full = inner
            .nodes
            .get(&node)
            .is_some_and(|l| l.commands.try_send(command).is_err());
        if full {
            tracing::warn!(%node, "does not take its commands: its connection is given up");
            inner.remove(&node);
        }
    }

    /// The node's machine is busy with something else now.
    pub fn set_activity(&self, node: NodeId, activity: Activity) {
        if let Some(link) = self.inner().nodes.get_mut(&node) {
            link.activity = activity;
        }
    }

    /// One node, if it is connected.
    pub fn get(&self, node: &NodeId) -> Option<Link> {
        self.inner().nodes.get(node).cloned()
    }

    /// Whether this node is connected, in this role.
    pub fn has(&self, node: &NodeId, role: Role) -> bool {
        let inner = self.inner();
        inner.nodes.get(node).is_some_and(|l| l.record.role == role)
    }

    /// The connected nodes of a role that are in no run, by what they said last.
    pub fn at_rest(&self, role: Role) -> BTreeSet<NodeId> {
        let inner = self.inner();
        let is_at_rest = |l: &&Link| {
            l.record.role == role && matches!(l.activity, Activity::Idle | Activity::Mining)
        };
        let at_rest = inner.nodes.values().filter(is_at_rest);
        at_rest.map(|l| l.record.node).collect()
    }

    /// Whether a connected miner of another owner looks like the same machine.
    pub fn have_twin(&self, link: &Link) -> bool {
        let Some(own) = &link.record.machine else {
            return false;
        };
        self.inner().nodes.values().any(|other| {
            let machine = other.record.machine.as_ref();
            let machine = machine.filter(|_| other.record.owner != link.record.owner);
            machine.is_some_and(|it| check::is_twin((own, link.seen), (it, other.seen)))
        })
    }

    /// The connected nodes of a role, by id.
    pub fn of_role(&self, role: Role) -> Vec<Link> {
        let inner = self.inner();
        if role == Role::Storage {
            let stores = inner.stores.iter();
            return stores
                .filter_map(|node| inner.nodes.get(node))
                .cloned()
                .collect();
        }
        let of_role = inner.nodes.values().filter(|l| l.record.role == role);
        of_role.cloned().collect()
    }

    /// The connected storage nodes.
    pub fn stores(&self) -> Vec<NodeId> {
        self.inner().stores.iter().copied().collect()
    }

    /// Where blobs can be put and had.
    pub fn sources(&self) -> Vec<Source> {
        let stores = self.of_role(Role::Storage).into_iter();
        stores
            .take(MAX_SOURCES)
            .filter_map(|l| {
                l.record.address.map(|address| Source {
                    node: l.record.node,
                    address,
                })
            })
            .collect()
    }
}
