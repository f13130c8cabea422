//! The ways to get it wrong.

use std::{net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use tipward_wire::{
    BlockHash, Dialect,
    bitcoin::{BlockHeader, Command, MAX_ADDRESSES, Message, NetworkAddress, Services, TimedAddress},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    time::sleep,
};

use super::{Connection, Handshake, ServeError, seconds_since_1970};
use crate::{Behaviour, Flood, Stage};

/// What a flooding node sends at a time, in bytes, but for the last message.
const BURST: usize = 64 << 10;
/// How often a node that does not read looks whether its client is gone.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Connection {
    /// Resets the connection, if this is where the node does that.
    pub(super) fn reset_at(&self, stage: Stage) -> Result<(), ServeError> {
        if self.behaviour() != Behaviour::ResetsAt(stage) {
            return Ok(());
        }
        // What is closed without lingering sends RST.
        self.stream.set_zero_linger()?;
        Err(ServeError::Done)
    }

    pub(super) fn is_half_open(&self) -> bool {
        let done = self.handshake == Handshake::Done;
        matches!(self.behaviour(), Behaviour::HalfOpen { blocks } if done && self.served >= blocks)
    }

    /// Takes no further part in the connection, but for letting it go when the client closes it.
    pub(super) async fn go_dark(&mut self) -> Result<(), ServeError> {
        // What has come and is not read hides the end of the stream from a read, not from here.
        while !self.stream.ready(Interest::READABLE).await?.is_read_closed() {
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Reads to the end and says nothing.
    pub(super) async fn only_read(&mut self) -> Result<(), ServeError> {
        let mut buffer = vec![0; 4096];
        loop {
            match self.stream.read(&mut buffer).await? {
                0 => return Ok(()),
                read => self.node.counters.bytes_received.add(read),
            }
        }
    }

    /// Sends the same until the client is gone, and reads on so that the client can write.
    pub(super) async fn flood(&mut self, kind: Flood) -> Result<(), ServeError> {
        let burst = self.burst(kind);
        let counters = &self.node.counters;
        let (mut reader, mut writer) = self.stream.split();
        let read = async {
            let mut buffer = vec![0; 4096];
            loop {
                match reader.read(&mut buffer).await? {
                    0 => return Ok(()),
                    read => counters.bytes_received.add(read),
                }
            }
        };
        let write = async {
            loop {
                writer.write_all(&burst).await?;
                counters.bytes_sent.add(burst.len());
            }
        };
        tokio::select! {
            ended = read => ended.and(Err(ServeError::Done)),
            ended = write => ended,
        }
    }

    fn burst(&self, kind: Flood) -> BytesMut {
        let message = match kind {
            Flood::Pings => Message::Ping(7),
            Flood::Addresses => {
                let address = |port: u16| TimedAddress {
                    time: seconds_since_1970(),
                    // Of the block for documentation (RFC 5737).
                    address: NetworkAddress {
                        services: Services::NETWORK,
                        ..SocketAddr::from(([192, 0, 2, 1], port)).into()
                    },
                };
                Message::Addr((1..=MAX_ADDRESSES as u16).map(address).collect())
            }
            Flood::Unknown => Message::Other {
                command: Command::new("flood").expect("it is short ASCII"),
                payload: Bytes::from_static(&[0; 256]),
            },
        };
        let mut burst = BytesMut::new();
        while burst.len() < BURST {
            self.codec.encode(&message, &mut burst);
        }
        burst
    }

    pub(super) fn spoil_headers(&self, headers: &mut Vec<BlockHeader>) {
        match self.behaviour() {
            Behaviour::UnlinkedHeaders if headers.len() > 2 => headers.swap(0, 1),
            Behaviour::UnknownParent => {
                headers.truncate(1);
                for header in headers {
                    header.parent = BlockHash::from_bytes([7; 32]);
                    mine(header);
                }
            }
            Behaviour::HeadersWithoutWork => {
                let mut parent = headers.first().map_or(BlockHash::ZERO, |header| header.parent);
                for header in headers {
                    header.parent = parent;
                    spoil(header);
                    parent = header.hash();
                }
            }
            _ => {}
        }
    }

    /// Sends `headers` that claim to be 4 GB long.
    pub(super) async fn send_oversized(&mut self) -> Result<(), ServeError> {
        let mut frame = self.frame(&Message::Headers(Vec::new()));
        frame[16..20].copy_from_slice(&0xf000_0000_u32.to_le_bytes());
        self.write(&frame).await
    }

    pub(super) async fn send_block(&mut self, raw: &Bytes) -> Result<(), ServeError> {
        let mut frame = self.frame(&Message::Block(raw.clone()));
        match self.behaviour() {
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
