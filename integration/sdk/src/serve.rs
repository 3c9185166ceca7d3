//! Sessions: a model that a miner keeps ready, and calls that go to that miner directly.
//!
//! A [`Session`] is a task. [`Client::serve`] posts it; from then on the session follows the task's events and knows where
//! its miner's door is. Each call goes there over one connection, and carries this client's signed word of how
//! many samples it got before: that is what is paid. When the miner is lost, the network finds another, and the
//! call that failed is made again there. [`Session::end`] says the last word and waits until the task is settled; a
//! session that is dropped ends by itself after ten minutes without a call.
//!
//! ```no_run
//! # async fn example(client: cryptomind_sdk::Client) -> Result<(), cryptomind_sdk::ErrorBody> {
//! let model = client.item("bob/mlp").await?;
//! let mut session = client.serve(&model, 100, None).await?;
//! let answer = session.call(&[0.0; 64]).await?;
//! println!("{} after {} µs", answer.labels[0], answer.latency.total_us());
//! println!("{} earned", session.end().await?.earned);
//! # Ok(())
//! # }
//! ```

use std::time::{Duration, Instant};

use cryptomind_net::{Connection, Receiver};
use cryptomind_protocol::error::Answer as Answered;
use cryptomind_protocol::frame::ALPN_SERVE;
use cryptomind_protocol::item::{Access, ItemKind, ItemView, ModelInfo};
use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::node::Ack;
use cryptomind_protocol::serve::{
    Acknowledgement, Answered as Head, MAX_CALL_BYTES, MAX_CALL_SAMPLES, Request, VERSION,
    byte_len, from_bytes, to_bytes,
};
use cryptomind_protocol::task::{
    Conditions, Event, Latency, MAX_NAME_CHARS, TaskSpec, TaskState, TaskView, Work,
};
use cryptomind_protocol::{Amount, ErrorBody, NodeAddress, Signed, TaskId};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::Client;
use crate::retry::Retry;

/// What a settlement may take, once the miner has the last word.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// How a session stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// No miner serves it yet, or none any more.
    Waiting {
        /// For what, for people.
        reason: String,
    },
    /// A miner answers calls.
    Serving {
        /// Its name.
        name: String,
        /// Where its door is.
        address: NodeAddress,
        /// Which attempt this is, from 1.
        attempt: u32,
        /// Samples that were earned before it.
        samples: u64,
        /// What it took until the door was open.
        latency: Latency,
    },
    /// It is over, and paid.
    Ended {
        /// How.
        state: TaskState,
        /// Why, for people.
        reason: String,
    },
    /// Its events cannot be followed any more.
    Lost(ErrorBody),
}

/// What a call came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Each sample's most probable class, from 0.
    pub labels: Vec<u32>,
    /// Class probabilities, row-major, samples × classes.
    pub probabilities: Vec<f32>,
    /// Classes that the model tells apart.
    pub classes: usize,
    /// Where the time went; that until the door was open counts for the first call that a miner answers.
    pub latency: Latency,
}

impl Answer {
    /// The names and probabilities of the most probable classes, a pair a sample.
    pub fn best<'a>(&'a self, names: &'a [String]) -> impl Iterator<Item = (&'a str, f32)> {
        let rows = self.probabilities.chunks_exact(self.classes);
        self.labels.iter().zip(rows).map(|(label, row)| {
            let name = names.get(*label as usize).map_or("", String::as_str);
            (name, row[*label as usize])
        })
    }
}

/// A session that is open. See the module.
pub struct Session {
    client: Client,
    task: TaskId,
    held: Amount,
    model: ModelInfo,
    samples_max: u64,
    standing: watch::Receiver<Standing>,
    follower: JoinHandle<()>,
    place: Option<Place>,
}

/// How a session stands from now on, beside its calls.
pub struct News(watch::Receiver<Standing>);

impl News {
    /// Waits until it stands otherwise. Never comes back once it has ended and that was told.
    pub async fn next(&mut self) -> Standing {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.0.borrow_and_update().clone()
    }
}

/// The miner that is called, and what it was told.
struct Place {
    address: NodeAddress,
    attempt: u32,
    /// Samples accepted since the task began.
    accepted: u64,
    /// What it took until the door was open, until a call has shown it.
    opening: Latency,
    door: Option<Connection>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Client {
    /// Opens a session of at most `samples_max` samples with a model, at the price of its quote where no cap is given, or
    /// the least that may be held. What is not used comes back. Does not wait for a miner.
    pub async fn serve(
        &self,
        model: &ItemView,
        samples_max: u32,
        max_cost: Option<Amount>,
    ) -> Result<Session, ErrorBody> {
        let info = info_of(model)?;
        let mut spec = serving(model, samples_max);
        spec.max_cost = match max_cost {
            Some(cap) => cap,
            None => {
                let cost = self.quote(&spec).await?.cost_high;
                cost.max(self.genesis().fees.least)
            }
        };
        let (task, held) = self.post(spec).await?;
        Ok(Session::start(
            self.clone(),
            task,
            held,
            info,
            samples_max.into(),
        ))
    }
}

/// The task that serves `model`, with the highest cap there is: quotes need one.
pub fn serving(model: &ItemView, samples_max: u32) -> TaskSpec {
    let name = format!("serve-{}", model.manifest.name);
    TaskSpec {
        name: name.chars().take(MAX_NAME_CHARS).collect(),
        work: Work::Serve {
            model: model.item,
            samples_max,
        },
        miners: 1,
        max_cost: SUPPLY,
        access: Access::Owner,
        conditions: Conditions::default(),
    }
}

fn info_of(model: &ItemView) -> Result<ModelInfo, ErrorBody> {
    match &model.manifest.kind {
        ItemKind::Model(info) => Ok(info.clone()),
        ItemKind::Dataset(_) => {
            let message = format!("{} is a dataset", model.path());
            Err(ErrorBody::user("not_a_model", message).with_help("see `cryptomind model ls`"))
        }
    }
}

/// Follows the task's events for as long as there are any.
async fn follow(client: Client, task: TaskId, standing: watch::Sender<Standing>) {
    let mut events = client.watch(task, 0);
    while let Some(event) = events.next().await {
        let news = match event {
            Ok(event) => standing_after(event.event),
            Err(error) => Some(Standing::Lost(error)),
        };
        if let Some(news) = news {
            standing.send_replace(news);
        }
    }
}

fn standing_after(event: Event) -> Option<Standing> {
    match event {
        Event::Waiting { reason } => Some(Standing::Waiting { reason }),
        Event::Lost { name, reason, .. } => Some(Standing::Waiting {
            reason: format!("{name} is lost: {reason}; another miner is looked for"),
        }),
        Event::Serving {
            name,
            address,
            attempt,
            samples,
            latency,
            ..
        } => Some(Standing::Serving {
            name,
            address,
            attempt,
            samples,
            latency,
        }),
        Event::Settled { state, reason, .. } => Some(Standing::Ended { state, reason }),
        _ => None,
    }
}

impl Session {
    fn start(
        client: Client,
        task: TaskId,
        held: Amount,
        model: ModelInfo,
        samples_max: u64,
    ) -> Self {
        let reason = "miners are asked".to_owned();
        let (sender, standing) = watch::channel(Standing::Waiting { reason });
        let follower = tokio::spawn(follow(client.clone(), task, sender));
        Self {
            client,
            task,
            held,
            model,
            samples_max,
            standing,
            follower,
            place: None,
        }
    }

    /// The task that it is.
    pub const fn task(&self) -> TaskId {
        self.task
    }

    /// What is held for it.
    pub const fn held(&self) -> Amount {
        self.held
    }

    /// The model that answers.
    pub const fn model(&self) -> &ModelInfo {
        &self.model
    }

    /// Samples that were answered and accepted, as far as they count.
    pub fn accepted(&self) -> u64 {
        self.place.as_ref().map_or(0, |place| place.accepted)
    }

    /// How it stands now.
    pub fn standing(&mut self) -> Standing {
        self.standing.borrow_and_update().clone()
    }

    /// How it stands from now on.
    pub fn news(&self) -> News {
        let mut news = self.standing.clone();
        news.mark_unchanged();
        News(news)
    }

    /// Waits until a miner serves it.
    ///
    /// # Errors
    /// `session_ended` where it has ended; what keeps its events from being followed.
    pub async fn ready(&mut self) -> Result<(), ErrorBody> {
        self.find_place().await.map(drop)
    }

    /// Classifies samples, row-major, as many values each as the model takes: one sample or a few
    /// ([`MAX_CALL_SAMPLES`]). Waits for a miner, and for another one where that is lost, for as long as
    /// the network looks for one.
    ///
    /// # Errors
    /// `bad_samples`, `session_ended`, `session_exhausted`, `unacknowledged`; what the miner says is wrong with the samples;
    /// one of class network where its door could not be reached for [`crate::Limits::patience`].
    pub async fn call(&mut self, samples: &[f32]) -> Result<Answer, ErrorBody> {
        let count = self.check(samples)?;
        let mut retry = Retry::new(self.client.limits().patience);
        loop {
            match self.call_once(count, samples).await {
                Ok(answer) => return Ok(answer),
                Err(error) => retry.pause(error).await?,
            }
        }
    }

    fn check(&self, samples: &[f32]) -> Result<u32, ErrorBody> {
        let inputs = self.model.spec.input_len().max(1);
        let count = u32::try_from(samples.len() / inputs).unwrap_or(u32::MAX);
        let is_whole = samples.len().is_multiple_of(inputs);
        let widest = inputs.max(self.classes());
        let fits =
            (1..=MAX_CALL_SAMPLES).contains(&count) && byte_len(count, widest) <= MAX_CALL_BYTES;
        if is_whole && fits {
            return Ok(count);
        }
        let message = format!(
            "{} values: give 1 to {MAX_CALL_SAMPLES} samples of {inputs} values each, of {MAX_CALL_BYTES} bytes in all",
            samples.len()
        );
        Err(ErrorBody::user("bad_samples", message))
    }

    fn classes(&self) -> usize {
        self.model.spec.output_len().unwrap_or(0)
    }

    async fn call_once(&mut self, count: u32, samples: &[f32]) -> Result<Answer, ErrorBody> {
        let (begin, classes) = (Instant::now(), self.classes());
        self.find_place().await?;
        let waited = begin.elapsed();
        let door = self.door().await?;
        let acknowledgement = self.acknowledgement(false)?;
        let request = Request::Call {
            samples: count,
            acknowledgement,
        };
        let limit = self.client.limits().request;
        let exchanged = timeout(limit, exchange(&door, &request, samples, (count, classes))).await;
        let (head, probabilities) = exchanged
            .unwrap_or_else(|_| Err(late(limit)))
            .map_err(|e| self.failed(e))?;
        let total_us = micros(begin.elapsed() - waited);
        let Some(place) = &mut self.place else {
            return Err(ErrorBody::internal("a call without a place"));
        };
        place.accepted += u64::from(count);
        let opening = std::mem::take(&mut place.opening);
        Ok(Answer {
            labels: head.labels,
            probabilities,
            classes,
            latency: Latency {
                queue_us: opening.queue_us.saturating_add(head.queue_us),
                compute_us: head.compute_us,
                return_us: total_us.saturating_sub(head.queue_us.saturating_add(head.compute_us)),
                ..opening
            },
        })
    }

    /// Forgets a connection that failed. What another attempt cures is of class network.
    fn failed(&mut self, error: ErrorBody) -> ErrorBody {
        let stale = error.code == "acknowledgement_of_another_attempt";
        if (stale || error.class == crate::ErrorClass::Network)
            && let Some(door) = self.place.as_mut().and_then(|place| place.door.take())
        {
            door.close("the client dials again");
        }
        if stale {
            return ErrorBody::network("another_attempt", error.message);
        }
        error
    }

    /// Waits for the miner that serves it now.
    async fn find_place(&mut self) -> Result<(), ErrorBody> {
        loop {
            match self.standing.borrow_and_update().clone() {
                Standing::Serving {
                    address,
                    attempt,
                    samples,
                    latency,
                    ..
                } => {
                    if self.place.as_ref().is_none_or(|p| p.attempt != attempt) {
                        self.place = Some(Place {
                            address,
                            attempt,
                            accepted: samples,
                            opening: latency,
                            door: None,
                        });
                    }
                    return Ok(());
                }
                Standing::Ended { state, reason } => return Err(ended(state, &reason)),
                Standing::Lost(error) => return Err(error),
                Standing::Waiting { .. } => {}
            }
            let changed = self.standing.changed().await;
            changed.map_err(|_| ErrorBody::internal("the session's events ended before it did"))?;
        }
    }

    /// The connection to the present place.
    async fn door(&mut self) -> Result<Connection, ErrorBody> {
        let Some(place) = &mut self.place else {
            return Err(ErrorBody::internal("a door without a place"));
        };
        if let Some(door) = &place.door {
            return Ok(door.clone());
        }
        let link = self.client.link();
        let dialled = link.endpoint.dial(&place.address, ALPN_SERVE, &link.key);
        let door = dialled.await?;
        if door.network() != self.client.network() {
            let message = "the miner belongs to another network";
            return Err(ErrorBody::auth("wrong_network", message));
        }
        place.door = Some(door.clone());
        Ok(door)
    }

    fn acknowledgement(&self, last: bool) -> Result<Signed, ErrorBody> {
        let Some(place) = &self.place else {
            return Err(ErrorBody::internal("nobody to acknowledge to"));
        };
        let said = Acknowledgement {
            version: VERSION,
            task: self.task,
            attempt: place.attempt,
            samples: place.accepted.min(self.samples_max),
            last,
        };
        Ok(Signed::sign(
            &said,
            &self.client.network(),
            &self.client.link().key,
        ))
    }

    /// Ends it: says the last word, waits until it is settled, and gives the task as it ended. Where no miner serves it, it is
    /// cancelled. What was not used comes back.
    pub async fn end(mut self) -> Result<TaskView, ErrorBody> {
        let said = self.say_goodbye().await;
        if said.is_err() || timeout(SETTLE_LIMIT, self.settled()).await.is_err() {
            match self.client.cancel(self.task).await {
                // It ended meanwhile.
                Err(error) if error.is_not_found() => {}
                other => other?,
            }
            let patience = self.client.limits().patience;
            let settled = timeout(patience, self.settled()).await;
            settled.map_err(|_| late(patience))?;
        }
        self.client.task(self.task).await
    }

    /// The last word to the miner. An error where it did not get it, and nothing where the session has ended already.
    async fn say_goodbye(&mut self) -> Result<(), ErrorBody> {
        let standing = self.standing();
        match standing {
            Standing::Ended { .. } => return Ok(()),
            Standing::Serving { .. } => {}
            Standing::Waiting { reason } => return Err(ErrorBody::network("not_serving", reason)),
            Standing::Lost(error) => return Err(error),
        }
        self.find_place().await?;
        let door = self.door().await?;
        let acknowledgement = self.acknowledgement(true)?;
        let request = Request::Acknowledge { acknowledgement };
        let answered = door.request::<_, Ack>(&request, self.client.limits().request);
        answered.await.map(drop)?;
        door.close("the session has ended");
        Ok(())
    }

    async fn settled(&mut self) {
        let over =
            |standing: &Standing| matches!(standing, Standing::Ended { .. } | Standing::Lost(_));
        // Where the follower is gone, the task itself says how it ended.
        let _ = self.standing.wait_for(over).await;
    }
}

fn ended(state: TaskState, reason: &str) -> ErrorBody {
    ErrorBody::new(
        crate::ErrorClass::Task,
        "session_ended",
        format!("the session is {state}: {reason}"),
    )
    .with_help("open another one")
}

fn late(limit: Duration) -> ErrorBody {
    let message = format!("no answer within {} s", limit.as_secs());
    ErrorBody::network("timeout", message)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// One call over a stream of its own.
async fn exchange(
    door: &Connection,
    request: &Request,
    samples: &[f32],
    (count, classes): (u32, usize),
) -> Result<(Head, Vec<f32>), ErrorBody> {
    let (mut sender, mut receiver) = door.open().await?;
    sender.frame(request).await?;
    match sender.bytes(&to_bytes(samples)).await {
        Ok(()) => sender.finish().await?,
        // The miner wants no more of it: why not is in its answer.
        Err(error) if error.code == "stream_stopped" => {}
        Err(error) => return Err(error),
    }
    read(&mut receiver, count, classes).await
}

async fn read(
    receiver: &mut Receiver,
    count: u32,
    classes: usize,
) -> Result<(Head, Vec<f32>), ErrorBody> {
    // The caller has a limit around all of it.
    let limit = Duration::MAX;
    let answer: Option<Answered<Head>> = receiver.frame(limit).await?;
    let head: Head = Result::from(answer.ok_or_else(|| malformed("no answer"))?)?;
    let is_label = |label: &u32| (*label as usize) < classes;
    if head.classes as usize != classes
        || head.labels.len() != count as usize
        || !head.labels.iter().all(is_label)
    {
        return Err(malformed("an answer of another model or of other samples"));
    }
    let mut bytes = vec![0; byte_len(count, classes) as usize];
    receiver.exact(&mut bytes, limit).await?;
    Ok((head, from_bytes(&bytes)))
}

fn malformed(what: &str) -> ErrorBody {
    ErrorBody::network("malformed_answer", format!("the miner sent {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_say_nothing_new_change_nothing() {
        let announced = Event::Announced {
            miners: 1,
            needed: 1,
        };
        assert_eq!(standing_after(announced), None);
        let settled = Event::Settled {
            state: TaskState::Finished,
            reason: "done".into(),
            payments: Vec::new(),
        };
        let over = standing_after(settled).unwrap();
        assert!(matches!(
            over,
            Standing::Ended {
                state: TaskState::Finished,
                ..
            }
        ));
    }

    #[test]
    fn an_answer_names_the_best_class_of_each_sample() {
        let answer = Answer {
            labels: vec![1, 0],
            probabilities: vec![0.25, 0.75, 0.5, 0.5],
            classes: 2,
            latency: Latency::default(),
        };
        let names = ["cat".to_owned(), "dog".to_owned()];
        let best: Vec<_> = answer.best(&names).collect();
        assert_eq!(best, [("dog", 0.75), ("cat", 0.5)]);
    }
}
