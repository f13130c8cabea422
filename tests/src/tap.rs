//! A relay that writes down which blocks are asked for and which come.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tipward_chain::sync::peer::wire::{BlockHash, bitcoin::BlockHeader};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinHandle,
};

/// Of a frame: magic, command, length, checksum.
const FRAME_HEADER: usize = 24;
/// What an entry of a list of inventory takes, and what of it is its kind.
const INVENTORY: usize = 36;
const KIND: usize = 4;
/// The kind of a block, without the flag of witnesses.
const BLOCK: u32 = 2;
const WITNESS_FLAG: u32 = 0x4000_0000;

/// What went through one of the relays of a [`Log`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The relay's number.
    pub relay: usize,
    /// Whether the block was asked for, or came.
    pub what: What,
    /// Which block.
    pub block: BlockHash,
}

/// What happened to a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The client has asked for it.
    Asked,
    /// The node has sent it; noted before its last byte is passed on.
    Brought,
}

/// What several relays saw, in order: what a client does because of what came is noted after what came.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Seen>>>);

impl Log {
    /// What was seen so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, seen: Seen) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    }
}

/// Listens on loopback and relays to a node of Bitcoin's protocol, in clear text. Ends when dropped.
#[derive(Debug)]
pub struct Tap {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Tap {
    /// A relay to `target`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(target: SocketAddr, relay: usize, log: &Log) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let log = log.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, target, relay, log.clone()));
            }
        });
        Ok(Self { address, task })
    }

    /// Where the relay listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(client: TcpStream, target: SocketAddr, relay: usize, log: Log) -> io::Result<()> {
    let server = TcpStream::connect(target).await?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        ended = pass(from_client, to_server, relay, &log) => ended,
        ended = pass(from_server, to_client, relay, &log) => ended,
    }
}

/// Passes on frame by frame.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, relay: usize, log: &Log) -> io::Result<()> {
    loop {
        let mut frame = vec![0; FRAME_HEADER];
        from.read_exact(&mut frame).await?;
        let length = u32::from_le_bytes([frame[16], frame[17], frame[18], frame[19]]);
        frame.resize(FRAME_HEADER + length as usize, 0);
        let (header, payload) = frame.split_at_mut(FRAME_HEADER);
        from.read_exact(payload).await?;
        match header[4..16].trim_ascii_end().split(|byte| *byte == 0).next() {
            Some(b"getdata") => asked_for(payload)
                .into_iter()
                .for_each(|block| log.note(Seen { relay, what: What::Asked, block })),
            Some(b"block") => {
                if let Some(header) = payload.first_chunk::<{ BlockHeader::SIZE }>() {
                    let block = BlockHeader::from_bytes(header).hash();
                    log.note(Seen { relay, what: What::Brought, block });
                }
            }
            _ => {}
        }
        to.write_all(&frame).await?;
    }
}

/// The blocks in a list of inventory. Its length follows from that of the message.
fn asked_for(payload: &[u8]) -> Vec<BlockHash> {
    let entries = payload[payload.len() % INVENTORY..].as_chunks::<INVENTORY>().0;
    let block = |entry: &[u8; INVENTORY]| {
        let kind = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
        let hash: [u8; 32] = *entry[KIND..].first_chunk()?;
        (kind & !WITNESS_FLAG == BLOCK).then(|| BlockHash::from_bytes(hash))
    };
    entries.iter().filter_map(block).collect()
}
