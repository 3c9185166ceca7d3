//! Backends with planted faults. They wrap redb's memory backend, so no disk takes part.

use std::io;
use std::sync::{Arc, Condvar, Mutex};

use redb::StorageBackend;
use redb::backends::InMemoryBackend;

/// What the disk does when it is told to sync.
#[derive(Debug, Default)]
pub struct Plan {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    held: bool,
    waiting: bool,
    fault: Option<Fault>,
    /// The bytes as of each sync: what a power cut between it and the next leaves at least.
    durable: Vec<Vec<u8>>,
}

/// How a sync goes wrong.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The system reports an error.
    Error,
    /// The code below panics.
    Panic,
}

impl Plan {
    /// Syncs block from now on, until [`Self::release`].
    pub fn hold(&self) {
        self.state.lock().unwrap().held = true;
    }

    /// Returns when a sync is blocked.
    pub fn wait_until_held(&self) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |s| !s.waiting).unwrap());
    }

    pub fn release(&self) {
        self.state.lock().unwrap().held = false;
        self.changed.notify_all();
    }

    /// The next syncs go wrong.
    pub fn break_down(&self, fault: Fault) {
        self.state.lock().unwrap().fault = Some(fault);
    }

    /// What a power cut after each sync since the last call would have left.
    pub fn take_images(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.state.lock().unwrap().durable)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.waiting = state.held;
        self.changed.notify_all();
        state = self.changed.wait_while(state, |s| s.held).unwrap();
        state.waiting = false;
        let fault = state.fault;
        drop(state);
        match fault {
            Some(Fault::Error) => Err(io::Error::other("planted fault")),
            Some(Fault::Panic) => panic!("planted panic"),
            None => Ok(()),
        }
    }
}

/// A disk in memory that follows a plan.
#[derive(Debug)]
pub struct PlannedBackend {
    inner: InMemoryBackend,
    plan: Arc<Plan>,
}

impl PlannedBackend {
    pub fn new() -> (Self, Arc<Plan>) {
        Self::with_image(&[])
    }

    /// Starts from the bytes that a power cut left.
    pub fn with_image(image: &[u8]) -> (Self, Arc<Plan>) {
        let inner = InMemoryBackend::new();
        inner.set_len(image.len() as u64).unwrap();
        inner.write(0, image).unwrap();
        let plan = Arc::<Plan>::default();
        let backend = Self {
            inner,
            plan: Arc::clone(&plan),
        };
        (backend, plan)
    }
}

impl StorageBackend for PlannedBackend {
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
        self.plan.sync()?;
        let mut image = vec![0; self.inner.len()? as usize];
        self.inner.read(0, &mut image)?;
        self.plan.state.lock().unwrap().durable.push(image);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }
}
