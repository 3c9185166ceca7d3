//! This member's word on its steps: signed with its node's key, and told to the coordinator.

use cryptomind_protocol::audit::{Commitment, Commitments, VERSION};
use cryptomind_protocol::node::{Match, Report};
use cryptomind_protocol::{GenesisHash, Signed};

use super::worker::Context;

/// Signs what the training thread says of steps of this attempt, and tells it.
pub(super) fn tell(
    context: &Context,
    network: &GenesisHash,
    matched: &Match,
    (first, steps): (u64, Vec<Commitment>),
) {
    let (task, attempt, rank) = (matched.task, matched.attempt, matched.rank);
    let said = Commitments {
        version: VERSION,
        task,
        attempt,
        rank,
        first,
        steps,
    };
    let commitments = Signed::sign(&said, network, &context.key);
    context
        .outbox
        .report(task, attempt, Report::Committed { commitments });
}
