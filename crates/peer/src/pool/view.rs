//! The pool as it is shown.

use std::time::{Duration, Instant};

use super::{Pool, Refusal, member::State};
use crate::{
    Choice, Direction, Figures, InvalidTimings, PeerAddress, PeerId, PeerInfo, Status, Timings,
    TimingsChange, Want, pool::choice::Chooser,
};

/// One connection, or an attempt at one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PeerView {
    /// Its number.
    pub id: PeerId,
    /// Where the peer is.
    pub address: PeerAddress,
    /// Who opened it.
    pub direction: Direction,
    /// How it stands.
    pub state: PeerState,
    /// The points that its host has for misbehaving; 100 are too many.
    pub misbehaviour: f64,
    /// Whether it is the primary peer.
    pub is_primary: bool,
}

/// How a connection stands.
#[allow(clippy::large_enum_variant, reason = "a view is made seldom, read once and dropped")]
#[derive(Debug, Clone)]
pub enum PeerState {
    /// It is being dialled, or shakes hands.
    Connecting,
    /// It can be asked.
    Ready {
        /// What the peer told about itself.
        info: PeerInfo,
        /// By its silence.
        status: Status,
        /// Whether it is encrypted.
        encrypted: bool,
        /// For how long it has been ready.
        up_time: Duration,
        /// What was measured, at the last sample.
        figures: Option<Figures>,
        /// Useless answers.
        errors: u32,
        /// Unanswered requests.
        time_outs: u32,
        /// How much the peer is preferred for requests, in proportion to others.
        weight: f64,
    },
    /// It is being closed.
    Closing,
}

impl Pool {
    /// All connections, in the order in which they were begun.
    #[must_use]
    pub fn peers(&self, now: Instant) -> Vec<PeerView> {
        self.members
            .iter()
            .map(|(id, member)| PeerView {
                id: *id,
                address: member.address.clone(),
                direction: member.direction,
                state: match &member.state {
                    State::Dialing { .. } => PeerState::Connecting,
                    State::Leaving(_) => PeerState::Closing,
                    State::Ready(ready) => PeerState::Ready {
                        info: ready.info.clone(),
                        status: self.connectivity.status_of(id).unwrap_or(Status::Dead),
                        encrypted: ready.encrypted,
                        up_time: now.saturating_duration_since(ready.since),
                        figures: ready.figures,
                        errors: ready.errors,
                        time_outs: ready.time_outs,
                        weight: ready.weight(100_000.0, now),
                    },
                },
                misbehaviour: self.scores.get(&member.address.host, now),
                is_primary: self.primary == Some(*id),
            })
            .collect()
    }

    /// A peer for a question, by the pool's own choice, other than those.
    pub fn choose(&mut self, want: &Want, others_than: &[PeerId], now: Instant) -> Option<PeerId> {
        let choice: Choice = self.options.choice;
        let id = Chooser::new(&self.members, &mut self.random, choice, self.round, now)
            .choose(want, others_than)?;
        self.round = id.0;
        Some(id)
    }

    /// The primary peer: the forced one, else the one that has been connected for longest.
    #[must_use]
    pub fn primary(&self) -> Option<PeerId> {
        self.primary
    }

    /// Forces a peer to be the primary one, or not to be; `None` returns it to election.
    pub fn force_primary(&mut self, id: PeerId, force: Option<bool>, now: Instant) {
        self.connectivity.force_member(&id, force, now);
    }

    /// Changes the timings given; running timers follow.
    ///
    /// # Errors
    /// They would break a rule; nothing is changed.
    pub fn set_timings(&mut self, change: TimingsChange, now: Instant) -> Result<(), InvalidTimings> {
        self.connectivity.set_timings(change, now)
    }

    /// The timings as they are.
    #[must_use]
    pub fn timings(&self) -> Timings {
        self.connectivity.timings()
    }

    /// Parts with a peer for a better one, by the user's choice.
    pub fn replace(&mut self, id: PeerId) {
        self.disconnect(id, Refusal::Replaced.into());
    }
}
