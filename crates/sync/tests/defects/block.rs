//! Blocks in the shape of Bitcoin's, whose time is their height or slot, and whose difficulty tells whether they are valid.

use bytes::Bytes;
use tipward_sync::peer::wire::sha256d;

use super::*;

/// How long a header is.
pub(crate) const HEADER: usize = 80;
/// The version of a block that names a second parent.
const MERGE: u32 = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SimBlock {
    pub(crate) hash: BlockHash,
    pub(crate) parent: BlockHash,
    /// Its height, or its slot.
    pub(crate) index: u64,
    /// All of it, or the start of one that goes on with zeros.
    pub(crate) bytes: Bytes,
    pub(crate) size: u64,
}

impl SimBlock {
    /// A block of its own for every `salt`.
    pub(crate) fn new(parent: BlockHash, index: u64, salt: u32) -> Self {
        Self::made(1, parent, index, salt, true, &transaction(&[index as u8; 30]))
    }

    pub(crate) fn invalid(parent: BlockHash, index: u64, salt: u32) -> Self {
        Self::made(1, parent, index, salt, false, &transaction(&[index as u8; 30]))
    }

    /// A block with two parents.
    pub(crate) fn merging(parents: [BlockHash; 2], index: u64) -> Self {
        Self::made(MERGE, parents[0], index, 0, true, parents[1].as_bytes())
    }

    fn made(
        version: u32,
        parent: BlockHash,
        index: u64,
        salt: u32,
        is_valid: bool,
        transaction: &[u8],
    ) -> Self {
        let mut bytes = version.to_le_bytes().to_vec();
        bytes.extend(parent.as_bytes());
        bytes.extend(sha256d(transaction));
        bytes.extend(u32::try_from(index).unwrap().to_le_bytes());
        bytes.extend(u32::from(is_valid).to_le_bytes());
        bytes.extend(salt.to_le_bytes());
        let hash = BlockHash::from_bytes(sha256d(&bytes));
        bytes.push(1);
        bytes.extend(transaction);
        let size = bytes.len() as u64;
        Self { hash, parent, index, bytes: bytes.into(), size }
    }

    pub(crate) fn header(&self) -> Header {
        Header { hash: self.hash, parent: self.parent, raw: self.bytes.slice(..HEADER) }
    }
}

/// What a header says: its index, and whether it is valid.
pub(crate) fn read(raw: &[u8]) -> Option<(u64, bool)> {
    let number = |at: usize| Some(u32::from_le_bytes(raw.get(at..at + 4)?.try_into().ok()?));
    Some((u64::from(number(68)?), number(72)? == 1))
}

/// The parents of a block, of which this is the start.
pub(crate) fn parents(start: &[u8]) -> Option<Vec<BlockHash>> {
    let hash = |at: usize| Some(BlockHash::from_bytes(start.get(at..at + 32)?.try_into().ok()?));
    let mut parents = vec![hash(4)?];
    if start[..4] == MERGE.to_le_bytes() {
        parents.push(hash(HEADER + 1)?);
    }
    Some(parents)
}

/// A coinbase.
fn transaction(script: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1, 0, 0, 0, 1];
    bytes.extend([0; 32]);
    bytes.extend([255; 4]);
    bytes.push(script.len() as u8);
    bytes.extend(script);
    bytes.extend([255, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes
}

/// Blocks up to this height.
pub(crate) fn chain(height: u64) -> Vec<SimBlock> {
    branch(&[SimBlock::new(BlockHash::ZERO, 0, 0)], 0, 1, height)
}

/// A chain that is `of` up to height `fork`, and then another, up to `height`.
pub(crate) fn branch(of: &[SimBlock], fork: usize, salt: u32, height: u64) -> Vec<SimBlock> {
    slots(of, fork, salt, fork as u64 + 1..=height)
}

/// A chain that is `of` up to its block number `fork`, and then has blocks in these slots.
pub(crate) fn slots(
    of: &[SimBlock],
    fork: usize,
    salt: u32,
    indexes: impl IntoIterator<Item = u64>,
) -> Vec<SimBlock> {
    let mut chain = of[..=fork].to_vec();
    for index in indexes {
        let parent = chain.last().unwrap().hash;
        chain.push(SimBlock::new(parent, index, salt));
    }
    chain
}
