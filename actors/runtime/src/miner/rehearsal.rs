//! Rehearsals of a member's death: in debug builds, a test can have this process die or stop at a point of a training run, and read
//! which steps it committed. In release builds there is nothing of it.
//!
//! The file that `CRYPTOMIND_REHEARSE` names is read when a run begins. A line `<attempt> <rank> <point> <step> <kill|stop>` has
//! the member of that rank send itself that signal once it comes to the point, in that attempt and with at least so many
//! committed steps. To the file that `CRYPTOMIND_TRAIL` names it appends `commit <ms> <attempt> <step> <fingerprint>` for each commit,
//! and `at <ms> <step> <point>` before the signal; the time is the system's, in milliseconds.

/// Where a member may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// It gets its data.
    Preparing,
    /// Its ring closes.
    Joining,
    /// Its gradients are half computed.
    Computing,
    /// The first sum has come back.
    Summing,
    /// The step lies in the shadow.
    Applying,
    /// It has told the others so, and waits for their word.
    Confirming,
    /// The step is committed.
    Committed,
    /// It has come to rest between two attempts.
    Resting,
    /// It has said where it stands, to the coordinator or to the members.
    Told,
    /// It has voted.
    Voted,
    /// The members' decision is known to it.
    Decided,
    /// All steps are done, and the result is being stored.
    Storing,
}

#[cfg(debug_assertions)]
pub use on::{begin, committed, reach};

#[cfg(debug_assertions)]
mod on {
    use std::fs::OpenOptions;
    use std::io::Write as _;
    use std::sync::{Mutex, PoisonError};

    use cryptomind_protocol::key::Hash;
    use rustix::process::{Signal, getpid, kill_process};

    use super::Point;
    use crate::clock;

    struct Cue {
        attempt: u32,
        rank: u32,
        point: String,
        step: u64,
        signal: Signal,
    }

    /// What is left to be rehearsed.
    static CUES: Mutex<Vec<Cue>> = Mutex::new(Vec::new());

    fn cue(line: &str) -> Option<Cue> {
        let mut words = line.split_whitespace();
        let mut next = || words.next();
        Some(Cue {
            attempt: next()?.parse().ok()?,
            rank: next()?.parse().ok()?,
            point: next()?.to_owned(),
            step: next()?.parse().ok()?,
            signal: match next()? {
                "stop" => Signal::STOP,
                _ => Signal::KILL,
            },
        })
    }

    fn note(line: &str) {
        let Some(file) = std::env::var_os("CRYPTOMIND_TRAIL") else {
            return;
        };
        let line = format!("{line}\n");
        let opened = OpenOptions::new().create(true).append(true).open(file);
        // A test that misses a line says so.
        let _ = opened.and_then(|mut file| file.write_all(line.as_bytes()));
    }

    /// A run begins.
    pub fn begin() {
        let file = std::env::var_os("CRYPTOMIND_REHEARSE");
        let text = file.and_then(|file| std::fs::read_to_string(file).ok());
        let cues = text.iter().flat_map(|text| text.lines()).filter_map(cue);
        *CUES.lock().unwrap_or_else(PoisonError::into_inner) = cues.collect();
    }

    /// The member of this rank has come to this point, with so many committed steps.
    pub fn reach(point: Point, (attempt, rank): (u32, u32), step: u64) {
        let mut cues = CUES.lock().unwrap_or_else(PoisonError::into_inner);
        if cues.is_empty() {
            return;
        }
        let name = format!("{point:?}").to_lowercase();
        let fits = |cue: &Cue| {
            (cue.attempt, cue.rank) == (attempt, rank) && step >= cue.step && cue.point == name
        };
        let Some(at) = cues.iter().position(fits) else {
            return;
        };
        let cue = cues.remove(at);
        drop(cues);
        note(&format!("at {} {step} {name}", clock::now().as_ms()));
        // It does not fail on this process itself.
        let _ = kill_process(getpid(), cue.signal);
    }

    /// This member has committed a step.
    pub fn committed(attempt: u32, step: u64, fingerprint: impl FnOnce() -> Hash) {
        if std::env::var_os("CRYPTOMIND_TRAIL").is_some() {
            let (ms, print) = (clock::now().as_ms(), fingerprint());
            note(&format!("commit {ms} {attempt} {step} {print}"));
        }
    }
}

/// Nothing is rehearsed in a release build.
#[cfg(not(debug_assertions))]
pub const fn begin() {}

#[cfg(not(debug_assertions))]
pub const fn reach(_: Point, _: (u32, u32), _: u64) {}

#[cfg(not(debug_assertions))]
pub fn committed<T>(_: u32, _: u64, _: impl FnOnce() -> T) {}
