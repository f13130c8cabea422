//! One conversation with a node, from either side.

use std::collections::BTreeSet;

use tipward_wire::{
    BlockEvent, BlockHash, Incoming, Txid,
    bitcoin::{
        Chain, Codec, Inventory, InventoryKind, Locator, MAX_HEADERS, MAX_LOCATOR, Message, Network, Reject,
        Transaction, to_headers,
    },
};

use super::{addresses, answers::answers, asked::Asked, filters::Filters, offers::Offers};
use crate::{
    Direction, DisconnectReason, LinkOptions, Local, Outbox, PeerInfo, Rejection, Reply, Session,
    SessionEvent, Start, Unsupported, Violation, Want,
};

/// The protocol version we speak: `sendheaders` and more on BTC, `extmsg` on BSV.
pub(super) const PROTOCOL_VERSION: i32 = 70016;

/// One conversation with a BTC or BSV node.
#[derive(Debug)]
pub struct BitcoinSession {
    pub(super) network: &'static Network,
    pub(super) local: Local,
    pub(super) options: LinkOptions,
    pub(super) direction: Direction,
    pub(super) nonce: u64,
    pub(super) state: State,
    /// How many questions for headers are open.
    headers_asked: u32,
    /// A question for a list of blocks is open. A peer that has none stays silent, and then what it announces next is taken for
    /// the answer.
    list_asked: bool,
    blocks: Asked<BlockHash>,
    transactions: Asked<Txid>,
    pub(super) filters: Filters,
    offers: Offers,
}

#[derive(Debug)]
pub(super) enum State {
    AwaitVersion,
    AwaitVerack(PeerInfo),
    /// Hands are shaken; the peer is to show the block that tells its chain from others.
    AwaitProof {
        info: PeerInfo,
        block: BlockHash,
        /// The peer has read the question: it answered the ping that followed.
        has_read: bool,
    },
    Ready,
}

impl BitcoinSession {
    /// A session that was opened just now; the seed must be random.
    #[must_use]
    pub fn new(network: &'static Network, local: &Local, options: &LinkOptions, start: Start) -> Self {
        local.remember(start.seed);
        Self {
            network,
            local: local.clone(),
            options: options.clone(),
            direction: start.direction,
            nonce: start.seed,
            state: State::AwaitVersion,
            headers_asked: 0,
            list_asked: false,
            blocks: Asked::default(),
            transactions: Asked::default(),
            filters: Filters::default(),
            offers: Offers::default(),
        }
    }

    fn converse(&mut self, message: Message, out: &mut Outbox<Message>) -> Result<(), Violation> {
        let mut reply = |reply| out.events.push(SessionEvent::Reply(reply));
        match message {
            Message::Version(_) => return Err(Violation::SecondVersion),
            Message::Ping(nonce) => out.messages.push(Message::Pong(nonce)),
            Message::Pong(nonce) => out.events.push(SessionEvent::Pong(nonce)),
            Message::Headers(headers) => {
                let more = headers.len() == MAX_HEADERS;
                let headers = to_headers(&headers);
                let is_answer = self.headers_asked > 0;
                self.headers_asked = self.headers_asked.saturating_sub(1);
                let tip = headers.last().map(|header| header.hash).filter(|_| !is_answer);
                reply(Reply::Headers { headers, more });
                tip.into_iter().for_each(|tip| reply(Reply::NewTip(tip)));
            }
            Message::Inv(entries) => {
                let blocks = blocks(&entries);
                if !blocks.is_empty() {
                    let is_answer = std::mem::take(&mut self.list_asked);
                    let tip = blocks.iter().rfind(|block| **block != BlockHash::ZERO).copied();
                    reply(Reply::Announced(blocks));
                    tip.filter(|_| !is_answer).into_iter().for_each(|tip| reply(Reply::NewTip(tip)));
                }
                let transactions = transactions(&entries);
                if !transactions.is_empty() && self.options.relay_transactions {
                    reply(Reply::AnnouncedTransactions(transactions));
                }
            }
            Message::NotFound(entries) => {
                let mut missing = blocks(&entries);
                missing.retain(|block| self.blocks.answered(block));
                if !missing.is_empty() {
                    reply(Reply::Missing(missing));
                }
                let mut missing = transactions(&entries);
                missing.retain(|id| self.transactions.answered(id));
                if !missing.is_empty() {
                    reply(Reply::MissingTransactions(missing));
                }
            }
            Message::Tx(transaction) => {
                let id = transaction.txid();
                if self.transactions.answered(&id) || self.options.relay_transactions {
                    reply(Reply::Transaction { id, bytes: transaction.as_bytes().clone() });
                }
            }
            Message::GetData(entries) => self.hand_over(entries, out),
            Message::Addr(entries) => reply(Reply::Addresses(addresses::from_addr(&entries))),
            Message::AddrV2(entries) => reply(Reply::Addresses(addresses::from_addr_v2(&entries))),
            Message::Reject(reject) => reply(Reply::Rejected(rejection(&reject))),
            Message::CFHeaders(headers) => match self.filters.answer_hashes(&headers)? {
                Some(answer) => reply(answer),
                None => out.untranslated = Some(Message::CFHeaders(headers)),
            },
            Message::CFilter(filter) => match self.filters.answer(&filter)? {
                Some(answer) => reply(answer),
                None => out.untranslated = Some(Message::CFilter(filter)),
            },
            other => out.untranslated = Some(other),
        }
        Ok(())
    }

    /// Sends what we had offered; the rest goes to who serves, if somebody does.
    fn hand_over(&mut self, mut entries: Vec<Inventory>, out: &mut Outbox<Message>) {
        // Each once, or one question could make us send the same thousands of times.
        let mut handed_over = BTreeSet::new();
        entries.retain(|entry| {
            let id = Txid::from_bytes(entry.hash);
            if handed_over.contains(&id) {
                return false;
            }
            let wanted = matches!(entry.kind, InventoryKind::Tx | InventoryKind::WitnessTx);
            let Some(transaction) = self.offers.fetch(&id).filter(|_| wanted) else { return true };
            out.messages.push(Message::Tx(transaction.clone()));
            out.events.push(SessionEvent::Reply(Reply::Fetched(id)));
            handed_over.insert(id);
            false
        });
        if !entries.is_empty() {
            out.untranslated = Some(Message::GetData(entries));
        }
    }

    fn has_asked(&self, entries: &[Inventory]) -> bool {
        blocks(entries).iter().any(|block| self.blocks.contains(block))
            || transactions(entries).iter().any(|id| self.transactions.contains(id))
    }

    /// Whether the peer asks for what it was offered and did not fetch yet, only.
    fn has_offered(&self, entries: &[Inventory]) -> bool {
        !entries.is_empty() && entries.iter().all(|entry| self.offers.is_fresh(&Txid::from_bytes(entry.hash)))
    }

    /// What a message of the user's own asks for counts as asked for.
    fn note(&mut self, message: &Message) {
        match message {
            Message::GetData(entries) => {
                // More than may be open is the user's choice; then it is the user who is told of blocks unasked.
                self.blocks.add(&blocks(entries));
                self.transactions.add(&transactions(entries));
            }
            Message::GetBlocks(_) => self.list_asked = true,
            Message::GetCFilters(_) | Message::GetCFHeaders(_) => self.filters.note(),
            _ => {}
        }
    }

    fn block(&mut self, event: BlockEvent, out: &mut Outbox<Message>) -> Result<(), DisconnectReason> {
        match event {
            _ if !matches!(self.state, State::Ready) => {
                return Err(Violation::TooEarly { command: "block".to_owned() }.into());
            }
            BlockEvent::Part(part) => {
                if !self.blocks.contains(&part.block) {
                    return Err(Violation::UnrequestedBlock { block: part.block }.into());
                }
                out.events.push(SessionEvent::Reply(Reply::Part(part)));
            }
            BlockEvent::End(end) => {
                self.blocks.answered(&end.block);
                out.events.push(SessionEvent::Reply(Reply::BlockEnd(end)));
            }
        }
        Ok(())
    }

    fn inventory<T>(
        &self,
        objects: &[T],
        btc: InventoryKind,
        bsv: InventoryKind,
        hash: fn(&T) -> [u8; 32],
    ) -> Message {
        // Without the flag a BTC node strips the witnesses.
        let kind = if self.network.chain == Chain::Btc { btc } else { bsv };
        Message::GetData(objects.iter().map(|object| Inventory { kind, hash: hash(object) }).collect())
    }
}

impl Session for BitcoinSession {
    type Dialect = Codec;

    fn start(&mut self, out: &mut Outbox<Message>) {
        if self.direction == Direction::Outbound {
            out.messages.push(Message::Version(self.our_version()));
        }
    }

    fn receive(
        &mut self,
        incoming: Incoming<Message>,
        out: &mut Outbox<Message>,
    ) -> Result<(), DisconnectReason> {
        match (incoming, &self.state) {
            (Incoming::Block(event), _) => return self.block(event, out),
            (Incoming::Message(message), State::Ready) => self.converse(message, out)?,
            (Incoming::Message(message), State::AwaitProof { .. }) => self.prove(message, out)?,
            (Incoming::Message(message), State::AwaitVersion | State::AwaitVerack(_)) => {
                self.shake_hands(&message, out)?;
            }
            // Our codecs refuse what would come in pieces.
            (Incoming::Piece(_), _) => {}
        }
        Ok(())
    }

    fn ask(&mut self, want: Want, out: &mut Outbox<Message>) -> Result<(), Unsupported> {
        let message = match want {
            Want::HeadersAfter(mut hashes) => {
                hashes.truncate(MAX_LOCATOR);
                self.headers_asked = self.headers_asked.saturating_add(1);
                Message::GetHeaders(Locator {
                    protocol: PROTOCOL_VERSION as u32,
                    hashes,
                    stop: BlockHash::ZERO,
                })
            }
            Want::BlocksAfter { locator: mut hashes, stop } => {
                hashes.truncate(MAX_LOCATOR);
                self.list_asked = true;
                Message::GetBlocks(Locator { protocol: PROTOCOL_VERSION as u32, hashes, stop })
            }
            Want::Range { .. } | Want::SlotRange { .. } | Want::Ancestors { .. } => return Err(Unsupported),
            Want::Blocks(blocks) => {
                if !self.blocks.add(&blocks) {
                    return Err(Unsupported);
                }
                self.inventory(&blocks, InventoryKind::WitnessBlock, InventoryKind::Block, |block| {
                    *block.as_bytes()
                })
            }
            Want::Transactions(ids) => {
                if !self.transactions.add(&ids) {
                    return Err(Unsupported);
                }
                self.inventory(&ids, InventoryKind::WitnessTx, InventoryKind::Tx, |id| *id.as_bytes())
            }
            Want::Offer { id, bytes } => {
                let transaction = Transaction::new(bytes).map_err(|_| Unsupported)?;
                self.offers.add(id, transaction);
                Message::Inv(vec![Inventory { kind: InventoryKind::Tx, hash: *id.as_bytes() }])
            }
            Want::FilterHashes { start, count, stop } => self.filters.ask_for_hashes(start, count, stop)?,
            Want::Filters { start, blocks } => self.filters.ask(start, &blocks)?,
            Want::Addresses => Message::GetAddr,
        };
        out.messages.push(message);
        Ok(())
    }

    fn send(&mut self, message: Message, out: &mut Outbox<Message>) {
        self.note(&message);
        out.messages.push(message);
    }

    fn ping(&mut self, nonce: u64, out: &mut Outbox<Message>) {
        out.messages.push(Message::Ping(nonce));
    }

    fn overdue(&self) -> DisconnectReason {
        match &self.state {
            State::AwaitProof { block, has_read: true, .. } => Violation::WrongChain { block: *block }.into(),
            _ => DisconnectReason::HandshakeTimedOut,
        }
    }

    fn cost(&self, message: &Message) -> u32 {
        let serves = self.options.services != 0;
        match message {
            Message::Version(_)
            | Message::Verack
            | Message::Inv(_)
            | Message::MerkleBlock(_)
            | Message::CFilter(_)
            | Message::CFHeaders(_)
            | Message::CFCheckpt(_)
            | Message::Protoconf(_) => 0,
            Message::Headers(headers) => u32::from(headers.is_empty()),
            Message::Tx(_) if self.options.relay_transactions => 0,
            Message::Tx(transaction) if self.transactions.contains(&transaction.txid()) => 0,
            Message::NotFound(entries) if self.has_asked(entries) => 0,
            Message::GetData(entries) if self.has_offered(entries) => 0,
            Message::GetData(_) | Message::GetHeaders(_) | Message::GetBlocks(_) if serves => 0,
            Message::Addr(entries) => 1 + entries.len() as u32 / 10,
            Message::AddrV2(entries) => 1 + entries.len() as u32 / 10,
            Message::CmpctBlock(_) | Message::BlockTxn(_) => 10,
            _ => 1,
        }
    }

    fn answers(request: &Message, reply: &Message) -> bool {
        answers(request, reply)
    }

    fn name(message: &Message) -> &'static str {
        let command = message.command();
        Message::COMMANDS.iter().find(|name| **name == command.as_str()).copied().unwrap_or("other")
    }
}

fn rejection(reject: &Reject) -> Rejection {
    let of = |message: &str| reject.hash.filter(|_| reject.message == *message);
    Rejection {
        transaction: of("tx").map(Txid::from_bytes),
        block: of("block").map(BlockHash::from_bytes),
        code: reject.code.0,
        reason: reject.reason.to_string(),
    }
}

fn blocks(entries: &[Inventory]) -> Vec<BlockHash> {
    entries
        .iter()
        .filter(|entry| matches!(entry.kind, InventoryKind::Block | InventoryKind::WitnessBlock))
        .map(|entry| BlockHash::from_bytes(entry.hash))
        .collect()
}

fn transactions(entries: &[Inventory]) -> Vec<Txid> {
    entries
        .iter()
        .filter(|entry| matches!(entry.kind, InventoryKind::Tx | InventoryKind::WitnessTx))
        .map(|entry| Txid::from_bytes(entry.hash))
        .collect()
}
