//! 1. ada publishes a dataset. 2. bob asks for a quote and posts a task.

use std::time::Instant;

use anyhow::Result;
use cryptomind_protocol::item::{Access, ItemKind, ItemView, Manifest};
use cryptomind_protocol::model::{Layer, Loss, ModelSpec};
use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::task::{Conditions, Optimizer, TaskSpec, TrainSpec, Work};
use cryptomind_protocol::{Amount, ItemId, TaskId};

use super::{Demo, digits};
use crate::command::{files, task};
use crate::follow::size;
use crate::local_network::register_once;

/// What ada asks for each use of her dataset: 0.002 CTM.
const FEE: Amount = Amount::from_base_units(2_000_000);

/// A posted task.
pub(super) struct Posted {
    pub(super) task: TaskId,
    pub(super) at: Instant,
}

impl Demo<'_> {
    pub(super) async fn publish_digits(&mut self) -> Result<ItemView> {
        self.heading(1, "ada publishes a dataset")?;
        register_once(&self.ada, "ada").await?;
        let (info, paths) = digits::write(self.network.dir())?;
        let named = paths.into_iter().filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_owned();
            Some((name, path))
        });
        let stored = files::upload(self.output, &self.ada, named.collect()).await?;
        let (files, receipts): (Vec<_>, Vec<_>) = stored.into_iter().unzip();
        let manifest = Manifest {
            name: "digits".into(),
            kind: ItemKind::Dataset(info.clone()),
            files,
            access: Access::Paid { fee: FEE },
            licence: cryptomind_gpu::digits::LICENCE.into(),
            source: cryptomind_gpu::digits::SOURCE.into(),
        };
        let item = self.ada.publish(manifest, receipts).await?;
        let item = self.ada.item_by_id(item).await?;
        self.line(format!(
            "{}: {} training and {} test images of handwritten digits, 8×8 pixels, {FEE} a use",
            item.path(),
            info.train_samples,
            info.test_samples
        ))?;
        for file in &item.manifest.files {
            self.line(format!(
                "{:<28} {:>10}  {}",
                file.name,
                size(file.bytes),
                file.blob.short()
            ))?;
        }
        Ok(item)
    }

    pub(super) async fn quote_and_post(&mut self, dataset: &ItemView) -> Result<Posted> {
        self.heading(
            2,
            "bob asks what training a model on it would cost, and posts the task",
        )?;
        register_once(&self.bob, "bob").await?;
        let money = self.bob.faucet().await?;
        self.line(format!("bob has {money} of test money"))?;
        let mut spec = training(dataset.item);
        let quote = self.bob.quote(&spec).await?;
        // A quarter more than the most that it should cost: the rest comes back.
        spec.max_cost = quote
            .cost_high
            .mul_div_ceil(5, 4)
            .unwrap_or(quote.cost_high);
        self.block(&task::quote_text(&quote, spec.max_cost))?;
        let at = Instant::now();
        let (task, held) = self.bob.post(spec).await?;
        self.line(format!(
            "{task} posted: {held} held in escrow until it ends"
        ))?;
        Ok(Posted { task, at })
    }
}

/// An MLP 64-64-10 on 8×8 images: about 1,350 steps.
fn training(dataset: ItemId) -> TaskSpec {
    TaskSpec {
        name: "digits-mlp".into(),
        work: Work::Train {
            dataset,
            model: ModelSpec {
                input: vec![8, 8],
                layers: vec![Layer::linear(64), Layer::Relu {}, Layer::linear(10)],
                loss: Loss::default(),
            },
            train: TrainSpec {
                epochs: 30,
                global_batch: 32,
                optimizer: Optimizer::adamw(1e-3),
                seed: 1,
                checkpoint_steps: 135,
                ..TrainSpec::default()
            },
        },
        miners: 3,
        max_cost: SUPPLY,
        access: Access::Free,
        conditions: Conditions::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_task_is_in_order() {
        training(ItemId::new([1; 16])).check().unwrap();
    }
}
