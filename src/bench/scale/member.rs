//! A rank of `bench scale`, in its own process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use cryptomind_actors::miner::train::{Plan, StepTime};
use cryptomind_net::ring::RingSocket;
use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::item::DataFormat;
use cryptomind_protocol::key::Hash;
use cryptomind_protocol::ring::Wire;
use cryptomind_protocol::task::{Optimizer, TrainSpec};
use serde::{Deserialize, Serialize};

use super::{shape, text};
use crate::bench::{member, rank};
use crate::cli::bench::RankArgs;

/// Steps before those that count.
const WARM_UP: u32 = 3;

/// What it is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// Of all ranks.
    pub(super) addresses: Vec<String>,
    /// Whether each computes its share by itself.
    pub(super) is_apart: bool,
    pub(super) text: PathBuf,
    pub(super) wire: Wire,
    /// Steps that count.
    pub(super) steps: u32,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Timed {
    /// Each step that counts.
    pub(super) steps: Vec<Step>,
    /// Of the state after all steps.
    pub(super) fingerprint: Hash,
}

/// What a step took, milliseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Step {
    /// From its beginning to its commit.
    pub(super) wall_ms: f64,
    /// Of that, without waiting for the ring.
    pub(super) compute_ms: f64,
}

impl From<StepTime> for Step {
    fn from(time: StepTime) -> Self {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        Self {
            wall_ms: ms(time.wall),
            compute_ms: ms(time.busy),
        }
    }
}

/// See [`super::member`].
pub(super) async fn run(args: RankArgs) -> Result<(), ErrorBody> {
    let number = args.rank;
    let work = async |socket: &RingSocket, order: Order| train(number, socket, order).await;
    rank::serve(args, work).await
}

async fn train(number: usize, socket: &RingSocket, order: Order) -> Result<Timed, ErrorBody> {
    let (times, taken) = std_mpsc::channel();
    let plan = plan(&order)?;
    let place = match order.is_apart {
        false => rank::plan(number, order.addresses, order.wire, None),
        true => rank::alone(number, socket.local_addr().to_string()),
    };
    let trained = member::train(socket, place, plan, times).await?;
    let counted = taken.try_iter().skip(WARM_UP as usize).map(Step::from);
    Ok(Timed {
        steps: counted.collect(),
        fingerprint: trained.fingerprint,
    })
}

fn plan(order: &Order) -> Result<Plan, ErrorBody> {
    let shape = shape();
    let info = text::info(&order.text, &shape)?;
    let files = match &info.format {
        DataFormat::Text { file, .. } => BTreeMap::from([(file.clone(), order.text.clone())]),
        _ => BTreeMap::new(),
    };
    let steps = WARM_UP + order.steps;
    // Who is apart goes through the text by its share.
    let (epochs, parts) = match order.is_apart {
        false => (steps, 1),
        true => {
            let world = order.addresses.len() as u32;
            (steps.div_ceil(world), world)
        }
    };
    Ok(Plan {
        model: shape.model,
        train: TrainSpec {
            // The text is one batch: an epoch is a step.
            epochs,
            global_batch: shape.batch / parts,
            optimizer: Optimizer::adamw(1e-3),
            checkpoint_steps: steps,
            wire: order.wire,
            ..TrainSpec::default()
        },
        info,
        files,
        threads: 1,
        metadata: BTreeMap::new(),
        committed: Default::default(),
    })
}
