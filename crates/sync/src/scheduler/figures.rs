//! What operators watch of a scheduler, beside its peers.

use super::Scheduler;

/// What operators watch of a scheduler, beside its peers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Blocks asked for, arriving or waiting for their turn.
    pub(crate) window: usize,
    /// How often a peer brought nothing for too long.
    pub(crate) stalls: u64,
}

impl Scheduler {
    pub(crate) fn figures(&self) -> Figures {
        let filtered = self.filters.as_ref().map_or(0, |filters| filters.blocks());
        Figures { window: self.window.len() + filtered, stalls: self.stalls }
    }
}
