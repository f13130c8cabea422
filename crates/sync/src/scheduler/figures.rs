//! What is shown of a scheduler.

use crate::PeerShare;

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
    /// What each peer has contributed and has in flight, by number.
    #[must_use]
    pub fn shares(&self) -> Vec<PeerShare> {
        let share = |(&peer, state): (&_, &super::PeerState)| PeerShare {
            peer,
            blocks: 0,
            bytes: 0,
            rate: 0,
            in_flight: state.in_flight.len(),
        };
        self.peers.iter().map(share).collect()
    }

    pub(crate) fn figures(&self) -> Figures {
        Figures { window: self.window.len(), stalls: 0 }
    }
}
