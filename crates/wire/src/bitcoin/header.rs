//! The 80-byte block header.

use bytes::{Bytes, BytesMut};

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
        self.bits.to_target_within(limit).is_some_and(|target| target.is_met_by(self.hash()))
    }

    /// The work that the claimed target stands for; zero for a target that can't be met.
    #[must_use]
    pub fn work(&self) -> Work {
        self.bits.to_target().map_or(Work::ZERO, Target::work)
    }
}

/// Checks that each header is the child of the one before, the first of `parent`, and that each hash meets the target that
/// its header claims, which is no easier than `limit`. Returns the hashes.
///
/// This is what can be said of headers without knowing their chain; whether a target is the one that the difficulty rules
/// give is not checked.
///
/// # Errors
/// [`HeaderRunError`] names the first header that fails, by its position.
pub fn check_headers(
    parent: BlockHash,
    headers: &[BlockHeader],
    limit: CompactTarget,
) -> Result<Vec<BlockHash>, HeaderRunError> {
    let (mut parent, mut hashes) = (parent, Vec::with_capacity(headers.len()));
    // Most headers claim the target of the one before.
    let mut known: Option<(CompactTarget, Target)> = None;
    for (index, header) in headers.iter().enumerate() {
        if header.parent != parent {
            return Err(HeaderRunError::Unlinked { index });
        }
        let target = match known {
            Some((bits, target)) if bits == header.bits => target,
            _ => {
                let target = header.bits.to_target_within(limit);
                target.ok_or(HeaderRunError::Target { index, bits: header.bits })?
            }
        };
        known = Some((header.bits, target));
        parent = header.hash();
        if !target.is_met_by(parent) {
            return Err(HeaderRunError::Work { index, bits: header.bits });
        }
        hashes.push(parent);
    }
    Ok(hashes)
}

/// Why a run of headers is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderRunError {
    /// A header does not name the one before it as its parent.
    #[error("header {index} does not follow the one before it")]
    Unlinked {
        /// The header's position, from 0.
        index: usize,
    },
    /// A target can't be met or is easier than the limit.
    #[error("header {index} claims the target {bits}, which the network does not allow")]
    Target {
        /// The header's position, from 0.
        index: usize,
        /// The target that it claims.
        bits: CompactTarget,
    },
    /// A hash does not meet the target that its header claims.
    #[error("header {index} lacks proof of work for its target {bits}")]
    Work {
        /// The header's position, from 0.
        index: usize,
        /// The target that it claims.
        bits: CompactTarget,
    },
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

/// The headers with their hashes. Their bytes share one buffer, which is cheaper than one for each, and lives as long as any
/// of them.
#[must_use]
pub fn to_headers(headers: &[BlockHeader]) -> Vec<Header> {
    let mut raw = BytesMut::with_capacity(headers.len() * BlockHeader::SIZE);
    headers.iter().for_each(|header| raw.extend_from_slice(&header.to_bytes()));
    let mut raw = raw.freeze();
    let with_hash = |header: &BlockHeader| {
        let raw = raw.split_to(BlockHeader::SIZE);
        Header { hash: BlockHash::from_bytes(sha256d(&raw)), parent: header.parent, raw }
    };
    headers.iter().map(with_hash).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bitcoin::Network, testdata};

    fn read(name: &str) -> Option<Vec<BlockHeader>> {
        let file = testdata::read(name)?;
        Some(file.as_chunks().0.iter().map(BlockHeader::from_bytes).collect())
    }

    #[test]
    fn real_runs_are_linked_and_have_their_work() {
        for (name, limit) in [
            ("btc-mainnet-headers-0-10236.bin", Network::BTC.pow_limit),
            ("btc-mainnet-headers-822528-830592.bin", Network::BTC.pow_limit),
            ("bsv-mainnet-headers-886001-888000.bin", Network::BSV.pow_limit),
            ("btc-signet-headers-0-2015.bin", Network::BTC_SIGNET.pow_limit),
        ] {
            let Some(headers) = read(name) else { return };
            let hashes = check_headers(headers[0].parent, &headers, limit).unwrap();
            assert!(hashes.iter().eq(headers.iter().map(BlockHeader::hash).collect::<Vec<_>>().iter()));
        }
    }

    #[test]
    fn the_first_header_that_fails_is_named() {
        let genesis = Network::BTC.genesis();
        let limit = Network::BTC.pow_limit;
        let check = |headers: &[BlockHeader]| check_headers(BlockHash::ZERO, headers, limit).unwrap_err();
        assert_eq!(check(&[genesis, genesis]), HeaderRunError::Unlinked { index: 1 });
        let next = BlockHeader { parent: genesis.hash(), ..genesis };
        assert_eq!(check(&[genesis, next]), HeaderRunError::Work { index: 1, bits: genesis.bits });
        for bits in [CompactTarget(0x1d01_0000), CompactTarget(0), CompactTarget(0x207f_ffff)] {
            let easy = BlockHeader { bits, ..next };
            assert_eq!(check(&[genesis, easy]), HeaderRunError::Target { index: 1, bits });
        }
    }
}
