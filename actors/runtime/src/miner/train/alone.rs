//! The same training without a group: what a group of any size comes to, bit by bit, on one thread.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cryptomind_gpu::EngineError;
use cryptomind_gpu::dataset;
use cryptomind_gpu::session::Session;
use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::item::DatasetInfo;
use cryptomind_protocol::model::ModelSpec;
use cryptomind_protocol::task::{Split, TrainSpec};

/// The trained weights, in a file as [`super::Done::result`] has it, but for the task's name; `round` is given each step's
/// gradients first. Blocks.
///
/// # Errors
/// Where the dataset cannot be read, or training ends in numbers that are none.
pub fn alone(
    model: &ModelSpec,
    train: &TrainSpec,
    info: &DatasetInfo,
    file: &dyn Fn(&str) -> PathBuf,
    round: &mut dyn FnMut(&mut [f32]),
) -> Result<Vec<u8>, ErrorBody> {
    let loaded = dataset::load(info, Split::Train, None, file);
    let (samples, scaling) = loaded.map_err(ErrorBody::internal)?;
    let steps = train.total_steps(samples.len() as u64);
    let mut session = Session::with_threads(model, train, 1)?;
    let mut order = super::Order::default();
    while session.step() < steps {
        let batch = order.batch(train, samples.len(), session.step());
        step(&mut session, &samples, batch, round)?;
    }
    let (key, value) = super::FORMAT;
    let mut metadata = BTreeMap::from([(key.into(), value.into())]);
    metadata.extend(scaling.metadata());
    Ok(session.export(&metadata))
}

fn step(
    session: &mut Session,
    samples: &dataset::Samples,
    batch: &[u32],
    round: &mut dyn FnMut(&mut [f32]),
) -> Result<(), EngineError> {
    session.grad_step(samples, batch, &mut |_| ())?;
    round(session.gradients());
    session.apply(batch.len() as u32)?;
    session.commit();
    Ok(())
}
