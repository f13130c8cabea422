//! One accepted connection: the serving side of the protocol.
//!
//! The handshake and the choice of who answers are here; the answers are in a file for each family, the ways to get them
//! wrong in `faults`.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
};

use bytes::BytesMut;
use tipward_wire::{
    BlockHash, Dialect, WireError,
    bitcoin::{
        BloomFilter, Chain, Codec, Message, NetworkAddress, Protoconf, Reject, RejectCode, Services, Version,
    },
};
use tokio::{
    net::TcpStream,
    sync::{
        broadcast::{self, error::RecvError},
        mpsc, watch,
    },
    time::{Instant, sleep_until},
};

use crate::{Behaviour, SimChain, Stage, mempool::Accepted, node::Shared, stats::Open};
use ears::{Ears, Heard, MAX_WAITING};

mod blocks;
mod ears;
mod faults;
mod filters;
mod output;
mod transactions;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the client asks for more than it may: {0}")]
    Excess(&'static str),
    #[error("done")]
    Done,
}

/// Serves until the other side closes or the behaviour ends the connection. `number` tells the node's connections apart.
pub(crate) async fn serve(
    stream: TcpStream,
    chain: watch::Receiver<Arc<SimChain>>,
    node: Arc<Shared>,
    number: u64,
) -> Result<(), ServeError> {
    let counted = node.clone();
    let _open = Open::count(&counted.counters);
    stream.set_nodelay(true)?;
    let _death = Death { stream: &stream, node: &counted };
    let codec = || Codec::new(chain.borrow().network());
    let (heard, messages) = mpsc::channel(MAX_WAITING);
    let deaf = AtomicBool::new(false);
    let ears = Ears { stream: &stream, codec: codec(), node: node.clone(), heard, deaf: &deaf };
    let mut connection = Connection {
        stream: &stream,
        codec: codec(),
        messages,
        deaf: &deaf,
        output: BytesMut::new(),
        free_at: Instant::now(),
        accepted: node.mempool.subscribe(),
        turned: node.behaviour.subscribe(),
        chain: chain.clone(),
        node,
        number,
        handshake: Handshake::Begun,
        client: Client::default(),
        served: 0,
        is_broken: false,
        continue_at: None,
    };
    let talk = async {
        let ended = connection.run().await;
        connection.flush().await.ok();
        ended
    };
    tokio::select! {
        biased;
        () = ears.listen() => Ok(()),
        ended = talk => ended,
    }
}

/// Resets the connection if it ends because the node dies.
struct Death<'a> {
    stream: &'a TcpStream,
    node: &'a Shared,
}

impl Drop for Death<'_> {
    fn drop(&mut self) {
        if self.node.is_dead() {
            // What is closed without lingering sends RST.
            self.stream.set_zero_linger().ok();
        }
    }
}

struct Connection<'a> {
    stream: &'a TcpStream,
    /// For what is sent.
    codec: Codec,
    messages: mpsc::Receiver<(Instant, Heard)>,
    deaf: &'a AtomicBool,
    /// What is to be sent.
    output: BytesMut,
    /// When a node with a limit may send again.
    free_at: Instant,
    chain: watch::Receiver<Arc<SimChain>>,
    accepted: broadcast::Receiver<Accepted>,
    turned: watch::Receiver<Behaviour>,
    node: Arc<Shared>,
    number: u64,
    handshake: Handshake,
    client: Client,
    /// Blocks served so far.
    served: u32,
    /// A block was broken off in the middle.
    is_broken: bool,
    /// The last block of a full `getblocks` answer: once it is served, the tip is announced.
    continue_at: Option<BlockHash>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handshake {
    /// The client's `version` is to come.
    Begun,
    /// Its `verack` is to come.
    Answered,
    Done,
}

/// What the client said it wants.
#[derive(Default)]
struct Client {
    headers: bool,
    addr_v2: bool,
    wtxids: bool,
    /// Announcements of transactions.
    transactions: bool,
    filter: Option<BloomFilter>,
}

impl Connection<'_> {
    async fn run(&mut self) -> Result<(), ServeError> {
        self.reset_at(Stage::Connect).await?;
        loop {
            // These are few and a client may send without end, so they come first.
            self.announce_news().await?;
            if self.is_half_open() {
                self.go_dark().await?;
            }
            if let Ok((due, heard)) = self.messages.try_recv() {
                self.hear(due, heard).await?;
                continue;
            }
            self.flush().await?;
            self.wait().await?;
        }
    }

    /// Tells of what has happened at the node, if something has.
    async fn announce_news(&mut self) -> Result<(), ServeError> {
        let gone = |_| ServeError::Done;
        if self.turned.has_changed().map_err(gone)? {
            self.turn().await?;
        }
        if self.handshake != Handshake::Done {
            return Ok(());
        }
        if self.chain.has_changed().map_err(gone)? {
            self.announce().await?;
        }
        while let Ok(accepted) = self.accepted.try_recv() {
            self.announce_transaction(&accepted).await?;
        }
        Ok(())
    }

    /// Acts on what was heard, once that is due.
    async fn hear(&mut self, due: Instant, heard: Heard) -> Result<(), ServeError> {
        if due > Instant::now() {
            self.flush().await?;
            sleep_until(due).await;
        }
        match heard {
            Heard::Message(message) => self.answer(message).await,
            Heard::BadTransaction => {
                let (message, reason) = ("tx".into(), "error parsing message".into());
                let reject = Reject { message, code: RejectCode::MALFORMED, reason, hash: None };
                self.send(&Message::Reject(reject)).await
            }
            Heard::End(ended) => ended.and(Err(ServeError::Done)),
        }
    }

    /// Waits until there may be something to do.
    async fn wait(&mut self) -> Result<(), ServeError> {
        let is_ready = self.handshake == Handshake::Done;
        tokio::select! {
            biased;
            changed = self.chain.changed(), if is_ready => {
                if changed.is_err() {
                    return Err(ServeError::Done);
                }
                self.announce().await
            }
            accepted = self.accepted.recv(), if is_ready => match accepted {
                Ok(accepted) => self.announce_transaction(&accepted).await,
                Err(RecvError::Lagged(_)) => Ok(()),
                Err(RecvError::Closed) => Err(ServeError::Done),
            },
            turned = self.turned.changed() => match turned {
                Ok(()) => self.turn().await,
                Err(_) => Err(ServeError::Done),
            },
            heard = self.messages.recv() => match heard {
                None => Err(ServeError::Done),
                Some((due, heard)) => self.hear(due, heard).await,
            },
        }
    }

    async fn answer(&mut self, message: Message) -> Result<(), ServeError> {
        if self.is_silent() {
            return Ok(());
        }
        match message {
            Message::Version(version) if self.handshake == Handshake::Begun => {
                self.answer_version(&version).await?;
            }
            Message::Verack if self.handshake == Handshake::Answered => self.finish_handshake().await?,
            Message::SendHeaders => self.client.headers = true,
            Message::SendAddrV2 => self.client.addr_v2 = self.is_btc(),
            Message::WtxidRelay => self.client.wtxids = self.is_btc() && self.node.options.wtxid_relay,
            Message::Ping(nonce) => self.send(&Message::Pong(nonce)).await?,
            Message::GetAddr => self.serve_addresses().await?,
            Message::GetHeaders(locator) => self.serve_headers(&locator).await?,
            Message::GetBlocks(locator) => self.serve_inventory(&locator).await?,
            Message::GetData(entries) => self.serve_data(&entries).await?,
            Message::Inv(entries) => self.ask_for(&entries).await?,
            Message::Tx(transaction) => self.take(transaction).await?,
            Message::Mempool(_) => self.serve_mempool().await?,
            Message::FilterLoad(filter) => {
                self.client.filter = Some(filter);
                self.client.transactions = true;
            }
            Message::FilterAdd(added) => {
                if let Some(filter) = &mut self.client.filter {
                    filter.insert(&added.element);
                }
            }
            Message::FilterClear => {
                self.client.filter = None;
                self.client.transactions = true;
            }
            Message::GetCFilters(range) => self.serve_filters(range).await?,
            Message::GetCFHeaders(range) => self.serve_filter_headers(range).await?,
            Message::GetCFCheckpt(request) => self.serve_filter_checkpoints(request).await?,
            _ => {}
        }
        Ok(())
    }

    async fn answer_version(&mut self, theirs: &Version) -> Result<(), ServeError> {
        self.reset_at(Stage::BeforeVersion).await?;
        self.client.transactions = theirs.relay;
        self.handshake = Handshake::Answered;
        self.send(&Message::Version(self.our_version())).await?;
        self.reset_at(Stage::AfterVersion).await?;
        if self.is_btc() && self.node.options.wtxid_relay {
            self.send(&Message::WtxidRelay).await?;
        }
        if self.behaviour() == Behaviour::ResetsAt(Stage::BeforeVerack) {
            return Ok(());
        }
        self.send(&Message::Verack).await?;
        if !self.is_btc() {
            let protoconf = Protoconf { max_receive_payload: 2 << 20, stream_policies: None };
            self.send(&Message::Protoconf(protoconf)).await?;
        }
        Ok(())
    }

    async fn finish_handshake(&mut self) -> Result<(), ServeError> {
        self.reset_at(Stage::BeforeVerack).await?;
        self.reset_at(Stage::AfterVerack).await?;
        self.handshake = Handshake::Done;
        self.chain.mark_unchanged();
        self.accepted = self.node.mempool.subscribe();
        // Last: who waits for it may count on hearing of what happens from then on.
        self.node.counters.handshakes.add(1);
        self.turn().await
    }

    fn behaviour(&self) -> Behaviour {
        *self.node.behaviour.borrow()
    }

    fn is_silent(&self) -> bool {
        match self.behaviour() {
            Behaviour::SilentAtConnect => true,
            Behaviour::SilentAfter { blocks } => self.served >= blocks,
            _ => false,
        }
    }

    fn is_btc(&self) -> bool {
        self.chain.borrow().network().chain == Chain::Btc
    }

    /// What the node serves, as far as its options do not claim something else.
    fn services(&self) -> Services {
        let served = match self.chain.borrow().network().chain {
            Chain::Btc => Services::NETWORK | Services::WITNESS | Services::BLOOM | Services::COMPACT_FILTERS,
            Chain::Bsv => Services::NETWORK | Services::BLOOM,
        };
        self.node.options.services.unwrap_or(served)
    }

    fn our_version(&self) -> Version {
        const USER_AGENT: &str = concat!("/tipward-simnet:", env!("CARGO_PKG_VERSION"), "/");
        let options = &self.node.options;
        let shown = self.shown(&self.chain.borrow()).len() - 1;
        let height = i32::try_from(shown).unwrap_or(i32::MAX);
        let start_height = match self.behaviour() {
            Behaviour::LiesAboutHeight { height } => height,
            _ => options.claimed_height.unwrap_or(height),
        };
        Version {
            protocol: options.protocol,
            services: self.services(),
            time: i64::from(seconds_since_1970()),
            receiver: NetworkAddress::UNSPECIFIED,
            sender: NetworkAddress::UNSPECIFIED,
            nonce: fastrand::Rng::with_seed(options.seed.wrapping_add(self.number)).u64(..),
            user_agent: options.user_agent.as_deref().unwrap_or(USER_AGENT).into(),
            start_height,
            relay: true,
            association_id: None,
        }
    }

    fn frame(&self, message: &Message) -> BytesMut {
        let mut frame = BytesMut::new();
        self.codec.encode(message, &mut frame);
        frame
    }

    async fn send(&mut self, message: &Message) -> Result<(), ServeError> {
        let frame = self.frame(message);
        self.write(&frame).await
    }
}

fn seconds_since_1970() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}
