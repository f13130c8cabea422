//! Inventories, locators and headers. Sources: BIP 130 (headers), BIP 144 (witness flag), BIP 152 (compact block), BIP 339
//! (wtxid); BSV's `net_processing.cpp` for type 5 there.

use bytes::{BufMut, Bytes, BytesMut};
use nom::number::complete::le_u32;

use super::fields::{
    Parsed, Payload, array, block_hash, compact_size, field, header, list, put_list, transaction,
};
use crate::{
    BlockHash,
    bitcoin::{BlockHeader, Transaction},
};

/// The most headers in one `headers` message.
pub const MAX_HEADERS: usize = 2000;
/// The most entries in one `inv`, `getdata` or `notfound` message.
pub const MAX_INVENTORY: usize = 50_000;
/// The most hashes in one block locator; nodes disconnect who sends more.
pub const MAX_LOCATOR: usize = 101;

/// A block locator: hashes from a tip back to genesis, at growing distances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locator {
    /// The sender's protocol version; nodes ignore it.
    pub protocol: u32,
    /// Known hashes, highest first, at most [`MAX_LOCATOR`].
    pub hashes: Vec<BlockHash>,
    /// The last hash wanted; [`BlockHash::ZERO`] for as many as fit.
    pub stop: BlockHash,
}

impl Locator {
    /// The heights that a locator names for a chain with its tip at `tip`: the twelve highest, then at distances that
    /// double, and genesis at last, as Bitcoin Core does. At most 76.
    ///
    /// ```
    /// let heights: Vec<u64> = tipward_wire::bitcoin::Locator::heights(100).collect();
    /// assert_eq!(heights, [100, 99, 98, 97, 96, 95, 94, 93, 92, 91, 90, 89, 87, 83, 75, 59, 27, 0]);
    /// ```
    pub fn heights(tip: u64) -> impl Iterator<Item = u64> {
        let (mut next, mut step, mut count) = (Some(tip), 1u64, 0);
        std::iter::from_fn(move || {
            let height = next?;
            next = (height > 0).then(|| height.saturating_sub(step));
            count += 1;
            if count > 10 {
                step = step.saturating_mul(2);
            }
            Some(height)
        })
    }
}

impl Payload for Locator {
    const LIMIT: Option<u64> = Some(4 + 9 + 32 * (MAX_LOCATOR as u64 + 1));

    fn parse<'a>(input: &'a [u8], _payload: &Bytes) -> Parsed<'a, Self> {
        let (input, protocol) = field("version", input, le_u32)?;
        let (input, hashes) = list("hashes", input, MAX_LOCATOR, 32, block_hash)?;
        let (input, stop) = field("hash_stop", input, block_hash)?;
        Ok((input, Self { protocol, hashes, stop }))
    }

    fn serialize(&self, output: &mut BytesMut) {
        output.put_u32_le(self.protocol);
        put_list(&self.hashes, output, |hash, output| output.put_slice(hash.as_bytes()));
        output.put_slice(self.stop.as_bytes());
    }
}

/// One entry of an inventory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inventory {
    /// What kind of object.
    pub kind: InventoryKind,
    /// The object's hash, in the order in which it travels.
    pub hash: [u8; 32],
}

impl Inventory {
    /// A block.
    #[must_use]
    pub const fn block(kind: InventoryKind, hash: BlockHash) -> Self {
        Self { kind, hash: *hash.as_bytes() }
    }
}

/// The kind of an inventory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InventoryKind {
    /// A transaction by its txid.
    Tx,
    /// A block. Of a BTC node: without its witnesses.
    Block,
    /// A block to be sent as `merkleblock` (BIP 37); asked for, never announced.
    FilteredBlock,
    /// A block to be sent as `cmpctblock` (BIP 152); asked for, never announced.
    CompactBlock,
    /// A transaction by its wtxid (BIP 339). On BSV the same number is [`InventoryKind::DATA_REF_TX`].
    Wtx,
    /// A transaction with its witnesses, by its txid (BIP 144); asked for, never announced.
    WitnessTx,
    /// A block with its witnesses (BIP 144); asked for, never announced.
    WitnessBlock,
    /// A filtered block with witnesses (BIP 144); no node serves it.
    WitnessFilteredBlock,
    /// Any other kind, kept as it came. Not to be made for a number that has a name: the two are not equal.
    Other(u32),
}

impl InventoryKind {
    /// A transaction that a miner info document refers to (BSV); its number is that of [`InventoryKind::Wtx`].
    pub const DATA_REF_TX: Self = Self::Wtx;

    const KINDS: [(u32, Self); 8] = [
        (1, Self::Tx),
        (2, Self::Block),
        (3, Self::FilteredBlock),
        (4, Self::CompactBlock),
        (5, Self::Wtx),
        (0x4000_0001, Self::WitnessTx),
        (0x4000_0002, Self::WitnessBlock),
        (0x4000_0003, Self::WitnessFilteredBlock),
    ];

    /// The kind of a number.
    #[must_use]
    pub fn from_u32(number: u32) -> Self {
        let known = Self::KINDS.iter().find(|(known, _)| *known == number);
        known.map_or(Self::Other(number), |(_, kind)| *kind)
    }

    /// The number under which the kind travels.
    #[must_use]
    pub fn to_u32(self) -> u32 {
        match self {
            Self::Other(number) => number,
            _ => Self::KINDS.iter().find(|(_, known)| *known == self).map_or(0, |(number, _)| *number),
        }
    }
}

impl Payload for Vec<Inventory> {
    const LIMIT: Option<u64> = Some(9 + 36 * MAX_INVENTORY as u64);

    fn parse<'a>(input: &'a [u8], _payload: &Bytes) -> Parsed<'a, Self> {
        list("inventory", input, MAX_INVENTORY, 36, |input| {
            let (input, kind) = le_u32(input)?;
            let (input, hash) = array(input)?;
            Ok((input, Inventory { kind: InventoryKind::from_u32(kind), hash }))
        })
    }

    fn serialize(&self, output: &mut BytesMut) {
        put_list(self, output, |entry, output| {
            output.put_u32_le(entry.kind.to_u32());
            output.put_slice(&entry.hash);
        });
    }
}

impl Payload for Vec<BlockHeader> {
    const LIMIT: Option<u64> = Some(9 + 89 * MAX_HEADERS as u64);

    fn parse<'a>(input: &'a [u8], _payload: &Bytes) -> Parsed<'a, Self> {
        list("headers", input, MAX_HEADERS, 81, |input| {
            let (input, header) = header(input)?;
            // The number of transactions that follow: none, and nodes ignore what stands there.
            let (input, _transactions) = compact_size(input)?;
            Ok((input, header))
        })
    }

    fn serialize(&self, output: &mut BytesMut) {
        put_list(self, output, |header, output| {
            output.put_slice(&header.to_bytes());
            output.put_u8(0);
        });
    }
}

impl Payload for Transaction {
    const LIMIT: Option<u64> = None;

    fn parse<'a>(input: &'a [u8], payload: &Bytes) -> Parsed<'a, Self> {
        transaction(input, payload)
    }

    fn serialize(&self, output: &mut BytesMut) {
        output.put_slice(self.as_bytes());
    }
}
