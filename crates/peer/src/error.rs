//! Why a connection failed or ended, and what that means for its address.

use std::{error::Error, fmt, io, sync::Arc};

use tipward_wire::{BlockHash, WireError};

use crate::EncryptionError;

/// What an end means for the address it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Penalty {
    /// Nothing: dial again soon.
    None,
    /// The peer did not do its work: dial again, later each time.
    BackOff,
    /// The peer broke the protocol or lied: keep away for a day.
    Ban,
}

/// Why no connection came about.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The host name does not resolve, or the system refused the connection.
    #[error("{}", describe(.0))]
    Io(Arc<io::Error>),
    /// Nothing answered in time.
    #[error("timed out")]
    TimedOut,
    /// A connection came about and ended before both sides had shaken hands.
    #[error("during the handshake: {0}")]
    Handshake(DisconnectReason),
}

/// Why a connection ended.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// The peer closed the connection between two messages.
    #[error("closed by the peer")]
    Closed,
    /// The peer closed the connection in the middle of a message.
    #[error("closed by the peer in the middle of a message")]
    Truncated,
    /// The system reported an error.
    #[error("{}", describe(.0))]
    Io(Arc<io::Error>),
    /// The peer sent bytes that break the protocol.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The encryption broke.
    #[error(transparent)]
    Encryption(#[from] EncryptionError),
    /// The peer does not encrypt, or hung up on it without a word; and it has to.
    #[error("does not encrypt")]
    NotEncrypted,
    /// The peer sent a message that it must not send, at least not now.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The peer did not finish the handshake in time.
    #[error("the handshake timed out")]
    HandshakeTimedOut,
    /// Nothing was received for too long.
    #[error("silent for too long")]
    Idle,
    /// The peer sends, but has not answered a ping for too long.
    #[error("did not answer a ping for too long")]
    Unresponsive,
    /// The peer did not take what it asked for in time.
    #[error("did not read for too long")]
    WriteTimedOut,
    /// The user's handler failed.
    #[error("the handler failed: {0}")]
    Handler(Arc<dyn Error + Send + Sync>),
    /// We have closed the connection.
    #[error("closed by us")]
    ClosedByUs,
    /// The pool or a layer above refuses the peer.
    #[error("{source}")]
    Refused {
        /// What it means for the peer's address.
        penalty: Penalty,
        /// Why.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// We are shutting down.
    #[error("shutting down")]
    Shutdown,
}

/// A message that parses and may not be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// Another message than the handshake allows.
    #[error("sent '{command}' before the handshake was done")]
    TooEarly {
        /// The message's command.
        command: String,
    },
    /// A second `version`.
    #[error("sent 'version' twice")]
    SecondVersion,
    /// We dialled ourselves.
    #[error("it is this node itself")]
    OwnNonce,
    /// The peer's protocol is too old.
    #[error("speaks protocol {found}, at least {needed} is needed")]
    TooOld {
        /// The peer's version.
        found: i32,
        /// The oldest that will do.
        needed: i32,
    },
    /// The peer does not offer what a download needs.
    #[error("does not serve blocks (services {services:#x})")]
    NoBlocks {
        /// What it offers.
        services: u64,
    },
    /// The peer serves blocks, and no filters of them.
    #[error("does not serve block filters (services {services:#x})")]
    NoFilters {
        /// What it offers.
        services: u64,
    },
    /// The peer claims to be past the block that tells its chain from others, and does not show it.
    #[error("is on another chain: it does not show block {block}")]
    WrongChain {
        /// The block.
        block: BlockHash,
    },
    /// The peer is in its first download, and serves nothing yet.
    #[error("is in its first download")]
    Behind,
    /// More small talk than a connection is for.
    #[error("floods with '{command}'")]
    Flood {
        /// The command of the message that was too much.
        command: String,
    },
    /// A filter, or the hashes of some, that was not asked for, or not so many.
    #[error("sent filters up to block {block}, which were not asked for")]
    UnrequestedFilter {
        /// The last block.
        block: BlockHash,
    },
    /// A block that was not asked for.
    #[error("sent block {block}, which was not asked for")]
    UnrequestedBlock {
        /// The block.
        block: BlockHash,
    },
}

impl DisconnectReason {
    /// What the end means for the peer's address.
    #[must_use]
    pub fn penalty(&self) -> Penalty {
        match self {
            Self::Closed
            | Self::Truncated
            | Self::Io(_)
            | Self::Shutdown
            | Self::ClosedByUs
            | Self::Handler(_) => Penalty::None,
            Self::HandshakeTimedOut
            | Self::Idle
            | Self::Unresponsive
            | Self::WriteTimedOut
            | Self::NotEncrypted
            | Self::Encryption(_) => Penalty::BackOff,
            Self::Violation(Violation::Behind) => Penalty::BackOff,
            // Newer peers may know shorter names than we do.
            Self::Wire(WireError::ShortId { .. }) => Penalty::BackOff,
            Self::Wire(_) | Self::Violation(_) => Penalty::Ban,
            Self::Refused { penalty, .. } => *penalty,
        }
    }
}

impl DisconnectReason {
    /// Whether the peer hung up without a word, as one does that does not understand what it hears.
    pub(crate) fn is_hanging_up(&self) -> bool {
        matches!(self, Self::Closed | Self::Truncated | Self::Io(_))
    }

    /// Whether the peer answered in clear text.
    pub(crate) fn is_clear_text(&self) -> bool {
        matches!(self, Self::Encryption(error) if error.is_v1_peer())
    }

    /// The kind of reason, for counting.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Truncated => "truncated",
            Self::Io(_) => "io",
            Self::Wire(_) => "wire",
            Self::Encryption(_) => "encryption",
            Self::NotEncrypted => "not_encrypted",
            Self::Violation(_) => "violation",
            Self::HandshakeTimedOut => "handshake_timed_out",
            Self::Idle => "idle",
            Self::Unresponsive => "unresponsive",
            Self::WriteTimedOut => "write_timed_out",
            Self::Handler(_) => "handler",
            Self::ClosedByUs => "closed_by_us",
            Self::Refused { .. } => "refused",
            Self::Shutdown => "shutdown",
        }
    }
}

impl ConnectError {
    /// What the failure means for the address.
    #[must_use]
    pub fn penalty(&self) -> Penalty {
        match self {
            Self::Io(_) | Self::TimedOut => Penalty::BackOff,
            Self::Handshake(reason) => reason.penalty().max(Penalty::BackOff),
        }
    }
}

impl From<io::Error> for DisconnectReason {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// The kind of a system error where it has one ("connection refused"), without the system's number.
fn describe(error: &io::Error) -> impl fmt::Display + use<> {
    match error.raw_os_error() {
        Some(_) => error.kind().to_string(),
        None => error.to_string(),
    }
}
