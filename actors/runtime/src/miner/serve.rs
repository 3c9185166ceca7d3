//! A session on the miner's side: the door that its client calls at, and what the client has acknowledged.
//!
//! The run opens it once the model is loaded, and holds it until the client's last word, or an order. Calls are answered one
//! after the other; what waits has sent its samples already. What counts, and how far to go without an acknowledgement,
//! `cryptomind_core::serve` decides. The newest acknowledgement goes to the coordinator within [`TELL_EVERY`], through the
//! outbox; until then it is what a miner that dies loses.
//!
//! Anybody can knock. Who is not the task's client is told so once, and never holds more than [`STRANGERS`] places.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cryptomind_core::run::IDLE_LIMIT_MS;
use cryptomind_core::serve::{self, Tally};
use cryptomind_gpu::dataset::Samples;
use cryptomind_gpu::inference::{Model, most_probable};
use cryptomind_net::{Connection, Endpoint, Exchange, Limits, Pending, Receiver, Sender};
use cryptomind_protocol::error::Answer;
use cryptomind_protocol::item::ModelInfo;
use cryptomind_protocol::node::{Ack, Match, Report};
use cryptomind_protocol::serve::{
    Answered, MAX_CALL_BYTES, METHODS, Request, byte_len, from_bytes, to_bytes,
};
use cryptomind_protocol::task::Work;
use cryptomind_protocol::{ErrorBody, GenesisHash, PublicKey, Signed};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use super::train::Fault;
use super::worker::Context;

/// Acknowledgements are gathered for so long before the newest is told.
pub const TELL_EVERY: Duration = Duration::from_secs(1);
/// Without a call for this long the session is given up: the coordinator ends it much sooner, where it is there.
const SILENCE_LIMIT: Duration = Duration::from_millis(2 * IDLE_LIMIT_MS);
/// What the samples of a call may take to come.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// What a client gets to take its last answer and go.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);
/// What a stranger gets to say what it wants.
const STRANGER_LIMIT: Duration = Duration::from_secs(2);
/// Strangers that are told so at a time; more are turned away.
const STRANGERS: usize = 4;
/// Calls whose samples are in memory at a time.
const CALLS: usize = 8;
/// Connections at a time.
const CONNECTIONS: usize = 16;

/// What the door lets in.
pub fn limits() -> Limits {
    Limits {
        max_connections: CONNECTIONS,
        max_per_address: CONNECTIONS,
        max_per_loopback: CONNECTIONS,
        max_streams: 2 * CALLS as u32,
        ..Limits::default()
    }
}

/// Loads a model. Blocks.
pub fn load(info: &ModelInfo, weights: &Path) -> Result<Model, Fault> {
    load_changed(info, weights, &mut |_| ())
}

/// Loads a model whose weights `change` is given first. Blocks.
pub fn load_changed(
    info: &ModelInfo,
    weights: &Path,
    change: &mut dyn FnMut(&mut [f32]),
) -> Result<Model, Fault> {
    let bytes = std::fs::read(weights).map_err(|e| Fault {
        task_fault: false,
        reason: format!("{}: {e}", weights.display()),
    })?;
    // Weights by content address are the same for everybody: another miner would refuse them too.
    Model::load_changed(&info.spec, &bytes, change).map_err(|e| Fault {
        task_fault: true,
        reason: e.to_string(),
    })
}

/// What the client said last.
#[derive(Debug, Clone, Default)]
struct Word {
    samples: u64,
    last: bool,
    signed: Option<Signed>,
}

/// A session that is open.
pub struct Session {
    context: Arc<Context>,
    matched: Arc<Match>,
    network: GenesisHash,
    caller: PublicKey,
    model: Arc<Model>,
    /// Values of one sample.
    inputs: usize,
    tally: Mutex<Tally>,
    newest: watch::Sender<Word>,
    /// Whose turn it is to compute.
    turn: Semaphore,
    calls: Semaphore,
    strangers: Semaphore,
}

impl Session {
    /// Of this match, with its model. Nothing where the match is of no session.
    pub fn new(
        context: Arc<Context>,
        matched: Arc<Match>,
        network: GenesisHash,
        model: Model,
    ) -> Option<Arc<Self>> {
        let caller = matched.caller?;
        let inputs = matched.model.as_ref()?.spec.input_len();
        let Work::Serve { samples_max, .. } = matched.spec.work else {
            return None;
        };
        let (task, attempt, start) = (matched.task, matched.attempt, matched.start_step);
        let word = Word {
            samples: start,
            ..Word::default()
        };
        Some(Arc::new(Self {
            context,
            network,
            caller,
            model: Arc::new(model),
            inputs,
            tally: Mutex::new(Tally::new(task, attempt, caller, start, samples_max.into())),
            newest: watch::Sender::new(word),
            turn: Semaphore::new(1),
            calls: Semaphore::new(CALLS),
            strangers: Semaphore::new(STRANGERS),
            matched,
        }))
    }

    /// The newest acknowledgement, where there is one.
    pub fn newest(&self) -> Option<Signed> {
        self.newest.borrow().signed.clone()
    }

    /// Answers calls until the client's last word, or for as long as somebody calls. Whether it was the last word.
    pub async fn hold(self: &Arc<Self>, endpoint: &Endpoint) -> bool {
        let mut visits = JoinSet::new();
        let mut heard = self.newest.subscribe();
        let telling = self.tell();
        tokio::pin!(telling);
        let ended = loop {
            tokio::select! {
                pending = endpoint.accept() => match pending {
                    Some(pending) => drop(visits.spawn(Arc::clone(self).admit(pending))),
                    None => break false,
                },
                said = timeout(SILENCE_LIMIT, heard.changed()) => match said {
                    Ok(_) if heard.borrow().last => break true,
                    Ok(_) => {}
                    Err(_) => break false,
                },
                () = &mut telling => {}
                Some(_) = visits.join_next(), if !visits.is_empty() => {}
            }
        };
        // Whoever has its answer closes the connection.
        let _ = timeout(FAREWELL_LIMIT, async {
            while visits.join_next().await.is_some() {}
        })
        .await;
        ended
    }

    /// Shows the coordinator the newest acknowledgement, while there are newer ones.
    async fn tell(&self) {
        let mut news = self.newest.subscribe();
        let mut told = self.matched.start_step;
        // The sender lives as long as self.
        while news.wait_for(|word| word.samples > told).await.is_ok() {
            tokio::time::sleep(TELL_EVERY).await;
            let word = news.borrow_and_update().clone();
            told = word.samples;
            self.report(word.signed, false);
        }
    }

    /// Shows the coordinator an acknowledgement; with `left`, as the last one from here.
    pub fn report(&self, acknowledgement: Option<Signed>, left: bool) {
        let report = Report::Served {
            acknowledgement,
            left,
        };
        let (task, attempt) = (self.matched.task, self.matched.attempt);
        self.context.outbox.report(task, attempt, report);
    }

    async fn admit(self: Arc<Self>, pending: Pending) {
        let remote = pending.remote();
        match pending.establish().await {
            Ok(connection) if connection.peer() == self.caller => self.attend(connection).await,
            Ok(connection) => self.turn_away(connection).await,
            Err(error) => debug!(%remote, %error, "a caller was not let in"),
        }
    }

    async fn turn_away(&self, connection: Connection) {
        if let Ok(_place) = self.strangers.try_acquire()
            && let Ok(Some(exchange)) = timeout(STRANGER_LIMIT, connection.accept_request()).await
        {
            exchange.answer(Err::<Ack, _>(stranger())).await;
            let _ = timeout(FAREWELL_LIMIT, connection.closed()).await;
        }
        connection.close("only the client of its task is answered here");
    }

    async fn attend(self: Arc<Self>, connection: Connection) {
        let mut requests = JoinSet::new();
        while let Some(exchange) = connection.accept_request().await {
            requests.spawn(Arc::clone(&self).answer(exchange));
            while requests.try_join_next().is_some() {}
        }
    }

    async fn answer(self: Arc<Self>, exchange: Exchange) {
        match exchange.decode::<Request>(&METHODS) {
            Ok(Request::Call {
                samples,
                acknowledgement,
            }) => {
                let (sender, mut receiver) = exchange.into_stream();
                let answered = self.call(samples, acknowledgement, &mut receiver).await;
                drop(receiver);
                if let Err(error) = send(sender, answered).await {
                    debug!(%error, "an answer did not reach the client");
                }
            }
            Ok(Request::Acknowledge { acknowledgement }) => {
                let taken = self.take(acknowledgement);
                exchange
                    .answer(taken.as_ref().map(|_| Ack {}).map_err(Clone::clone))
                    .await;
                if let Ok(word) = taken {
                    self.newest.send_replace(word);
                }
            }
            Err(refusal) => exchange.answer(Err::<Ack, _>(refusal)).await,
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds an acknowledgement against what was answered.
    fn take(&self, signed: Signed) -> Result<Word, ErrorBody> {
        let shown = serve::open(&signed, &self.network)?;
        let mut tally = self.tally();
        tally.acknowledge(&shown)?;
        Ok(Word {
            samples: tally.acknowledged(),
            last: shown.is_last(),
            signed: Some(signed),
        })
    }

    async fn call(
        &self,
        samples: u32,
        acknowledgement: Signed,
        receiver: &mut Receiver,
    ) -> Result<(Answered, Vec<f32>), ErrorBody> {
        let word = self.take(acknowledgement)?;
        let ends = word.last;
        self.newest.send_replace(word);
        if ends {
            let message = "the acknowledgement of this call was the last one";
            return Err(ErrorBody::user("session_ended", message));
        }
        self.tally().admit(samples)?;
        let answered = self.compute(samples, receiver).await;
        if answered.is_err() {
            self.tally().give_back(samples);
        }
        answered
    }

    async fn compute(
        &self,
        samples: u32,
        receiver: &mut Receiver,
    ) -> Result<(Answered, Vec<f32>), ErrorBody> {
        let arrived = Instant::now();
        let _place = self.calls.acquire().await.map_err(ErrorBody::internal)?;
        let waited = arrived.elapsed();
        let inputs = self.read(samples, receiver).await?;
        let read = Instant::now();
        let turn = self.turn.acquire().await.map_err(ErrorBody::internal)?;
        let queue_us = micros(waited + read.elapsed());
        let (model, input_len) = (Arc::clone(&self.model), self.inputs);
        let work = move || forward(&model, inputs, input_len);
        let computed = tokio::task::spawn_blocking(work).await;
        drop(turn);
        let (probabilities, took) = computed.map_err(ErrorBody::internal)??;
        let classes = self.model.classes();
        let answered = Answered {
            classes: classes as u32,
            labels: probabilities
                .chunks_exact(classes)
                .map(|row| most_probable(row) as u32)
                .collect(),
            queue_us,
            compute_us: micros(took),
        };
        Ok((answered, probabilities))
    }

    async fn read(&self, samples: u32, receiver: &mut Receiver) -> Result<Vec<f32>, ErrorBody> {
        let bytes = byte_len(samples, self.inputs);
        if bytes > MAX_CALL_BYTES {
            let message = format!("a call of {bytes} bytes: at most {MAX_CALL_BYTES} are taken");
            return Err(
                ErrorBody::user("bad_call", message).with_help("send fewer samples in more calls")
            );
        }
        let mut raw = vec![0; bytes as usize];
        receiver.exact(&mut raw, READ_LIMIT).await?;
        Ok(from_bytes(&raw))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn stranger() -> ErrorBody {
    ErrorBody::auth(
        "not_the_client",
        "this session answers the client of its task alone",
    )
    .with_help("open a session of your own: cryptomind model serve MODEL")
}

/// The forward pass over samples as people have them, and what it took.
fn forward(
    model: &Model,
    mut inputs: Vec<f32>,
    input_len: usize,
) -> Result<(Vec<f32>, Duration), ErrorBody> {
    let begin = Instant::now();
    model.scale(&mut inputs);
    let count = inputs.len() / input_len.max(1);
    let data = Samples::labelled(inputs, vec![0; count], input_len, model.classes());
    let probabilities = model
        .probabilities(&data, 0..count)
        .map_err(|e| ErrorBody::user("bad_samples", e))?;
    Ok((probabilities, begin.elapsed()))
}

async fn send(
    mut sender: Sender,
    answered: Result<(Answered, Vec<f32>), ErrorBody>,
) -> Result<(), ErrorBody> {
    match answered {
        Ok((head, probabilities)) => {
            sender.frame(&Answer::Ok(head)).await?;
            sender.bytes(&to_bytes(&probabilities)).await?;
        }
        Err(error) => sender.frame(&Answer::<Answered>::Error(error)).await?,
    }
    sender.finish().await
}
