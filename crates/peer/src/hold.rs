//! Whether a connection's socket is read: said from outside at any moment, looked at by the connection's task.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// What a handle and its connection's task have in common. While nobody holds the peer, looking costs the task one atomic
/// read.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    /// Odd while the peer is held; each change adds one, so that a hold and its end are seen even if nobody looked between.
    turns: AtomicU64,
    resumed: Notify,
}

/// How often a peer was held or resumed so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn(u64);

impl Turn {
    pub(crate) fn is_held(self) -> bool {
        self.0 % 2 == 1
    }
}

impl Hold {
    pub(crate) fn hold(&self) {
        self.turns.fetch_or(1, Ordering::AcqRel);
    }

    pub(crate) fn resume(&self) {
        let next = |turns: u64| (turns % 2 == 1).then(|| turns.wrapping_add(1));
        if self.turns.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok() {
            // Kept until the task asks for it, if it does not wait now.
            self.resumed.notify_one();
        }
    }

    pub(crate) fn turn(&self) -> Turn {
        Turn(self.turns.load(Ordering::Acquire))
    }

    /// Waits until the peer may have been resumed; look again.
    pub(crate) async fn resumed(&self) {
        self.resumed.notified().await;
    }
}
