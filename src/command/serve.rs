//! `model serve` and `model infer --input`: samples in, a line an answer out, over a session with one miner.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::Result;
use cryptomind_protocol::serve::{MAX_CALL_BYTES, MAX_CALL_SAMPLES, byte_len};
use cryptomind_protocol::task::{Latency, Reason, TaskView};
use cryptomind_protocol::{Amount, ErrorBody};
use cryptomind_sdk::{Answer, News, Session, Standing};
use serde_json::json;
use tokio::sync::mpsc;

use crate::cli::{InferArgs, ServeArgs};
use crate::command::interruptible;
use crate::context::Context;
use crate::output::{Output, printable};
use crate::{exit, resolve};

/// The most characters of a line of input.
const MAX_LINE_BYTES: u64 = 64 * 1024 * 1024;
/// Lines that are read ahead of the calls.
const AHEAD: usize = 16;
/// What standard input is called.
const STDIN: &str = "-";

/// A line of input, or why it is none.
type Line = Result<Vec<f32>, ErrorBody>;

/// Opens a session, makes a call of each line, and ends it at the end of input or with Ctrl-C.
pub async fn serve(context: &Context, args: ServeArgs) -> Result<()> {
    let lines = open(args.input.as_deref().unwrap_or(Path::new(STDIN)))?;
    let mut session = begin(context, &args.model, args.samples, args.max_cost).await?;
    let news = session.news();
    let answered = answer_lines(context.output, &mut session, lines);
    let outcome = interruptible(telling(context.output, news, answered)).await;
    finish(context, session, outcome).await
}

/// Classifies a whole file in one session that is just as long.
pub async fn infer_file(context: &Context, args: InferArgs, input: &Path) -> Result<()> {
    let mut lines = open(input)?;
    let mut rows = Vec::new();
    while let Some(line) = lines.recv().await {
        rows.push(line?);
    }
    let samples = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    if samples == 0 {
        let message = format!("{} has no samples", input.display());
        return Err(ErrorBody::user("no_samples", message).into());
    }
    let mut session = begin(context, &args.model, samples, args.max_cost).await?;
    let news = session.news();
    let answered = answer_rows(context.output, &mut session, &rows);
    let outcome = interruptible(telling(context.output, news, answered)).await;
    finish(context, session, outcome).await
}

/// Posts the session and waits until a miner serves it, saying what it waits for.
async fn begin(
    context: &Context,
    model: &str,
    samples: u32,
    max_cost: Option<Amount>,
) -> Result<Session> {
    let post = async {
        let client = context.client().await?;
        let model = resolve::item(client, model).await?;
        Ok(client.serve(&model, samples, max_cost).await?)
    };
    let mut session = interruptible(post).await?;
    let (task, held) = (session.task(), session.held());
    let posted = format!("{task} posted, {held} held until it ends");
    context.output.note(posted)?;
    let waited = interruptible(wait(context.output, &mut session)).await;
    match waited {
        Ok(()) => Ok(session),
        Err(error) => {
            // What is held comes back.
            session.end().await?;
            Err(error)
        }
    }
}

async fn wait(output: Output, session: &mut Session) -> Result<()> {
    let mut news = session.news();
    tell(output, &session.standing())?;
    tokio::select! {
        // First what is new, then that it is enough.
        biased;
        never = tell_all(output, &mut news) => never,
        ready = session.ready() => Ok(ready?),
    }
}

/// Says how a session stands, where that is for people to know.
fn tell(output: Output, standing: &Standing) -> std::io::Result<()> {
    match standing {
        Standing::Serving { name, latency, .. } => output.note(format!(
            "{} answers: {} waited, {} to fetch, {} to load",
            printable(name),
            ms(latency.queue_us),
            ms(latency.fetch_us),
            ms(latency.load_us)
        )),
        Standing::Waiting { reason } => output.note(format!("waiting: {}", printable(reason))),
        // The next call says why, or the bill.
        Standing::Ended { .. } | Standing::Lost(_) => Ok(()),
    }
}

/// Says whatever happens to a session.
async fn tell_all(output: Output, news: &mut News) -> Result<()> {
    loop {
        tell(output, &news.next().await)?;
    }
}

/// Answers, and says what happens to the session meanwhile.
async fn telling(
    output: Output,
    mut news: News,
    answered: impl Future<Output = Result<()>>,
) -> Result<()> {
    tokio::select! {
        answered = answered => answered,
        never = tell_all(output, &mut news) => never,
    }
}

async fn answer_lines(
    output: Output,
    session: &mut Session,
    mut lines: mpsc::Receiver<Line>,
) -> Result<()> {
    let mut number = 0;
    while let Some(line) = lines.recv().await {
        let answer = session.call(&line?).await?;
        show(output, session, &answer, number)?;
        number += answer.labels.len() as u64;
    }
    Ok(())
}

async fn answer_rows(output: Output, session: &mut Session, rows: &[Vec<f32>]) -> Result<()> {
    let model = &session.model().spec;
    let widest = model.input_len().max(model.output_len().unwrap_or(1));
    let most = (MAX_CALL_BYTES / byte_len(1, widest).max(1)).clamp(1, MAX_CALL_SAMPLES.into());
    let mut number = 0;
    for rows in rows.chunks(most as usize) {
        let answer = session.call(&rows.concat()).await?;
        show(output, session, &answer, number)?;
        number += answer.labels.len() as u64;
    }
    Ok(())
}

/// A line a sample; the latency is that of its call.
fn show(output: Output, session: &Session, answer: &Answer, first: u64) -> Result<()> {
    let best = answer.best(&session.model().classes).zip(&answer.labels);
    for (number, ((class, probability), label)) in (first..).zip(best) {
        let line = json!({
            "sample": number,
            "label": label,
            "class": class,
            "probability": probability,
            "latency": answer.latency,
        });
        output.value(&line, || {
            format!(
                "{number}  {:<16} {probability:.6}  {}",
                printable(class),
                split(&answer.latency)
            )
        })?;
    }
    Ok(())
}

fn ms(us: u64) -> String {
    format!("{:.3} ms", us as f64 / 1e3)
}

/// Where the time went, for people.
pub fn split(latency: &Latency) -> String {
    format!(
        "{} (queue {}, fetch {}, load {}, compute {}, return {})",
        ms(latency.total_us()),
        ms(latency.queue_us),
        ms(latency.fetch_us),
        ms(latency.load_us),
        ms(latency.compute_us),
        ms(latency.return_us)
    )
}

/// Ends the session whatever came of it, and says what it cost.
async fn finish(context: &Context, session: Session, outcome: Result<()>) -> Result<()> {
    let held = session.held();
    let ended = session.end().await;
    if let Ok(ended) = &ended {
        context.output.note(bill(ended, held))?;
    }
    outcome?;
    ended?;
    Ok(())
}

fn bill(ended: &TaskView, held: Amount) -> String {
    let refunds = ended.payments.iter().filter(|p| p.reason == Reason::Refund);
    let back = Amount::sum(refunds.map(|payment| payment.amount)).unwrap_or(Amount::ZERO);
    let cost = held.checked_sub(back).unwrap_or(Amount::ZERO);
    format!(
        "{} samples answered; it cost {cost}, {back} of {held} came back ({}: {})",
        ended.step, ended.state, ended.reason
    )
}

/// Reads samples, on a thread of its own: a terminal may never say anything.
fn open(input: &Path) -> Result<mpsc::Receiver<Line>, ErrorBody> {
    let reader: Box<dyn Read + Send> = if input == Path::new(STDIN) {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(input).map_err(|e| exit::file(input, &e))?)
    };
    let (sender, lines) = mpsc::channel(AHEAD);
    let name = input.to_owned();
    std::thread::spawn(move || {
        for line in samples(BufReader::new(reader), name) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    Ok(lines)
}

/// The samples of a text, up to the first line that is none. A first line of titles is passed over.
fn samples(reader: impl BufRead, name: PathBuf) -> impl Iterator<Item = Line> {
    let mut lines = Lines {
        reader,
        name,
        number: 0,
        broken: false,
    };
    std::iter::from_fn(move || lines.next_sample())
}

struct Lines<R> {
    reader: R,
    name: PathBuf,
    number: u64,
    broken: bool,
}

impl<R: BufRead> Lines<R> {
    fn next_sample(&mut self) -> Option<Line> {
        while !self.broken {
            let line = match self.next_line() {
                Ok(line) => line?,
                Err(error) => return Some(Err(self.fail(error))),
            };
            let text = line.trim();
            if text.is_empty() {
                continue;
            }
            match values(text) {
                Some(values) => return Some(Ok(values)),
                None if self.number == 1 && !text.starts_with('[') => {}
                None => {
                    let (name, number) = (self.name.display(), self.number);
                    let message = format!("{name}, line {number}: not a row of numbers");
                    let error = ErrorBody::user("bad_samples", message).with_help(
                        "give numbers with commas between them, or a JSON list, a line a sample",
                    );
                    return Some(Err(self.fail(error)));
                }
            }
        }
        None
    }

    fn fail(&mut self, error: ErrorBody) -> ErrorBody {
        self.broken = true;
        error
    }

    fn next_line(&mut self) -> Result<Option<String>, ErrorBody> {
        let mut line = String::new();
        let mut bounded = self.reader.by_ref().take(MAX_LINE_BYTES);
        let read = bounded.read_line(&mut line);
        self.number += 1;
        match read.map_err(|e| exit::file(&self.name, &e))? {
            0 => Ok(None),
            _ if line.len() as u64 == MAX_LINE_BYTES => {
                let message = format!("line {}: over {MAX_LINE_BYTES} bytes", self.number);
                Err(ErrorBody::user("line_too_long", message))
            }
            _ => Ok(Some(line)),
        }
    }
}

/// A row of numbers as CSV, or as a JSON list.
fn values(text: &str) -> Option<Vec<f32>> {
    if text.starts_with('[') {
        return serde_json::from_str(text).ok();
    }
    text.split(',')
        .map(|cell| cell.trim().parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Line> {
        samples(text.as_bytes(), "in".into()).collect()
    }

    #[test]
    fn rows_and_lists_are_samples_and_titles_are_not() {
        let rows = read("a,b\n1,2.5\n\n[3, -4e1]\n 5 , 6\n");
        let rows: Vec<_> = rows.into_iter().map(Result::unwrap).collect();
        assert_eq!(rows, [[1.0, 2.5], [3.0, -40.0], [5.0, 6.0]]);
        assert!(read("").is_empty() && read("\n\n").is_empty());
    }

    #[test]
    fn what_is_no_number_is_named_by_its_line() {
        for text in ["1,2\nx,y\n3,4", "1,2\n[3,\n4,5", "1\n[\"a\"]"] {
            let rows = read(text);
            assert_eq!(rows.len(), 2, "{rows:?}");
            let error = rows[1].clone().unwrap_err();
            assert!(error.message.contains("line 2"), "{error}");
        }
        assert!(read("[1,]").remove(0).is_err(), "a list is never a title");
    }
}
