//! Compact blocks. Source: BIP 152.

use bitcoin_hashes::{sha256, siphash24};
use bytes::{BufMut, Bytes, BytesMut};
use nom::number::complete::le_u64;

use super::{
    SMALL,
    fields::{
        Parsed, Payload, array, block_hash, compact_size, fail, field, flag, header, list, put_flag,
        put_list, transaction,
    },
};
use crate::{
    BlockHash,
    bitcoin::{BlockHeader, Transaction, encode_compact_size},
};

/// The least that a transaction takes, in bytes: one without inputs and outputs.
const MIN_TRANSACTION: usize = 10;

/// The `sendcmpct` message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendCompact {
    /// Whether blocks are to be announced by `cmpctblock`.
    pub announce: bool,
    /// The version of compact blocks: 2 on BTC, with witnesses and short ids of wtxids; 1 on BSV.
    pub version: u64,
}

impl Payload for SendCompact {
    const LIMIT: Option<u64> = Some(SMALL);

    fn parse<'a>(input: &'a [u8], _payload: &Bytes) -> Parsed<'a, Self> {
        let (input, announce) = field("announce", input, flag)?;
        let (input, version) = field("version", input, le_u64)?;
        Ok((input, Self { announce, version }))
    }

    fn serialize(&self, output: &mut BytesMut) {
        put_flag(self.announce, output);
        output.put_u64_le(self.version);
    }
}

/// The first six bytes of the keyed hash of a transaction's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortId(pub [u8; 6]);

/// Computes the short ids of one compact block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShortIds {
    keys: (u64, u64),
}

impl ShortIds {
    /// The keys of a block: from SHA-256 of its header and the compact block's nonce.
    #[must_use]
    pub fn new(header: &BlockHeader, nonce: u64) -> Self {
        let mut keyed = [0; 88];
        keyed[..80].copy_from_slice(&header.to_bytes());
        keyed[80..].copy_from_slice(&nonce.to_le_bytes());
        let hash = sha256::hash(&keyed).to_byte_array();
        let key = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&hash[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        Self { keys: (key(0), key(8)) }
    }

    /// The short id of a transaction by its wtxid (version 2) or txid (version 1), in the order in which it travels.
    #[must_use]
    pub fn of(&self, id: &[u8; 32]) -> ShortId {
        let hash = siphash24::Hash::hash_with_keys(self.keys.0, self.keys.1, id).to_byte_array();
        let mut short = [0; 6];
        short.copy_from_slice(&hash[..6]);
        ShortId(short)
    }
}

/// The `cmpctblock` message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactBlock {
    /// The block's header.
    pub header: BlockHeader,
    /// What the short ids are keyed with, beside the header.
    pub nonce: u64,
    /// The short ids of the transactions that are not prefilled, in the order of the block.
    pub short_ids: Vec<ShortId>,
    /// Transactions sent along, the coinbase at least, by ascending position.
    pub prefilled: Vec<PrefilledTransaction>,
}

/// A transaction sent along with a compact block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefilledTransaction {
    /// Its position in the block, from 0, below the number of short ids and prefilled transactions together. Positions that
    /// do not ascend can't be told, and come out as others.
    pub index: u32,
    /// The transaction.
    pub transaction: Transaction,
}

impl Payload for CompactBlock {
    const LIMIT: Option<u64> = None;

    fn parse<'a>(input: &'a [u8], payload: &Bytes) -> Parsed<'a, Self> {
        let (input, header) = field("header", input, header)?;
        let (input, nonce) = field("nonce", input, le_u64)?;
        let (input, short_ids) = list("short_ids", input, usize::MAX, 6, |input| {
            array(input).map(|(input, id)| (input, ShortId(id)))
        })?;
        let (start, mut next) = (input, 0);
        let (input, prefilled) = list("prefilled", start, usize::MAX, 1 + MIN_TRANSACTION, |input| {
            let (input, index) = differential(input, &mut next)?;
            let (input, transaction) = transaction(input, payload)?;
            Ok((input, PrefilledTransaction { index, transaction }))
        })?;
        let transactions = (short_ids.len() + prefilled.len()) as u64;
        if prefilled.last().is_some_and(|last: &PrefilledTransaction| u64::from(last.index) >= transactions) {
            return fail(start, "prefilled", "a position beyond the block's end");
        }
        Ok((input, Self { header, nonce, short_ids, prefilled }))
    }

    fn serialize(&self, output: &mut BytesMut) {
        output.put_slice(&self.header.to_bytes());
        output.put_u64_le(self.nonce);
        put_list(&self.short_ids, output, |id, output| output.put_slice(&id.0));
        let mut next = 0;
        put_list(&self.prefilled, output, |prefilled, output| {
            put_differential(prefilled.index, &mut next, output);
            output.put_slice(prefilled.transaction.as_bytes());
        });
    }
}

/// The `getblocktxn` message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactBlockRequest {
    /// The block.
    pub block: BlockHash,
    /// The positions of the transactions wanted, from 0, ascending, each once; so they are sent, whatever stands here.
    pub indexes: Vec<u32>,
}

impl Payload for CompactBlockRequest {
    const LIMIT: Option<u64> = None;

    fn parse<'a>(input: &'a [u8], _payload: &Bytes) -> Parsed<'a, Self> {
        let (input, block) = field("blockhash", input, block_hash)?;
        let mut next = 0;
        let (input, indexes) = list("indexes", input, usize::MAX, 1, |input| differential(input, &mut next))?;
        Ok((input, Self { block, indexes }))
    }

    fn serialize(&self, output: &mut BytesMut) {
        output.put_slice(self.block.as_bytes());
        // Distances can only be told of ascending positions.
        let mut indexes = self.indexes.clone();
        indexes.sort_unstable();
        indexes.dedup();
        let mut next = 0;
        put_list(&indexes, output, |&index, output| put_differential(index, &mut next, output));
    }
}

/// The `blocktxn` message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockTransactions {
    /// The block.
    pub block: BlockHash,
    /// The transactions, in the order of the request.
    pub transactions: Vec<Transaction>,
}

impl Payload for BlockTransactions {
    const LIMIT: Option<u64> = None;

    fn parse<'a>(input: &'a [u8], payload: &Bytes) -> Parsed<'a, Self> {
        let (input, block) = field("blockhash", input, block_hash)?;
        let (input, transactions) =
            list("transactions", input, usize::MAX, MIN_TRANSACTION, |input| transaction(input, payload))?;
        Ok((input, Self { block, transactions }))
    }

    fn serialize(&self, output: &mut BytesMut) {
        output.put_slice(self.block.as_bytes());
        put_list(&self.transactions, output, |transaction, output| output.put_slice(transaction.as_bytes()));
    }
}

/// A position, sent as its distance from the one that would come next.
fn differential<'a>(input: &'a [u8], next: &mut u64) -> Parsed<'a, u32> {
    let (rest, distance) = compact_size(input)?;
    match next.checked_add(distance).and_then(|index| u32::try_from(index).ok()) {
        Some(index) => {
            *next = u64::from(index) + 1;
            Ok((rest, index))
        }
        None => fail(input, "index", "beyond 32 bits"),
    }
}

fn put_differential(index: u32, next: &mut u64, output: &mut BytesMut) {
    encode_compact_size(u64::from(index).saturating_sub(*next), output);
    *next = u64::from(index) + 1;
}
