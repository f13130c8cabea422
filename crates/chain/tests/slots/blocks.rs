//! Blocks whose bytes say what they are, and the rules for them.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tipward_chain::{
    density::{LedgerError, SlotBlock, SlotRules},
    sync::{
        Block, BlockHead, BlockId,
        peer::wire::{BlockHash, BlockPart, DownloadId, Header},
    },
};

/// The header: parent, slot, salt, and what is wrong with it.
const HEADER: usize = 49;
/// How many bytes a block has.
pub(crate) const SIZE: usize = 500;

/// What is wrong with a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    Nothing,
    /// It breaks a rule by itself.
    Alone,
    /// It breaks a rule as the child of its parent.
    OnParent,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SimBlock {
    pub(crate) hash: BlockHash,
    pub(crate) parent: BlockHash,
    pub(crate) slot: u64,
    pub(crate) bytes: Bytes,
}

impl SimBlock {
    /// A block of its own for every `salt`.
    pub(crate) fn new(parent: BlockHash, slot: u64, salt: u64, flaw: Flaw) -> Self {
        let mut bytes = Vec::with_capacity(SIZE);
        bytes.extend_from_slice(parent.as_bytes());
        bytes.extend_from_slice(&slot.to_le_bytes());
        bytes.extend_from_slice(&salt.to_le_bytes());
        bytes.push(flaw as u8);
        let hash = hash_of(&bytes);
        bytes.resize(SIZE, 7);
        Self { hash, parent, slot, bytes: bytes.into() }
    }

    pub(crate) fn header(&self) -> Header {
        Header { hash: self.hash, parent: self.parent, raw: self.bytes.slice(..HEADER) }
    }

    pub(crate) fn flaw(&self) -> Flaw {
        flaw(&self.bytes)
    }

    pub(crate) fn part(&self, download: u64) -> BlockPart {
        BlockPart {
            block: self.hash,
            download: DownloadId(download),
            block_size: SIZE as u64,
            index: 0,
            offset: 0,
            first_transaction: 0,
            transactions: vec![49],
            bytes: self.bytes.clone(),
            ends_inside_transaction: false,
        }
    }
}

fn hash_of(header: &[u8]) -> BlockHash {
    let mut hash = [0; 32];
    for (n, chunk) in hash.chunks_mut(8).enumerate() {
        let mut hasher = DefaultHasher::new();
        (n, header).hash(&mut hasher);
        chunk.copy_from_slice(&hasher.finish().to_le_bytes());
    }
    BlockHash::from_bytes(hash)
}

fn slot(header: &[u8]) -> u64 {
    header[32..40].try_into().map_or(0, u64::from_le_bytes)
}

fn flaw(header: &[u8]) -> Flaw {
    match header[48] {
        0 => Flaw::Nothing,
        1 => Flaw::Alone,
        _ => Flaw::OnParent,
    }
}

/// Genesis alone.
pub(crate) fn genesis() -> Vec<SimBlock> {
    vec![SimBlock::new(BlockHash::ZERO, 0, 0, Flaw::Nothing)]
}

/// A chain that is `of` up to height `fork`, and then has blocks in these slots.
pub(crate) fn branch(
    of: &[SimBlock],
    fork: usize,
    salt: u64,
    slots: impl IntoIterator<Item = u64>,
) -> Vec<SimBlock> {
    flawed(of, fork, salt, slots, |_| Flaw::Nothing)
}

/// The same, with something wrong in some slots.
pub(crate) fn flawed(
    of: &[SimBlock],
    fork: usize,
    salt: u64,
    slots: impl IntoIterator<Item = u64>,
    flaw: impl Fn(u64) -> Flaw,
) -> Vec<SimBlock> {
    let mut chain = of[..=fork].to_vec();
    for slot in slots {
        let parent = chain[chain.len() - 1].hash;
        chain.push(SimBlock::new(parent, slot, salt, flaw(slot)));
    }
    chain
}

/// As a sink gets it.
pub(crate) fn block(of: &SimBlock, height: u64) -> Block {
    Block {
        id: BlockId { height, hash: of.hash },
        parts: vec![of.part(0)],
        transactions: 1,
        size: SIZE as u64,
        served_by: None,
        is_streamed: false,
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a rule is broken")]
struct Broken;

/// The ledger.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    /// What is valid, in the order in which it was found to be: what a program would keep.
    pub(crate) valid: Arc<Mutex<Vec<Header>>>,
    pub(crate) stays_bootstrapping: bool,
    /// The slot of the present time; 0 for no end.
    pub(crate) present: Arc<AtomicU64>,
}

impl SlotRules for Rules {
    fn read_head(&self, start: &[u8]) -> Option<BlockHead> {
        let raw = start.get(..HEADER)?;
        let parent = BlockHash::from_bytes(raw[..32].try_into().ok()?);
        let header = Header { hash: hash_of(raw), parent, raw: Bytes::copy_from_slice(raw) };
        Some(BlockHead { header, parents: vec![parent], index: Some(slot(raw)) })
    }

    fn read(&self, header: &Header) -> Result<u64, LedgerError> {
        if flaw(&header.raw) == Flaw::Alone { Err(Broken.into()) } else { Ok(slot(&header.raw)) }
    }

    fn check(&mut self, header: &Header, _: u64, _: &SlotBlock) -> Result<(), LedgerError> {
        if flaw(&header.raw) == Flaw::OnParent {
            return Err(Broken.into());
        }
        self.valid.lock().expect("nobody panics with it").push(header.clone());
        Ok(())
    }

    fn present(&self) -> u64 {
        match self.present.load(Ordering::Relaxed) {
            0 => u64::MAX,
            slot => slot,
        }
    }

    fn may_be_online(&self) -> bool {
        !self.stays_bootstrapping
    }
}
