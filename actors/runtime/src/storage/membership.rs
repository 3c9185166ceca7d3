//! A storage node's membership: joined, and joined again whenever the connection is lost, as its owner lets it.

use cryptomind_net::{Connection, Endpoint};
use cryptomind_protocol::frame::ALPN_NODE;
use cryptomind_protocol::node::{Capacity, Command, Join, Request};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::task::Activity;
use cryptomind_protocol::{AccountId, ErrorBody, NodeAddress, NodeId, SecretKey};
use cryptomind_storage::blobs::BlobStore;
use tokio::sync::watch;

use crate::back_off::BackOff;
use crate::enrol::Applicant;

/// What joining takes.
pub(super) struct Membership {
    pub(super) dialler: Endpoint,
    pub(super) coordinator: NodeAddress,
    pub(super) key: SecretKey,
    pub(super) name: String,
    pub(super) owner: AccountId,
    pub(super) listen: String,
    pub(super) store: BlobStore,
    pub(super) joined: watch::Sender<bool>,
}

impl Membership {
    /// Keeps the node joined for as long as it runs.
    pub(super) async fn keep(self) {
        let mut back_off = BackOff::default();
        loop {
            let ended = self.once().await;
            if self.joined.send_replace(false) {
                back_off.succeeded();
            }
            let error = match ended {
                Err(error) => error,
                Ok(()) => ErrorBody::network("connection_closed", "the coordinator closed"),
            };
            tracing::info!(%error, "not joined");
            tokio::time::sleep(back_off.pause(&error)).await;
        }
    }

    async fn once(&self) -> Result<(), ErrorBody> {
        let connection = self
            .dialler
            .dial(&self.coordinator, ALPN_NODE, &self.key)
            .await?;
        self.enrol(&connection).await?;
        let join = Join {
            owner: self.owner,
            name: self.name.clone(),
            listen: Some(self.listen.clone()),
            probe: None,
            capacity: Capacity {
                free_bytes: self.store.free_bytes(),
                ..Capacity::default()
            },
            activity: Activity::Idle,
            running: None,
        };
        let mut commands = connection.subscribe(&Request::Join(Box::new(join))).await?;
        while let Some(command) = commands.next::<Command>().await {
            if matches!(command?, Command::Joined { .. }) {
                tracing::info!("joined {}", self.coordinator);
                self.joined.send_replace(true);
            }
        }
        Ok(())
    }

    async fn enrol(&self, connection: &Connection) -> Result<(), ErrorBody> {
        let applicant = Applicant {
            node: NodeId::of_key(&self.key.public()),
            role: Role::Storage,
            name: self.name.clone(),
            owner: self.owner,
        };
        applicant.enrol(connection).await
    }
}
