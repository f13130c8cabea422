//! Peers that are listened to by callbacks.

use std::{
    any::Any,
    error::Error,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::Poll,
};

use async_trait::async_trait;
use bytes::Bytes;
use tipward_wire::{BlockEnd, BlockHash, BlockPart, DownloadId, Header, Txid};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    DisconnectReason, KnownAddress, ManagerHandle, Peer, PeerAddress, PeerEvent, PeerId, Rejection, Reply,
    Want,
    dial::Outcome,
    peer::{Kill, end},
};

/// An error of a handler.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// What a callback returns.
pub type HandlerResult = Result<(), BoxError>;

/// Where a callback comes from.
#[derive(Debug)]
#[non_exhaustive]
pub struct Context {
    /// The peer.
    pub peer: Peer,
    /// The manager that keeps it.
    pub manager: ManagerHandle,
}

/// Listens to peers. Every method does nothing unless it is written.
///
/// One handler serves all peers. Each peer's calls come one at a time and in the order in which the peer spoke; while one
/// runs, nothing more is read from that peer once its queue of 16 is full, and other peers are not affected. A call may
/// await [`Peer::send`]. It may await [`Peer::request`] too, whose answer overtakes the queue unless that is full, when the
/// request times out.
///
/// An error ends the connection or not, as [`OnError`] says, and is handed to the user.
#[async_trait]
#[allow(unused_variables, reason = "the defaults ignore what they are told")]
pub trait PeerHandler<M: Send + Sync + 'static>: Send + Sync + 'static {
    /// A peer is ready to be asked.
    async fn connected(&self, context: &Context) -> HandlerResult {
        Ok(())
    }

    /// The connection has ended. Comes last; what it returns is reported and changes nothing.
    async fn disconnected(&self, context: &Context, reason: &DisconnectReason) -> HandlerResult {
        Ok(())
    }

    /// Headers, asked for or announced. `more` says that the message was full.
    async fn headers(&self, context: &Context, headers: Vec<Header>, more: bool) -> HandlerResult {
        Ok(())
    }

    /// The peer has these objects. Transactions are told if
    /// [`LinkOptions::relay_transactions`](crate::LinkOptions::relay_transactions) is set.
    async fn inv(&self, context: &Context, objects: Announced) -> HandlerResult {
        Ok(())
    }

    /// A transaction, asked for or relayed.
    async fn tx(&self, context: &Context, id: Txid, bytes: Bytes) -> HandlerResult {
        Ok(())
    }

    /// The peer refuses something.
    async fn reject(&self, context: &Context, rejection: Rejection) -> HandlerResult {
        Ok(())
    }

    /// The peer does not have what it was asked for, or can't be asked that.
    async fn missing(&self, context: &Context, what: Want) -> HandlerResult {
        Ok(())
    }

    /// Addresses of other nodes.
    async fn addresses(&self, context: &Context, addresses: Vec<KnownAddress>) -> HandlerResult {
        Ok(())
    }

    /// A part of a block that was asked for: whole transactions where they fit. [`block`](Self::block) or
    /// [`block_aborted`](Self::block_aborted) follows the last.
    async fn block_part(&self, context: &Context, part: BlockPart) -> HandlerResult {
        Ok(())
    }

    /// A block is complete and passed its checks.
    async fn block(&self, context: &Context, end: BlockEnd) -> HandlerResult {
        Ok(())
    }

    /// A block failed: the parts that came under this download are void.
    async fn block_aborted(
        &self,
        context: &Context,
        block: BlockHash,
        download: DownloadId,
    ) -> HandlerResult {
        Ok(())
    }

    /// Any other message.
    async fn message(&self, context: &Context, message: M) -> HandlerResult {
        Ok(())
    }
}

/// What a peer announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announced {
    /// Blocks.
    Blocks(Vec<BlockHash>),
    /// Transactions.
    Transactions(Vec<Txid>),
}

/// What an error of a handler means for the peer that it was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The connection goes on.
    Continue,
    /// The connection ends with [`DisconnectReason::Handler`].
    Disconnect,
}

/// An error that a handler returned, or a panic of it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("about {peer} at {address}: {source}")]
pub struct HandlerError {
    /// The connection.
    pub peer: PeerId,
    /// Where the peer is.
    pub address: PeerAddress,
    /// The error.
    pub source: Arc<dyn Error + Send + Sync>,
}

/// A handler without the type of its messages.
#[async_trait]
pub(crate) trait AnyHandler: Send + Sync {
    async fn hear(&self, context: &Context, event: PeerEvent) -> HandlerResult;
}

/// Gives the messages their type back.
pub(crate) struct Erase<M: 'static>(pub(crate) Arc<dyn PeerHandler<M>>);

#[async_trait]
impl<M: Clone + Send + Sync + 'static> AnyHandler for Erase<M> {
    async fn hear(&self, context: &Context, event: PeerEvent) -> HandlerResult {
        let handler = &*self.0;
        match event {
            PeerEvent::Connected(_) => handler.connected(context).await,
            PeerEvent::Disconnected { reason, .. } => handler.disconnected(context, &reason).await,
            PeerEvent::Message { message, .. } => match message.take() {
                Some(message) => handler.message(context, message).await,
                None => Ok(()),
            },
            PeerEvent::Reply { reply, .. } => match reply {
                Reply::Headers { headers, more } => handler.headers(context, headers, more).await,
                Reply::Announced(blocks) => handler.inv(context, Announced::Blocks(blocks)).await,
                Reply::AnnouncedTransactions(ids) => handler.inv(context, Announced::Transactions(ids)).await,
                Reply::Transaction { id, bytes } => handler.tx(context, id, bytes).await,
                Reply::Rejected(rejection) => handler.reject(context, rejection).await,
                Reply::Addresses(addresses) => handler.addresses(context, addresses).await,
                Reply::Part(part) => handler.block_part(context, part).await,
                Reply::BlockEnd(end) => handler.block(context, end).await,
                Reply::BlockAborted { block, download } => {
                    handler.block_aborted(context, block, download).await
                }
                Reply::Missing(blocks) => handler.missing(context, Want::Blocks(blocks)).await,
                Reply::MissingTransactions(ids) => handler.missing(context, Want::Transactions(ids)).await,
                Reply::Unsupported(want) => handler.missing(context, want).await,
                // Of interest to who asks in neutral words.
                Reply::Progress { .. }
                | Reply::Fetched(_)
                | Reply::NewTip(_)
                | Reply::RangeEnd
                | Reply::FilterHashes { .. }
                | Reply::Filter { .. }
                | Reply::Height(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

/// Calls the handler for one connection, in a task beside the connection's own.
pub(crate) struct Pump {
    pub(crate) handler: Arc<dyn AnyHandler>,
    pub(crate) manager: ManagerHandle,
    pub(crate) on_error: OnError,
    pub(crate) id: PeerId,
    pub(crate) address: PeerAddress,
    pub(crate) kill: Kill,
    pub(crate) inbox: mpsc::Receiver<PeerEvent>,
    /// Where errors go, and what is of no peer.
    pub(crate) events: mpsc::Sender<PeerEvent>,
}

impl Pump {
    /// Runs beside the connection, to the end of both.
    pub(crate) async fn beside(self, talk: impl Future<Output = Outcome>) -> Outcome {
        // Dropping the set ends a handler that is stuck.
        let mut calls = JoinSet::new();
        calls.spawn(self.run());
        let outcome = talk.await;
        calls.join_next().await;
        outcome
    }

    async fn run(mut self) {
        let mut context = None;
        while let Some(event) = self.inbox.recv().await {
            match event {
                PeerEvent::Connected(ref peer) => {
                    context = Some(Context { peer: peer.clone(), manager: self.manager.clone() });
                }
                PeerEvent::ConnectFailed { .. } => {
                    self.events.try_send(event).ok();
                    continue;
                }
                _ => {}
            }
            let Some(context) = &context else { continue };
            if let Err(error) = caught(self.handler.hear(context, event)).await {
                self.failed(error.into());
            }
        }
    }

    fn failed(&self, source: Arc<dyn Error + Send + Sync>) {
        tracing::warn!(peer = %self.id, address = %self.address, %source, "the handler failed");
        let error = HandlerError { peer: self.id, address: self.address.clone(), source: source.clone() };
        self.events.try_send(PeerEvent::HandlerFailed(error)).ok();
        if self.on_error == OnError::Disconnect {
            end(&self.kill, DisconnectReason::Handler(source));
        }
    }
}

/// A call whose panic is an error like others.
async fn caught(call: impl Future<Output = HandlerResult>) -> HandlerResult {
    let mut call = Box::pin(call);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context)));
        polled.unwrap_or_else(|panic| Poll::Ready(Err(Panicked(text(&*panic)).into())))
    })
    .await
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or_default().to_owned()
}

#[derive(Debug, thiserror::Error)]
#[error("it panicked: {0}")]
struct Panicked(String);
