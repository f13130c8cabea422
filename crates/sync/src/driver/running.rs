//! The handle to a sync.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::{
    sync::{broadcast, oneshot, watch},
    task::JoinHandle,
};

use super::SyncError;
use crate::{Control, Event, Events, Progress};

/// A sync that is running. Dropping it stops the sync without waiting.
#[derive(Debug)]
pub struct Running {
    pub(super) control: Control,
    pub(super) events: broadcast::WeakSender<Event>,
    /// The events from the start, for who asks first.
    pub(super) first: Mutex<Option<broadcast::Receiver<Event>>>,
    pub(super) stop: Option<oneshot::Sender<()>>,
    /// `None` once its end was told.
    pub(super) task: Option<JoinHandle<Result<(), SyncError>>>,
}

impl Running {
    /// The events: all from the start for the first caller, for others those from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(first) = first {
            return Events(first);
        }
        let sender = self.events.upgrade();
        // After the end: a stream that ends at once.
        Events(sender.map_or_else(|| broadcast::channel(1).1, |sender| sender.subscribe()))
    }

    /// Where the sync is.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.control.watch()
    }

    /// A handle to pause, resume and add peers with.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Waits for the end that [`SyncOptions::stop_at`](crate::SyncOptions::stop_at) or an error brings. An error is returned
    /// once.
    ///
    /// # Errors
    /// What ended the sync.
    pub async fn wait(&mut self) -> Result<(), SyncError> {
        let Some(task) = &mut self.task else { return Ok(()) };
        let result = match task.await {
            Ok(result) => result,
            Err(panic) => Err(SyncError::Chain(Arc::new(panic))),
        };
        self.task = None;
        result
    }

    /// Stops: no new requests, the sink finishes what it was given and flushes, connections close.
    ///
    /// # Errors
    /// What ended the sync before, or the sink's error on the way out.
    pub async fn shutdown(mut self) -> Result<(), SyncError> {
        drop(self.stop.take());
        self.wait().await
    }
}
