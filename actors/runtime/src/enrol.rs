//! How a node gets its owner's word: the delegation, asked for once and kept in a file.
//!
//! Miners and storage nodes use it alike. The file holds the CBOR of the signed delegation; whoever reads it learns
//! nothing secret.

use std::path::Path;
use std::time::Duration;

use cryptomind_net::Connection;
use cryptomind_protocol::delegation::{Delegation, Role};
use cryptomind_protocol::node::{Enrolment, Request};
use cryptomind_protocol::signed::Payload;
use cryptomind_protocol::{AccountId, ErrorBody, GenesisHash, NodeId, Signed, codec};
use tracing::info;

/// How often the owner's answer is asked for.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// What the coordinator gets to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How often the log repeats what the owner must do, in askings.
const REMIND_EVERY: u32 = 60;
/// The largest delegation file that is read.
const FILE_BYTES_MAX: u64 = 4096;

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
    /// Asks until the owner has approved, and returns the delegation, checked. Ends with an error when the connection does.
    pub async fn enrol(&self, connection: &Connection) -> Result<Signed, ErrorBody> {
        let request = Request::Enrol {
            owner: self.owner,
            role: self.role,
            name: self.name.clone(),
        };
        for asked in 0u32.. {
            match connection.request(&request, ANSWER_LIMIT).await? {
                Enrolment::Granted { delegation } => {
                    check(&delegation, self.node, self.role, &connection.network())?;
                    return Ok(delegation);
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

/// Refuses a delegation that is not this node's, not for this role, or not of this network.
pub fn check(
    delegation: &Signed,
    node: NodeId,
    role: Role,
    network: &GenesisHash,
) -> Result<Delegation, ErrorBody> {
    let refuse = |why: String| {
        ErrorBody::auth("bad_delegation", why)
            .with_help("remove the delegation file: the node then asks its owner again")
    };
    let word: Delegation = delegation
        .verify(network)
        .map_err(|e| refuse(e.to_string()))?;
    if word.node != node || word.role != role {
        return Err(refuse(format!(
            "the delegation is for {} as {}, this is {node} as {role}",
            word.node, word.role
        )));
    }
    Ok(word)
}

/// Reads a delegation file; nothing where there is none.
pub fn read(path: &Path) -> Result<Option<Signed>, ErrorBody> {
    let bad = |why: String| {
        ErrorBody::user("bad_delegation", format!("{}: {why}", path.display()))
            .with_help("remove the file: the node then asks its owner again")
    };
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(bad(e.to_string())),
        Ok(meta) if meta.len() > FILE_BYTES_MAX => return Err(bad("too large".into())),
        Ok(_) => {}
    }
    let bytes = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
    let signed: Signed = codec::decode(&bytes).map_err(|e| bad(e.to_string()))?;
    if signed.payload.len() > Delegation::MAX_BYTES {
        return Err(bad("too large".into()));
    }
    Ok(Some(signed))
}

/// Writes a delegation file; readers see the old one or the new one, whole.
pub fn write(path: &Path, delegation: &Signed) -> Result<(), ErrorBody> {
    let refuse = |e: std::io::Error| ErrorBody::internal(format!("{}: {e}", path.display()));
    let new = path.with_extension("new");
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(refuse)?;
    }
    std::fs::write(&new, codec::encode(delegation)).map_err(refuse)?;
    std::fs::rename(&new, path).map_err(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptomind_protocol::{SecretKey, Timestamp};

    fn signed(node: NodeId, role: Role, network: &GenesisHash) -> Signed {
        let word = Delegation {
            version: 1,
            node,
            role,
            expires: Timestamp::from_ms(1),
        };
        Signed::sign(&word, network, &SecretKey::from_seed([1; 32]))
    }

    #[test]
    fn a_delegation_fits_one_node_one_role_and_one_network() {
        let (node, here) = (NodeId::new([7; 32]), GenesisHash::new([1; 32]));
        let word = signed(node, Role::Miner, &here);
        assert!(check(&word, node, Role::Miner, &here).is_ok());
        assert!(check(&word, node, Role::Storage, &here).is_err());
        assert!(check(&word, NodeId::new([8; 32]), Role::Miner, &here).is_err());
        assert!(check(&word, node, Role::Miner, &GenesisHash::new([2; 32])).is_err());
    }

    #[test]
    fn the_file_round_trips_and_a_damaged_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/delegation");
        assert_eq!(read(&path).unwrap(), None);
        let word = signed(
            NodeId::new([7; 32]),
            Role::Miner,
            &GenesisHash::new([1; 32]),
        );
        write(&path, &word).unwrap();
        assert_eq!(read(&path).unwrap(), Some(word));
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.message.contains("delegation") && error.help.is_some());
    }
}
