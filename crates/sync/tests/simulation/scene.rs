//! What all peers of a run have in common.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;

use crate::chain::Universe;

/// What all nodes have in common.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) universe: Arc<Universe>,
    /// How many headers one message holds.
    pub(crate) headers: u32,
    /// How many entries one list of blocks holds.
    pub(crate) list: u32,
    pub(crate) start: Instant,
    /// Bytes of blocks that are alive anywhere.
    pub(crate) alive: Arc<AtomicU64>,
}

/// Bytes that are counted for as long as anybody holds them.
struct Counted {
    bytes: &'static [u8],
    alive: Arc<AtomicU64>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.fetch_sub(self.bytes.len() as u64, Ordering::Relaxed);
    }
}

impl Scene {
    pub(crate) fn lend(&self, bytes: &'static [u8]) -> Bytes {
        self.alive.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Bytes::from_owner(Counted { bytes, alive: Arc::clone(&self.alive) })
    }
}
