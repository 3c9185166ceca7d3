//! How soon a coordinator serves again after a power cut.

use std::time::{Duration, Instant};

use cryptomind_protocol::ErrorBody;
use cryptomind_sdk::Client;

use super::coordinator::Coordinator;
use super::load::LIMITS;

/// Kills the coordinator and starts it again: the time from the kill until the first answer to a client.
pub async fn measure(coordinator: &mut Coordinator) -> Result<Duration, ErrorBody> {
    let key = cryptomind_sdk::new_key()?;
    let killed = Instant::now();
    coordinator.kill_and_start().await?;
    // Connecting asks for the network's status.
    let client = Client::connect_within(coordinator.address.clone(), key, LIMITS).await?;
    let served = killed.elapsed();
    client.close().await;
    Ok(served)
}
