//! Words between the members of a group, over the sockets of their rings: see [`cryptomind_protocol::succession`].
//!
//! Whoever is told something is dialled by a task of its own on the ring's thread, which keeps one stream of words to it, and goes with
//! the socket, also in the middle of a dial. What cannot be told now is lost: whoever wants an answer says it again. Strangers are not listened to, and who talks faster than it
//! is heard waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cryptomind_protocol::frame::ALPN_MEMBER;
use cryptomind_protocol::succession::{MAX_WORD, Word};
use cryptomind_protocol::{ErrorBody, NodeAddress, NodeId, SecretKey};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::follow::Guide;
use super::home::Home;
use crate::close::Close;
use crate::connection::Connection;
use crate::fault;
use crate::stream::{self, FrameReader, Sender};

/// Words that wait to be heard, over all who talk.
const HEARD: usize = 64;
/// Words that wait to be told to one member.
const TOLD: usize = 16;
/// What a word may take once it has begun.
const WORD_LIMIT: Duration = Duration::from_secs(5);

/// What was said, and by whom.
pub(super) type Said = (NodeId, Word);

/// Who may talk, and where they are reached.
pub(super) type Known = Arc<Mutex<BTreeMap<NodeId, NodeAddress>>>;

/// Takes words.
#[derive(Clone)]
pub(super) struct Ear {
    known: Known,
    heard: mpsc::Sender<Said>,
}

/// Tells known members.
pub(super) struct Mouth {
    known: Known,
    lines: Mutex<BTreeMap<NodeId, mpsc::Sender<Word>>>,
}

/// Both, and where the words come out.
pub(super) fn new() -> (Ear, Mouth, mpsc::Receiver<Said>) {
    let known = Known::default();
    let (heard, words) = mpsc::channel(HEARD);
    let mouth = Mouth {
        known: Arc::clone(&known),
        lines: Mutex::default(),
    };
    (Ear { known, heard }, mouth, words)
}

impl Ear {
    /// Whether a node may call.
    pub(super) fn knows(&self, node: &NodeId) -> bool {
        lock(&self.known).contains_key(node)
    }

    /// Listens to a caller until it is gone.
    pub(super) async fn listen(&self, connection: &Connection) {
        if let Err(error) = self.hear(connection).await {
            tracing::debug!(%error, "a member's words ended");
        }
    }

    async fn hear(&self, connection: &Connection) -> Result<(), ErrorBody> {
        let from = connection.peer_node();
        let opened = connection.quic().accept_uni().await;
        let mut words = FrameReader::new(opened.map_err(|e| fault::lost(&e))?, MAX_WORD);
        while let Some(length) = words.length().await? {
            let word = fault::within(WORD_LIMIT, "the rest of a word", words.body(length)).await?;
            if self
                .heard
                .send((from, stream::decode(&word)?))
                .await
                .is_err()
            {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The members that are listened to, each on its newest connection.
pub(super) struct Talking {
    ear: Ear,
    members: BTreeMap<NodeId, AbortHandle>,
    ears: JoinSet<()>,
}

impl Talking {
    pub(super) fn new(ear: Ear) -> Self {
        Self {
            ear,
            members: BTreeMap::new(),
            ears: JoinSet::new(),
        }
    }

    /// Listens to a caller, and to none of its connections before.
    pub(super) fn listen_to(&mut self, connection: Connection) {
        let from = connection.peer_node();
        if !self.ear.knows(&from) {
            return Close::Stranger.apply(connection.quic());
        }
        // Of those that have ended nothing is wanted.
        while self.ears.try_join_next().is_some() {}
        let ear = self.ear.clone();
        let listening = self
            .ears
            .spawn(async move { ear.listen(&connection).await });
        if let Some(before) = self.members.insert(from, listening) {
            before.abort();
        }
    }
}

impl Mouth {
    /// These may talk from now on, besides those that could before.
    pub(super) fn know(&self, members: impl IntoIterator<Item = NodeAddress>) {
        let members = members.into_iter().map(|member| (member.node, member));
        lock(&self.known).extend(members);
    }

    /// What following those takes that are known.
    pub(super) fn guide(&self, home: Home, key: SecretKey) -> Guide {
        Guide::new(Arc::clone(&self.known), home, key)
    }

    /// Tells a known member, as far as it is there.
    pub(super) fn tell(&self, to: NodeId, word: Word, (home, key): (&Home, &SecretKey)) {
        let mut lines = lock(&self.lines);
        let line = lines.entry(to).or_insert_with(|| {
            let (line, words) = mpsc::channel(TOLD);
            let speaker = Speaker {
                to,
                known: Arc::clone(&self.known),
                key: key.clone(),
            };
            home.handle().spawn(speaker.speak(home.clone(), words));
            line
        });
        // Where too much waits, it is lost.
        drop(line.try_send(word));
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The task that talks to one member.
struct Speaker {
    to: NodeId,
    known: Known,
    key: SecretKey,
}

impl Speaker {
    /// Until nobody has anything to say any more.
    async fn speak(self, home: Home, mut words: mpsc::Receiver<Word>) {
        let mut line: Option<Sender> = None;
        while let Some(word) = words.recv().await {
            let mut waiting = VecDeque::from([word]);
            if line.is_none() {
                line = tokio::select! {
                    line = self.dial(&home) => line.ok(),
                    () = gather(&mut words, &mut waiting) => return,
                };
            }
            // Without a line they are old by now: their answers are asked for again.
            let Some(sender) = &mut line else { continue };
            while let Some(word) = waiting.pop_front() {
                if let Err(error) = sender.frame(&word).await {
                    tracing::debug!(%error, to = %self.to, "a member was not told");
                    line = None;
                    break;
                }
            }
        }
    }

    async fn dial(&self, home: &Home) -> Result<Sender, ErrorBody> {
        let to = lock(&self.known).get(&self.to).cloned();
        let to = to.ok_or_else(|| ErrorBody::not_found("member", "nobody knows where it is"))?;
        let endpoint = home.endpoint();
        let connection = endpoint.dial(&to, ALPN_MEMBER, &self.key).await?;
        connection.open_uni().await
    }
}

/// Keeps what is said meanwhile, as much as may wait, until nobody has anything to say any more.
async fn gather(words: &mut mpsc::Receiver<Word>, waiting: &mut VecDeque<Word>) {
    while let Some(word) = words.recv().await {
        if waiting.len() < TOLD {
            waiting.push_back(word);
        }
    }
}
