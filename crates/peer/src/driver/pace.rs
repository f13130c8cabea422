//! When a socket is read, and which clocks stand still while it is not.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    time::sleep,
};

use super::now;
use crate::{
    hold::{Hold, Turn},
    link::after,
};

/// How often it is looked whether a held peer is still there.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Pace {
    hold: Arc<Hold>,
    seen: Turn,
    /// Since when nothing is read.
    paused: Option<Instant>,
    /// Since when the peer has taken nothing of what waits for it.
    unsent_since: Option<Instant>,
}

impl Pace {
    pub(super) fn new(hold: Arc<Hold>) -> Self {
        Self { seen: hold.turn(), hold, paused: None, unsent_since: None }
    }

    /// Looks whether to read; `flows` says that everything read before was passed on. If time-outs are to start anew, since
    /// when nothing was read.
    pub(super) fn look(&mut self, flows: bool) -> Option<Instant> {
        let turn = self.hold.turn();
        let has_turned = turn != self.seen;
        self.seen = turn;
        if turn.is_held() || has_turned {
            // A node that can't write may not read either.
            self.unsent_since = None;
        }
        if !flows || turn.is_held() {
            self.paused.get_or_insert_with(now);
            return None;
        }
        // A hold that nobody noticed kept nothing from being read.
        self.paused.take().or_else(|| has_turned.then(now))
    }

    pub(super) fn reads(&self) -> bool {
        self.paused.is_none()
    }

    pub(super) fn is_held(&self) -> bool {
        self.seen.is_held()
    }

    /// Whether the peer was held or resumed since the last look.
    pub(super) fn has_turned(&self) -> bool {
        self.hold.turn() != self.seen
    }

    /// Waits until the peer may have been resumed.
    pub(super) async fn resumed(&self) {
        self.hold.resumed().await;
    }

    /// When the peer has left unread for too long what waits for it, if something does.
    pub(super) fn write_deadline(&mut self, unsent: usize, timeout: Duration) -> Option<Instant> {
        if unsent == 0 || self.is_held() {
            self.unsent_since = None;
        } else {
            self.unsent_since.get_or_insert_with(now);
        }
        self.unsent_since.map(|since| after(since, timeout))
    }

    pub(super) fn wrote(&mut self) {
        self.unsent_since = None;
    }
}

/// Writes; without anything to write, looks after a while whether that would work: a reset shows there, and nothing is read
/// that could show it.
pub(super) async fn write(writer: &mut (impl AsyncWrite + Unpin), output: &[u8]) -> io::Result<usize> {
    if output.is_empty() {
        sleep(LOOK).await;
    }
    writer.write(output).await
}
