//! One accepted connection: the serving side of the protocol.
//!
//! The handshake and the choice of who answers are here; the answers are in a file for each family, the ways to get them
//! wrong in `faults`.

use std::{io, sync::Arc, time::Duration};

use bytes::BytesMut;
use tipward_wire::{
    BlockHash, Dialect, Incoming, WireError,
    bitcoin::{
        BloomFilter, Chain, Codec, Message, NetworkAddress, Protoconf, Reject, RejectCode, Services, Version,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{
        broadcast::{self, error::RecvError},
        watch,
    },
    time::sleep,
};

use crate::{Behaviour, SimChain, Stage, mempool::Accepted, node::Shared, stats::Open};

mod blocks;
mod faults;
mod filters;
mod transactions;

/// What a slow node sends at a time.
const SLOW_CHUNK: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the client asks for more than it may: {0}")]
    Excess(&'static str),
    #[error("done misbehaving")]
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
    let codec = Codec::new(chain.borrow().network());
    let accepted = node.mempool.subscribe();
    let mut connection = Connection {
        stream,
        codec,
        chain,
        accepted,
        node,
        number,
        handshake: Handshake::Begun,
        client: Client::default(),
        served: 0,
        continue_at: None,
    };
    connection.run().await
}

struct Connection {
    stream: TcpStream,
    codec: Codec,
    chain: watch::Receiver<Arc<SimChain>>,
    accepted: broadcast::Receiver<Accepted>,
    node: Arc<Shared>,
    number: u64,
    handshake: Handshake,
    client: Client,
    /// Blocks served so far.
    served: u32,
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

impl Connection {
    async fn run(&mut self) -> Result<(), ServeError> {
        match self.behaviour() {
            Behaviour::SilentAtConnect => return self.only_read().await,
            _ => self.reset_at(Stage::Connect)?,
        }
        let mut input = BytesMut::new();
        loop {
            while let Some(message) = self.decode(&mut input).await? {
                self.answer(message).await?;
                if self.is_half_open() {
                    return self.go_dark().await;
                }
            }
            let ready = self.handshake == Handshake::Done;
            tokio::select! {
                biased;
                // Announcements are few and a client may send without end, so they come first.
                changed = self.chain.changed(), if ready => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    self.announce().await?;
                }
                accepted = self.accepted.recv(), if ready => match accepted {
                    Ok(accepted) => self.announce_transaction(&accepted).await?,
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Ok(()),
                },
                read = self.stream.read_buf(&mut input) => match read? {
                    0 => return Ok(()),
                    read => self.node.counters.bytes_received.add(read),
                },
            }
        }
    }

    /// The next message in the input. A transaction that does not parse is refused, as nodes of BSV do, and costs nothing
    /// else.
    async fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Message>, ServeError> {
        loop {
            match self.codec.decode(input) {
                Ok(Some(Incoming::Message(message))) => return Ok(Some(message)),
                // A block from a client is of no interest.
                Ok(Some(Incoming::Block(_) | Incoming::Piece(_))) => {}
                Ok(None) => return Ok(None),
                Err(WireError::Malformed { command, .. }) if command == "tx" => {
                    let (message, reason) = ("tx".into(), "error parsing message".into());
                    let reject = Reject { message, code: RejectCode::MALFORMED, reason, hash: None };
                    self.send(&Message::Reject(reject)).await?;
                }
                Err(error) => return Err(error.into()),
            }
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
        self.reset_at(Stage::BeforeVersion)?;
        self.client.transactions = theirs.relay;
        self.handshake = Handshake::Answered;
        self.send(&Message::Version(self.our_version())).await?;
        self.reset_at(Stage::AfterVersion)?;
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
        self.reset_at(Stage::BeforeVerack)?;
        self.reset_at(Stage::AfterVerack)?;
        self.handshake = Handshake::Done;
        self.codec.handshake_done();
        self.node.counters.handshakes.add(1);
        self.chain.mark_unchanged();
        self.accepted = self.node.mempool.subscribe();
        match self.behaviour() {
            Behaviour::Flooding { kind } => self.flood(kind).await,
            _ => Ok(()),
        }
    }

    fn behaviour(&self) -> Behaviour {
        self.node.options.behaviour
    }

    fn is_silent(&self) -> bool {
        matches!(self.behaviour(), Behaviour::SilentAfter { blocks } if self.served >= blocks)
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
        let height = i32::try_from(self.chain.borrow().height()).unwrap_or(i32::MAX);
        let start_height = match options.behaviour {
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

    async fn write(&mut self, bytes: &[u8]) -> Result<(), ServeError> {
        match self.behaviour() {
            Behaviour::Slow { bytes_per_second } => {
                for chunk in bytes.chunks(SLOW_CHUNK) {
                    self.stream.write_all(chunk).await?;
                    self.node.counters.bytes_sent.add(chunk.len());
                    sleep(Duration::from_secs_f64(chunk.len() as f64 / f64::from(bytes_per_second.max(1))))
                        .await;
                }
            }
            _ => {
                self.stream.write_all(bytes).await?;
                self.node.counters.bytes_sent.add(bytes.len());
            }
        }
        Ok(())
    }
}

fn seconds_since_1970() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}
