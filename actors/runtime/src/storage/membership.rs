//! A storage node's membership: joined, and joined again whenever the connection is lost, as its owner lets it. What the
//! door learns of links goes to the coordinator on the way.

use std::sync::Arc;
use std::time::Duration;

use cryptomind_net::{Connection, Endpoint};
use cryptomind_protocol::frame::ALPN_NODE;
use cryptomind_protocol::node::{Ack, Capacity, Command, Join, Request};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::task::Activity;
use cryptomind_protocol::{
    AccountId, Amount, ErrorBody, ErrorClass, NodeAddress, NodeId, SecretKey,
};
use tokio::sync::watch;

use super::Keep;
use crate::back_off::BackOff;
use crate::enrol::Applicant;

/// Samples of links are gathered for so long before they are told.
const GATHER: Duration = Duration::from_secs(1);
/// What the coordinator gets to acknowledge them.
const ACK_LIMIT: Duration = Duration::from_secs(10);

/// What joining takes.
pub(super) struct Membership {
    pub(super) dialler: Endpoint,
    pub(super) coordinator: NodeAddress,
    pub(super) key: SecretKey,
    pub(super) name: String,
    pub(super) owner: AccountId,
    pub(super) listen: String,
    pub(super) keep: Arc<Keep>,
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
                free_bytes: self.keep.store.free_bytes(),
                ..Capacity::default()
            },
            reserve: Amount::ZERO,
            activity: Activity::Idle,
            running: None,
            selftest: None,
        };
        let mut commands = connection.subscribe(&Request::Join(Box::new(join))).await?;
        let listening = async {
            while let Some(command) = commands.next::<Command>().await {
                if matches!(command?, Command::Joined { .. }) {
                    tracing::info!("joined {}", self.coordinator);
                    self.joined.send_replace(true);
                }
            }
            Ok(())
        };
        tokio::select! {
            ended = listening => ended,
            error = self.tell(&connection) => Err(error),
        }
    }

    /// Tells what the door learns of links, for as long as the coordinator listens.
    async fn tell(&self, connection: &Connection) -> ErrorBody {
        loop {
            self.keep.samples.more().await;
            tokio::time::sleep(GATHER).await;
            let (reports, echoes) = (self.keep.samples.take(), Vec::new());
            let told = Request::Links { reports, echoes };
            match connection.request::<_, Ack>(&told, ACK_LIMIT).await {
                Ok(Ack {}) => {}
                Err(error) if error.class == ErrorClass::Network => return error,
                // It joins a moment later, or does not want to know: samples come again.
                Err(error) => tracing::debug!(%error, "samples of links are not heard"),
            }
        }
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
