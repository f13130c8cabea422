//! What whoever broadcasts chooses, and what comes back.

use std::{fmt, time::Duration};

use tipward_wire::Txid;

/// Numbers the submissions of one manager; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BroadcastId(pub(crate) u64);

impl fmt::Display for BroadcastId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broadcast {}", self.0)
    }
}

/// Whom a transaction is offered to, and what decides.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BroadcastPolicy {
    /// The most hosts that it is offered to, at least 1; 8. As many as `seen_from` says are left out of those connected, so
    /// that somebody is there to see it from, unless that leaves nobody to offer it to.
    pub peers: usize,
    /// How many hosts that did not get it from us must announce it, at least 1; 1.
    pub seen_from: usize,
    /// When the broadcast ends at the latest; 30 s.
    pub timeout: Duration,
    /// Whether it is enough that every host which it was offered to has fetched it, even if others could still announce it;
    /// no.
    pub accept_fetched: bool,
    /// How long a host that has fetched it gets to reject it before being fetched can end the broadcast; 2 s.
    pub reject_wait: Duration,
    /// Whose rejections end the broadcast; everybody's.
    pub reject: RejectRule,
}

impl Default for BroadcastPolicy {
    fn default() -> Self {
        Self {
            peers: 8,
            seen_from: 1,
            timeout: Duration::from_secs(30),
            accept_fetched: false,
            reject_wait: Duration::from_secs(2),
            reject: RejectRule::All,
        }
    }
}

/// How many of the hosts that a transaction was offered to must reject it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RejectRule {
    /// All of them, and there is no further host that it may be offered to.
    #[default]
    All,
    /// More than half of them.
    Majority,
}

/// What became of a broadcast. Hosts are named once, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BroadcastOutcome {
    /// Hosts that did not get it from us announced it: it has spread.
    SeenBack {
        /// As many hosts as were needed, or more.
        hosts: Vec<String>,
    },
    /// Hosts have it, and too few others announced it. On networks whose nodes do not say what they reject, such as BTC, it
    /// may have been rejected in silence.
    Fetched {
        /// Who has it: fetched it, refused it as known, or announced it.
        hosts: Vec<String>,
        /// Who rejected it.
        rejections: Vec<HostRejection>,
    },
    /// As many hosts rejected it as it takes.
    Rejected {
        /// Who, and why.
        rejections: Vec<HostRejection>,
    },
    /// Nobody fetched or announced it in time. Nodes that have it already are silent too.
    Undecided {
        /// Who it was offered to, rejections included.
        offered_to: Vec<String>,
        /// Who rejected it.
        rejections: Vec<HostRejection>,
    },
}

/// One host's refusal, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRejection {
    /// The host.
    pub host: String,
    /// The kind of reason, as `reject` numbers them (BIP 61).
    pub code: u8,
    /// The reason.
    pub reason: String,
}

/// Why a transaction was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BroadcastError {
    /// As many broadcasts are running as there may be.
    #[error("{running} broadcasts are running already")]
    Full {
        /// How many.
        running: usize,
    },
    /// As many submissions of this transaction are waiting for their outcome as there may be.
    #[error("transaction {id} was submitted {times} times already")]
    Joined {
        /// The transaction.
        id: Txid,
        /// How often.
        times: usize,
    },
    /// The transactions being broadcast have no room for another one of this size.
    #[error("{size} bytes do not fit, {held} of {max} are taken")]
    NoRoom {
        /// The transaction's size in bytes.
        size: usize,
        /// Bytes of the transactions being broadcast.
        held: usize,
        /// The most they may have.
        max: usize,
    },
}
