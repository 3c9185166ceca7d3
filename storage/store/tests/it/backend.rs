//! A disk in memory with planned faults, which can write down all that is done to it.
//!
//! [`PlannedBackend`] is what redb gets; the test keeps the [`Plan`]. A plan can hold syncs back,
//! let the disk fail at the n-th call, and record a [`Trace`] from which [`crate::trace`] makes what
//! a power cut leaves. [`SkippedSyncs`] is a planted fault around any backend.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use redb::StorageBackend;

use crate::trace::{Access, Trace, overwrite};

/// What the disk does, and what was done to it.
#[derive(Debug, Default)]
pub struct Plan {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    held: bool,
    waiting: bool,
    next_sync: Option<Fault>,
    planned: Option<(u64, Fault)>,
    /// A disk that broke for good.
    broken: Option<Fault>,
    calls: u64,
    trace: Option<Vec<Access>>,
}

/// How a disk goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This call and all that follow fail.
    Error,
    /// This call fails, the next ones do not.
    Once,
    /// From this call on nothing can be written, but read.
    NoSpace,
    /// Half of the bytes are written, then as [`Self::NoSpace`].
    Short,
    /// The code below panics.
    Panic,
}

/// What redb asks of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Read,
    Write,
    Sync,
}

impl Plan {
    /// Syncs block from now on, until [`Self::release`].
    pub fn hold(&self) {
        self.lock().held = true;
    }

    /// Returns when a sync is blocked.
    pub fn wait_until_held(&self) {
        drop(self.wait_while(|s| !s.waiting));
    }

    pub fn release(&self) {
        self.lock().held = false;
        self.changed.notify_all();
    }

    /// The next sync goes wrong.
    pub fn break_down(&self, fault: Fault) {
        self.lock().next_sync = Some(fault);
    }

    /// The call with this number goes wrong; the first one has number 0.
    pub fn fail_at(&self, call: u64, fault: Fault) {
        self.lock().planned = Some((call, fault));
    }

    /// Nothing more reaches the disk: what the process does now, it does in vain.
    pub fn unplug(&self) {
        self.lock().broken = Some(Fault::Error);
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Writes down from now on what is done to the disk.
    pub fn record(&self) {
        self.lock().trace = Some(Vec::new());
    }

    /// Notes that `count` batches are acknowledged at this point of the record.
    pub fn acknowledge(&self, count: usize) {
        self.lock().note(|| Access::Acknowledged(count));
        self.changed.notify_all();
    }

    /// Returns when `count` batches are acknowledged.
    pub fn wait_until_acknowledged(&self, count: usize) {
        let last = |state: &State| {
            let trace = state.trace.as_deref().unwrap();
            trace.iter().rev().find_map(Access::acknowledged)
        };
        drop(self.wait_while(|state| last(state).is_none_or(|last| last < count)));
    }

    /// The record since [`Self::record`], on a disk that held `base` then.
    pub fn take_trace(&self, base: Vec<u8>) -> Trace {
        let accesses = self.lock().trace.take().unwrap();
        Trace { base, accesses }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn wait_while(&self, busy: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let limit = Duration::from_secs(60);
        let (state, waited) = self
            .changed
            .wait_timeout_while(self.lock(), limit, |state| busy(state))
            .unwrap();
        assert!(!waited.timed_out(), "nothing happens any more");
        state
    }

    fn begin(&self, call: Call) -> Result<MutexGuard<'_, State>, Failed<'_>> {
        let mut state = self.lock();
        let fault = state.fault(call);
        state.calls += 1;
        match fault {
            None => Ok(state),
            Some(Fault::Panic) => {
                drop(state);
                panic!("planted panic")
            }
            Some(Fault::NoSpace | Fault::Short) => Err(Failed(state, ErrorKind::StorageFull)),
            Some(Fault::Error | Fault::Once) => Err(Failed(state, ErrorKind::Other)),
        }
    }

    /// Blocks while syncs are held.
    fn gate(&self) {
        let mut state = self.lock();
        state.waiting = state.held;
        drop(state);
        self.changed.notify_all();
        self.wait_while(|s| s.held).waiting = false;
    }
}

/// A call that fails, with the disk as it is.
struct Failed<'a>(MutexGuard<'a, State>, ErrorKind);

impl From<Failed<'_>> for io::Error {
    fn from(Failed(_, kind): Failed<'_>) -> Self {
        Self::new(kind, "planted fault")
    }
}

impl State {
    fn fault(&mut self, call: Call) -> Option<Fault> {
        if let Some(fault) = self.broken {
            return (fault == Fault::Error || call != Call::Read).then_some(fault);
        }
        let planned = self
            .planned
            .take_if(|(at, _)| *at == self.calls)
            .map(|(_, fault)| fault);
        let at_sync = (call == Call::Sync)
            .then(|| self.next_sync.take())
            .flatten();
        let fault = planned.or(at_sync)?;
        if matches!(fault, Fault::Error | Fault::NoSpace | Fault::Short) {
            let rest = if fault == Fault::Short {
                Fault::NoSpace
            } else {
                fault
            };
            self.broken = Some(rest);
        }
        let full = matches!(fault, Fault::NoSpace | Fault::Short);
        (!full || call != Call::Read).then_some(fault)
    }

    fn note(&mut self, access: impl FnOnce() -> Access) {
        if let Some(trace) = &mut self.trace {
            trace.push(access());
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        overwrite(&mut self.bytes, offset, data);
        self.note(|| Access::Write(offset, data.into()));
    }
}

/// A disk in memory that follows a plan.
#[derive(Debug)]
pub struct PlannedBackend(Arc<Plan>);

impl PlannedBackend {
    pub fn new() -> (Self, Arc<Plan>) {
        Self::with_image(Vec::new())
    }

    /// Starts from the bytes that a power cut left.
    pub fn with_image(image: Vec<u8>) -> (Self, Arc<Plan>) {
        let plan = Arc::<Plan>::default();
        plan.lock().bytes = image;
        (Self(Arc::clone(&plan)), plan)
    }
}

impl StorageBackend for PlannedBackend {
    fn len(&self) -> io::Result<u64> {
        let state = self.0.begin(Call::Read)?;
        Ok(state.bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.begin(Call::Read)?;
        let start = offset as usize;
        let found = state.bytes.get(start..start + out.len());
        out.copy_from_slice(found.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.begin(Call::Write)?;
        state.bytes.resize(len as usize, 0);
        state.note(|| Access::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.gate();
        self.0.begin(Call::Sync)?.note(|| Access::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let planned = self.0.lock().planned;
        match self.0.begin(Call::Write) {
            Ok(mut state) => state.write(offset, data),
            Err(mut failed) => {
                if planned == Some((failed.0.calls - 1, Fault::Short)) {
                    failed.0.write(offset, &data[..data.len() / 2]);
                }
                return Err(failed.into());
            }
        }
        Ok(())
    }
}

/// A planted fault: of every `every` syncs one says that it is done and does nothing.
#[derive(Debug)]
pub struct SkippedSyncs<B> {
    pub inner: B,
    pub every: u64,
    pub syncs: AtomicU64,
}

impl<B: StorageBackend> StorageBackend for SkippedSyncs<B> {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let number = self.syncs.fetch_add(1, Ordering::Relaxed) + 1;
        if number.is_multiple_of(self.every) {
            return Ok(());
        }
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }
}
