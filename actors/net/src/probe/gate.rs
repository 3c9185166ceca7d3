//! Who may measure this node: whoever the coordinator sends, with its ticket.

use std::fmt;
use std::sync::Arc;

use cryptomind_protocol::probe::Ticket;
use cryptomind_protocol::{ErrorBody, GenesisHash, NodeId, PublicKey, Signed, Timestamp};

/// What tickets are checked against.
#[derive(Clone)]
pub struct Gate {
    /// Whose tickets count.
    pub coordinator: PublicKey,
    /// The network that they are signed for.
    pub network: GenesisHash,
    /// This node.
    pub node: NodeId,
    /// The coordinator's clock, as far as this node knows it.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gate = f.debug_struct("Gate");
        { gate }.field("node", &self.node).finish_non_exhaustive()
    }
}

impl Gate {
    /// What `caller` may do by this ticket.
    ///
    /// # Errors
    /// `bad_ticket`, saying what is wrong with it.
    pub(super) fn admit(&self, caller: NodeId, ticket: &Signed) -> Result<Ticket, ErrorBody> {
        if ticket.signer != self.coordinator {
            return Err(refusal("the ticket is not this coordinator's"));
        }
        let read = ticket.verify::<Ticket>(&self.network);
        let read = read.map_err(|error| refusal(&format!("the ticket: {error}")))?;
        if read.version != 1 {
            return Err(refusal("the ticket is of another version"));
        }
        if read.caller != caller {
            return Err(refusal("the ticket is for another caller"));
        }
        if read.callee != self.node {
            return Err(refusal("the ticket is for another node"));
        }
        if read.expires <= (self.now)() {
            return Err(refusal("the ticket has expired"));
        }
        Ok(read)
    }
}

fn refusal(message: &str) -> ErrorBody {
    ErrorBody::auth("bad_ticket", message)
        .with_help("measure whom the coordinator orders, when it does: each order has a fresh one")
}

#[cfg(test)]
mod tests {
    use cryptomind_protocol::SecretKey;

    use super::*;

    const NETWORK: GenesisHash = GenesisHash::new([1; 32]);
    const NOW: Timestamp = Timestamp::from_ms(1_000);

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed([n; 32])
    }

    fn node(n: u8) -> NodeId {
        NodeId::of_key(&key(n).public())
    }

    fn gate() -> Gate {
        Gate {
            coordinator: key(9).public(),
            network: NETWORK,
            node: node(1),
            now: Arc::new(|| NOW),
        }
    }

    fn ticket() -> Ticket {
        Ticket {
            version: 1,
            caller: node(2),
            callee: node(1),
            bulk_bytes: 7,
            expires: NOW.plus_ms(1),
        }
    }

    fn sign(ticket: Ticket) -> Signed {
        Signed::sign(&ticket, &NETWORK, &key(9))
    }

    #[test]
    fn the_coordinators_ticket_for_both_lets_in() {
        assert_eq!(gate().admit(node(2), &sign(ticket())), Ok(ticket()));
    }

    #[test]
    fn every_other_ticket_is_refused_by_name() {
        let mut forged = sign(ticket());
        forged.payload = sign(Ticket {
            bulk_bytes: 9,
            ..ticket()
        })
        .payload;
        let elsewhere = GenesisHash::new([2; 32]);
        let cases = [
            (
                Signed::sign(&ticket(), &NETWORK, &key(8)),
                "not this coordinator's",
            ),
            (Signed::sign(&ticket(), &elsewhere, &key(9)), "does not fit"),
            (forged, "does not fit"),
            (
                sign(Ticket {
                    version: 2,
                    ..ticket()
                }),
                "another version",
            ),
            (
                sign(Ticket {
                    caller: node(3),
                    ..ticket()
                }),
                "another caller",
            ),
            (
                sign(Ticket {
                    callee: node(3),
                    ..ticket()
                }),
                "another node",
            ),
            (
                sign(Ticket {
                    expires: NOW,
                    ..ticket()
                }),
                "expired",
            ),
        ];
        for (ticket, why) in cases {
            let refused = gate().admit(node(2), &ticket).unwrap_err();
            assert_eq!(refused.code, "bad_ticket");
            assert!(refused.message.contains(why), "{why}: {}", refused.message);
        }
    }
}
