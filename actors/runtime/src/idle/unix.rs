//! A process tree on Linux: started, found again, and ended to the last process.
//!
//! What belongs to the tree, by any of: its process group; a parent in the tree; a mark in the environment, which children
//! inherit even if they start a session of their own and outlive their parent; having been seen in it before. Orphans come to
//! this process, which makes itself their subreaper, so nothing slips away to `init` unseen.
//!
//! `idle.pids` records the mark and who was seen, with start times: the next process of this data folder ends them if this one
//! is killed, and a recycled process id is not mistaken. Everything here blocks; `idle/windows.rs` is the twin.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, pidfd_open, pidfd_send_signal,
    set_child_subreaper, waitpid,
};

use super::Stopped;

/// What is left after being killed has this long to go.
pub(super) const KILL_LIMIT: Duration = Duration::from_secs(5);

/// The environment variable that marks the tree.
const MARK: &str = "CRYPTOMIND_IDLE";

/// First line of `idle.pids`.
const PIDS_TAG: &str = "cryptomind-idle-1";

/// The largest `idle.pids` that is read.
const PIDS_BYTES_MAX: u64 = 1 << 20;

/// The shortest and longest wait between two looks at a tree that is ending.
const LOOK: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// A line of `/proc/<pid>/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    group: i32,
    /// Ended, and waiting for its parent to notice.
    zombie: bool,
    /// Own CPU time and that of children it waited for, in clock ticks.
    ticks: u64,
    /// Ticks from boot to its start: tells two bearers of one process id apart.
    start: u64,
}

impl Process {
    fn parse(stat: &str) -> Option<Self> {
        // The name in brackets may hold anything, brackets and blanks included.
        let (pid, rest) = stat.split_once(' ')?;
        let fields: Vec<&str> = rest.rsplit_once(") ")?.1.split_ascii_whitespace().collect();
        let number = |i: usize| fields.get(i)?.parse::<u64>().ok();
        Some(Self {
            pid: pid.parse().ok()?,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            zombie: matches!(*fields.first()?, "Z" | "X" | "x"),
            ticks: (11..15).map(number).sum::<Option<u64>>()?,
            start: number(19)?,
        })
    }

    fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// All that there are.
    fn all() -> io::Result<Vec<Self>> {
        let pid = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
        Ok(fs::read_dir("/proc")?
            .filter_map(pid)
            .filter_map(Self::read)
            .collect())
    }

    fn bears(&self, mark: &str) -> bool {
        let entry = format!("{MARK}={mark}");
        let environ = fs::read(format!("/proc/{}/environ", self.pid)).unwrap_or_default();
        environ.split(|b| *b == 0).any(|e| e == entry.as_bytes())
    }

    /// Signals this very process, never a later bearer of its id.
    fn signal(&self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return;
        };
        // It may end at any moment; then there is nothing left to signal.
        if let Ok(fd) = pidfd_open(pid, PidfdFlags::empty())
            && Self::read(self.pid).is_some_and(|now| now.start == self.start)
        {
            let _ = pidfd_send_signal(&fd, signal);
        }
    }
}

/// Who belongs together, and how that is told.
#[derive(Debug, Default)]
struct Members {
    mark: String,
    /// The tree's own process group; 0 where that may have been given away since.
    group: i32,
    /// Whether every process is asked for the mark, not only those without a parent of their own.
    thorough: bool,
    /// Who was seen in the tree: process id and start.
    seen: BTreeMap<i32, u64>,
    /// Clock ticks of those who are gone and whom only this process waited for.
    past_ticks: u64,
    /// Clock ticks of those who are there.
    ticks: u64,
}

impl Members {
    /// Those who are there now, zombies included.
    fn find(&mut self) -> io::Result<Vec<Process>> {
        let me = getpid().as_raw_nonzero().get();
        let mut rest = Process::all()?;
        rest.retain(|p| p.pid != me && p.pid != 1);
        let mut found: Vec<Process> = Vec::new();
        let roots: Vec<bool> = rest.iter().map(|p| self.is_root(p, me)).collect();
        let mut is_root = roots.into_iter();
        rest.retain(|p| match is_root.next() {
            Some(true) => {
                found.push(*p);
                false
            }
            _ => true,
        });
        let mut next = 0;
        while next < found.len() {
            let parent = found[next].pid;
            found.extend(rest.extract_if(.., |p| p.parent == parent));
            next += 1;
        }
        self.seen.extend(found.iter().map(|p| (p.pid, p.start)));
        self.ticks = found.iter().map(|p| p.ticks).sum();
        Ok(found)
    }

    fn is_root(&self, p: &Process, me: i32) -> bool {
        self.seen.get(&p.pid) == Some(&p.start)
            || (self.group != 0 && p.group == self.group)
            || ((self.thorough || p.parent == me || p.parent == 1) && p.bears(&self.mark))
    }

    /// Asks all to end, kills what is there after `stop_limit`, and returns when none is left.
    fn end(&mut self, stop_limit: Duration) -> io::Result<Stopped> {
        let begin = Instant::now();
        let mut ended = BTreeMap::new();
        let mut asked = BTreeMap::new();
        let (mut look, mut quiet) = (LOOK.0, 0);
        let mut killed = BTreeMap::new();
        loop {
            let found = self.find()?;
            let living: Vec<&Process> = found.iter().filter(|p| !p.zombie).collect();
            ended.extend(found.iter().map(|p| (p.pid, p.start)));
            self.reap(&found);
            // A walk over /proc is no snapshot: one that forks and ends may slip through it once.
            quiet = if living.is_empty() { quiet + 1 } else { 0 };
            if quiet == 2 {
                return Ok(Stopped {
                    ended: ended.len(),
                    killed: killed.len(),
                });
            }
            let kill = begin.elapsed() >= stop_limit;
            for p in living {
                if kill {
                    p.signal(Signal::KILL);
                    killed.insert(p.pid, p.start);
                } else if asked.insert(p.pid, p.start) != Some(p.start) {
                    p.signal(Signal::TERM);
                    // One that is stopped cannot hear; let it go on and end.
                    p.signal(Signal::CONT);
                }
            }
            if begin.elapsed() >= stop_limit + KILL_LIMIT {
                return Err(left(&found));
            }
            std::thread::sleep(look);
            look = (look * 2).min(LOOK.1);
        }
    }

    /// Takes leave of the zombies that have come to this process, the root excepted: its handle does that.
    fn reap(&mut self, found: &[Process]) {
        let me = getpid().as_raw_nonzero().get();
        let mine = |p: &&Process| p.zombie && p.parent == me && p.pid != self.group;
        let mut past = 0;
        for p in found.iter().filter(mine) {
            if let Some(pid) = Pid::from_raw(p.pid)
                && let Ok(Some(_)) = waitpid(Some(pid), WaitOptions::NOHANG)
            {
                past += p.ticks;
            }
        }
        self.past_ticks += past;
        self.ticks -= past.min(self.ticks);
    }
}

fn left(found: &[Process]) -> io::Error {
    let pids: Vec<String> = found.iter().map(|p| p.pid.to_string()).collect();
    io::Error::other(format!("processes {} survive SIGKILL", pids.join(", ")))
}

/// The idle command's running tree.
#[derive(Debug)]
pub(super) struct Tree {
    root: Child,
    members: Members,
    status: Option<ExitStatus>,
    pids: std::path::PathBuf,
}

impl Tree {
    /// Starts `command` with its output into `output`, and records it in the file `pids`.
    pub(super) fn spawn(
        command: &[String],
        output: io::PipeWriter,
        pids: &Path,
    ) -> io::Result<Self> {
        let (program, arguments) = command
            .split_first()
            .ok_or_else(|| io::Error::other("the command is empty"))?;
        set_child_subreaper(Some(getpid()))?;
        let mark = new_mark()?;
        let root = Command::new(program)
            .args(arguments)
            .env(MARK, &mark)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()?;
        let members = Members {
            mark,
            group: root.id() as i32,
            ..Members::default()
        };
        let mut tree = Self {
            root,
            members,
            status: None,
            pids: pids.to_owned(),
        };
        tree.walk();
        Ok(tree)
    }

    /// Whether the first process has ended. Others may go on.
    pub(super) fn root_ended(&mut self) -> bool {
        // Not reaped before the whole tree is gone: until then its id, which is the group's, stays taken.
        self.status.is_some() || Process::read(self.root.id() as i32).is_none_or(|p| p.zombie)
    }

    /// Whether none is left.
    pub(super) fn is_gone(&mut self) -> bool {
        self.members
            .find()
            .is_ok_and(|found| found.iter().all(|p| p.zombie))
    }

    /// How the first process ended, once [`Tree::is_gone`].
    pub(super) fn how_it_ended(&mut self) -> String {
        self.take_leave();
        match self.status {
            Some(status) => match status.signal() {
                Some(signal) => format!("signal {signal}"),
                None => format!("exit status {}", status.code().unwrap_or_default()),
            },
            None => "unknown".into(),
        }
    }

    /// Looks at the whole tree, records it and returns the process ids.
    pub(super) fn walk(&mut self) -> Vec<i32> {
        let found = self.members.find().unwrap_or_default();
        self.members.reap(&found);
        let living: Vec<&Process> = found.iter().filter(|p| !p.zombie).collect();
        self.members.seen = living.iter().map(|p| (p.pid, p.start)).collect();
        if let Err(e) = record(&self.pids, &self.members) {
            tracing::warn!("{}: {e}", self.pids.display());
        }
        living.iter().map(|p| p.pid).collect()
    }

    /// CPU time of the tree so far, milliseconds.
    pub(super) fn cpu_ms(&self) -> u64 {
        let ticks = self.members.ticks + self.members.past_ticks;
        ticks * 1000 / rustix::param::clock_ticks_per_second().max(1)
    }

    /// Ends the tree; see [`Members::end`].
    pub(super) fn stop(&mut self, stop_limit: Duration) -> io::Result<Stopped> {
        let stopped = self.members.end(stop_limit)?;
        self.take_leave();
        Ok(stopped)
    }

    fn take_leave(&mut self) {
        if let Ok(Some(status)) = self.root.try_wait() {
            self.status = Some(status);
            self.members.group = 0;
        }
    }
}

fn new_mark() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// Start times count from boot: after the next one they mean nothing.
fn boot_id() -> io::Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}

/// Writes who is in the tree: `<tag> <mark> <boot id>`, then a line `<pid> <start>` each.
fn record(path: &Path, members: &Members) -> io::Result<()> {
    let mut text = format!("{PIDS_TAG} {} {}\n", members.mark, boot_id()?);
    for (pid, start) in &members.seen {
        text.push_str(&format!("{pid} {start}\n"));
    }
    let new = path.with_extension("pids.new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

fn recorded(path: &Path) -> io::Result<Option<Members>> {
    let text = match fs::metadata(path) {
        Ok(meta) if meta.len() > PIDS_BYTES_MAX => {
            return Err(io::Error::other("idle.pids is too large to be ours"));
        }
        Ok(_) => fs::read_to_string(path)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [PIDS_TAG, mark, boot] = head[..] else {
        return Err(io::Error::other("idle.pids is not ours: remove it"));
    };
    if boot != boot_id()? {
        return Ok(None);
    }
    let seen = lines.filter_map(|line| {
        let (pid, start) = line.split_once(' ')?;
        Some((pid.parse().ok()?, start.parse().ok()?))
    });
    Ok(Some(Members {
        mark: mark.to_owned(),
        thorough: true,
        seen: seen.collect(),
        ..Members::default()
    }))
}

/// Ends what the file `pids` records, and removes the file. Returns how many processes were left.
pub(super) fn sweep(pids: &Path, stop_limit: Duration) -> io::Result<usize> {
    let Some(mut members) = recorded(pids)? else {
        return Ok(0);
    };
    let stopped = members.end(stop_limit)?;
    forget(pids);
    Ok(stopped.ended)
}

/// The tree is gone: nothing is left to be swept.
pub(super) fn forget(pids: &Path) {
    if let Err(e) = fs::remove_file(pids)
        && e.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("{}: {e}", pids.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_name() {
        let line = "77 (a) Z (b) S 1 2 3 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 5555 6 7\n";
        let expected = Process {
            pid: 77,
            parent: 1,
            group: 2,
            zombie: false,
            ticks: 100,
            start: 5555,
        };
        assert_eq!(Process::parse(line), Some(expected));
        assert_eq!(Process::parse("77 (a"), None);
        assert_eq!(Process::parse("77 (a) S 1 2"), None);
    }

    #[test]
    fn this_very_process_is_found() {
        let me = Process::read(std::process::id() as i32).unwrap();
        assert!(!me.zombie && me.start > 0);
    }
}
