//! What a dialect adds on top of its codec: the handshake, and the translation to [`Want`] and [`Reply`].

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use tipward_wire::{Dialect, Incoming, Txid};

use crate::{Connection, DisconnectReason, LinkOptions, Needs, Reply, Unsupported, Want};

/// What a peer told about itself. All of it is hearsay.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerInfo {
    /// The peer's software, without control characters.
    pub user_agent: String,
    /// The height that the peer claims for its best block.
    pub claimed_height: u64,
    /// The peer serves only so many blocks behind its tip; `None` for all.
    pub recent_only: Option<u64>,
    /// The version of the protocol that it speaks.
    pub protocol_version: u32,
    /// What it offers, in the bits of its dialect.
    pub services: u64,
    /// The peer's clock when it greeted, in seconds since 1970 (UTC), if it told.
    pub clock: Option<u64>,
    /// The peer takes and tells of transactions.
    pub relays_transactions: bool,
}

impl PeerInfo {
    /// A peer that serves all blocks.
    #[must_use]
    pub fn new(user_agent: impl Into<String>, claimed_height: u64) -> Self {
        Self {
            user_agent: user_agent.into(),
            claimed_height,
            recent_only: None,
            protocol_version: 0,
            services: 0,
            clock: None,
            relays_transactions: true,
        }
    }
}

/// What we tell about ourselves that changes; shared by all connections.
#[derive(Debug, Clone, Default)]
pub struct Local {
    height: Arc<AtomicU64>,
    /// The nonces of our latest greetings: who greets with one of them is ourselves.
    nonces: Arc<Mutex<VecDeque<u64>>>,
}

/// How many nonces are remembered.
const MAX_NONCES: usize = 4096;

impl Local {
    /// The height of our best block, as told to peers that connect from now on.
    pub fn set_height(&self, height: u64) {
        self.height.store(height, Ordering::Relaxed);
    }

    /// The height told to peers.
    #[must_use]
    pub fn height(&self) -> u64 {
        self.height.load(Ordering::Relaxed)
    }

    /// Notes a nonce that we greet with.
    pub fn remember(&self, nonce: u64) {
        let mut nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
        if nonces.len() == MAX_NONCES {
            nonces.pop_front();
        }
        nonces.push_back(nonce);
    }

    /// Whether we greeted with this nonce lately.
    #[must_use]
    pub fn is_own(&self, nonce: u64) -> bool {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner).contains(&nonce)
    }
}

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// We did.
    Outbound,
    /// The peer did.
    Inbound,
}

/// One conversation in a dialect: a machine without I/O.
pub trait Session: Send + 'static {
    /// The dialect spoken.
    type Dialect: Dialect;

    /// The connection stands: say what is to be said first.
    fn start(&mut self, out: &mut Outbox<<Self::Dialect as Dialect>::Message>);

    /// Something came in.
    ///
    /// # Errors
    /// The peer must be disconnected for this reason.
    fn receive(
        &mut self,
        incoming: Incoming<<Self::Dialect as Dialect>::Message>,
        out: &mut Outbox<<Self::Dialect as Dialect>::Message>,
    ) -> Result<(), DisconnectReason>;

    /// Puts a question into the dialect's words. Only after [`SessionEvent::Ready`].
    ///
    /// # Errors
    /// [`Unsupported`] if the dialect has no words for it.
    fn ask(
        &mut self,
        want: Want,
        out: &mut Outbox<<Self::Dialect as Dialect>::Message>,
    ) -> Result<(), Unsupported>;

    /// Sends a message of the user's own. What it asks for counts as asked for.
    fn send(
        &mut self,
        message: <Self::Dialect as Dialect>::Message,
        out: &mut Outbox<<Self::Dialect as Dialect>::Message>,
    ) {
        out.messages.push(message);
    }

    /// Says something that a live peer answers, which is told by [`SessionEvent::Pong`].
    fn ping(&mut self, nonce: u64, out: &mut Outbox<<Self::Dialect as Dialect>::Message>);

    /// Why the connection ends if it does not get ready in time.
    fn overdue(&self) -> DisconnectReason {
        DisconnectReason::HandshakeTimedOut
    }

    /// What an unasked message costs the peer of what it may say: 0 for what a download lives from, 1 for small talk.
    fn cost(&self, message: &<Self::Dialect as Dialect>::Message) -> u32;

    /// Whether one message answers another, by its content.
    fn answers(
        request: &<Self::Dialect as Dialect>::Message,
        reply: &<Self::Dialect as Dialect>::Message,
    ) -> bool;

    /// The message's name, for counting: one of a fixed set.
    fn name(message: &<Self::Dialect as Dialect>::Message) -> &'static str;
}

/// What a session wants done.
#[derive(Debug)]
pub struct Outbox<M> {
    /// To be sent to the peer, in this order.
    pub messages: Vec<M>,
    /// To be told to the layers above, in this order.
    pub events: Vec<SessionEvent>,
    /// A message that has no neutral words.
    pub untranslated: Option<M>,
}

impl<M> Default for Outbox<M> {
    fn default() -> Self {
        Self { messages: Vec::new(), events: Vec::new(), untranslated: None }
    }
}

/// What a session tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// Both sides have greeted: longer messages are legitimate from now on.
    Greeted,
    /// The peer may be asked.
    Ready(PeerInfo),
    /// An answer or an announcement.
    Reply(Reply),
    /// The answer to a ping.
    Pong(u64),
}

/// A network to connect to, without the type of its dialect.
pub trait Protocol: Send + Sync + fmt::Debug + 'static {
    /// The network's name.
    fn name(&self) -> &str;

    /// The port that its nodes listen on.
    fn default_port(&self) -> u16;

    /// Host names that resolve to addresses of nodes which can serve us what we need, as far as they can tell.
    fn dns_seeds(&self, needs: Needs) -> Vec<String>;

    /// Whether the dialect knows encryption on this network.
    fn can_encrypt(&self) -> bool {
        false
    }

    /// A machine for a connection that was opened just now.
    fn connect(&self, local: &Local, options: &LinkOptions, start: Start) -> Box<dyn Connection>;

    /// The identifier of a transaction.
    ///
    /// # Errors
    /// The bytes are no transaction that a peer could parse; the error says where.
    fn transaction_id(&self, bytes: &Bytes) -> Result<Txid, MalformedTransaction>;
}

/// How a connection starts.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// Who opened it.
    pub direction: Direction,
    /// Whether it is to be encrypted, where the dialect knows how.
    pub encrypted: bool,
    /// Seeds what is random in it; must not be guessable.
    pub seed: u64,
    /// When it was opened.
    pub now: Instant,
}

/// A [`Protocol`] whose messages are of a known type, for those who read and write them.
pub trait Typed: Protocol {
    /// The dialect's messages.
    type Message: Clone + fmt::Debug + Send + Sync + 'static;
}

/// Bytes that are no transaction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a transaction: {problem} at byte {offset}")]
pub struct MalformedTransaction {
    /// Where the bytes stop making sense.
    pub offset: u64,
    /// What is wrong there.
    pub problem: &'static str,
}
