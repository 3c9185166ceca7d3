//! 3. Three miners train. 4. One of them is killed, and the others go on.

use std::time::{Duration, Instant};

use anyhow::Result;
use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::task::{Event, Member, Payment, TaskEvent, TaskState};

use super::publishing::Posted;
use super::{Demo, Trained};
use crate::exit;
use crate::follow::Follow;

/// The miner dies when this part of the steps is done, in percent.
const KILL_AT_PERCENT: u64 = 40;
/// For the whole training: beyond it something hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// What is seen of a running task.
#[derive(Default)]
struct Seen {
    members: Vec<Member>,
    first_loss: Option<Duration>,
    /// Steps in all, once progress was told.
    total_steps: u64,
    killed: Option<String>,
    lost: bool,
    payments: Vec<Payment>,
    state: Option<TaskState>,
    reason: String,
}

impl Demo<'_> {
    pub(super) async fn train(&mut self, posted: Posted) -> Result<Trained> {
        self.heading(
            3,
            "Three miners stop mining and train together, by ring all-reduce",
        )?;
        let watched = tokio::time::timeout(LIMIT, self.watch_training(&posted)).await;
        let seen = watched.map_err(|_| self.late("training", LIMIT))??;
        if self.calm {
            self.heading(4, "Nobody is killed: --calm")?;
        }
        if let Some(state) = seen.state {
            exit::of_task(state, &seen.reason)?;
        }
        if seen.killed.is_some() && !seen.lost {
            return Err(ErrorBody::internal("a miner was killed and nobody noticed").into());
        }
        if seen.killed.is_none() && !self.calm {
            return Err(
                ErrorBody::internal("the training ended before a miner could be killed").into(),
            );
        }
        Ok(Trained {
            task: self.bob.task(posted.task).await?,
            payments: seen.payments,
            first_loss: seen.first_loss.unwrap_or_default(),
            killed: seen.killed,
        })
    }

    async fn watch_training(&mut self, posted: &Posted) -> Result<Seen> {
        let mut screen = Follow::new(self.output).indented("   ");
        let mut events = self.bob.watch(posted.task, 0);
        let mut seen = Seen::default();
        while let Some(event) = events.next().await {
            let event = event?;
            screen.show(&event)?;
            seen.note(&event, posted.at);
            if self.is_time_to_kill(&event, &seen) {
                seen.killed = Some(self.kill_one(&seen.members, &screen).await?);
            }
        }
        Ok(seen)
    }

    fn is_time_to_kill(&self, event: &TaskEvent, seen: &Seen) -> bool {
        // A fast machine reaches a checkpoint before it has much progress to tell.
        let (Event::Progress { step, .. } | Event::Checkpoint { step, .. }) = event.event else {
            return false;
        };
        let total_steps = seen.total_steps;
        let is_far = step * 100 >= total_steps * KILL_AT_PERCENT;
        !self.calm && seen.killed.is_none() && is_far && step < total_steps
    }

    /// SIGKILL to the process in the middle of the group.
    async fn kill_one(&mut self, members: &[Member], screen: &Follow) -> Result<String> {
        let victim = members.get(members.len() / 2);
        let name = victim.map(|member| member.name.clone()).unwrap_or_default();
        let id = self.network.kill(&name).await?;
        screen.heading(&format!(
            "4. SIGKILL to {name} (process {id}): will the others go on?"
        ))?;
        Ok(name)
    }
}

impl Seen {
    fn note(&mut self, event: &TaskEvent, posted: Instant) {
        match &event.event {
            Event::Matched { members, .. } => self.members.clone_from(members),
            Event::Progress { total_steps, .. } => {
                self.total_steps = *total_steps;
                self.first_loss.get_or_insert_with(|| posted.elapsed());
            }
            Event::Lost { name, .. } => self.lost |= self.killed.as_deref() == Some(name),
            Event::Settled {
                state,
                reason,
                payments,
            } => {
                self.state = Some(*state);
                self.reason.clone_from(reason);
                self.payments.clone_from(payments);
            }
            _ => {}
        }
    }
}
