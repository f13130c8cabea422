//! What a pool's task is asked to do.

use bytes::Bytes;
use tipward_wire::Txid;
use tokio::sync::oneshot;

use crate::{
    Answer, BookCounts, BroadcastError, BroadcastOutcome, BroadcastPolicy, InvalidTimings, Peer, PeerAddress,
    PeerId, PeerView, RequestError, RequestPolicy, SubmitError, TimingsChange, Want,
};

/// Where the answer to a request goes.
pub(crate) type RequestAnswer = oneshot::Sender<Result<Result<(PeerId, Answer), RequestError>, SubmitError>>;
/// Where the outcome of a broadcast will come from.
pub(crate) type BroadcastAnswer = Result<oneshot::Receiver<BroadcastOutcome>, BroadcastError>;

/// A command, with the place where its answer goes.
#[derive(Debug)]
pub(crate) enum Command {
    Request { want: Want, policy: RequestPolicy, answer: RequestAnswer },
    Broadcast { id: Txid, bytes: Bytes, policy: BroadcastPolicy, answer: oneshot::Sender<BroadcastAnswer> },
    Peers(oneshot::Sender<Vec<PeerView>>),
    Choose { want: Want, answer: oneshot::Sender<Option<Peer>> },
    Primary(oneshot::Sender<Option<Peer>>),
    ForcePrimary { peer: PeerId, force: Option<bool>, answer: oneshot::Sender<()> },
    SetTimings { change: TimingsChange, answer: oneshot::Sender<Result<(), InvalidTimings>> },
    TimeOffset(oneshot::Sender<Option<i64>>),
    Book(oneshot::Sender<BookCounts>),
    Add { address: PeerAddress, answer: oneshot::Sender<()> },
    Ban { address: PeerAddress, reason: String, answer: oneshot::Sender<()> },
    Unban { address: PeerAddress, answer: oneshot::Sender<()> },
    Misbehaved { peer: PeerId, points: u32, what: String, answer: oneshot::Sender<()> },
}
