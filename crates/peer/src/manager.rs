//! Keeps a pool of connections, and hands out what they say.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use tipward_wire::Piece;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use crate::{
    Answer, AnyMessage, BookCounts, BookFile, BookFileError, BookOptions, BookProblem, BroadcastOutcome,
    BroadcastPolicy, Change, ConnectError, Dialer, DisconnectReason, HandlerError, InvalidTimings,
    LinkOptions, Local, OnError, Peer, PeerAddress, PeerHandler, PeerId, PeerView, PoolOptions, Protocol,
    Reply, RequestPolicy, Tcp, TimingsChange, Typed, Want,
    handler::{AnyHandler, Erase},
};
pub use errors::{AskFailed, BroadcastFailed, ShutDown, StartError};
use task::PoolTask;

mod accept;
mod commands;
mod errors;
mod obey;
mod task;

pub(crate) use commands::Command;

/// How many commands may wait for the pool's task.
const COMMANDS: usize = 64;

/// How a manager behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ManagerOptions {
    /// Nodes to connect to. If there are none, the network's DNS seeds are asked, unless the pool's options say otherwise.
    pub addresses: Vec<PeerAddress>,
    /// Where to listen for connections of others; nowhere.
    pub listen: Vec<SocketAddr>,
    /// How connections behave.
    pub link: LinkOptions,
    /// How the pool behaves.
    pub pool: PoolOptions,
    /// What opens connections: TCP without a proxy.
    pub dialer: Arc<dyn Dialer>,
    /// Where the address book is kept; nowhere, and then nothing is written.
    pub book: Option<PathBuf>,
    /// How often the book is written, besides at the end; 10 min.
    pub book_interval: Duration,
    /// What peers are told about us.
    pub local: Local,
    /// Seeds everything that is random; `None` for a seed from the system.
    pub seed: Option<u64>,
    /// What an error of the handler means for its peer: the connection ends.
    pub on_handler_error: OnError,
}

impl Default for ManagerOptions {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            listen: Vec::new(),
            link: LinkOptions::default(),
            pool: PoolOptions::default(),
            dialer: Arc::new(Tcp::default()),
            book: None,
            book_interval: Duration::from_secs(600),
            local: Local::default(),
            seed: None,
            on_handler_error: OnError::Disconnect,
        }
    }
}

/// What happens to the peers. Events of one peer come in order: connected, replies and messages, disconnected.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum PeerEvent {
    /// A peer is ready to be asked.
    Connected(Peer),
    /// A peer said something.
    Reply {
        /// Who.
        peer: PeerId,
        /// What.
        reply: Reply,
    },
    /// A peer said something that has no neutral words; told as [`LinkOptions::delivery`] says.
    Message {
        /// Who.
        peer: PeerId,
        /// What.
        message: AnyMessage,
    },
    /// A piece of a message too long to be held, from codecs that let such pass.
    Piece {
        /// Who.
        peer: PeerId,
        /// What.
        piece: Piece,
    },
    /// A connection ended. What was asked of the peer will not be answered.
    Disconnected {
        /// Who.
        peer: PeerId,
        /// Where it was.
        address: PeerAddress,
        /// Why.
        reason: DisconnectReason,
    },
    /// A dial came to nothing. It will be repeated.
    ConnectFailed {
        /// Where.
        address: PeerAddress,
        /// Why.
        reason: ConnectError,
    },
    /// A DNS seed could not be resolved.
    ResolveFailed {
        /// The seed.
        seed: String,
        /// Why.
        reason: String,
    },
    /// An address is left alone for a while.
    Banned {
        /// Which.
        address: PeerAddress,
        /// Why.
        reason: String,
    },
    /// Peers were added, removed, or changed their status.
    Changed(Change<PeerId>),
    /// The primary peer is another one.
    Primary(Option<PeerId>),
    /// The handler failed; what that means for the peer is [`ManagerOptions::on_handler_error`]'s choice.
    HandlerFailed(HandlerError),
    /// The file of the address book was no good; it was set aside, and the book began empty.
    BookDamaged {
        /// What was wrong.
        problem: Arc<BookProblem>,
        /// Where the file is now.
        aside: PathBuf,
    },
    /// The address book can't be written; it will be tried again.
    BookNotWritten(Arc<BookFileError>),
    /// Every address was tried once, or there are as many connections as there may be. Comes once.
    Settled,
    /// No address is left that is connected, being dialled, or known to have worked without breaking the protocol.
    /// Dialling goes on; whether that is worth waiting for is the receiver's choice.
    Exhausted,
}

/// Keeps connections. Dropping it ends them without waiting; what it can be asked is on [`ManagerHandle`].
#[derive(Debug)]
pub struct Manager {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    handle: ManagerHandle,
    listening: Vec<SocketAddr>,
}

impl Manager {
    /// Starts the pool's task; every event goes to `events`, which slows all connections down when it is full. The manager
    /// shuts down when the receiver is dropped. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The address book can't be read, or an address not be listened on.
    pub async fn spawn(
        protocol: Arc<dyn Protocol>,
        options: ManagerOptions,
        events: mpsc::Sender<PeerEvent>,
    ) -> Result<Self, StartError> {
        Self::start(protocol, options, events, None).await
    }

    /// As [`spawn`](Self::spawn), for those who ask, broadcast and look at the peers, and have no use for events.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub async fn spawn_without_events(
        protocol: Arc<dyn Protocol>,
        options: ManagerOptions,
    ) -> Result<Self, StartError> {
        let (events, mut inbox) = mpsc::channel(1);
        let manager = Self::spawn(protocol, options, events).await?;
        tokio::spawn(async move { while inbox.recv().await.is_some() {} });
        Ok(manager)
    }

    /// As [`spawn`](Self::spawn), with a handler that hears of every peer in a task of that peer's own. `events` gets what
    /// is of no peer, and the handler's errors; what it has no room for is lost.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub async fn spawn_with_handler<P: Typed>(
        protocol: P,
        mut options: ManagerOptions,
        handler: Arc<dyn PeerHandler<P::Message>>,
        events: mpsc::Sender<PeerEvent>,
    ) -> Result<Self, StartError> {
        if options.link.delivery == crate::Delivery::Neutral {
            options.link.delivery = crate::Delivery::All;
        }
        Self::start(Arc::new(protocol), options, events, Some(Arc::new(Erase(handler)))).await
    }

    async fn start(
        protocol: Arc<dyn Protocol>,
        options: ManagerOptions,
        events: mpsc::Sender<PeerEvent>,
        handler: Option<Arc<dyn AnyHandler>>,
    ) -> Result<Self, StartError> {
        let (stop, stopped) = watch::channel(false);
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let handle = ManagerHandle { commands, protocol: protocol.clone() };
        let listeners = accept::bind(&options.listen).await?;
        let listening = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let task = PoolTask::new(protocol, options, events, handler, handle.clone(), inbox)?;
        let task = tokio::spawn(task.run(listeners, stopped));
        Ok(Self { stop, task, handle, listening })
    }

    /// A handle for whoever wants to ask something; it does not keep the manager alive.
    #[must_use]
    pub fn handle(&self) -> ManagerHandle {
        self.handle.clone()
    }

    /// Where it listens, with the ports that were free.
    #[must_use]
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// Ends every connection and waits until they are closed. Ends are told as far as the receiver of the events has room.
    pub async fn shutdown(self) {
        self.stop.send(true).ok();
        self.task.await.ok();
    }
}

impl std::ops::Deref for Manager {
    type Target = ManagerHandle;

    fn deref(&self) -> &ManagerHandle {
        &self.handle
    }
}

/// What a manager can be asked. Clones ask the same manager.
#[derive(Debug, Clone)]
pub struct ManagerHandle {
    commands: mpsc::Sender<Command>,
    protocol: Arc<dyn Protocol>,
}

impl ManagerHandle {
    /// Asks a peer, and the next one until there is an answer or the policy gives up. Nothing asked is lost with a peer.
    ///
    /// # Errors
    /// It was not taken, nobody answered it, or the manager has shut down.
    pub async fn request(&self, want: Want, policy: RequestPolicy) -> Result<(PeerId, Answer), AskFailed> {
        Ok(self.call(|answer| Command::Request { want, policy, answer }).await???)
    }

    /// Offers a transaction to several hosts, and tells what became of it as soon as that is decided. A transaction that is
    /// being broadcast already is not sent again; both callers get the outcome.
    ///
    /// Without [`LinkOptions::relay_transactions`] nobody tells us of transactions, so none is seen back.
    ///
    /// # Errors
    /// The bytes are no transaction, too many are on their way, or the manager has shut down.
    pub async fn broadcast(
        &self,
        bytes: Bytes,
        policy: BroadcastPolicy,
    ) -> Result<BroadcastOutcome, BroadcastFailed> {
        let id = self.protocol.transaction_id(&bytes)?;
        let outcome = self.call(|answer| Command::Broadcast { id, bytes, policy, answer }).await??;
        Ok(outcome.await.map_err(|_| ShutDown)?)
    }

    /// The connections as they are.
    ///
    /// # Errors
    /// The manager has shut down.
    pub async fn peers(&self) -> Result<Vec<PeerView>, ShutDown> {
        self.call(Command::Peers).await
    }

    /// A connected peer for a question, by the pool's choice; `None` if there is none.
    ///
    /// # Errors
    /// The manager has shut down.
    pub async fn choose(&self, want: Want) -> Result<Option<Peer>, ShutDown> {
        self.call(|answer| Command::Choose { want, answer }).await
    }

    /// The primary peer, for those who want one: the forced one, else the one that has been connected for longest.
    ///
    /// # Errors
    /// The manager has shut down.
    pub async fn primary(&self) -> Result<Option<Peer>, ShutDown> {
        self.call(Command::Primary).await
    }

    /// Forces a peer to be the primary one, or not to be; `None` returns it to election.
    ///
    /// # Errors
    /// The manager has shut down.
    pub async fn force_primary(&self, peer: PeerId, force: Option<bool>) -> Result<(), ShutDown> {
        self.call(|answer| Command::ForcePrimary { peer, force, answer }).await
    }

    /// Changes the timings of statuses; running timers follow.
    ///
    /// # Errors
    /// They would break a rule, or the manager has shut down.
    pub async fn set_timings(&self, change: TimingsChange) -> Result<Result<(), InvalidTimings>, ShutDown> {
        self.call(|answer| Command::SetTimings { change, answer }).await
    }

    /// The median of how far the peers' clocks are ahead of ours, in milliseconds; `None` while too few told.
    ///
    /// # Errors
    /// The manager has shut down.
    pub async fn time_offset(&self) -> Result<Option<i64>, ShutDown> {
        self.call(Command::TimeOffset).await
    }

    /// How many addresses are known.
    ///
    /// # Errors
    /// The manager has shut down.
    pub async fn book(&self) -> Result<BookCounts, ShutDown> {
        self.call(Command::Book).await
    }

    /// Adds an address, as one that is given.
    ///
    /// # Errors
    /// The manager has shut down.
    pub async fn add(&self, address: PeerAddress) -> Result<(), ShutDown> {
        self.call(|answer| Command::Add { address, answer }).await
    }

    /// Leaves an address alone for as long as the options say, and disconnects it.
    ///
    /// # Errors
    /// The manager has shut down.
    pub async fn ban(&self, address: PeerAddress, reason: impl Into<String> + Send) -> Result<(), ShutDown> {
        let reason = reason.into();
        self.call(|answer| Command::Ban { address, reason, answer }).await
    }

    /// Ends a ban.
    ///
    /// # Errors
    /// The manager has shut down.
    pub async fn unban(&self, address: PeerAddress) -> Result<(), ShutDown> {
        self.call(|answer| Command::Unban { address, answer }).await
    }

    /// Tells that a peer misbehaved. 100 points are too many; half of them fade in an hour.
    ///
    /// # Errors
    /// The manager has shut down.
    pub async fn misbehaved(
        &self,
        peer: PeerId,
        points: u32,
        what: impl Into<String> + Send,
    ) -> Result<(), ShutDown> {
        let what = what.into();
        self.call(|answer| Command::Misbehaved { peer, points, what, answer }).await
    }

    async fn call<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, ShutDown> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| ShutDown)?;
        answered.await.map_err(|_| ShutDown)
    }
}

/// The book that a manager starts with.
pub(crate) fn open_book(
    options: &ManagerOptions,
    book: BookOptions,
    network: &str,
    random: fastrand::Rng,
    now: crate::UnixTime,
) -> Result<(BookFile, crate::Loaded), BookFileError> {
    let file = BookFile::new(options.book.clone(), network);
    let loaded = file.load(book, random, now)?;
    Ok((file, loaded))
}
