//! The ways to get it wrong.

use std::{net::SocketAddr, sync::atomic::Ordering};

use bytes::{Bytes, BytesMut};
use tipward_wire::{
    BlockHash, Dialect,
    bitcoin::{BlockHeader, Command, MAX_ADDRESSES, Message, NetworkAddress, Services, TimedAddress},
};

use super::{Connection, Handshake, ServeError, ears::Heard, output::send_some, seconds_since_1970};
use crate::{Behaviour, Flood, Midway, SimBlock, Stage};

/// What a flooding node sends at a time, in bytes, but for the last message.
const BURST: usize = 64 << 10;

impl Connection<'_> {
    /// Begins to do what the behaviour of now wants done at once.
    pub(super) async fn turn(&mut self) -> Result<(), ServeError> {
        let behaviour = *self.turned.borrow_and_update();
        self.is_broken &= matches!(behaviour, Behaviour::Midway { .. });
        let is_ready = self.handshake == Handshake::Done;
        match behaviour {
            Behaviour::Flooding { kind } if is_ready => self.flood(kind).await,
            Behaviour::PushesBlock if is_ready => {
                let chain = self.chain.borrow().clone();
                self.send_block(self.tip(&chain)).await
            }
            Behaviour::ResetsAt(stage) if self.is_past(stage) => Err(self.reset().await),
            _ => Ok(()),
        }
    }

    fn is_past(&self, stage: Stage) -> bool {
        match stage {
            Stage::Connect => true,
            Stage::BeforeVersion | Stage::AfterVersion => self.handshake != Handshake::Begun,
            Stage::BeforeVerack | Stage::AfterVerack => self.handshake == Handshake::Done,
        }
    }

    /// Resets the connection, if this is where the node does that.
    pub(super) async fn reset_at(&mut self, stage: Stage) -> Result<(), ServeError> {
        if self.behaviour() == Behaviour::ResetsAt(stage) { Err(self.reset().await) } else { Ok(()) }
    }

    async fn reset(&mut self) -> ServeError {
        let flushed = self.flush().await;
        // What is closed without lingering sends RST.
        let set = self.stream.set_zero_linger().map_err(ServeError::from);
        flushed.and(set).err().unwrap_or(ServeError::Done)
    }

    pub(super) fn is_half_open(&self) -> bool {
        let done = self.handshake == Handshake::Done;
        matches!(self.behaviour(), Behaviour::HalfOpen { blocks } if done && self.served >= blocks)
    }

    /// Takes no part in the connection until the behaviour changes, but for letting it go when the client closes it.
    pub(super) async fn go_dark(&mut self) -> Result<(), ServeError> {
        self.flush().await?;
        self.deaf.store(true, Ordering::Release);
        let mut turned = self.node.behaviour.subscribe();
        let is_back = turned.wait_for(|now| !matches!(now, Behaviour::HalfOpen { .. }));
        tokio::select! {
            gone = self.gone() => return Err(gone),
            _ = is_back => {}
        }
        self.deaf.store(false, Ordering::Release);
        Ok(())
    }

    /// Sends the same until the client is gone or the behaviour changes, and hears nothing.
    pub(super) async fn flood(&mut self, kind: Flood) -> Result<(), ServeError> {
        self.flush().await?;
        let (burst, mut at) = (self.burst(kind), 0);
        let mut turned = self.node.behaviour.subscribe();
        loop {
            let goes_on = self.behaviour() == (Behaviour::Flooding { kind });
            if at == 0 && !goes_on {
                return Ok(());
            }
            tokio::select! {
                biased;
                // What comes after that is heard.
                _ = turned.changed(), if goes_on => {}
                heard = self.messages.recv(), if goes_on => match heard {
                    Some((_, Heard::End(ended))) => return ended.and(Err(ServeError::Done)),
                    Some(_) => {}
                    None => return Err(ServeError::Done),
                },
                sent = send_some(self.stream, &burst[at..]) => {
                    let sent = sent?;
                    self.node.counters.bytes_sent.add(sent);
                    at = (at + sent) % burst.len();
                }
            }
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

    pub(super) async fn send_block(&mut self, block: &SimBlock) -> Result<(), ServeError> {
        let spoiled;
        let block = match self.behaviour() {
            Behaviour::WrongMerkleRoot => {
                spoiled = block.spoiled();
                &spoiled
            }
            Behaviour::WrongWitnesses => {
                spoiled = block.with_other_witnesses();
                &spoiled
            }
            _ => block,
        };
        let mut start = BytesMut::new();
        self.codec.encode_block_start(block.size(), || block.checksum(), &mut start);
        match self.behaviour() {
            Behaviour::WrongMagic => start[..4].copy_from_slice(&[0xde, 0xad, 0xbe, 0xef]),
            Behaviour::BadChecksum => start[20] ^= 1,
            _ => {}
        }
        let (after, then) = match self.behaviour() {
            Behaviour::TruncatedFrame => (0, Midway::Closes),
            Behaviour::Midway { blocks, then } => (blocks, then),
            _ => (u32::MAX, Midway::Closes),
        };
        let mut whole = if self.served >= after && !self.is_broken { block.size() / 2 } else { u64::MAX };
        self.write(&start).await?;
        for mut piece in block.pieces() {
            if whole < piece.len() as u64 {
                let first = piece.split_to(usize::try_from(whole).unwrap_or(piece.len()));
                self.write_shared(first).await?;
                self.break_off(then).await?;
                whole = u64::MAX;
            } else if whole != u64::MAX {
                whole -= piece.len() as u64;
            }
            self.write_shared(piece).await?;
        }
        Ok(())
    }

    /// What happens in the middle of a block.
    async fn break_off(&mut self, then: Midway) -> Result<(), ServeError> {
        self.flush().await?;
        match then {
            Midway::Closes => Err(ServeError::Done),
            Midway::Resets => Err(self.reset().await),
            Midway::Stalls | Midway::Trickles { .. } => {
                self.is_broken = true;
                Ok(())
            }
        }
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
