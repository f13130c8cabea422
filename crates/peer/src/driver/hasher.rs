//! The checksum of one block, on a thread beside the connection's task.

use bytes::Bytes;
use tokio::{
    sync::mpsc::{self, OwnedPermit},
    task::JoinHandle,
};

use crate::wire::Sha256d;

/// How many parts may wait to be hashed.
const PARTS: usize = 2;

#[derive(Debug)]
pub(super) struct Hasher {
    parts: Option<mpsc::Sender<Bytes>>,
    thread: JoinHandle<[u8; 32]>,
}

impl Hasher {
    pub(super) fn start() -> Self {
        let (parts, mut inbox) = mpsc::channel::<Bytes>(PARTS);
        let thread = tokio::task::spawn_blocking(move || {
            let mut hash = Sha256d::new();
            while let Some(part) = inbox.blocking_recv() {
                hash.update(&part);
            }
            hash.finish()
        });
        Self { parts: Some(parts), thread }
    }

    /// Waits for a place; `None` if the thread is gone.
    pub(super) async fn reserve(&self) -> Option<OwnedPermit<Bytes>> {
        self.parts.clone()?.reserve_owned().await.ok()
    }

    /// The hash of all parts, once they are through; `None` if the thread is gone. Can be called again if it was dropped
    /// while it waited.
    pub(super) async fn finish(&mut self) -> Option<[u8; 32]> {
        self.parts = None;
        (&mut self.thread).await.ok()
    }
}
