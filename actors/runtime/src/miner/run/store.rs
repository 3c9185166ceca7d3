//! The result of a task, stored.

use std::sync::Arc;

use cryptomind_protocol::item::{CARD_FILE, MODEL_FILE};
use cryptomind_protocol::node::{Match, Report};
use cryptomind_protocol::task::{Metrics, ResultFile, Work};
use cryptomind_protocol::transaction::StoredReceipt;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Context, Fault, micros};
use crate::miner::card::Card;
use crate::miner::train::Done;
use crate::miner::uploads;
use crate::transfer::Packed;

/// Stores the trained model with its card; the report that says so.
pub(super) async fn model(
    context: Arc<Context>,
    place: watch::Receiver<Arc<Match>>,
    done: Box<Done>,
) -> Result<Report, Fault> {
    let Some((weights, test)) = &done.result else {
        return Err(Fault::here("the training thread made no result"));
    };
    let metrics = Metrics {
        final_loss: done.final_loss,
        test_accuracy: test.accuracy.map(|accuracy| accuracy as f32),
        test_loss: Some(test.loss as f32),
        samples: done.samples,
        compute_ms: done.compute_ms,
        latency: None,
    };
    let card = card(&place.borrow(), &done, &metrics).into_bytes();
    let files = vec![(MODEL_FILE, weights.clone()), (CARD_FILE, card)];
    result(&context, &place, files, metrics).await
}

fn card(matched: &Match, done: &Done, metrics: &Metrics) -> String {
    match (&matched.spec.work, &matched.dataset) {
        (
            Work::Train {
                dataset,
                model,
                train,
            },
            Some(info),
        ) => Card {
            task: matched.task,
            spec: &matched.spec,
            model,
            train,
            dataset: *dataset,
            info,
            files: &matched.dataset_files,
            miners: matched.members.len(),
            steps: done.steps,
            metrics,
        }
        .text(),
        _ => String::new(),
    }
}

/// Stores the files of a result; the report that says so.
pub(super) async fn result(
    context: &Context,
    place: &watch::Receiver<Arc<Match>>,
    files: Vec<(&str, Vec<u8>)>,
    mut metrics: Metrics,
) -> Result<Report, Fault> {
    let begin = Instant::now();
    let mut stored: (Vec<ResultFile>, Vec<StoredReceipt>) = Default::default();
    for (name, content) in files {
        let blob = Packed::new(content);
        let receipt = uploads::store(context, place, &blob).await;
        stored.1.push(receipt.map_err(Fault::here)?);
        stored.0.push(ResultFile {
            name: name.into(),
            blob: blob.id(),
            bytes: blob.len(),
        });
    }
    let (files, receipts) = stored;
    if let Some(latency) = &mut metrics.latency {
        latency.return_us = micros(begin.elapsed());
    }
    Ok(Report::Finished {
        files,
        receipts,
        metrics,
    })
}
