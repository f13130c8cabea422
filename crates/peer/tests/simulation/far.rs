//! The far end of one connection: a script for each character, on a codec of its own.

use std::{net::Ipv4Addr, ops::RangeInclusive, time::Duration};

use bytes::{Bytes, BytesMut};
use fastrand::Rng;
use tipward_peer::{
    PeerAddress,
    wire::{
        BlockHash, Dialect, Incoming, Txid,
        bitcoin::{
            Codec, Command, Inventory, InventoryKind, Message, NetworkAddress, Services, TimedAddress,
            Version,
        },
    },
};

use crate::{
    character::{Character, Flood, Stage},
    ledger::{Ledger, network},
};

/// What the far end does, in this order.
#[derive(Debug)]
pub(crate) enum Act {
    Say(Message),
    Raw(Bytes),
    Wait(Duration),
    Close,
    Reset,
    /// Nothing more is heard of it, nor does it hear.
    Vanish,
    /// It took a transaction from us.
    Take(Txid),
}

/// What the far end looks at.
pub(crate) struct Surroundings<'a> {
    pub(crate) ledger: &'a Ledger,
    /// The blocks of those on another chain.
    pub(crate) foreign: &'a Ledger,
    pub(crate) tip: usize,
    pub(crate) hosts: &'a [PeerAddress],
    pub(crate) random: &'a mut Rng,
    /// In seconds since 1970.
    pub(crate) unix: u64,
}

pub(crate) struct Far {
    character: Character,
    codec: Codec,
    input: BytesMut,
    /// Both sides have greeted.
    shaken: bool,
    by_headers: bool,
    /// Transactions that it has from us.
    taken: Vec<Txid>,
    ticks: u32,
}

impl Far {
    pub(crate) fn new(character: Character) -> Self {
        Self {
            character,
            codec: Codec::new(network()),
            input: BytesMut::new(),
            shaken: false,
            by_headers: false,
            taken: Vec::new(),
            ticks: 0,
        }
    }

    pub(crate) fn encode(&self, message: &Message) -> Bytes {
        let mut bytes = BytesMut::new();
        self.codec.encode(message, &mut bytes);
        bytes.freeze()
    }

    /// The connection stands.
    pub(crate) fn opened(&mut self) -> Vec<Act> {
        match self.character {
            Character::Resetting(Stage::Opened) => vec![Act::Reset],
            Character::Garbage => vec![Act::Raw(Bytes::from_static(b"HTTP/1.1 400 Bad Request\r\n\r\n"))],
            Character::Early => vec![Act::Say(Message::Ping(1))],
            _ => Vec::new(),
        }
    }

    pub(crate) fn receive(&mut self, bytes: &[u8], around: &mut Surroundings<'_>) -> Vec<Act> {
        if self.character == Character::Mute {
            return Vec::new();
        }
        self.input.extend_from_slice(bytes);
        let mut acts = Vec::new();
        while let Some(incoming) = self.codec.decode(&mut self.input).expect("we keep to the protocol") {
            if let Incoming::Message(message) = incoming {
                self.hear(message, around, &mut acts);
            }
        }
        acts
    }

    /// Some time has passed.
    pub(crate) fn tick(&mut self, around: &mut Surroundings<'_>) -> Vec<Act> {
        self.ticks += 1;
        if !self.shaken {
            return Vec::new();
        }
        match self.character {
            Character::Flooding(flood) => vec![Act::Raw(self.flood(flood, around))],
            Character::Pushing => vec![Act::Say(Message::Block(network().genesis_block()))],
            Character::GreetsTwice => vec![Act::Say(version(self.character, around))],
            Character::Resetting(Stage::SomeMinutes) if self.ticks > 3 => vec![Act::Close],
            Character::Lying => vec![Act::Say(invented_blocks(around)), Act::Say(invented_nodes(around))],
            Character::Deaf => (0..8).map(|n| Act::Say(Message::Ping(n))).collect(),
            Character::HalfOpen => vec![Act::Vanish],
            _ => vec![Act::Say(Message::Ping(around.random.u64(..)))],
        }
    }

    /// The node has got these blocks, up to its new tip.
    pub(crate) fn learned(&self, ledger: &Ledger, heights: RangeInclusive<usize>) -> Option<Message> {
        let inv = |height| Inventory::block(InventoryKind::Block, ledger.hash(height));
        self.shaken.then(|| {
            if self.by_headers {
                Message::Headers(heights.map(|height| ledger.header(height)).collect())
            } else {
                Message::Inv(heights.map(inv).collect())
            }
        })
    }

    /// The node has got a transaction from another one.
    pub(crate) fn relayed(&self, id: Txid) -> Option<Message> {
        let is_news = self.shaken && !self.taken.contains(&id);
        is_news.then(|| Message::Inv(vec![Inventory { kind: InventoryKind::Tx, hash: *id.as_bytes() }]))
    }

    fn hear(&mut self, message: Message, around: &mut Surroundings<'_>, acts: &mut Vec<Act>) {
        match message {
            Message::Version(_) => self.greet(around, acts),
            Message::Verack => {
                self.codec.handshake_done();
                self.shaken = true;
            }
            Message::SendHeaders => {
                self.by_headers = around.random.u8(..4) > 0;
                if self.character == Character::Resetting(Stage::Ready) {
                    acts.push(Act::Reset);
                }
            }
            other if self.shaken => self.answer(other, around, acts),
            _ => {}
        }
    }

    fn greet(&self, around: &mut Surroundings<'_>, acts: &mut Vec<Act>) {
        let version = version(self.character, around);
        match self.character {
            Character::Resetting(Stage::HalfAVersion) => {
                let whole = self.encode(&version);
                acts.extend([Act::Raw(whole.slice(..whole.len() / 2)), Act::Close]);
            }
            Character::Resetting(Stage::Version) => acts.extend([Act::Say(version), Act::Reset]),
            _ => acts.extend([Act::Say(version), Act::Say(Message::SendAddrV2), Act::Say(Message::Verack)]),
        }
        if self.character == Character::Resetting(Stage::Verack) {
            acts.push(Act::Close);
        }
    }

    fn answer(&mut self, message: Message, around: &mut Surroundings<'_>, acts: &mut Vec<Act>) {
        let is_proof = matches!(&message, Message::GetHeaders(locator) if locator.hashes.is_empty());
        match self.character {
            Character::Resetting(Stage::Proof) if is_proof => return acts.push(Act::Reset),
            Character::Resetting(Stage::FirstQuestion)
                if !is_proof && matches!(message, Message::GetHeaders(_) | Message::GetData(_)) =>
            {
                return acts.push(Act::Close);
            }
            Character::Slow => acts.push(Act::Wait(Duration::from_millis(around.random.u64(500..3000)))),
            _ => {}
        }
        match message {
            Message::Ping(nonce) => acts.push(Act::Say(Message::Pong(nonce))),
            Message::GetHeaders(locator) => {
                let headers = match self.character {
                    Character::FirstDownload => Some(Vec::new()),
                    Character::WrongChain { answers } => {
                        answers.then(|| vec![around.foreign.header(around.foreign.height())])
                    }
                    // What it shows hangs in the air.
                    Character::Lying if !is_proof => Some(vec![around.foreign.header(9)]),
                    _ => around.ledger.headers_after(&locator, around.tip),
                };
                acts.extend(headers.map(|headers| Act::Say(Message::Headers(headers))));
            }
            Message::GetAddr => acts.push(Act::Say(nodes(self.character, around))),
            Message::GetData(entries) => self.hand_over(&entries, around, acts),
            Message::Inv(entries) => {
                let transactions: Vec<Inventory> =
                    entries.into_iter().filter(|entry| entry.kind == InventoryKind::Tx).collect();
                let is_wanted = self.character.serves() && !transactions.is_empty();
                acts.extend(is_wanted.then(|| Act::Say(Message::GetData(transactions))));
            }
            Message::Tx(transaction) => {
                self.taken.push(transaction.txid());
                acts.push(Act::Take(transaction.txid()));
            }
            _ => {}
        }
    }

    fn hand_over(&self, entries: &[Inventory], around: &Surroundings<'_>, acts: &mut Vec<Act>) {
        let mut missing = Vec::new();
        for entry in entries {
            let found = match entry.kind {
                _ if self.character == Character::Lying => None,
                InventoryKind::WitnessBlock | InventoryKind::Block => {
                    around.ledger.block(BlockHash::from_bytes(entry.hash), around.tip).map(Message::Block)
                }
                _ => {
                    let id = Txid::from_bytes(entry.hash);
                    around.ledger.transactions.get(&id).cloned().map(Message::Tx)
                }
            };
            match found {
                Some(message) => acts.push(Act::Say(message)),
                None => missing.push(*entry),
            }
        }
        if !missing.is_empty() {
            acts.push(Act::Say(Message::NotFound(missing)));
        }
    }

    /// One tick's worth of a flood: more than a connection is allowed.
    fn flood(&self, flood: Flood, around: &mut Surroundings<'_>) -> Bytes {
        let (message, times) = match flood {
            Flood::Pings => (Message::Ping(3), 3000),
            Flood::NoHeaders => (Message::Headers(Vec::new()), 3000),
            Flood::Addresses => (invented_nodes(around), 40),
            Flood::Malformed => {
                let command = Command::new("inv").expect("a short name");
                (Message::Other { command, payload: Bytes::from_static(&[255]) }, 30)
            }
        };
        Bytes::from(self.encode(&message).repeat(times))
    }
}

fn version(character: Character, around: &mut Surroundings<'_>) -> Message {
    let height = match character {
        Character::Lying => 1 << 20,
        _ => around.tip as i32,
    };
    Message::Version(Version {
        protocol: if character == Character::TooOld { 60000 } else { 70016 },
        services: match character {
            Character::NoBlocks => Services::NONE,
            _ => Services::NETWORK | Services::WITNESS,
        },
        time: around.unix as i64,
        receiver: NetworkAddress::UNSPECIFIED,
        sender: NetworkAddress::UNSPECIFIED,
        nonce: around.random.u64(..),
        user_agent: "/them:1/".into(),
        start_height: height,
        relay: true,
        association_id: None,
    })
}

fn entry(ip: Ipv4Addr, port: u16, unix: u64) -> TimedAddress {
    let ip = ip.to_ipv6_mapped();
    let services = Services::NETWORK | Services::WITNESS;
    TimedAddress { time: unix as u32, address: NetworkAddress { services, ip, port } }
}

/// What the node tells of others: all sorts of them, since it knows no better.
fn nodes(character: Character, around: &mut Surroundings<'_>) -> Message {
    if character == Character::Lying {
        return invented_nodes(around);
    }
    let unix = around.unix - 3600;
    let entries = (0..40)
        .filter_map(|_| {
            let address = &around.hosts[around.random.usize(..around.hosts.len())];
            Some(entry(address.host.parse().ok()?, address.port, unix))
        })
        .collect();
    Message::Addr(entries)
}

fn invented_nodes(around: &mut Surroundings<'_>) -> Message {
    let unix = around.unix;
    let mut invent =
        || Ipv4Addr::new(around.random.u8(20..90), around.random.u8(..), around.random.u8(..), 9);
    Message::Addr((0..100).map(|_| entry(invent(), 8333, unix)).collect())
}

fn invented_blocks(around: &mut Surroundings<'_>) -> Message {
    let mut invent = || {
        let mut hash = [0; 32];
        around.random.fill(&mut hash);
        Inventory::block(InventoryKind::Block, BlockHash::from_bytes(hash))
    };
    Message::Inv((0..20).map(|_| invent()).collect())
}
