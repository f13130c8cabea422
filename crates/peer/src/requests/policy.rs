//! What whoever asks chooses, and what comes back.

use std::{fmt, time::Duration};

use bytes::Bytes;
use tipward_wire::{BlockHash, Header, Txid};

use crate::{DisconnectReason, KnownAddress, PeerId, Want};

/// Numbers the requests of one manager; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(crate) u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {}", self.0)
    }
}

/// How hard a request tries. One peer is asked at a time, and no peer twice.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestPolicy {
    /// The most peers asked, from 1 to 64; 4.
    pub attempts: usize,
    /// How long a peer may bring nothing of the answer before the next one is asked; 10 s. What it brings later still counts.
    pub attempt_timeout: Duration,
    /// When the request ends at the latest; 60 s.
    pub total_timeout: Duration,
    /// The most bytes of blocks or transactions that the answer may have; 32 MiB. It is held in memory.
    pub max_bytes: u64,
    /// Whether to give the request back when no peer is left to ask, instead of waiting for new ones; no.
    pub fail_fast: bool,
}

impl Default for RequestPolicy {
    fn default() -> Self {
        Self {
            attempts: 4,
            attempt_timeout: Duration::from_secs(10),
            total_timeout: Duration::from_secs(60),
            max_bytes: 32 << 20,
            fail_fast: false,
        }
    }
}

impl RequestPolicy {
    /// What suits a question: ten minutes and six peers for a block, eight peers for transactions, which not every peer has,
    /// and up to 16 MiB of them; the default for the rest.
    #[must_use]
    pub fn of(want: &Want) -> Self {
        let default = Self::default();
        match want {
            Want::Blocks(_) => Self { attempts: 6, total_timeout: Duration::from_secs(600), ..default },
            Want::Transactions(_) => Self { attempts: 8, max_bytes: 16 << 20, ..default },
            _ => default,
        }
    }
}

/// What a request brought.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// Headers, the first linked to the locator and each to the one before it. None if the peer has nothing after it.
    Headers {
        /// The headers.
        headers: Vec<Header>,
        /// The peer has more after the last of them.
        more: bool,
    },
    /// A block that passed the checks of [`BlockEnd`](tipward_wire::BlockEnd).
    Block {
        /// The block.
        hash: BlockHash,
        /// The block as it travelled.
        bytes: Bytes,
        /// Where each transaction starts in the block, in bytes, ascending.
        transactions: Vec<u64>,
    },
    /// Transactions, at least one.
    Transactions {
        /// Those that were found, in the order asked.
        found: Vec<(Txid, Bytes)>,
        /// Those that no peer gave, in the order asked.
        missing: Vec<Txid>,
    },
    /// Addresses as one peer told them.
    Addresses(Vec<KnownAddress>),
}

/// Why a question was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// As many requests are open as there may be.
    #[error("{open} requests are open already")]
    Full {
        /// How many.
        open: usize,
    },
    /// The question names nothing.
    #[error("nothing is asked for")]
    Empty,
    /// The question names too many things. Blocks are asked for one at a time.
    #[error("{asked} things are asked for, at most {max} may be")]
    TooMany {
        /// How many are named.
        asked: usize,
        /// How many may be.
        max: usize,
    },
    /// No peer answers this.
    #[error("this has no answer")]
    NoAnswer,
}

/// Why a request failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}{}", list(.tried))]
#[non_exhaustive]
pub struct RequestError {
    /// What ended it.
    pub reason: GaveUp,
    /// Who was asked, in this order, and what came of it.
    pub tried: Vec<(PeerId, AskError)>,
}

/// What ended a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GaveUp {
    /// The total time is over.
    #[error("no answer in time")]
    Deadline,
    /// As many peers were asked as may be.
    #[error("no peer that was asked gave an answer")]
    Attempts,
    /// No peer is left to ask, and the request does not wait for new ones.
    #[error("no peer is left to ask")]
    NoPeer,
    /// The answer is larger than it may be, by two peers, or by one if there is no other to ask.
    #[error("the answer is larger than {max_bytes} bytes")]
    TooLarge {
        /// The most it may have.
        max_bytes: u64,
    },
}

/// What came of asking one peer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// It was lost.
    #[error("lost: {0}")]
    Lost(DisconnectReason),
    /// It brought nothing of the answer for too long.
    #[error("timed out")]
    TimedOut,
    /// It does not have all that was asked for.
    #[error("does not have it")]
    Missing,
    /// It can't be asked this.
    #[error("can't be asked this")]
    Unsupported,
    /// It sent a block that failed its checks.
    #[error("sent a block that failed its checks")]
    Aborted,
    /// It sent more than the answer may have.
    #[error("sent more than {max_bytes} bytes")]
    TooLarge {
        /// The most it may have.
        max_bytes: u64,
    },
    /// It was still being asked when the request ended.
    #[error("was not done")]
    Unfinished,
}

fn list(tried: &[(PeerId, AskError)]) -> String {
    tried.iter().map(|(peer, why)| format!("; {peer} {why}")).collect()
}
