//! The 80-byte block header.

use bytes::Bytes;

use super::{CompactTarget, Target, Work};
use crate::{BlockHash, Header, sha256d};

/// A Bitcoin block header, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHeader {
    /// Version and soft-fork signals (BIP 9).
    pub version: i32,
    /// The hash of the block before.
    pub parent: BlockHash,
    /// The merkle root of the transactions, in the order in which it travels.
    pub merkle_root: [u8; 32],
    /// The miner's time, in seconds since 1970 (UTC).
    pub time: u32,
    /// The target that the hash must not exceed.
    pub bits: CompactTarget,
    /// What the miner varied to meet the target.
    pub nonce: u32,
}

impl BlockHeader {
    /// The size of a header in bytes.
    pub const SIZE: usize = 80;

    /// Decodes a header; any 80 bytes are one.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let hash_at = |at: usize| {
            let mut hash = [0; 32];
            hash.copy_from_slice(&bytes[at..at + 32]);
            hash
        };
        Self {
            version: u32_at(0) as i32,
            parent: BlockHash::from_bytes(hash_at(4)),
            merkle_root: hash_at(36),
            time: u32_at(68),
            bits: CompactTarget(u32_at(72)),
            nonce: u32_at(76),
        }
    }

    /// The header as it travels.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&self.version.to_le_bytes());
        bytes[4..36].copy_from_slice(self.parent.as_bytes());
        bytes[36..68].copy_from_slice(&self.merkle_root);
        bytes[68..72].copy_from_slice(&self.time.to_le_bytes());
        bytes[72..76].copy_from_slice(&self.bits.0.to_le_bytes());
        bytes[76..].copy_from_slice(&self.nonce.to_le_bytes());
        bytes
    }

    /// The block's hash: SHA-256d of the header.
    #[must_use]
    pub fn hash(&self) -> BlockHash {
        BlockHash::from_bytes(sha256d(&self.to_bytes()))
    }

    /// Whether the hash meets the target that the header claims, and that target is no easier than `limit`.
    #[must_use]
    pub fn meets_target(&self, limit: CompactTarget) -> bool {
        match (self.bits.to_target(), limit.to_target()) {
            (Some(target), Some(limit)) => target <= limit && target.is_met_by(self.hash()),
            _ => false,
        }
    }

    /// The work that the claimed target stands for; zero for a target that can't be met.
    #[must_use]
    pub fn work(&self) -> Work {
        self.bits.to_target().map_or(Work::ZERO, Target::work)
    }
}

impl From<BlockHeader> for Header {
    fn from(header: BlockHeader) -> Self {
        let raw = header.to_bytes();
        Self {
            hash: BlockHash::from_bytes(sha256d(&raw)),
            parent: header.parent,
            raw: Bytes::copy_from_slice(&raw),
        }
    }
}
