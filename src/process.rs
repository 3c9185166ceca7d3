//! A part of the network as a child process of this binary.
//!
//! It gets `--tethered`: its standard input is a pipe that closes when this process ends in whatever
//! way, and then it ends too. Its log goes to a file. Dropping it asks it to end, waits, and kills it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use cryptomind_protocol::ErrorBody;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::exit;

/// For the line `ready …`.
pub const READY_LIMIT: Duration = Duration::from_secs(20);
/// For an orderly end; then it is killed.
const END_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);
/// Of its log, when it failed.
const SHOWN_LINES: usize = 8;

/// A running part.
pub struct Process {
    name: String,
    child: Child,
    /// Kept apart from `child`, whose `wait` would close it and so end the part.
    tether: Option<ChildStdin>,
    output: Option<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl Process {
    /// Starts `cryptomind --role <role> --config <config>`, its log in `log`.
    pub fn start(name: &str, role: &str, config: &Path, log: &Path) -> Result<Self, ErrorBody> {
        let program =
            std::env::current_exe().map_err(|e| exit::file(Path::new("cryptomind"), &e))?;
        let file = File::create(log).map_err(|e| exit::file(log, &e))?;
        let mut command = Command::new(program);
        command
            .args(["--role", role, "--tethered", "--config"])
            .arg(config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file);
        system::own_group(&mut command);
        let mut child = command
            .spawn()
            .map_err(|e| ErrorBody::internal(format!("{name} cannot be started: {e}")))?;
        Ok(Self {
            name: name.to_owned(),
            output: child.stdout.take().map(BufReader::new),
            tether: child.stdin.take(),
            child,
            log: log.to_owned(),
        })
    }

    /// Its name in tables.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its one line on standard output and gives what it says of itself: address or id.
    pub async fn ready(&mut self) -> Result<String, ErrorBody> {
        self.ready_within(READY_LIMIT).await
    }

    /// The same, with another limit.
    pub async fn ready_within(&mut self, limit: Duration) -> Result<String, ErrorBody> {
        let Some(output) = &mut self.output else {
            return Err(ErrorBody::internal(format!("{} has no output", self.name)));
        };
        let mut line = String::new();
        let read = tokio::time::timeout(limit, output.read_line(&mut line)).await;
        let said = match read {
            Ok(Ok(_)) => line.trim().strip_prefix("ready "),
            _ => None,
        };
        said.map(str::to_owned).ok_or_else(|| self.not_ready())
    }

    fn not_ready(&self) -> ErrorBody {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
        let message = format!("{} did not become ready:\n{tail}", self.name);
        ErrorBody::new(
            cryptomind_protocol::ErrorClass::Internal,
            "not_ready",
            message,
        )
        .with_help(format!("its whole log: {}", self.log.display()))
    }

    /// Resolves when it has ended by itself.
    pub async fn ended(&mut self) {
        let _ = self.child.wait().await;
    }

    /// Kills it as a power cut would: SIGKILL, no last word.
    pub async fn kill(&mut self) -> Result<(), ErrorBody> {
        self.child
            .kill()
            .await
            .map_err(|e| ErrorBody::internal(format!("{} cannot be killed: {e}", self.name)))
    }

    /// Asks it to end.
    fn ask_to_end(&mut self) {
        drop(self.tether.take());
        if let Some(id) = self.child.id() {
            system::ask_to_end(id);
        }
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end, waits, and kills it where it does not.
    pub async fn stop(mut self) {
        self.ask_to_end();
        if tokio::time::timeout(END_LIMIT, self.child.wait())
            .await
            .is_err()
        {
            tracing::warn!(name = self.name, "did not end when asked; killed");
            let _ = self.child.kill().await;
        }
    }
}

/// Ends all of them together: asks each, waits for all, kills the rest. For when nothing can be awaited.
pub fn end_all(processes: &mut Vec<Process>) {
    processes.iter_mut().for_each(Process::ask_to_end);
    let deadline = Instant::now() + END_LIMIT;
    while Instant::now() < deadline && !processes.iter_mut().all(Process::has_ended) {
        std::thread::sleep(POLL);
    }
    processes.clear();
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        self.ask_to_end();
        let deadline = Instant::now() + END_LIMIT;
        while Instant::now() < deadline && !self.has_ended() {
            std::thread::sleep(POLL);
        }
        let _ = self.child.start_kill();
    }
}

#[cfg(unix)]
mod system {
    use rustix::process::{Pid, Signal, kill_process};

    /// Ctrl-C in the terminal is for us: we end the children in good order.
    pub(super) fn own_group(command: &mut tokio::process::Command) {
        command.process_group(0);
    }

    pub(super) fn ask_to_end(id: u32) {
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended this moment.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

/// On Windows the closed pipe asks it to end.
#[cfg(not(unix))]
mod system {
    pub(super) fn own_group(_: &mut tokio::process::Command) {}

    pub(super) fn ask_to_end(_: u32) {}
}
