//! The pool at one moment, and its JSON.
//!
//! One object a line, with these fields:
//!
//! | field | what |
//! |---|---|
//! | `event` | `"peers"` |
//! | `network` | the network's name |
//! | `elapsed_ms` | since the start |
//! | `ready`, `target` | how many peers can be asked, and the most connections that we open |
//! | `book` | how many addresses are `known`, `tried` (dialled at least once) and `banned` |
//! | `time_offset_ms` | by how much the peers' clocks are ahead of ours; `null` while too few told |
//! | `peers` | the connections and attempts at one, the oldest first |
//! | `events` | what happened since the last line: `event`, `address`, `reason`; the last 256 |
//!
//! Fields of a peer; those after `primary` are `null` until it is ready, `ping_ms` until a ping was answered:
//!
//! | field | what |
//! |---|---|
//! | `id` | counts connections of this run |
//! | `address`, `direction` | where it is; `"outbound"` if we dialled, else `"inbound"` |
//! | `state` | `"connecting"`, `"ready"` or `"closing"` |
//! | `misbehaviour` | points of its host; 100 are too many |
//! | `primary` | whether it is the primary peer |
//! | `status` | by its silence: `"healthy"`, `"slow"`, `"warning"` or `"dead"` |
//! | `transport` | `"v2"` if encrypted (BIP 324), else `"v1"` |
//! | `user_agent`, `height` | as it told when it connected |
//! | `ping_ms` | the round trip of the last ping |
//! | `score` | how much it is preferred for requests, in proportion to others |
//! | `bytes_received`, `bytes_sent` | on this connection |
//! | `up_ms` | for how long it has been ready |
//! | `errors`, `time_outs` | useless answers, unanswered requests |

use std::time::Duration;

use serde_json::{Value, json};
use tipward_chain::sync::peer::{BookCounts, Direction, PeerState, PeerView, Status, wire::bitcoin::Network};

use crate::report::printable;

pub(super) struct Snapshot {
    pub(super) network: &'static Network,
    pub(super) peers: Vec<PeerView>,
    pub(super) book: BookCounts,
    /// In milliseconds.
    pub(super) time_offset: Option<i64>,
    pub(super) target: usize,
    pub(super) elapsed: Duration,
}

impl Snapshot {
    pub(super) fn ready(&self) -> usize {
        self.peers.iter().filter(|peer| matches!(peer.state, PeerState::Ready { .. })).count()
    }

    pub(super) fn json(&self, events: &[Value]) -> Value {
        json!({
            "event": "peers",
            "network": self.network.name,
            "elapsed_ms": milliseconds(self.elapsed),
            "ready": self.ready(),
            "target": self.target,
            "book": {"known": self.book.total, "tried": self.book.tried, "banned": self.book.banned},
            "time_offset_ms": self.time_offset,
            "peers": self.peers.iter().map(peer).collect::<Vec<_>>(),
            "events": events,
        })
    }
}

fn peer(peer: &PeerView) -> Value {
    let mut value = json!({
        "id": peer.id.0,
        "address": peer.address.to_string(),
        "direction": direction(peer.direction),
        "state": state(&peer.state),
        "misbehaviour": peer.misbehaviour,
        "primary": peer.is_primary,
    });
    let more = match &peer.state {
        PeerState::Ready { info, status, encrypted, up_time, figures, errors, time_outs, weight } => json!({
            "status": self::status(*status),
            "transport": transport(*encrypted),
            "user_agent": printable(&info.user_agent),
            "height": info.claimed_height,
            "ping_ms": figures.and_then(|figures| figures.ping).map(|ping| ping.as_secs_f64() * 1000.0),
            "score": weight,
            "bytes_received": figures.map(|figures| figures.received),
            "bytes_sent": figures.map(|figures| figures.sent),
            "up_ms": milliseconds(*up_time),
            "errors": errors,
            "time_outs": time_outs,
        }),
        PeerState::Connecting | PeerState::Closing => json!({
            "status": null, "transport": null, "user_agent": null, "height": null, "ping_ms": null, "score": null,
            "bytes_received": null, "bytes_sent": null, "up_ms": null, "errors": null, "time_outs": null,
        }),
    };
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    value
}

pub(super) fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Outbound => "outbound",
        Direction::Inbound => "inbound",
    }
}

pub(super) fn state(state: &PeerState) -> &'static str {
    match state {
        PeerState::Connecting => "connecting",
        PeerState::Ready { .. } => "ready",
        PeerState::Closing => "closing",
    }
}

pub(super) fn status(status: Status) -> &'static str {
    match status {
        Status::Healthy => "healthy",
        Status::Slow => "slow",
        Status::Warning => "warning",
        Status::Dead => "dead",
    }
}

pub(super) fn transport(encrypted: bool) -> &'static str {
    if encrypted { "v2" } else { "v1" }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
