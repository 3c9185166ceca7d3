//! Trains a small model on a dataset of the catalog and fetches it.
//!
//! ```text
//! cryptomind dev                      # prints the two lines that export address and key file
//! cryptomind dataset add iris.csv --label species --name iris
//! cargo run -p cryptomind-sdk --example first_task -- dev/iris
//! ```
#![allow(clippy::print_stdout)]

use std::path::Path;

use cryptomind_sdk::protocol::item::{Access, DatasetInfo, ItemKind};
use cryptomind_sdk::protocol::model::{Layer, Loss, ModelSpec};
use cryptomind_sdk::protocol::money::SUPPLY;
use cryptomind_sdk::protocol::task::{Conditions, Event, Optimizer, TaskSpec, TrainSpec, Work};
use cryptomind_sdk::{Client, ErrorBody, ItemId};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args()
        .nth(1)
        .ok_or("name a dataset, such as dev/iris")?;
    let address = std::env::var("CRYPTOMIND_COORDINATOR")?.parse()?;
    let key = std::fs::read_to_string(std::env::var("CRYPTOMIND_KEY_FILE")?)?.parse()?;
    let client = Client::connect(address, key).await?;

    let dataset = client.item(&path).await?;
    let ItemKind::Dataset(info) = &dataset.manifest.kind else {
        return Err("that is a model".into());
    };
    let mut spec = task(dataset.item, info);
    let quote = client.quote(&spec).await?;
    spec.max_cost = quote.cost_high;
    let (task, held) = client.post(spec).await?;
    println!("{task}: {held} held");

    let mut events = client.watch(task, 0);
    while let Some(event) = events.next().await {
        match event?.event {
            Event::Progress { step, loss, .. } => println!("step {step}: loss {loss}"),
            Event::Settled { state, reason, .. } => println!("{state}: {reason}"),
            _ => {}
        }
    }
    fetch(&client, task).await?;
    client.close().await;
    Ok(())
}

/// Two linear layers, for whatever the dataset holds.
fn task(dataset: ItemId, info: &DatasetInfo) -> TaskSpec {
    let classes = info.classes.len() as u32;
    TaskSpec {
        name: "first-model".into(),
        work: Work::Train {
            dataset,
            model: ModelSpec {
                input: info.input.clone(),
                layers: vec![Layer::linear(32), Layer::Relu {}, Layer::linear(classes)],
                loss: Loss::default(),
            },
            train: TrainSpec {
                epochs: 20,
                global_batch: 32,
                optimizer: Optimizer::adamw(1e-3),
                seed: 0,
                checkpoint_steps: 100,
                ..TrainSpec::default()
            },
        },
        miners: 1,
        max_cost: SUPPLY,
        access: Access::Owner,
        conditions: Conditions::default(),
    }
}

async fn fetch(client: &Client, task: cryptomind_sdk::TaskId) -> Result<(), ErrorBody> {
    let ended = client.task(task).await?;
    let Some(item) = ended.item else {
        return Err(ErrorBody::not_found("model", ended.reason));
    };
    let item = client.item_by_id(item).await?;
    let placement = client.locate_item(item.item).await?;
    let dir = Path::new("first-model");
    let files = &item.manifest.files;
    for path in client.download(&placement, files, dir, &mut |_| {}).await? {
        println!("{}", path.display());
    }
    Ok(())
}
