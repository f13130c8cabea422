//! The handle to a connection.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time,
};

use crate::{
    AnyMessage, CallError, Direction, DisconnectReason, Figures, PeerAddress, PeerId, PeerInfo, Unsupported,
    Want, hold::Hold,
};

/// How many questions and messages may wait for one connection's task.
pub(crate) const COMMANDS: usize = 16;

/// A handle to a connected peer. Clones are handles to the same peer.
#[derive(Debug, Clone)]
pub struct Peer(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) id: PeerId,
    pub(crate) address: PeerAddress,
    pub(crate) direction: Direction,
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) encrypted: bool,
    pub(crate) info: PeerInfo,
    pub(crate) request_timeout: Duration,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) kill: Kill,
    pub(crate) hold: Arc<Hold>,
    pub(crate) figures: Arc<Mutex<Figures>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.id, self.address)
    }
}

/// What the connection's task is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    Ask(Want),
    Send { message: AnyMessage, written: oneshot::Sender<()> },
    Call { request: AnyMessage, timeout: Duration, answer: oneshot::Sender<Result<AnyMessage, CallError>> },
}

/// Ends a connection, or the attempt at one, from outside.
pub(crate) type Kill = Arc<watch::Sender<Option<DisconnectReason>>>;

/// The connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection has ended")]
pub struct Disconnected;

impl Peer {
    pub(crate) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    /// The connection's number.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.0.id
    }

    /// Where the peer is.
    #[must_use]
    pub fn address(&self) -> &PeerAddress {
        &self.0.address
    }

    /// Who opened the connection.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.0.direction
    }

    /// Where the connection really leads, if we dialled and there is no proxy between.
    #[must_use]
    pub fn remote(&self) -> Option<SocketAddr> {
        self.0.remote
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.0.encrypted
    }

    /// What the peer told about itself.
    #[must_use]
    pub fn info(&self) -> &PeerInfo {
        &self.0.info
    }

    /// What was measured so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        *self.0.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the peer something. The answer comes as an event; so does its loss.
    ///
    /// # Errors
    /// [`Unsupported`] if the connection has ended, or its task has 16 questions to send already.
    pub fn ask(&self, want: Want) -> Result<(), Unsupported> {
        self.0.commands.try_send(Command::Ask(want)).map_err(|_| Unsupported)
    }

    /// Reads nothing more from the peer until [`resume`](Self::resume), so that it has to wait: for who has no room for what it
    /// sends. What was read before still comes, which is one read at most. Questions and messages are sent all the
    /// same. What waits for the peer stands still, but for the time of a [`request`](Self::request), and starts anew
    /// afterwards: a peer is not late, silent or slow because it is held. Its end is noticed within about a second if it
    /// resets the connection; one that closes it is noticed by what is read later.
    ///
    /// Holds are not counted: one `resume` ends them. Costs next to nothing, and never waits.
    pub fn hold(&self) {
        self.0.hold.hold();
    }

    /// Reads from the peer again, where [`hold`](Self::hold) made it stop.
    pub fn resume(&self) {
        self.0.hold.resume();
    }

    /// Whether the peer is held now.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.0.hold.turn().is_held()
    }

    /// Sends a message of the dialect's own and waits until it was written to the socket. One of another dialect is not
    /// sent.
    ///
    /// # Errors
    /// The connection has ended; whether the message was sent is not known then.
    pub async fn send<M: fmt::Debug + Send + Sync + 'static>(&self, message: M) -> Result<(), Disconnected> {
        let (written, is_written) = oneshot::channel();
        let command = Command::Send { message: AnyMessage::new(message), written };
        self.0.commands.send(command).await.map_err(|_| Disconnected)?;
        is_written.await.map_err(|_| Disconnected)
    }

    /// Sends a message of the dialect's own and waits for the one that answers it by its content, no longer than
    /// [`LinkOptions::request_timeout`](crate::LinkOptions::request_timeout). The answer goes to no one else.
    ///
    /// # Errors
    /// Nothing came in time, the connection has ended, or 256 requests wait on it.
    pub async fn request<M>(&self, message: M) -> Result<M, CallError>
    where
        M: Clone + fmt::Debug + Send + Sync + 'static,
    {
        self.request_within(message, self.0.request_timeout).await
    }

    /// As [`request`](Self::request), with a time of one's own.
    ///
    /// # Errors
    /// As there.
    pub async fn request_within<M>(&self, message: M, timeout: Duration) -> Result<M, CallError>
    where
        M: Clone + fmt::Debug + Send + Sync + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let command = Command::Call { request: AnyMessage::new(message), timeout, answer };
        // The connection's task tells of the time too, unless it waits for something else itself.
        let answered = async {
            self.0.commands.send(command).await.map_err(|_| CallError::Disconnected)?;
            answered.await.map_err(|_| CallError::Disconnected)?
        };
        let answer = time::timeout(timeout, answered).await.map_err(|_| CallError::TimedOut)??;
        answer.take().ok_or(CallError::Disconnected)
    }

    /// Ends the connection; [`PeerEvent::Disconnected`](crate::PeerEvent::Disconnected) follows. The first reason given stands.
    pub fn disconnect(&self, reason: DisconnectReason) {
        end(&self.0.kill, reason);
    }
}

pub(crate) fn end(kill: &Kill, reason: DisconnectReason) {
    kill.send_if_modified(|current| {
        // The first reason stands, but a shutdown must reach those who are waiting to tell of an end.
        let is_news = match current {
            None => true,
            Some(DisconnectReason::Shutdown) => false,
            Some(_) => matches!(reason, DisconnectReason::Shutdown),
        };
        if is_news {
            *current = Some(reason);
        }
        is_news
    });
}

/// Waits for the end from outside.
pub(crate) async fn ended(kill: &mut watch::Receiver<Option<DisconnectReason>>) -> DisconnectReason {
    match kill.wait_for(Option::is_some).await {
        Ok(reason) => reason.clone().unwrap_or(DisconnectReason::Shutdown),
        Err(_) => DisconnectReason::Shutdown,
    }
}
