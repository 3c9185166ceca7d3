//! `task`: quote, submit, follow, fetch, cancel, rate.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use cryptomind_config::TaskFile;
use cryptomind_core::market::rental::Rent;
use cryptomind_protocol::api::{Explanation, MinerVerdict};
use cryptomind_protocol::audit::TrailView;
use cryptomind_protocol::item::{ItemKind, ItemView};
use cryptomind_protocol::task::{
    Candidate, Event, Quote, TaskSpec, TaskState, TaskView, UsualWait,
};
use cryptomind_protocol::{Amount, ErrorBody, TaskId};
use cryptomind_sdk::Client;
use serde::Serialize;
use serde_json::json;

use crate::cli::TaskCommand;
use crate::command::{files, interruptible, miner, run_local, serve};
use crate::context::Context;
use crate::follow::{Follow, parting};
use crate::output::{printable, table};
use crate::{exit, moment, resolve};

/// Runs a `task` command. A watch has its own answer to Ctrl-C.
pub async fn run(context: &Context, command: TaskCommand) -> Result<()> {
    match command {
        TaskCommand::Submit { file, watch: true } => {
            let (task, _) = interruptible(submit(context, &file)).await?;
            let screen = Follow::new(context.output);
            watch(context, task, 0, screen).await
        }
        // Ctrl-C leaves a checkpoint.
        TaskCommand::RunLocal(args) => run_local::run(context, args).await,
        TaskCommand::Watch {
            task,
            from,
            timeline,
        } => {
            let find = async { Ok(resolve::task(context.client().await?, &task).await?) };
            let task = interruptible(find).await?;
            let screen = Follow::new(context.output).with_timeline(timeline);
            watch(context, task, from, screen).await
        }
        other => interruptible(run_short(context, other)).await,
    }
}

async fn run_short(context: &Context, command: TaskCommand) -> Result<()> {
    match command {
        TaskCommand::New { dataset, output } => new(context, &dataset, output).await,
        TaskCommand::Quote { file } => quote(context, &file).await,
        TaskCommand::Submit { file, .. } => {
            let (task, _) = submit(context, &file).await?;
            context.output.note(how_to_go_on(task))?;
            Ok(())
        }
        TaskCommand::Wait { task, timeout } => wait(context, &task, timeout).await,
        TaskCommand::Ls { state } => list(context, state).await,
        TaskCommand::Show { task } => show(context, &task).await,
        TaskCommand::Explain { task } => explain(context, &task).await,
        TaskCommand::Get { task, output } => get(context, &task, output).await,
        TaskCommand::Cancel { task } => cancel(context, &task).await,
        TaskCommand::Rate { task, stars } => rate(context, &task, stars).await,
        TaskCommand::Watch { .. } | TaskCommand::RunLocal(_) => {
            unreachable!("it is run by `run`")
        }
    }
}

fn how_to_go_on(task: TaskId) -> String {
    format!("watch:  cryptomind task watch {task}\ncancel: cryptomind task cancel {task}")
}

/// Follows a task to its end and says where its results are.
async fn watch(context: &Context, task: TaskId, from: u64, screen: Follow) -> Result<()> {
    let ended = follow_or_detach(context, task, from, screen).await?;
    if ended.item.is_some() || !ended.files.is_empty() {
        context
            .output
            .note(format!("results: cryptomind task get {task}"))?;
    }
    Ok(())
}

/// Follows a task to its end, or until Ctrl-C: then it goes on without us.
pub async fn follow_or_detach(
    context: &Context,
    task: TaskId,
    from: u64,
    screen: Follow,
) -> Result<TaskView> {
    tokio::select! {
        ended = follow(context, task, from, screen) => ended,
        _ = tokio::signal::ctrl_c() => Err(exit::interrupted("detached; the task goes on")
            .with_help(how_to_go_on(task))
            .into()),
    }
}

/// Shows a task's events from number `from` on. An error where it ends otherwise than finished.
async fn follow(
    context: &Context,
    task: TaskId,
    from: u64,
    mut screen: Follow,
) -> Result<TaskView> {
    let client = context.client().await?;
    let mut events = client.watch(task, from);
    while let Some(event) = events.next().await {
        let event = event?;
        screen.show(&event)?;
        if matches!(event.event, Event::Settled { .. }) {
            break;
        }
    }
    drop(screen);
    let ended = client.task(task).await?;
    exit::of_task(ended.state, &ended.reason)?;
    Ok(ended)
}

/// A seed that nobody else uses, as a number that JSON of any language holds.
pub fn random_seed() -> Result<u64, ErrorBody> {
    let key = cryptomind_sdk::new_key()?;
    let bytes = key.seed().first_chunk().copied().unwrap_or_default();
    Ok(u64::from_be_bytes(bytes) >> 11)
}

async fn new(context: &Context, dataset: &str, output: Option<PathBuf>) -> Result<()> {
    let client = context.client().await?;
    let item = resolve::item(client, dataset).await?;
    let ItemKind::Dataset(info) = &item.manifest.kind else {
        return Err(ErrorBody::user("not_a_dataset", format!("{} is a model", item.path())).into());
    };
    let text = TaskFile::template(&item.path(), info, random_seed()?);
    let Some(file) = output else {
        return Ok(context.output.raw(text.trim_end())?);
    };
    write_new(&file, &text)?;
    let shown = file.display();
    context
        .output
        .value(&json!({ "path": file }), || shown.to_string())?;
    context.output.note(format!(
        "next: cryptomind task quote {shown}\n      cryptomind task submit {shown} --watch"
    ))?;
    Ok(())
}

/// Writes a file that is not there yet.
pub fn write_new(file: &Path, text: &str) -> Result<(), ErrorBody> {
    use std::io::Write as _;
    let opened = std::fs::File::create_new(file);
    opened
        .and_then(|mut opened| opened.write_all(text.as_bytes()))
        .map_err(|e| exit::file(file, &e))
}

/// Reads a task file, looks its items up and checks that they fit.
async fn spec_of(client: &Client, file: &Path) -> Result<TaskSpec> {
    let file = TaskFile::read(file)?;
    let mut found: HashMap<String, Result<ItemView, ErrorBody>> = HashMap::new();
    for item in file.items() {
        let name = item.to_string();
        let looked_up = client.item(&name).await;
        found.insert(name, looked_up);
    }
    let spec = file.into_spec(|item| match found.get(&item.to_string()) {
        Some(Ok(view)) => Ok(view.item),
        Some(Err(error)) => Err(error.clone()),
        None => Err(ErrorBody::internal("an item was not looked up")),
    })?;
    if let Some(Ok(view)) = found.get(&file.dataset().to_string())
        && let ItemKind::Dataset(info) = &view.manifest.kind
    {
        file.check_dataset(info)?;
    }
    Ok(spec)
}

async fn quote(context: &Context, file: &Path) -> Result<()> {
    let client = context.client().await?;
    let spec = spec_of(client, file).await?;
    let quote = client.quote(&spec).await?;
    let cards = &context.settings.rented;
    let rented: Vec<_> = cards
        .iter()
        .map(|card| card.0.rent(quote.micro_cu))
        .collect();
    let compared = Compared {
        quote: &quote,
        rented: &rented,
    };
    context.output.value(&compared, || {
        let mut lines = vec![quote_text(&quote, spec.max_cost)];
        lines.extend(rented_text(&rented));
        lines.join("\n")
    })?;
    Ok(())
}

/// A quote, and beside it what the same work costs on rented cards.
#[derive(Serialize)]
struct Compared<'a> {
    #[serde(flatten)]
    quote: &'a Quote,
    rented: &'a [Rent],
}

/// A quote for people: the ranges, what they are made of, who could do it.
pub fn quote_text(quote: &Quote, cap: Amount) -> String {
    let mut lines = vec![
        format!(
            "cost   {} to {} (your cap: {cap})",
            quote.cost_low, quote.cost_high
        ),
        format!("time   {}", time_text(quote)),
        format!(
            "work   {}.{:06} CU at {} a CU: {}",
            quote.micro_cu / 1_000_000,
            quote.micro_cu % 1_000_000,
            quote.unit_price,
            quote.work_cost
        ),
        format!(
            "fees   items {}, storage up to {}, network up to {}",
            quote.item_fees, quote.storage_cost_max, quote.network_fee_max
        ),
    ];
    lines.extend(
        quote
            .usual_wait
            .as_ref()
            .map(|wait| format!("wait   {}", wait_text(wait))),
    );
    lines.extend(quote.notes.iter().map(|note| format!("note   {note}")));
    if !quote.candidates.is_empty() {
        lines.push(candidates_text(&quote.candidates));
    }
    lines.join("\n")
}

fn time_text(quote: &Quote) -> String {
    match (quote.time_p50_ms, quote.time_p95_ms) {
        (Some(p50), Some(p95)) => format!(
            "{}; in 19 of 20 cases within {}",
            moment::duration(p50),
            moment::duration(p95)
        ),
        _ => "cannot be said: too few miners could do it now".to_owned(),
    }
}

fn wait_text(wait: &UsualWait) -> String {
    format!(
        "such tasks wait {} for their miners, nine of ten no longer than {} (of {} tasks)",
        moment::duration(wait.p50_ms),
        moment::duration(wait.p90_ms),
        wait.tasks
    )
}

/// What the same work costs elsewhere, a card a line.
fn rented_text(rented: &[Rent]) -> Vec<String> {
    let line = |rent: &Rent| {
        format!(
            "rent   {}: {} USD for {} at its data sheet's speed, without what starting it costs",
            rent.name,
            dollars(rent.micro_usd),
            moment::duration(rent.ms)
        )
    };
    rented.iter().map(line).collect()
}

/// Millionths of a dollar, without noughts at the end beyond cents.
fn dollars(micro_usd: u64) -> String {
    let text = format!("{}.{:06}", micro_usd / 1_000_000, micro_usd % 1_000_000);
    let cents = text.len() - 4;
    let trimmed = text.trim_end_matches('0').len().max(cents);
    text[..trimmed].to_owned()
}

fn candidates_text(candidates: &[Candidate]) -> String {
    let rows = candidates.iter().map(|candidate| {
        vec![
            candidate
                .rank
                .map_or_else(|| "-".to_owned(), |rank| rank.to_string()),
            printable(&candidate.name),
            miner::speed(candidate.mflops),
            candidate.basis.to_string(),
            format!("{:.3}", f64::from(candidate.rating_milli) / 1000.0),
            if candidate.free { "free" } else { "busy" }.into(),
            candidate.node.short(),
        ]
    });
    let header = [
        "rank",
        "candidate",
        "speed",
        "known from",
        "rating",
        "now",
        "node",
    ];
    table(&header, rows)
}

async fn submit(context: &Context, file: &Path) -> Result<(TaskId, Amount)> {
    let client = context.client().await?;
    let spec = spec_of(client, file).await?;
    let (task, held) = client.post(spec).await?;
    let posted = json!({ "task": task, "held": held });
    context.output.value(&posted, || {
        format!("{task} posted, {held} held until it ends")
    })?;
    Ok((task, held))
}

async fn wait(context: &Context, task: &str, seconds: u64) -> Result<()> {
    let client = context.client().await?;
    let task = resolve::task(client, task).await?;
    let ended = client.wait(task, Duration::from_secs(seconds)).await?;
    context.output.value(&ended, || task_text(&ended))?;
    exit::of_task(ended.state, &ended.reason)?;
    Ok(())
}

/// A state by its name.
fn state_of(text: &str) -> Result<TaskState, ErrorBody> {
    const ALL: [TaskState; 9] = [
        TaskState::Waiting,
        TaskState::Matched,
        TaskState::Running,
        TaskState::Regrouping,
        TaskState::Finished,
        TaskState::Cancelled,
        TaskState::Failed,
        TaskState::Abandoned,
        TaskState::Expired,
    ];
    let found = ALL.into_iter().find(|state| state.to_string() == text);
    found.ok_or_else(|| {
        ErrorBody::user("bad_state", format!("`{text}` is no state of a task")).with_help(format!(
            "use one of: {}",
            ALL.map(|s| s.to_string()).join(", ")
        ))
    })
}

async fn list(context: &Context, state: Option<String>) -> Result<()> {
    let state = state.as_deref().map(state_of).transpose()?;
    let tasks = context.client().await?.tasks(state).await?;
    context.output.rows(
        &tasks,
        &[
            "task",
            "name",
            "state",
            "steps",
            "earned",
            "cap",
            "posted (UTC)",
        ],
        |task| {
            vec![
                task.task.short(),
                task.spec.name.clone(),
                task.state.to_string(),
                format!("{}/{}", task.step, task.total_steps),
                task.earned.to_string(),
                task.spec.max_cost.to_string(),
                moment::text(task.posted),
            ]
        },
        "no tasks yet: cryptomind task submit FILE",
    )?;
    Ok(())
}

async fn show(context: &Context, task: &str) -> Result<()> {
    let client = context.client().await?;
    let task = resolve::task(client, task).await?;
    let view = client.task(task).await?;
    context.output.value(&view, || task_text(&view))?;
    Ok(())
}

async fn explain(context: &Context, task: &str) -> Result<()> {
    let client = context.client().await?;
    let task = resolve::task(client, task).await?;
    let explanation = client.explain(task).await?;
    context
        .output
        .value(&explanation, || explanation_text(&explanation))?;
    Ok(())
}

fn explanation_text(explanation: &Explanation) -> String {
    let (able, needed) = (explanation.able, explanation.needed);
    let mut lines = vec![
        format!("{} ({})", explanation.state, explanation.reason),
        format!("{able} miners could do it, it asks for {needed}"),
    ];
    lines.extend(explanation.advice.clone());
    if explanation.state == TaskState::Waiting {
        lines.extend(explanation.usual_wait.as_ref().map(wait_text));
    }
    let row = |verdict: &MinerVerdict| {
        vec![
            printable(&verdict.name),
            verdict.node.short(),
            verdict.reason.clone(),
        ]
    };
    let rows = explanation.verdicts.iter().map(row);
    lines.push(table(&["miner", "node", "were it chosen now"], rows));
    lines.join("\n")
}

fn task_text(task: &TaskView) -> String {
    let mut lines = vec![
        format!("{}  {}", task.spec.name, task.task),
        format!("state    {} ({})", task.state, task.reason),
        format!(
            "steps    {} of {}, attempt {}",
            task.step, task.total_steps, task.attempt
        ),
        format!(
            "money    {} earned of a cap of {}",
            task.earned, task.spec.max_cost
        ),
        format!("posted   {}", moment::text(task.posted)),
    ];
    if let Some(ended) = task.ended {
        lines.push(format!("ended    {}", moment::text(ended)));
    }
    if let Some(item) = task.item {
        lines.push(format!("model    {item}"));
    }
    if let Some(latency) = task.metrics.as_ref().and_then(|m| m.latency) {
        lines.push(format!("latency  {}", serve::split(&latency)));
    }
    for member in &task.members {
        lines.push(format!("member   {}  {}", member.name, member.node.short()));
    }
    lines.extend(task.trail.as_ref().map(trail_text));
    for payment in &task.payments {
        lines.push(format!(
            "paid     {} to {} ({})",
            payment.amount,
            payment.payee.short(),
            payment.reason
        ));
    }
    lines.join("\n")
}

/// What the members signed of their steps, and who said something else than others.
fn trail_text(trail: &TrailView) -> String {
    let (signatures, compared, last) = (trail.signatures, trail.compared, trail.last);
    let mut lines = vec![format!(
        "audit    {compared} steps compared, the last {last}, by {signatures} signatures"
    )];
    lines.extend(trail.parted.iter().map(|odd| {
        format!(
            "parted   {}  {}  at step {} of attempt {}: {}",
            printable(&odd.name),
            odd.node.short(),
            odd.step,
            odd.attempt,
            parting(odd.part)
        )
    }));
    lines.join("\n")
}

async fn get(context: &Context, task: &str, output: Option<PathBuf>) -> Result<()> {
    let client = context.client().await?;
    let task = resolve::task(client, task).await?;
    let view = client.task(task).await?;
    if view.files.is_empty() {
        let message = format!("the task is {} and has no results", view.state);
        return Err(ErrorBody::not_found("result", message)
            .with_help(format!("wait for it: cryptomind task wait {task}"))
            .into());
    }
    let placement = client.locate_task(task).await?;
    let dir = output.unwrap_or_else(|| PathBuf::from(&view.spec.name));
    let entries = files::entries(&view.files);
    let paths = files::download(context.output, client, &placement, &entries, &dir).await?;
    files::tell(context.output, &paths)
}

async fn cancel(context: &Context, task: &str) -> Result<()> {
    let client = context.client().await?;
    let task = resolve::task(client, task).await?;
    client.cancel(task).await?;
    context.output.value(&json!({ "cancelling": task }), || {
        format!("{task} ends now: what was earned is paid, the rest comes back")
    })?;
    Ok(())
}

async fn rate(context: &Context, task: &str, stars: u8) -> Result<()> {
    let client = context.client().await?;
    let task = resolve::task(client, task).await?;
    client.rate(task, stars).await?;
    context
        .output
        .value(&json!({ "task": task, "stars": stars }), || {
            format!("{stars} of 5 stars for the miners of {task}")
        })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_shown_to_the_cent_and_as_far_as_they_go() {
        let shown = [0, 1, 10_000, 123_456, 2_450_000].map(dollars);
        assert_eq!(shown, ["0.00", "0.000001", "0.01", "0.123456", "2.45"]);
    }

    #[test]
    fn states_are_read_by_name() {
        assert_eq!(state_of("running"), Ok(TaskState::Running));
        assert!(
            state_of("runing")
                .unwrap_err()
                .help
                .unwrap()
                .contains("running")
        );
    }

    #[test]
    fn a_task_file_never_overwrites() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.toml");
        write_new(&file, "a").unwrap();
        assert_eq!(write_new(&file, "b").unwrap_err().code, "file");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "a");
    }
}
