//! Partial merkle trees (BIP 37): proofs that transactions are in a block, as in `merkleblock` and in Bitcoin
//! Core's `gettxoutproof`. The checks are those of its `CPartialMerkleTree::ExtractMatches`, but
//! for the limit on the number of transactions, which BSV's blocks have not.

use std::convert::Infallible;

use super::{MerkleBuilder, merkle::pair};
use crate::Txid;

#[cfg(test)]
mod tests;

/// The parts of a block's merkle tree that lead from some transactions to the root.
///
/// The nodes on the way are told depth first, from the root, by one flag each: whether a matched transaction
/// is at or below it. Nodes where none is and matched transactions themselves also have a hash.
///
/// ```
/// use tipward_wire::{Txid, bitcoin::PartialMerkleTree};
///
/// let txids = [1, 2, 3].map(|n| Txid::from_bytes([n; 32]));
/// let tree = PartialMerkleTree::build(&txids, |index| index == 2).expect("there are transactions");
/// let proven = tree.verify()?;
/// assert_eq!(proven.matches, [(2, txids[2])]);
/// // `proven.root` is to be compared with the merkle root of a header with enough work.
/// # Ok::<(), tipward_wire::bitcoin::PartialMerkleError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialMerkleTree {
    /// How many transactions the block has.
    pub transactions: u32,
    /// The hashes as they travel, in the nodes' order.
    pub hashes: Vec<[u8; 32]>,
    /// One bit per node, from the least significant one of each byte on.
    pub flags: Vec<u8>,
}

/// What a partial merkle tree proves, if the block's header has this root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MerkleMatches {
    /// The merkle root that the tree leads to.
    pub root: [u8; 32],
    /// The matched transactions in ascending order, by their index in the block.
    pub matches: Vec<(u32, Txid)>,
}

impl PartialMerkleTree {
    /// The tree for the transactions of a block for which `matched`, called with each index in ascending
    /// order, is true. `txids` are all of the block's. `None` if there are none or more than 2^32 - 1.
    #[must_use]
    pub fn build(txids: &[Txid], mut matched: impl FnMut(usize) -> bool) -> Option<Self> {
        let transactions = u32::try_from(txids.len()).ok()?;
        let matched: Vec<u32> = (0..transactions).filter(|index| matched(*index as usize)).collect();
        let txids = txids.iter().map(|txid| Ok::<_, Infallible>(*txid));
        Self::from_stream(transactions, &matched, txids).unwrap_or_else(|never| match never {})
    }

    /// The tree for the transactions with these indices, which ascend, of a block with so many transactions. `txids` yields
    /// the ids of all, in order. Memory is needed for the tree and one hash per level.
    ///
    /// `None` if there are no transactions, not so many, or an index is out of order or range.
    ///
    /// # Errors
    /// The first that `txids` yields.
    pub fn from_stream<E>(
        transactions: u32,
        matched: &[u32],
        txids: impl IntoIterator<Item = Result<Txid, E>>,
    ) -> Result<Option<Self>, E> {
        let is_in_order = matched.is_sorted_by(|one, next| one < next);
        if transactions == 0 || !is_in_order || matched.last().is_some_and(|last| *last >= transactions) {
            return Ok(None);
        }
        let (hashes, flags) = (Vec::new(), Vec::new());
        let mut builder = Builder { transactions, txids: txids.into_iter(), hashes, flags, len: 0 };
        let is_whole = builder.add(0, matched, height(transactions))?.is_some();
        let Builder { mut txids, hashes, flags, .. } = builder;
        let is_end = txids.next().transpose()?.is_none();
        Ok((is_whole && is_end).then_some(Self { transactions, hashes, flags }))
    }

    /// Computes the merkle root and the matches. The work and memory are in proportion to the flags and
    /// hashes that are there, whatever the number of transactions claimed.
    ///
    /// Nothing is proven unless the root is that of a trusted header. Even then [`Self::transactions`] is
    /// only a claim: at a wrong height an inner node passes for a txid, or a transaction of 64 bytes for an
    /// inner node (CVE-2017-12842). Bitcoin Core's tree has that weakness too; a proof of the block's first
    /// transaction, whole and at the same height, rules it out. As in Bitcoin Core, padding bits may have any
    /// value.
    ///
    /// # Errors
    ///
    /// Any [`PartialMerkleError`].
    pub fn verify(&self) -> Result<MerkleMatches, PartialMerkleError> {
        let (hashes, flags) = (self.hashes.len(), self.flags.len());
        if self.transactions == 0 {
            return Err(PartialMerkleError::NoTransactions);
        }
        if hashes as u64 > u64::from(self.transactions) {
            return Err(PartialMerkleError::TooManyHashes { hashes, transactions: self.transactions });
        }
        if hashes.div_ceil(8) > flags {
            return Err(PartialMerkleError::TooFewFlags { flags, hashes });
        }
        let mut reader = Reader { tree: self, flags: 0, hashes: 0, matches: Vec::new() };
        let root = reader.read(height(self.transactions), 0)?;
        let used = reader.flags.div_ceil(8);
        if used != flags as u64 {
            return Err(PartialMerkleError::UnusedFlags { used, flags });
        }
        if reader.hashes != hashes {
            return Err(PartialMerkleError::UnusedHashes { used: reader.hashes, hashes });
        }
        Ok(MerkleMatches { root, matches: reader.matches })
    }
}

/// Why a partial merkle tree proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PartialMerkleError {
    /// The block is to have no transactions.
    #[error("the merkle tree has no transactions")]
    NoTransactions,
    /// There are more hashes than transactions.
    #[error("the merkle tree has {hashes} hashes for {transactions} transactions")]
    TooManyHashes {
        /// How many hashes there are.
        hashes: usize,
        /// How many transactions are claimed.
        transactions: u32,
    },
    /// There are fewer flags than hashes, of which each needs one.
    #[error("the merkle tree has {flags} bytes of flags for {hashes} hashes")]
    TooFewFlags {
        /// How many bytes of flags there are.
        flags: usize,
        /// How many hashes there are.
        hashes: usize,
    },
    /// The flags end before the tree is complete.
    #[error("the merkle tree needs more than {flags} bytes of flags")]
    FlagsEnd {
        /// How many bytes of flags there are.
        flags: usize,
    },
    /// The hashes end before the tree is complete.
    #[error("the merkle tree needs more than {hashes} hashes")]
    HashesEnd {
        /// How many hashes there are.
        hashes: usize,
    },
    /// Two neighbours are equal, which would let the same transactions appear twice (CVE-2012-2459).
    #[error("node {position} at height {height} of the merkle tree has two equal halves (CVE-2012-2459)")]
    EqualHalves {
        /// The parent's distance from the leaves.
        height: u32,
        /// The parent's index from the left among the nodes of its height.
        position: u32,
    },
    /// Bytes of flags are left over.
    #[error("the merkle tree uses {used} of {flags} bytes of flags")]
    UnusedFlags {
        /// How many bytes the tree uses.
        used: u64,
        /// How many there are.
        flags: usize,
    },
    /// Hashes are left over.
    #[error("the merkle tree uses {used} of {hashes} hashes")]
    UnusedHashes {
        /// How many hashes the tree uses.
        used: usize,
        /// How many there are.
        hashes: usize,
    },
}

/// The height of the tree's root above its leaves, at most 32.
const fn height(transactions: u32) -> u32 {
    u32::BITS - transactions.saturating_sub(1).leading_zeros()
}

struct Builder<I> {
    transactions: u32,
    /// The ids that are not in the tree yet.
    txids: I,
    hashes: Vec<[u8; 32]>,
    flags: Vec<u8>,
    /// How many flags there are, in bits.
    len: usize,
}

impl<E, I: Iterator<Item = Result<Txid, E>>> Builder<I> {
    /// Adds the node at `height` above the leaves from the index `start` on; `matched` are those indices below the node that
    /// match. `None` if there are not as many leaves as there should be.
    fn add(&mut self, start: u32, matched: &[u32], height: u32) -> Result<Option<()>, E> {
        self.add_flag(!matched.is_empty());
        if height == 0 || matched.is_empty() {
            let hash = self.subtree(start, height)?;
            self.hashes.extend(hash);
            return Ok(hash.map(|_| ()));
        }
        let half = start.saturating_add(1 << (height - 1));
        let (left, right) = matched.split_at(matched.partition_point(|index| *index < half));
        if self.add(start, left, height - 1)?.is_none() {
            return Ok(None);
        }
        if half < self.transactions { self.add(half, right, height - 1) } else { Ok(Some(())) }
    }

    /// The hash of the node at `height` above the next leaves.
    fn subtree(&mut self, start: u32, height: u32) -> Result<Option<[u8; 32]>, E> {
        let count = u64::from(self.transactions - start).min(1 << height) as u32;
        let mut leaves = MerkleBuilder::new();
        for _ in 0..count {
            let Some(txid) = self.txids.next().transpose()? else { return Ok(None) };
            leaves.push(txid);
        }
        let (mut hash, _) = leaves.finish();
        // A node without a right half repeats its left one.
        for _ in self::height(count)..height {
            hash = pair(&hash, &hash);
        }
        Ok(Some(hash))
    }

    fn add_flag(&mut self, flag: bool) {
        if self.len.is_multiple_of(8) {
            self.flags.push(0);
        }
        if let Some(last) = self.flags.last_mut() {
            *last |= u8::from(flag) << (self.len % 8);
        }
        self.len += 1;
    }
}

struct Reader<'a> {
    tree: &'a PartialMerkleTree,
    /// How many flags were read, in bits.
    flags: u64,
    /// How many hashes were read.
    hashes: usize,
    matches: Vec<(u32, Txid)>,
}

impl Reader<'_> {
    /// Reads the node at `height` that is the one of index `position` there, and all below it; its hash.
    /// Calls itself to a depth of 32 at most, as the height decreases, and once for each flag.
    fn read(&mut self, height: u32, position: u32) -> Result<[u8; 32], PartialMerkleError> {
        let matched = self.read_flag()?;
        if height == 0 || !matched {
            let hash = self.read_hash()?;
            if matched {
                self.matches.push((position, Txid::from_bytes(hash)));
            }
            return Ok(hash);
        }
        let left = self.read(height - 1, 2 * position)?;
        let right = if self.has_node(height - 1, 2 * position + 1) {
            let right = self.read(height - 1, 2 * position + 1)?;
            if left == right {
                return Err(PartialMerkleError::EqualHalves { height, position });
            }
            right
        } else {
            left
        };
        Ok(crate::sha256d([left, right].as_flattened()))
    }

    /// Whether a transaction is at or below the node.
    fn has_node(&self, height: u32, position: u32) -> bool {
        u64::from(position) << height < u64::from(self.tree.transactions)
    }

    fn read_flag(&mut self) -> Result<bool, PartialMerkleError> {
        let flags = &self.tree.flags;
        let byte = usize::try_from(self.flags / 8).ok().and_then(|byte| flags.get(byte));
        let byte = byte.ok_or(PartialMerkleError::FlagsEnd { flags: flags.len() })?;
        let flag = byte >> (self.flags % 8) & 1;
        self.flags += 1;
        Ok(flag == 1)
    }

    fn read_hash(&mut self) -> Result<[u8; 32], PartialMerkleError> {
        let hashes = &self.tree.hashes;
        let hash = hashes.get(self.hashes).ok_or(PartialMerkleError::HashesEnd { hashes: hashes.len() })?;
        self.hashes += 1;
        Ok(*hash)
    }
}
