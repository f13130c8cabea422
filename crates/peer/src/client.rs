//! One connection in a dialect's own messages.

use std::{
    fmt,
    marker::PhantomData,
    sync::{Arc, Mutex},
};

use tipward_wire::{BlockEnd, BlockHash, BlockPart, DownloadId, Piece};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{
    AnyMessage, CallError, ConnectError, Delivery, Dialer, DisconnectReason, Disconnected, Figures,
    LinkOptions, Peer, PeerAddress, PeerEvent, PeerId, PeerInfo, Protocol, Reply, Stream, Tcp, Typed,
    Unsupported, Want,
    dial::{Attempt, Outcome},
    driver::now,
    peer::{Kill, end},
};

/// How many received messages may wait to be taken, before no more are read.
const RECEIVED: usize = 64;

/// A connection that has shaken hands: sends and receives typed messages, answers pings, and keeps its time-outs.
///
/// Dropping it closes the connection.
#[derive(Debug)]
pub struct Client<M> {
    peer: Peer,
    received: mpsc::Receiver<PeerEvent>,
    task: Option<JoinHandle<Outcome>>,
    /// What ended the connection, once that is known.
    ended: Option<DisconnectReason>,
    message: PhantomData<fn() -> M>,
}

/// What a [`Client`] receives.
#[derive(Debug)]
pub enum Received<M> {
    /// A message. Not the answers to requests, nor blocks.
    Message(M),
    /// A part of a block that was asked for; void if [`BlockAborted`](Self::BlockAborted) follows instead of the end.
    Part(BlockPart),
    /// A block is complete and passed its checks.
    BlockEnd(BlockEnd),
    /// A block's parts end here and are void; the connection's end follows.
    BlockAborted(BlockHash, DownloadId),
    /// So many bytes of a block have arrived, which is more than its parts tell.
    Progress(u64),
    /// A piece of a message that is too long to be held.
    Piece(Piece),
}

impl<M> Client<M>
where
    M: Clone + fmt::Debug + Send + Sync + 'static,
{
    /// Connects over TCP and shakes hands. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The address can't be reached, or the peer does not shake hands.
    pub async fn connect<P: Typed<Message = M>>(
        protocol: P,
        address: PeerAddress,
        options: LinkOptions,
    ) -> Result<Self, ConnectError> {
        Self::connect_through(protocol, Arc::new(Tcp::default()), address, options).await
    }

    /// Connects through a dialer, such as one with a proxy.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_through<P: Typed<Message = M>>(
        protocol: P,
        dialer: Arc<dyn Dialer>,
        address: PeerAddress,
        options: LinkOptions,
    ) -> Result<Self, ConnectError> {
        Self::start(protocol, dialer, address, options, None).await
    }

    /// Shakes hands over a connection that the peer has opened.
    ///
    /// # Errors
    /// The peer does not shake hands.
    pub async fn accept<P: Typed<Message = M>>(
        protocol: P,
        stream: Box<dyn Stream>,
        address: PeerAddress,
        options: LinkOptions,
    ) -> Result<Self, ConnectError> {
        Self::start(protocol, Arc::new(Tcp::default()), address, options, Some(stream)).await
    }

    async fn start<P: Protocol>(
        protocol: P,
        dialer: Arc<dyn Dialer>,
        address: PeerAddress,
        options: LinkOptions,
        stream: Option<Box<dyn Stream>>,
    ) -> Result<Self, ConnectError> {
        let (events, mut received) = mpsc::channel(RECEIVED);
        let kill: Kill = Arc::new(watch::channel(None).0);
        let mut guard = Guard(Some(kill.clone()));
        let attempt = Attempt {
            id: PeerId(1),
            address,
            protocol: Arc::new(protocol),
            dialer,
            local: options.local.clone(),
            options: LinkOptions { delivery: Delivery::Raw, ..options },
            seed: fastrand::u64(..),
            events,
            kill,
            figures: Arc::new(Mutex::new(Figures::new(now()))),
            manager: None,
        };
        let task = tokio::spawn(async move {
            match stream {
                Some(stream) => attempt.accept(stream).await,
                None => attempt.dial().await,
            }
        });
        match received.recv().await {
            Some(PeerEvent::Connected(peer)) => {
                guard.0 = None;
                Ok(Self { peer, received, task: Some(task), ended: None, message: PhantomData })
            }
            Some(PeerEvent::ConnectFailed { reason, .. }) => Err(reason),
            _ => Err(ConnectError::Handshake(DisconnectReason::Shutdown)),
        }
    }

    /// The handle to the connection, to be shared by those who send.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What the peer told about itself.
    #[must_use]
    pub fn info(&self) -> &PeerInfo {
        self.peer.info()
    }

    /// Sends a message and waits until it was written to the socket.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn send(&self, message: M) -> Result<(), Disconnected> {
        self.peer.send(message).await
    }

    /// Sends a message and waits for the one that answers it. Something must take what comes in between: call
    /// [`receive`](Self::receive) from another task, or answers stop behind 64 messages that nobody takes.
    ///
    /// # Errors
    /// See [`Peer::request`].
    pub async fn request(&self, message: M) -> Result<M, CallError> {
        self.peer.request(message).await
    }

    /// Asks for something in neutral words. The answers come as typed messages, except blocks.
    ///
    /// # Errors
    /// See [`Peer::ask`].
    pub fn ask(&self, want: Want) -> Result<(), Unsupported> {
        self.peer.ask(want)
    }

    /// The next message. May be dropped while it waits.
    ///
    /// # Errors
    /// The connection has ended, and why.
    pub async fn receive(&mut self) -> Result<Received<M>, DisconnectReason> {
        loop {
            if let Some(reason) = &self.ended {
                return Err(reason.clone());
            }
            return Ok(match self.received.recv().await {
                Some(PeerEvent::Message { message, .. }) => match AnyMessage::take(message) {
                    Some(message) => Received::Message(message),
                    None => continue,
                },
                Some(PeerEvent::Piece { piece, .. }) => Received::Piece(piece),
                Some(PeerEvent::Reply { reply: Reply::Part(part), .. }) => Received::Part(part),
                Some(PeerEvent::Reply { reply: Reply::BlockEnd(end), .. }) => Received::BlockEnd(end),
                Some(PeerEvent::Reply { reply: Reply::BlockAborted { block, download }, .. }) => {
                    Received::BlockAborted(block, download)
                }
                Some(PeerEvent::Reply { reply: Reply::Progress { received }, .. }) => {
                    Received::Progress(received)
                }
                Some(PeerEvent::Disconnected { reason, .. }) => {
                    self.ended = Some(reason);
                    continue;
                }
                Some(_) => continue,
                None => {
                    self.ended = Some(DisconnectReason::Shutdown);
                    continue;
                }
            });
        }
    }

    /// Closes the connection and waits until its task and its socket are gone.
    pub async fn close(mut self) {
        self.peer.disconnect(DisconnectReason::ClosedByUs);
        // Nobody takes what comes.
        self.received.close();
        while self.received.recv().await.is_some() {}
        if let Some(task) = self.task.take() {
            task.await.ok();
        }
    }
}

/// Ends an attempt that nobody waits for any more.
struct Guard(Option<Kill>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(kill) = &self.0 {
            end(kill, DisconnectReason::Shutdown);
        }
    }
}

impl<M> Drop for Client<M> {
    fn drop(&mut self) {
        self.peer.disconnect(DisconnectReason::Shutdown);
    }
}
