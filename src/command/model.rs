//! `model`: list, fetch, run.

use std::path::{Path, PathBuf};

use anyhow::Result;
use cryptomind_protocol::TaskId;
use cryptomind_protocol::item::{Access, ItemKind, ItemView};
use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::task::{Conditions, TaskSpec, TaskView, Work};

use crate::cli::{GetArgs, InferArgs, ModelCommand};
use crate::command::dataset::{access_text, shape};
use crate::command::{files, interruptible, serve, task};
use crate::context::Context;
use crate::follow::Follow;
use crate::resolve;

/// Runs a `model` command. Following an inference has its own answer to Ctrl-C.
pub async fn run(context: &Context, command: ModelCommand) -> Result<()> {
    match command {
        ModelCommand::Ls => interruptible(list(context)).await,
        ModelCommand::Get(args) => interruptible(get(context, args)).await,
        ModelCommand::Infer(mut args) => match args.input.take() {
            Some(input) => serve::infer_file(context, args, &input).await,
            None => infer(context, args).await,
        },
        ModelCommand::Serve(args) => serve::serve(context, args).await,
    }
}

async fn get(context: &Context, args: GetArgs) -> Result<()> {
    let client = context.client().await?;
    let item = resolve::item(client, &args.item).await?;
    files::get_item(context.output, client, &item, args.output).await?;
    Ok(())
}

async fn list(context: &Context) -> Result<()> {
    let items = context.client().await?.items(Some("model")).await?;
    context.output.rows(
        &items,
        &[
            "model",
            "input",
            "parameters",
            "test accuracy",
            "access",
            "uses",
            "id",
        ],
        row,
        "no model is published yet: cryptomind task submit …",
    )?;
    Ok(())
}

fn row(item: &ItemView) -> Vec<String> {
    let (input, parameters, accuracy) = match &item.manifest.kind {
        ItemKind::Model(info) => (
            shape(&info.spec.input),
            info.spec.parameter_count().to_string(),
            info.metrics.test_accuracy.map(|a| format!("{a:.4}")),
        ),
        ItemKind::Dataset(_) => Default::default(),
    };
    vec![
        item.path(),
        input,
        parameters,
        accuracy.unwrap_or_default(),
        access_text(&item.manifest.access),
        item.uses.to_string(),
        item.item.short(),
    ]
}

async fn infer(context: &Context, args: InferArgs) -> Result<()> {
    let (id, name) = interruptible(post(context, &args)).await?;
    let ended = task::follow_or_detach(context, id, 0, Follow::new(context.output)).await?;
    let dir = args.output.unwrap_or_else(|| PathBuf::from(name));
    interruptible(fetch(context, &ended, &dir)).await
}

/// Posts the task, with the upper end of the quote as its cap where none is given. Gives id and name.
async fn post(context: &Context, args: &InferArgs) -> Result<(TaskId, String)> {
    let client = context.client().await?;
    let model = resolve::item(client, &args.model).await?;
    let dataset = args.dataset.as_deref().unwrap_or_default();
    let dataset = resolve::item(client, dataset).await?;
    let mut spec = inference(&model, &dataset, args.split.into());
    let quote = client.quote(&spec).await?;
    spec.max_cost = args.max_cost.unwrap_or(quote.cost_high);
    let name = spec.name.clone();
    let (id, held) = client.post(spec).await?;
    context
        .output
        .note(format!("{id} posted, {held} held until it ends"))?;
    Ok((id, name))
}

async fn fetch(context: &Context, ended: &TaskView, dir: &Path) -> Result<()> {
    let client = context.client().await?;
    let placement = client.locate_task(ended.task).await?;
    let entries = files::entries(&ended.files);
    let paths = files::download(context.output, client, &placement, &entries, dir).await?;
    files::tell(context.output, &paths)
}

/// The task that runs `model` over `dataset`, with the highest cap there is: quotes need one.
fn inference(
    model: &ItemView,
    dataset: &ItemView,
    split: cryptomind_protocol::task::Split,
) -> TaskSpec {
    TaskSpec {
        name: inference_name(&model.manifest.name, &dataset.manifest.name),
        work: Work::Infer {
            model: model.item,
            dataset: dataset.item,
            split,
        },
        miners: 1,
        max_cost: SUPPLY,
        access: Access::Owner,
        conditions: Conditions::default(),
    }
}

/// `<model>-on-<dataset>`, as long as a name may be.
pub fn inference_name(model: &str, dataset: &str) -> String {
    let part = |name: &str| name.chars().take(30).collect::<String>();
    format!("{}-on-{}", part(model), part(dataset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptomind_protocol::task::is_name;

    #[test]
    fn an_inference_has_a_valid_name() {
        let long = "x".repeat(64);
        assert!(is_name(&inference_name(&long, &long)));
        assert_eq!(inference_name("mlp", "digits"), "mlp-on-digits");
    }
}
