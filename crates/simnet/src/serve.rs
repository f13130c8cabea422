//! One accepted connection: the serving side of the protocol, and the ways to get it wrong.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tipward_wire::{
    BlockHash, Dialect, Incoming, WireError,
    bitcoin::{
        BlockHeader, Chain, Codec, Inventory, InventoryKind, Locator, MAX_HEADERS, Message, NetworkAddress,
        Protoconf, Services, Version,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::sleep,
};

use crate::{Behaviour, SimChain};

/// How many blocks one `getblocks` is answered with.
const MAX_GETBLOCKS: usize = 500;
/// What a slow node sends at a time.
const SLOW_CHUNK: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("done misbehaving")]
    Done,
}

/// Serves until the other side closes or the behaviour ends the connection.
pub(crate) async fn serve(
    stream: TcpStream,
    chain: watch::Receiver<Arc<SimChain>>,
    behaviour: Behaviour,
) -> Result<(), ServeError> {
    stream.set_nodelay(true)?;
    let codec = Codec::new(chain.borrow().network());
    let mut connection = Connection {
        stream,
        codec,
        chain,
        behaviour,
        ready: false,
        wants_headers: false,
        served: 0,
        continue_at: None,
    };
    connection.run().await
}

struct Connection {
    stream: TcpStream,
    codec: Codec,
    chain: watch::Receiver<Arc<SimChain>>,
    behaviour: Behaviour,
    ready: bool,
    wants_headers: bool,
    served: u32,
    /// The last block of a full `getblocks` answer: once it is served, the tip is announced.
    continue_at: Option<BlockHash>,
}

impl Connection {
    async fn run(&mut self) -> Result<(), ServeError> {
        let mut input = BytesMut::new();
        loop {
            while let Some(incoming) = self.codec.decode(&mut input)? {
                // A block from a client is of no interest.
                if let Incoming::Message(message) = incoming {
                    self.answer(message).await?;
                }
            }
            tokio::select! {
                read = self.stream.read_buf(&mut input) => {
                    if read? == 0 {
                        return Ok(());
                    }
                }
                changed = self.chain.changed(), if self.ready => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    self.announce().await?;
                }
            }
        }
    }

    async fn answer(&mut self, message: Message) -> Result<(), ServeError> {
        if self.is_silent() {
            return Ok(());
        }
        match message {
            Message::Version(_) => {
                let version = self.our_version();
                self.send(&Message::Version(version)).await?;
                self.send(&Message::Verack).await?;
                if self.codec_chain() == Chain::Bsv {
                    let protoconf = Protoconf { max_receive_payload: 2 << 20, stream_policies: None };
                    self.send(&Message::Protoconf(protoconf)).await?;
                }
            }
            Message::Verack => {
                self.ready = true;
                self.codec.handshake_done();
                self.chain.mark_unchanged();
            }
            Message::SendHeaders => self.wants_headers = true,
            Message::Ping(nonce) => self.send(&Message::Pong(nonce)).await?,
            Message::GetHeaders(locator) => self.serve_headers(&locator).await?,
            Message::GetBlocks(locator) => self.serve_inventory(&locator).await?,
            Message::GetData(entries) => {
                for entry in entries {
                    self.serve_data(entry).await?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn is_silent(&self) -> bool {
        matches!(self.behaviour, Behaviour::SilentAfter { blocks } if self.served >= blocks)
    }

    fn codec_chain(&self) -> Chain {
        self.chain.borrow().network().chain
    }

    fn our_version(&self) -> Version {
        let services = match self.codec_chain() {
            Chain::Btc => Services::NETWORK | Services::WITNESS,
            Chain::Bsv => Services::NETWORK,
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Version {
            protocol: 70016,
            services,
            time: now.as_secs() as i64,
            receiver: NetworkAddress::UNSPECIFIED,
            sender: NetworkAddress::UNSPECIFIED,
            nonce: fastrand::u64(..),
            user_agent: concat!("/tipward-simnet:", env!("CARGO_PKG_VERSION"), "/").into(),
            start_height: i32::try_from(self.chain.borrow().height()).unwrap_or(i32::MAX),
            relay: true,
            association_id: None,
        }
    }

    /// Where the chain goes on after the locator; after its first block if nothing is known.
    fn after(chain: &SimChain, locator: &Locator) -> usize {
        locator.hashes.iter().find_map(|&hash| chain.position(hash)).unwrap_or(0) + 1
    }

    async fn serve_headers(&mut self, locator: &Locator) -> Result<(), ServeError> {
        let chain = self.chain.borrow().clone();
        let from = Self::after(&chain, locator);
        let mut headers = Vec::new();
        for block in chain.blocks()[from..].iter().take(MAX_HEADERS) {
            headers.push(block.header);
            if block.hash == locator.stop {
                break;
            }
        }
        match self.behaviour {
            Behaviour::UnlinkedHeaders if headers.len() > 2 => {
                headers.swap(0, 1);
            }
            Behaviour::UnknownParent => {
                headers.iter_mut().take(1).for_each(|header| header.parent = BlockHash::from_bytes([7; 32]));
                headers.iter_mut().take(1).for_each(mine);
                headers.truncate(1);
            }
            Behaviour::HeadersWithoutWork => {
                let mut parent = headers.first().map_or(BlockHash::ZERO, |header| header.parent);
                for header in &mut headers {
                    header.parent = parent;
                    spoil(header);
                    parent = header.hash();
                }
            }
            Behaviour::OversizedLength => {
                let mut frame = self.frame(&Message::Headers(Vec::new()));
                frame[16..20].copy_from_slice(&0xf000_0000_u32.to_le_bytes());
                return self.write(&frame).await;
            }
            _ => {}
        }
        self.send(&Message::Headers(headers)).await
    }

    async fn serve_inventory(&mut self, locator: &Locator) -> Result<(), ServeError> {
        let chain = self.chain.borrow().clone();
        let from = Self::after(&chain, locator);
        let blocks = chain.blocks()[from..].iter().map(|block| block.hash);
        let hashes: Vec<BlockHash> =
            blocks.take_while(|&hash| hash != locator.stop).take(MAX_GETBLOCKS).collect();
        if hashes.len() == MAX_GETBLOCKS {
            self.continue_at = hashes.last().copied();
        }
        if hashes.is_empty() {
            return Ok(());
        }
        let entries = hashes.into_iter().map(|hash| Inventory::block(InventoryKind::Block, hash)).collect();
        self.send(&Message::Inv(entries)).await
    }

    /// Serves a block with its witnesses. Unknown ones are answered with silence, as nodes do.
    async fn serve_data(&mut self, entry: Inventory) -> Result<(), ServeError> {
        if self.is_silent() || !matches!(entry.kind, InventoryKind::Block | InventoryKind::WitnessBlock) {
            return Ok(());
        }
        let chain = self.chain.borrow().clone();
        let Some(position) = chain.position(BlockHash::from_bytes(entry.hash)) else { return Ok(()) };
        let block = &chain.blocks()[position];
        let raw = match self.behaviour {
            Behaviour::UnrequestedBlock => &chain.blocks()[(position + 7) % chain.blocks().len()].raw,
            _ => &block.raw,
        };
        self.send_block(raw).await?;
        self.served += 1;
        if self.continue_at == Some(block.hash) {
            self.continue_at = None;
            let tip = Inventory::block(InventoryKind::Block, chain.tip().hash);
            self.send(&Message::Inv(vec![tip])).await?;
        }
        match self.behaviour {
            Behaviour::ClosesAfter { blocks } if self.served >= blocks => Err(ServeError::Done),
            Behaviour::PausesAfter { blocks, milliseconds } if self.served == blocks => {
                sleep(Duration::from_millis(milliseconds)).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn send_block(&mut self, raw: &Bytes) -> Result<(), ServeError> {
        let mut frame = self.frame(&Message::Block(raw.clone()));
        match self.behaviour {
            Behaviour::WrongMagic => frame[..4].copy_from_slice(&[0xde, 0xad, 0xbe, 0xef]),
            Behaviour::BadChecksum => frame[20] ^= 1,
            Behaviour::WrongMerkleRoot => {
                let mut changed = raw.to_vec();
                // Inside the coinbase's input, so that the block still parses.
                changed[81 + 4 + 3 + 36 + 2] ^= 1;
                frame = self.frame(&Message::Block(changed.into()));
            }
            Behaviour::TruncatedFrame => {
                let half = frame.len() / 2;
                self.write(&frame[..half]).await?;
                return Err(ServeError::Done);
            }
            _ => {}
        }
        self.write(&frame).await
    }

    async fn announce(&mut self) -> Result<(), ServeError> {
        if self.is_silent() {
            return Ok(());
        }
        let tip = self.chain.borrow_and_update().tip().clone();
        let announcement = if self.wants_headers {
            Message::Headers(vec![tip.header])
        } else {
            Message::Inv(vec![Inventory::block(InventoryKind::Block, tip.hash)])
        };
        self.send(&announcement).await
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
        match self.behaviour {
            Behaviour::Slow { bytes_per_second } => {
                for chunk in bytes.chunks(SLOW_CHUNK) {
                    self.stream.write_all(chunk).await?;
                    sleep(Duration::from_secs_f64(chunk.len() as f64 / f64::from(bytes_per_second.max(1))))
                        .await;
                }
            }
            _ => self.stream.write_all(bytes).await?,
        }
        Ok(())
    }
}

/// Varies the nonce until the hash meets the header's own target.
fn mine(header: &mut BlockHeader) {
    while !header.meets_target(header.bits) {
        header.nonce = header.nonce.wrapping_add(1);
    }
}

/// Varies the nonce until the hash misses the header's own target.
fn spoil(header: &mut BlockHeader) {
    while header.meets_target(header.bits) {
        header.nonce = header.nonce.wrapping_add(1);
    }
}
