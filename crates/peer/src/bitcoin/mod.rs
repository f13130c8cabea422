//! The session of BTC and BSV nodes, for a client that downloads.
//!
//! The chains shake hands in the same order and differ in what may be said in between: BSV scores every other command
//! before `verack` and expects `protoconf` right after its own; BTC gets `sendheaders` so that it announces by headers.

use std::{
    collections::BTreeMap,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use tipward_wire::{
    BlockEvent, BlockHash, Header, Incoming,
    bitcoin::{
        Chain, Codec, CodecOptions, Inventory, InventoryKind, Locator, MAX_HEADERS, MAX_LOCATOR, Message,
        Network, NetworkAddress, Protoconf, Services, Version,
    },
};

use crate::{
    Connection, DisconnectReason, Link, LinkOptions, Local, Outbox, PeerInfo, Protocol, Reply, Session,
    SessionEvent, Unsupported, Violation, Want,
};

/// The protocol version we speak: `sendheaders` and more on BTC, `extmsg` on BSV.
const PROTOCOL_VERSION: i32 = 70016;
/// The oldest protocol version with headers-first download.
const MIN_PROTOCOL_VERSION: i32 = 31800;
/// How many blocks may be asked of one peer and not have come. Who asks for more is told so.
const MAX_ASKED: usize = 4096;
/// What we tell BSV nodes that we accept, in bytes: the least allowed, so that no `inv` gets longer than on BTC.
const MAX_RECEIVE_PAYLOAD: u32 = 1 << 20;
/// How many blocks a node with NETWORK_LIMITED serves (BIP 159).
const LIMITED_BLOCKS: u64 = 288;

/// A network of BTC or BSV, to be connected to.
#[derive(Debug, Clone, Copy)]
pub struct Bitcoin {
    network: &'static Network,
}

impl Bitcoin {
    /// The network.
    #[must_use]
    pub fn new(network: &'static Network) -> Self {
        Self { network }
    }
}

impl Protocol for Bitcoin {
    fn name(&self) -> &str {
        self.network.name
    }

    fn default_port(&self) -> u16 {
        self.network.default_port
    }

    fn dns_seeds(&self) -> Vec<String> {
        // BTC's seeds filter by service bits: x9 is NETWORK and WITNESS.
        let prefix = if self.network.chain == Chain::Btc { "x9." } else { "" };
        self.network.dns_seeds.iter().map(|seed| format!("{prefix}{seed}")).collect()
    }

    fn connect(&self, local: &Local, options: &LinkOptions, seed: u64, now: Instant) -> Box<dyn Connection> {
        let mut codec = CodecOptions::new(self.network);
        codec.block.part_size = options.part_size;
        codec.max_block_size = options.max_block_size.unwrap_or(codec.max_block_size);
        let session = BitcoinSession::new(self.network, local, seed);
        Box::new(Link::new(session, Codec::with_options(self.network, codec), options.clone(), seed, now))
    }
}

/// One conversation with a BTC or BSV node.
#[derive(Debug)]
pub struct BitcoinSession {
    network: &'static Network,
    height: u64,
    nonce: u64,
    state: State,
    /// How often each block was asked for and has not come. A late answer to a question that was given up is no offence, so
    /// only answers remove one, and a block that was asked for twice may come twice.
    asked: BTreeMap<BlockHash, usize>,
    /// The sum of these.
    open: usize,
}

#[derive(Debug)]
enum State {
    AwaitVersion,
    AwaitVerack(PeerInfo),
    Ready,
}

impl BitcoinSession {
    /// A session that opens the conversation; `nonce` must be random.
    #[must_use]
    pub fn new(network: &'static Network, local: &Local, nonce: u64) -> Self {
        Self {
            network,
            height: local.height(),
            nonce,
            state: State::AwaitVersion,
            asked: BTreeMap::new(),
            open: 0,
        }
    }

    fn our_version(&self) -> Version {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Version {
            protocol: PROTOCOL_VERSION,
            services: Services::NONE,
            time: now.as_secs() as i64,
            receiver: NetworkAddress::UNSPECIFIED,
            sender: NetworkAddress::UNSPECIFIED,
            nonce: self.nonce,
            user_agent: concat!("/tipward:", env!("CARGO_PKG_VERSION"), "/").into(),
            start_height: i32::try_from(self.height).unwrap_or(i32::MAX),
            relay: false,
            association_id: None,
        }
    }

    fn judge(&self, version: &Version) -> Result<PeerInfo, Violation> {
        if version.nonce == self.nonce {
            return Err(Violation::OwnNonce);
        }
        if version.protocol < MIN_PROTOCOL_VERSION {
            return Err(Violation::TooOld { found: version.protocol, needed: MIN_PROTOCOL_VERSION });
        }
        let services = version.services;
        let serves = services.has(Services::NETWORK) || services.has(Services::NETWORK_LIMITED);
        let with_witnesses = self.network.chain == Chain::Bsv || services.has(Services::WITNESS);
        if !serves || !with_witnesses {
            return Err(Violation::NoBlocks { services: services.0 });
        }
        Ok(PeerInfo {
            user_agent: version.user_agent.to_string(),
            claimed_height: u64::try_from(version.start_height).unwrap_or(0),
            recent_only: (!services.has(Services::NETWORK)).then_some(LIMITED_BLOCKS),
        })
    }

    /// Takes one request for the block off the list; false if there is none.
    fn answered(&mut self, block: &BlockHash) -> bool {
        let Some(times) = self.asked.get_mut(block) else { return false };
        self.open -= 1;
        *times -= 1;
        if *times == 0 {
            self.asked.remove(block);
        }
        true
    }

    fn shake_hands(&mut self, message: &Message, out: &mut Outbox<Message>) -> Result<(), Violation> {
        match (&self.state, message) {
            (State::AwaitVersion, Message::Version(version)) => {
                let info = self.judge(version)?;
                out.messages.push(Message::Verack);
                if self.network.chain == Chain::Bsv {
                    out.messages.push(Message::Protoconf(Protoconf {
                        max_receive_payload: MAX_RECEIVE_PAYLOAD,
                        stream_policies: None,
                    }));
                }
                self.state = State::AwaitVerack(info);
            }
            (State::AwaitVerack(info), Message::Verack) => {
                out.events.push(SessionEvent::Ready(info.clone()));
                out.messages.push(Message::SendHeaders);
                self.state = State::Ready;
            }
            (State::AwaitVerack(_), Message::Version(_)) => return Err(Violation::SecondVersion),
            // Features are negotiated between `version` and `verack` by messages of their own; who does not know them
            // declines them by silence.
            (
                _,
                Message::Verack
                | Message::Ping(_)
                | Message::Pong(_)
                | Message::GetHeaders(_)
                | Message::GetBlocks(_)
                | Message::Headers(_)
                | Message::Inv(_)
                | Message::GetData(_)
                | Message::NotFound(_)
                | Message::SendHeaders,
            ) => return Err(Violation::TooEarly { command: message.command().as_str().to_owned() }),
            _ => {}
        }
        Ok(())
    }

    fn converse(&mut self, message: Message, out: &mut Outbox<Message>) -> Result<(), Violation> {
        let mut reply = |reply| out.events.push(SessionEvent::Reply(reply));
        match message {
            Message::Version(_) => return Err(Violation::SecondVersion),
            Message::Ping(nonce) => out.messages.push(Message::Pong(nonce)),
            Message::Headers(headers) => {
                let more = headers.len() == MAX_HEADERS;
                reply(Reply::Headers { headers: headers.into_iter().map(Header::from).collect(), more });
            }
            Message::Inv(entries) => {
                let blocks = blocks(&entries);
                if !blocks.is_empty() {
                    reply(Reply::Announced(blocks));
                }
            }
            Message::NotFound(entries) => {
                let mut missing = blocks(&entries);
                missing.retain(|block| self.answered(block));
                if !missing.is_empty() {
                    reply(Reply::Missing(missing));
                }
            }
            Message::Reject(reject) => tracing::debug!(?reject, "rejected by the peer"),
            // We serve nothing, so questions go unanswered, as services 0 says.
            _ => {}
        }
        Ok(())
    }
}

impl Session for BitcoinSession {
    type Dialect = Codec;

    fn start(&mut self, out: &mut Outbox<Message>) {
        out.messages.push(Message::Version(self.our_version()));
    }

    fn receive(
        &mut self,
        incoming: Incoming<Message>,
        out: &mut Outbox<Message>,
    ) -> Result<(), DisconnectReason> {
        match incoming {
            Incoming::Message(message) if matches!(self.state, State::Ready) => {
                self.converse(message, out)?;
            }
            Incoming::Message(message) => self.shake_hands(&message, out)?,
            Incoming::Block(_) if !matches!(self.state, State::Ready) => {
                return Err(Violation::TooEarly { command: "block".to_owned() }.into());
            }
            Incoming::Block(BlockEvent::Part(part)) => {
                if !self.asked.contains_key(&part.block) {
                    return Err(Violation::UnrequestedBlock { block: part.block }.into());
                }
                out.events.push(SessionEvent::Reply(Reply::Part(part)));
            }
            // Our codecs refuse what would come in pieces.
            Incoming::Piece(_) => {}
            Incoming::Block(BlockEvent::End(end)) => {
                self.answered(&end.block);
                out.events.push(SessionEvent::Reply(Reply::BlockEnd(end)));
            }
        }
        Ok(())
    }

    fn ask(&mut self, want: Want, out: &mut Outbox<Message>) -> Result<(), Unsupported> {
        match want {
            Want::HeadersAfter(mut hashes) => {
                hashes.truncate(MAX_LOCATOR);
                let locator = Locator { protocol: PROTOCOL_VERSION as u32, hashes, stop: BlockHash::ZERO };
                out.messages.push(Message::GetHeaders(locator));
            }
            Want::Blocks(blocks) => {
                if self.open + blocks.len() > MAX_ASKED {
                    return Err(Unsupported);
                }
                let kind = match self.network.chain {
                    // Without the flag a BTC node strips the witnesses.
                    Chain::Btc => InventoryKind::WitnessBlock,
                    Chain::Bsv => InventoryKind::Block,
                };
                self.open += blocks.len();
                blocks.iter().for_each(|block| *self.asked.entry(*block).or_default() += 1);
                let entries = blocks.into_iter().map(|block| Inventory::block(kind, block)).collect();
                out.messages.push(Message::GetData(entries));
            }
        }
        Ok(())
    }

    fn ping(&mut self, nonce: u64, out: &mut Outbox<Message>) {
        out.messages.push(Message::Ping(nonce));
    }
}

fn blocks(entries: &[Inventory]) -> Vec<BlockHash> {
    entries
        .iter()
        .filter(|entry| matches!(entry.kind, InventoryKind::Block | InventoryKind::WitnessBlock))
        .map(|entry| BlockHash::from_bytes(entry.hash))
        .collect()
}

#[cfg(test)]
mod tests;
