//! Writes headers in a thread of its own: a commit waits for the disk, and whoever has headers need not.
//!
//! What comes while a commit is under way goes into the next one, so the slower the disk, the fewer commits there are.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{JoinHandle, spawn},
};

use redb::Database;

use super::{RUNS, StoreError};

/// How many runs may wait; of Bitcoin's headers one takes 164,000 bytes at most. Then it is waited for the disk.
const MAX_WAITING: usize = 64;

/// The thread, and how far it is.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    /// `None` when it is to end.
    runs: Option<SyncSender<Arc<Run>>>,
    state: Arc<(Mutex<State>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

/// Headers that came together.
#[derive(Debug)]
pub(super) struct Run {
    /// The number of the first.
    pub(super) first: u64,
    /// The number of the next after the last.
    pub(super) next: u64,
    pub(super) headers: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    /// Not durable yet, in order.
    waiting: VecDeque<Arc<Run>>,
    /// All headers before this number are durable.
    written: u64,
    /// The thread has ended for this reason, which is told once.
    error: Option<StoreError>,
    has_failed: bool,
}

impl Writer {
    /// Starts the thread; so many headers are there.
    pub(super) fn start(path: PathBuf, database: Arc<Database>, written: u64) -> Self {
        let (runs, inbox) = sync_channel(MAX_WAITING);
        let state = Arc::new((Mutex::new(State { written, ..State::default() }), Condvar::new()));
        let thread = spawn({
            let (state, path) = (state.clone(), path.clone());
            move || {
                let ended = Ended(state);
                write(&inbox, &database, &path, &ended.0);
            }
        });
        Self { path, runs: Some(runs), state, thread: Some(thread) }
    }

    /// Writes a run soon. Waits if many are waiting.
    pub(super) fn write(&self, run: Run) -> Result<(), StoreError> {
        let run = Arc::new(run);
        lock(&self.state.0).waiting.push_back(run.clone());
        match self.runs.as_ref().map(|runs| runs.send(run)) {
            Some(Ok(())) => Ok(()),
            _ => Err(self.failure(lock(&self.state.0))),
        }
    }

    /// Waits until all headers before this number are durable.
    pub(super) fn wait(&self, next: u64) -> Result<(), StoreError> {
        let (state, changed) = &*self.state;
        let is_waiting = |state: &mut State| state.written < next && !state.has_failed;
        let state = changed.wait_while(lock(state), is_waiting).unwrap_or_else(PoisonError::into_inner);
        if state.written >= next { Ok(()) } else { Err(self.failure(state)) }
    }

    /// The run that has the header of this number, if it is not durable yet.
    pub(super) fn waiting(&self, number: u64) -> Option<Arc<Run>> {
        lock(&self.state.0).waiting.iter().find(|run| (run.first..run.next).contains(&number)).cloned()
    }

    /// From now on the next header has this number: nothing is waiting.
    pub(super) fn reset(&self, next: u64) {
        lock(&self.state.0).written = next;
    }

    fn failure(&self, mut state: MutexGuard<'_, State>) -> StoreError {
        let again = || std::io::Error::other("headers could not be written before");
        state.error.take().unwrap_or_else(|| StoreError::Io { path: self.path.clone(), source: again() })
    }
}

impl Drop for Writer {
    /// Waits until everything is written.
    fn drop(&mut self) {
        drop(self.runs.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if let Some(error) = &lock(&self.state.0).error {
            tracing::error!(%error, "headers could not be written");
        }
        if matches!(ended, Some(Err(_))) {
            tracing::error!("the thread that writes headers has panicked");
        }
    }
}

/// The thread has ended: whoever waits is told so, also if it has panicked.
struct Ended(Arc<(Mutex<State>, Condvar)>);

impl Drop for Ended {
    fn drop(&mut self) {
        lock(&self.0.0).has_failed = true;
        self.0.1.notify_all();
    }
}

fn write(inbox: &Receiver<Arc<Run>>, database: &Database, path: &Path, state: &(Mutex<State>, Condvar)) {
    while let Ok(run) = inbox.recv() {
        let runs: Vec<Arc<Run>> = std::iter::once(run).chain(inbox.try_iter()).collect();
        let next = runs.last().map_or(0, |last| last.next);
        let written = commit(&runs, database, path);
        let mut now = lock(&state.0);
        let has_failed = written.is_err();
        match written {
            Ok(()) => {
                now.written = next;
                now.waiting.drain(..runs.len());
            }
            Err(error) => (now.error, now.has_failed) = (Some(error), true),
        }
        drop(now);
        state.1.notify_all();
        if has_failed {
            return;
        }
    }
}

fn commit(runs: &[Arc<Run>], database: &Database, path: &Path) -> Result<(), StoreError> {
    let transaction = database.begin_write().map_err(StoreError::database(path))?;
    {
        let mut table = transaction.open_table(RUNS).map_err(StoreError::database(path))?;
        for run in runs {
            table.insert(run.first, &run.headers[..]).map_err(StoreError::database(path))?;
        }
    }
    transaction.commit().map_err(StoreError::database(path))
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;

    #[test]
    fn nobody_waits_for_a_thread_that_has_panicked() {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        let database = Arc::new(database);
        let writer = Writer::start(PathBuf::new(), database.clone(), 0);
        // The thread waits for this to end, and finds less to be written than it was given.
        let transaction = database.begin_write().unwrap();
        writer.write(Run { first: 0, next: 1, headers: Vec::new() }).unwrap();
        lock(&writer.state.0).waiting.clear();
        drop(transaction);
        let error = writer.wait(2).unwrap_err().to_string();
        assert!(error.contains("headers could not be written before"), "{error}");
        while writer.write(Run { first: 1, next: 2, headers: Vec::new() }).is_ok() {}
    }
}
