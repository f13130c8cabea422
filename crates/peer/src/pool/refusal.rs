//! Why the pool parts with a peer.

use std::{sync::Arc, time::Duration};

use crate::{DisconnectReason, Penalty};

/// Why the pool does not keep a peer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is a connection to it already.
    #[error("connected to it already")]
    Duplicate,
    /// As many connections are open as there may be.
    #[error("no room for another connection")]
    Full,
    /// The address may not be talked to for a while.
    #[error("banned")]
    Banned,
    /// It is ours to choose who we are connected to.
    #[error("replaced by a better peer")]
    Replaced,
    /// Others know of blocks that it has not told of for long.
    #[error("has not advanced for {} s while others did", .0.as_secs())]
    NotAdvancing(Duration),
    /// Too many requests were left unanswered.
    #[error("left {0} requests unanswered")]
    TimeOuts(u32),
    /// Too many answers were of no use.
    #[error("gave {0} useless answers")]
    Errors(u32),
    /// It did too much that it must not.
    #[error("misbehaved too often, lastly: {0}")]
    Misbehaved(String),
}

impl Refusal {
    /// What it means for the peer's address.
    #[must_use]
    pub fn penalty(&self) -> Penalty {
        match self {
            Self::Full | Self::Replaced => Penalty::None,
            // Another name of the same node is to be dialled ever more seldom.
            Self::Duplicate | Self::Banned | Self::NotAdvancing(_) | Self::TimeOuts(_) | Self::Errors(_) => {
                Penalty::BackOff
            }
            Self::Misbehaved(_) => Penalty::Ban,
        }
    }
}

impl From<Refusal> for DisconnectReason {
    fn from(refusal: Refusal) -> Self {
        Self::Refused { penalty: refusal.penalty(), source: Arc::new(refusal) }
    }
}
