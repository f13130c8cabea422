//! What a dialect adds on top of its codec: the handshake, and the translation to [`Want`] and [`Reply`].

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use tipward_wire::{Dialect, Incoming};

use crate::{Connection, DisconnectReason, LinkOptions, Reply, Unsupported, Want};

/// What a peer told about itself. All of it is hearsay.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerInfo {
    /// The peer's software.
    pub user_agent: String,
    /// The height that the peer claims for its best block.
    pub claimed_height: u64,
    /// The peer serves only so many blocks behind its tip; `None` for all.
    pub recent_only: Option<u64>,
}

impl PeerInfo {
    /// A peer that serves all blocks.
    #[must_use]
    pub fn new(user_agent: impl Into<String>, claimed_height: u64) -> Self {
        Self { user_agent: user_agent.into(), claimed_height, recent_only: None }
    }
}

/// What we tell about ourselves; shared by all connections.
#[derive(Debug, Clone, Default)]
pub struct Local {
    height: Arc<AtomicU64>,
}

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

    /// Says something that a live peer answers.
    fn ping(&mut self, nonce: u64, out: &mut Outbox<<Self::Dialect as Dialect>::Message>);
}

/// What a session wants done.
#[derive(Debug)]
pub struct Outbox<M> {
    /// To be sent to the peer, in this order.
    pub messages: Vec<M>,
    /// To be told to the layers above, in this order.
    pub events: Vec<SessionEvent>,
}

impl<M> Default for Outbox<M> {
    fn default() -> Self {
        Self { messages: Vec::new(), events: Vec::new() }
    }
}

/// What a session tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// Both sides have shaken hands.
    Ready(PeerInfo),
    /// An answer or an announcement.
    Reply(Reply),
}

/// A network to connect to, without the type of its dialect.
pub trait Protocol: Send + Sync + fmt::Debug + 'static {
    /// The network's name.
    fn name(&self) -> &str;

    /// The port that its nodes listen on.
    fn default_port(&self) -> u16;

    /// Host names that resolve to addresses of nodes which can serve us.
    fn dns_seeds(&self) -> Vec<String>;

    /// A machine for a connection that we have opened just now. `seed` seeds what is random in it.
    fn connect(&self, local: &Local, options: &LinkOptions, seed: u64, now: Instant) -> Box<dyn Connection>;
}
