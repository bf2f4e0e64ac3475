//! Cancel requests: which connection a (process, secret) pair stands for.
//!
//! A cancel request comes over a connection of its own and is never answered, so a wrong secret
//! learns nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ruslo_engine::CancelHandle;

/// All connections that can be cancelled.
#[derive(Default)]
pub(super) struct Cancels {
    next_process: AtomicI32,
    entries: Mutex<HashMap<i32, Entry>>,
}

struct Entry {
    secret: i32,
    handle: CancelHandle,
    requested: Arc<AtomicBool>,
}

/// A connection's place in [`Cancels`], given back when dropped.
pub(super) struct Registration {
    cancels: Arc<Cancels>,
    pub(super) process: i32,
    pub(super) secret: i32,
    pub(super) handle: CancelHandle,
    requested: Arc<AtomicBool>,
}

impl Cancels {
    /// Registers a connection under a fresh process number and a random secret.
    pub(super) fn register(self: &Arc<Self>, handle: CancelHandle) -> Registration {
        let secret = rand::random();
        let requested = Arc::new(AtomicBool::new(false));
        let mut entries = self.lock();
        let process = loop {
            let process = self.next_process.fetch_add(1, Ordering::Relaxed) & i32::MAX;
            if process != 0 && !entries.contains_key(&process) {
                break process;
            }
        };
        let entry = Entry {
            secret,
            handle: handle.clone(),
            requested: requested.clone(),
        };
        entries.insert(process, entry);
        Registration {
            cancels: self.clone(),
            process,
            secret,
            handle,
            requested,
        }
    }

    /// Cancels what the connection is doing, if the secret is right.
    pub(super) fn cancel(&self, process: i32, secret: i32) {
        if let Some(entry) = self.lock().get(&process)
            && entry.secret == secret
        {
            entry.requested.store(true, Ordering::Release);
            entry.handle.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
    /// Forgets a request that came for an earlier statement.
    pub(super) fn begin(&self) {
        self.requested.store(false, Ordering::Release);
    }

    /// Whether a request has come since [`Registration::begin`]; sending rows looks at it.
    pub(super) fn requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.cancels.lock().remove(&self.process);
    }
}
