//! A rank of `bench quality`, in its own process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc as std_mpsc;

use cryptomind_actors::miner::train::Plan;
use cryptomind_net::ring::RingSocket;
use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::key::Hash;
use cryptomind_protocol::ring::Wire;
use serde::{Deserialize, Serialize};

use super::recipe::RECIPES;
use crate::bench::{member, rank};
use crate::cli::bench::RankArgs;

/// What it is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// Of all ranks.
    pub(super) addresses: Vec<String>,
    /// Which of the recipes.
    pub(super) recipe: usize,
    /// The folder of all data.
    pub(super) data: PathBuf,
    pub(super) wire: Wire,
    pub(super) seed: u64,
    pub(super) threads: usize,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Of the state after all steps.
    pub(super) fingerprint: Hash,
    pub(super) steps: u64,
    pub(super) seconds: f64,
    /// Loss and accuracy on held-out samples: of rank 0.
    pub(super) test: Option<(f64, Option<f64>)>,
}

/// See [`super::member`].
pub(super) async fn run(args: RankArgs) -> Result<(), ErrorBody> {
    let number = args.rank;
    let work = async |socket: &RingSocket, order: Order| train(number, socket, order).await;
    rank::serve(args, work).await
}

async fn train(rank: usize, socket: &RingSocket, order: Order) -> Result<Answer, ErrorBody> {
    let plan = plan(&order)?;
    let place = rank::plan(rank, order.addresses, order.wire, None);
    // Nobody reads the times.
    let (times, _) = std_mpsc::channel();
    let trained = member::train(socket, place, plan, times).await?;
    let test = trained.done.result.map(|(_, test)| test);
    Ok(Answer {
        fingerprint: trained.fingerprint,
        steps: trained.done.steps,
        seconds: trained.done.compute_ms as f64 / 1e3,
        test: test.map(|test| (test.loss, test.accuracy)),
    })
}

fn plan(order: &Order) -> Result<Plan, ErrorBody> {
    let recipe = RECIPES.get(order.recipe);
    let recipe = recipe.ok_or_else(|| ErrorBody::internal("there is no such recipe"))?;
    let data = recipe.find(&order.data)?;
    let (model, mut train) = recipe.plan(&data.info, order.seed);
    train.wire = order.wire;
    Ok(Plan {
        model,
        train,
        info: data.info,
        files: data.files,
        threads: order.threads,
        metadata: BTreeMap::new(),
        committed: Default::default(),
    })
}
