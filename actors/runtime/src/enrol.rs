//! How a node gets its owner's word: it asks until the ledger knows the owner's delegation.
//!
//! Miners and storage nodes use it alike, each time before they join.

use std::time::Duration;

use cryptomind_net::Connection;
use cryptomind_protocol::node::{Enrolment, Request};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::{AccountId, ErrorBody, NodeId};
use tracing::info;

use crate::clock;

const DAY_MS: u64 = 24 * 3600 * 1000;
/// How often the owner's answer is asked for.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// What the coordinator gets to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How often the log repeats what the owner must do, in askings.
const REMIND_EVERY: u32 = 60;

/// What a node says of itself to its owner.
#[derive(Debug, Clone)]
pub struct Applicant {
    /// Its id.
    pub node: NodeId,
    /// What it wants to do.
    pub role: Role,
    /// Its name in tables.
    pub name: String,
    /// The account that shall earn.
    pub owner: AccountId,
}

impl Applicant {
    /// Asks until the owner has approved. Ends with an error when the connection does.
    pub async fn enrol(&self, connection: &Connection) -> Result<(), ErrorBody> {
        let request = Request::Enrol {
            owner: self.owner,
            role: self.role,
            name: self.name.clone(),
        };
        for asked in 0u32.. {
            match connection.request(&request, ANSWER_LIMIT).await? {
                Enrolment::Granted { expires } => {
                    let days = expires.ms_since(clock::now()) / DAY_MS;
                    info!(
                        "{} lets this node work for it for {days} more days",
                        self.owner
                    );
                    return Ok(());
                }
                Enrolment::Pending {} if asked % REMIND_EVERY == 0 => info!(
                    "waiting for the owner {}: type  cryptomind miner approve {}",
                    self.owner, self.node
                ),
                Enrolment::Pending {} => {}
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        Err(ErrorBody::internal("asked for too long"))
    }
}

/// The refusal of a node that nobody would be paid for.
pub fn no_owner() -> ErrorBody {
    ErrorBody::user("no_owner", "nobody is named who shall earn").with_help(
        "set account under [node] in its configuration, or start it with --account cm1…: `cryptomind key show` names it",
    )
}
