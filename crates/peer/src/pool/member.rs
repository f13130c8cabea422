//! One connection, or an attempt at one, as the pool sees it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{Direction, Figures, NetworkGroup, PeerAddress, PeerInfo};

/// What is known of one connection.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) address: PeerAddress,
    pub(super) group: NetworkGroup,
    pub(super) direction: Direction,
    /// Where it really leads, if that is known.
    pub(super) remote: Option<SocketAddr>,
    /// A further connection to an address that the book counts once.
    pub(super) is_extra: bool,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) enum State {
    /// A dial is under way; `first` if there never was one to this address.
    Dialing {
        first: bool,
    },
    Ready(Box<Ready>),
    /// Its end was asked for; since when it had been ready.
    Leaving(Option<Instant>),
}

/// A peer that has shaken hands.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) since: Instant,
    pub(super) info: PeerInfo,
    pub(super) encrypted: bool,
    pub(super) figures: Option<Figures>,
    /// When a sample showed a whole message or block last.
    pub(super) spoke: Instant,
    pub(super) errors: u32,
    pub(super) time_outs: u32,
    pub(super) last_used: Option<Instant>,
    /// How many requests it has not answered yet.
    pub(super) asked: usize,
    pub(super) was_asked_for_addresses: bool,
}

impl Member {
    pub(super) fn ready(&self) -> Option<&Ready> {
        match &self.state {
            State::Ready(ready) => Some(ready),
            State::Dialing { .. } | State::Leaving(_) => None,
        }
    }

    pub(super) fn ready_since(&self) -> Option<Instant> {
        match &self.state {
            State::Ready(ready) => Some(ready.since),
            State::Leaving(since) => *since,
            State::Dialing { .. } => None,
        }
    }

    pub(super) fn leave(&mut self) {
        self.state = State::Leaving(self.ready_since());
    }

    pub(super) fn ready_mut(&mut self) -> Option<&mut Ready> {
        match &mut self.state {
            State::Ready(ready) => Some(ready),
            State::Dialing { .. } | State::Leaving(_) => None,
        }
    }
}

impl Ready {
    pub(super) fn new(info: PeerInfo, encrypted: bool, now: Instant) -> Self {
        Self {
            since: now,
            info,
            encrypted,
            figures: None,
            spoke: now,
            errors: 0,
            time_outs: 0,
            last_used: None,
            asked: 0,
            was_asked_for_addresses: false,
        }
    }

    /// How much a peer is to be preferred: more if it is fast and was not used for a while, less for every error, time-out
    /// and open request. `typical` is the speed taken for those that were not measured.
    pub(super) fn weight(&self, typical: f64, now: Instant) -> f64 {
        let speed = self.figures.and_then(|figures| figures.speed).unwrap_or(typical).max(1.0);
        let rest = self.last_used.map_or(Duration::from_secs(10), |at| now.saturating_duration_since(at));
        let rested = 1.0 + rest.as_secs_f64().min(10.0);
        let faults = 1.0 + f64::from(self.errors) + f64::from(self.time_outs) + self.asked as f64;
        speed * rested / (faults * faults)
    }
}
