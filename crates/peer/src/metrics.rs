//! What operators watch, told to whatever recorder the program has installed for the `metrics` facade; none costs next to
//! nothing.
//!
//! | name | kind | labels |
//! |---|---|---|
//! | `tipward_peers` | gauge | `state`: connecting, healthy, slow, warning, dead, closing |
//! | `tipward_messages_received_total` | counter | `command` |
//! | `tipward_received_bytes_total`, `tipward_sent_bytes_total` | counter | |
//! | `tipward_ping_seconds` | histogram | |
//! | `tipward_connect_failures_total` | counter | `reason` |
//! | `tipward_disconnects_total` | counter | `reason` |
//! | `tipward_bans_total` | counter | |
//! | `tipward_addresses` | gauge | `state`: known, tried, banned |

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use metrics::{counter, gauge, histogram};

use crate::{ConnectError, DisconnectReason, PeerState, Pool, Status};

/// Messages of one connection since the last count.
pub(crate) fn messages(counts: BTreeMap<&'static str, u64>) {
    for (command, count) in counts {
        counter!("tipward_messages_received_total", "command" => command).increment(count);
    }
}

/// Bytes of one connection since the last count.
pub(crate) fn bytes(received: u64, sent: u64) {
    counter!("tipward_received_bytes_total").increment(received);
    counter!("tipward_sent_bytes_total").increment(sent);
}

/// A ping was answered.
pub(crate) fn ping(round_trip: Duration) {
    histogram!("tipward_ping_seconds").record(round_trip.as_secs_f64());
}

/// An address was banned.
pub(crate) fn banned() {
    counter!("tipward_bans_total").increment(1);
}

/// A dial came to nothing.
pub(crate) fn connect_failed(reason: &ConnectError) {
    let reason = match reason {
        ConnectError::Io(_) => "io",
        ConnectError::TimedOut => "timed_out",
        ConnectError::Handshake(_) => "handshake",
    };
    counter!("tipward_connect_failures_total", "reason" => reason).increment(1);
}

/// A connection ended.
pub(crate) fn disconnected(reason: &DisconnectReason) {
    counter!("tipward_disconnects_total", "reason" => reason.name()).increment(1);
}

/// How the pool stands.
pub(crate) fn gauges(pool: &Pool, now: Instant) {
    let mut states = BTreeMap::from(
        ["connecting", "healthy", "slow", "warning", "dead", "closing"].map(|name| (name, 0_u32)),
    );
    for peer in pool.peers(now) {
        let name = match peer.state {
            PeerState::Connecting => "connecting",
            PeerState::Closing => "closing",
            PeerState::Ready { status: Status::Healthy, .. } => "healthy",
            PeerState::Ready { status: Status::Slow, .. } => "slow",
            PeerState::Ready { status: Status::Warning, .. } => "warning",
            PeerState::Ready { status: Status::Dead, .. } => "dead",
        };
        *states.entry(name).or_default() += 1;
    }
    for (state, count) in states {
        gauge!("tipward_peers", "state" => state).set(count);
    }
    let counts = pool.book().counts(pool.unix(now));
    gauge!("tipward_addresses", "state" => "known").set(counts.total as f64);
    gauge!("tipward_addresses", "state" => "tried").set(counts.tried as f64);
    gauge!("tipward_addresses", "state" => "banned").set(counts.banned as f64);
}
