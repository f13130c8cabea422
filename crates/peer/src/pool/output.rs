//! What a pool wants done.

use crate::{
    Answer, BroadcastId, BroadcastOutcome, Change, DisconnectReason, PeerAddress, PeerId, RequestError,
    RequestId, Transport, Want,
};

/// What a pool wants done.
#[derive(Debug)]
#[non_exhaustive]
pub enum PoolOutput {
    /// Dial.
    Dial {
        /// The number of the attempt and of the connection that comes of it.
        id: PeerId,
        /// Where.
        address: PeerAddress,
        /// What the peer is known to speak.
        transport: Transport,
    },
    /// End a connection.
    Disconnect {
        /// Which.
        id: PeerId,
        /// Why.
        reason: DisconnectReason,
    },
    /// Ask a peer.
    Ask {
        /// Whom.
        id: PeerId,
        /// What.
        want: Want,
    },
    /// Resolve the DNS seeds and [tell](crate::Pool::resolved) what they say.
    Resolve,
    /// A request has ended.
    Answered(RequestId, Result<(PeerId, Answer), RequestError>),
    /// A broadcast has ended.
    Broadcast(BroadcastId, BroadcastOutcome),
    /// The status of peers has changed.
    Changed(Change<PeerId>),
    /// The primary peer is another one.
    Primary(Option<PeerId>),
    /// An address is left alone until the time.
    Banned {
        /// Which.
        address: PeerAddress,
        /// Why.
        reason: String,
    },
    /// Every address was tried once, or there are as many connections as there may be. Comes once.
    Settled,
    /// No address is left that is connected, being dialled, or known to have worked without breaking the protocol.
    Exhausted,
}
