//! What the matchmaker shows: places in a group to its members, miners to people.

use cryptomind_core::journal::NodeRecord;
use cryptomind_core::run::{self, Run};
use cryptomind_protocol::api::MinerView;
use cryptomind_protocol::item::{FileEntry, ItemKind};
use cryptomind_protocol::node::{Match, Newcomer};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::task::{Activity, Work};
use cryptomind_protocol::{ErrorBody, ItemId, NodeId};

use super::Desk;

/// What a task may store beyond its checkpoints: model card, predictions, headers.
const RESULT_ROOM_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes of a parameter in a checkpoint: itself and two moments.
const CHECKPOINT_BYTES_PER_PARAMETER: u64 = 12;

impl Desk {
    /// The place of one rank, with all that it needs to begin; of a newcomer, that of nobody.
    pub(super) fn place(
        &self,
        run: &Run,
        (node, rank): (NodeId, usize),
    ) -> Result<Match, ErrorBody> {
        let (dataset, model) = match &run.spec.work {
            Work::Train { dataset, .. } => (Some(dataset), None),
            Work::Infer { model, dataset, .. } => (Some(dataset), Some(model)),
            Work::Serve { model, .. } => (None, Some(model)),
        };
        let (dataset, dataset_files) = match self.manifest(dataset)? {
            Some((ItemKind::Dataset(info), files)) => (Some(info), files),
            Some(_) => return Err(ErrorBody::internal("the task's dataset is none")),
            None => (None, Vec::new()),
        };
        let (model, model_files) = match self.manifest(model)? {
            Some((ItemKind::Model(info), files)) => (Some(info), files),
            _ => (None, Vec::new()),
        };
        let files = dataset_files
            .iter()
            .chain(&model_files)
            .map(|file: &FileEntry| file.blob);
        let blobs = files
            .chain(run.verified_file.iter().map(|file| file.blob))
            .collect();
        let tickets = &self.world.tickets;
        Ok(Match {
            task: run.task,
            attempt: run.attempt,
            spec: run.spec.clone(),
            dataset,
            dataset_files,
            model,
            model_files,
            caller: run.caller.filter(|_| run.is_serving()),
            members: run.seats.iter().map(|seat| seat.member.clone()).collect(),
            ring_addresses: run
                .seats
                .iter()
                .map(|seat| seat.ring_address.clone())
                .collect(),
            newcomers: run.newcomers.iter().map(newcomer).collect(),
            weights: run.shares().tell(),
            rank: rank as u32,
            start_step: run.start_step,
            resume: run
                .verified_file
                .clone()
                .filter(|_| run.verified_step == run.start_step),
            sources: self.world.links.sources(),
            get_ticket: tickets.get_for(node, blobs, run.task, run.hold_expires()),
            put_ticket: tickets.put_for(node, room(run), run.task, run.hold_expires()),
        })
    }

    /// What an item is, with its files.
    fn manifest(
        &self,
        item: Option<&ItemId>,
    ) -> Result<Option<(ItemKind, Vec<FileEntry>)>, ErrorBody> {
        let record = item.map(|item| self.item(item)).transpose()?;
        Ok(record.map(|record| (record.manifest.kind, record.manifest.files)))
    }

    /// Every miner that ever joined. Owners' nicknames are the caller's to add.
    pub(super) async fn miners(&self) -> Result<Vec<MinerView>, ErrorBody> {
        let records = self
            .world
            .store
            .load::<NodeRecord>()
            .map_err(ErrorBody::internal)?;
        let miners: Vec<_> = records
            .into_iter()
            .filter(|r| r.role == Role::Miner)
            .collect();
        let ratings = self
            .ratings(miners.iter().map(|r| r.node).collect())
            .await?;
        let view = |(record, rating): (NodeRecord, _)| {
            let link = self.world.links.get(&record.node);
            MinerView {
                node: record.node,
                name: record.name,
                owner: record.owner,
                owner_name: record.owner.short(),
                online: link.is_some(),
                activity: link.map_or(Activity::Idle, |link| link.activity),
                task: self.runs.of_member(&record.node).pop(),
                mflops: record.capacity.mflops,
                memory_bytes: record.capacity.memory_bytes,
                reserve: record.reserve,
                devices: record.capacity.devices,
                rating,
            }
        };
        Ok(miners.into_iter().zip(ratings).map(view).collect())
    }
}

fn newcomer(newcomer: &run::Newcomer) -> Newcomer {
    Newcomer {
        node: newcomer.offer.member.node,
        ring_address: newcomer.offer.ring_address.clone(),
    }
}

/// How many bytes a task's members may store: every checkpoint twice, and its results.
fn room(run: &Run) -> u64 {
    let Work::Train { model, train, .. } = &run.spec.work else {
        return RESULT_ROOM_BYTES;
    };
    let checkpoints = run.terms.extent.steps / u64::from(train.checkpoint_steps.max(1)) + 2;
    let each = model
        .parameter_count()
        .saturating_mul(CHECKPOINT_BYTES_PER_PARAMETER)
        + (1 << 16);
    each.saturating_mul(checkpoints)
        .saturating_mul(2)
        .saturating_add(RESULT_ROOM_BYTES)
}
