//! What a node counts, so that tests see what their own side does: connections left open, blocks asked for twice.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a node has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SimStats {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections open now.
    pub open: u64,
    /// Handshakes completed.
    pub handshakes: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Blocks sent, whole or filtered.
    pub blocks: u64,
    /// Transactions sent, but for those that follow a filtered block.
    pub transactions: u64,
}

/// The counters behind [`SimStats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: Counter,
    pub(crate) closed: Counter,
    pub(crate) handshakes: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) bytes_received: Counter,
    pub(crate) blocks: Counter,
    pub(crate) transactions: Counter,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(crate) fn snapshot(&self) -> SimStats {
        // First what is closed: it has been accepted before.
        let closed = self.closed.get();
        let accepted = self.accepted.get();
        SimStats {
            accepted,
            open: accepted.saturating_sub(closed),
            handshakes: self.handshakes.get(),
            bytes_sent: self.bytes_sent.get(),
            bytes_received: self.bytes_received.get(),
            blocks: self.blocks.get(),
            transactions: self.transactions.get(),
        }
    }
}

/// Counts a connection as open until it is dropped.
pub(crate) struct Open<'a>(&'a Counters);

impl<'a> Open<'a> {
    pub(crate) fn count(counters: &'a Counters) -> Self {
        counters.accepted.add(1);
        Self(counters)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.closed.add(1);
    }
}
