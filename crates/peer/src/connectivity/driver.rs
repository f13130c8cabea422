//! Runs a [`Connectivity`] in a task, for members that send each other [`Message`]s.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use tokio::{
    sync::{Notify, broadcast, watch},
    task::JoinHandle,
    time::{sleep_until, timeout},
};

use super::{
    Change, Connectivity, ConnectivityOptions, InvalidTimings, MemberInfo, Message, Timings, TimingsChange,
};
use crate::driver::now;

/// How many changes wait for a receiver before it misses the oldest.
const CHANGES: usize = 256;
/// How long a message may take to be sent before it is given up.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends messages to all other members: a socket, a message bus, or pings to every peer.
#[async_trait]
pub trait Heartbeat<Id>: Send + Sync {
    /// Sends to all others. Nothing else is sent meanwhile; after 5 s the call is dropped. A loss is not told: the next
    /// heartbeat makes up for it.
    async fn send(&self, message: Message<Id>);
}

/// A handle to a running membership. Clones are handles to the same; when the last is dropped, the member leaves.
#[derive(Debug)]
pub struct Cluster<Id> {
    handle: Arc<Handle<Id>>,
}

impl<Id> Clone for Cluster<Id> {
    fn clone(&self) -> Self {
        Self { handle: Arc::clone(&self.handle) }
    }
}

#[derive(Debug)]
struct Handle<Id> {
    shared: Arc<Shared<Id>>,
    stop: watch::Sender<bool>,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

/// What the task and the handles share. The lock is held for moments and never while waiting.
#[derive(Debug)]
struct Shared<Id> {
    state: Mutex<State<Id>>,
    /// There may be something to send, or an earlier deadline.
    wake: Notify,
}

#[derive(Debug)]
struct State<Id> {
    machine: Connectivity<Id>,
    /// `None` when the member has left.
    changes: Option<broadcast::Sender<Change<Id>>>,
}

impl<Id: Ord + Clone + Send + Sync + 'static> Cluster<Id> {
    /// Joins: says hello, and from then on sends heartbeats. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The timings break a rule.
    pub fn spawn(
        local: MemberInfo<Id>,
        options: ConnectivityOptions,
        heartbeat: Arc<dyn Heartbeat<Id>>,
    ) -> Result<Self, InvalidTimings> {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let unix_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        let machine = Connectivity::new(local, options, unix_ms, now())?;
        let state = Mutex::new(State { machine, changes: Some(broadcast::channel(CHANGES).0) });
        let shared = Arc::new(Shared { state, wake: Notify::new() });
        let (stop, stopped) = watch::channel(false);
        let task = Task { shared: Arc::clone(&shared), heartbeat };
        let task = tokio::sync::Mutex::new(Some(tokio::spawn(task.run(stopped))));
        Ok(Self { handle: Arc::new(Handle { shared, stop, task }) })
    }

    /// Takes a message of another member. Never waits.
    pub fn receive(&self, message: Message<Id>) {
        self.act(|machine| machine.receive(message, now()));
    }

    /// Anything else was received from a member; see [`Connectivity::heard`]. Never waits.
    pub fn heard(&self, id: &Id) {
        self.act(|machine| machine.heard(id, now()));
    }

    /// All members, sorted by id.
    #[must_use]
    pub fn members(&self) -> Vec<MemberInfo<Id>> {
        self.handle.shared.lock().machine.members()
    }

    /// The master as this member sees it; `None` if every member was forced not to be, or is dead.
    #[must_use]
    pub fn master(&self) -> Option<Id> {
        self.handle.shared.lock().machine.master().cloned()
    }

    /// The timings in force.
    #[must_use]
    pub fn timings(&self) -> Timings {
        self.handle.shared.lock().machine.timings()
    }

    /// Changes the given fields, with effect on running timers.
    ///
    /// # Errors
    /// The result would break a rule; nothing is changed.
    pub fn set_timings(&self, change: TimingsChange) -> Result<(), InvalidTimings> {
        self.act(|machine| machine.set_timings(change, now()))
    }

    /// Forces this member to be master, or not to be; `None` returns to election.
    pub fn force_master(&self, force: Option<bool>) {
        self.act(|machine| machine.force_master(force, now()));
    }

    /// The changes from now on.
    #[must_use]
    pub fn changes(&self) -> Changes<Id> {
        let state = self.handle.shared.lock();
        Changes { receiver: state.changes.as_ref().map(broadcast::Sender::subscribe) }
    }

    /// Says bye and ends the task; a message that is being sent is let finish. Takes 10 s at most.
    pub async fn shutdown(&self) {
        self.handle.stop.send_replace(true);
        // Who comes second waits for the lock until the first has seen the end.
        let mut task = self.handle.task.lock().await;
        if let Some(running) = task.as_mut() {
            running.await.ok();
            *task = None;
        }
    }

    fn act<T>(&self, action: impl FnOnce(&mut Connectivity<Id>) -> T) -> T {
        let mut state = self.handle.shared.lock();
        let result = action(&mut state.machine);
        state.tell();
        drop(state);
        self.handle.shared.wake.notify_one();
        result
    }
}

/// Receives the changes of the table, each once and in order.
#[derive(Debug)]
pub struct Changes<Id> {
    receiver: Option<broadcast::Receiver<Change<Id>>>,
}

impl<Id: Clone> Changes<Id> {
    /// The next change; `None` when the member has left. May be cancelled without a loss.
    ///
    /// # Errors
    /// [`Lagged`] once when 256 newer changes came before one was taken; the table is in
    /// [`members`](Cluster::members), and the newer changes follow.
    pub async fn recv(&mut self) -> Option<Result<Change<Id>, Lagged>> {
        match self.receiver.as_mut()?.recv().await {
            Ok(change) => Some(Ok(change)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Err(Lagged { missed })),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// A receiver of changes was too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("missed {missed} changes")]
#[non_exhaustive]
pub struct Lagged {
    /// How many changes are lost to it.
    pub missed: u64,
}

struct Task<Id: Ord + Clone> {
    shared: Arc<Shared<Id>>,
    heartbeat: Arc<dyn Heartbeat<Id>>,
}

impl<Id: Ord + Clone + Send + Sync + 'static> Task<Id> {
    async fn run(self, mut stopped: watch::Receiver<bool>) {
        let mut sending = None;
        loop {
            if sending.is_none() {
                let message = self.shared.lock().machine.poll_send();
                sending = message.map(|message| Box::pin(self.send(message)));
            }
            let deadline = self.shared.lock().machine.deadline();
            tokio::select! {
                biased;
                // The end comes first: who drops the last handle, or shuts down, waits for nothing else.
                _ = stopped.wait_for(|stop| *stop) => break,
                // Time before what others cause, or they could keep each other from being found dead.
                () = sleep_until(deadline.into()) => {
                    let mut state = self.shared.lock();
                    state.machine.timeout(now());
                    state.tell();
                }
                () = async { if let Some(sending) = &mut sending { sending.await } }, if sending.is_some() => {
                    sending = None;
                }
                () = self.shared.wake.notified() => {}
            }
        }
        // Half a message on a socket would spoil the bye.
        if let Some(sending) = sending {
            sending.await;
        }
        let bye = self.shared.lock().machine.leave(now());
        self.send(bye).await;
    }

    async fn send(&self, message: Message<Id>) {
        if timeout(SEND_TIMEOUT, self.heartbeat.send(message)).await.is_err() {
            tracing::warn!(limit = ?SEND_TIMEOUT, "a heartbeat could not be sent in time");
        }
    }
}

impl<Id: Ord + Clone> Drop for Task<Id> {
    fn drop(&mut self) {
        // Receivers learn of the end, whatever it was.
        self.shared.lock().changes = None;
    }
}

impl<Id> Shared<Id> {
    fn lock(&self) -> MutexGuard<'_, State<Id>> {
        // A panic in a caller's `Ord` leaves the table as consistent as the order itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Id: Ord + Clone> State<Id> {
    fn tell(&mut self) {
        while let Some(change) = self.machine.poll_change() {
            if let Some(changes) = &self.changes {
                // Nobody may be listening.
                changes.send(change).ok();
            }
        }
    }
}

#[cfg(test)]
mod tests;
