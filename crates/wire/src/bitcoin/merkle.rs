//! The merkle root of a block's transactions, computed while they pass.

use crate::{Txid, sha256d};

/// Folds txids into a merkle root with memory for one hash per level.
///
/// A level with an odd number of hashes repeats its last one. That makes `[a, b, c]` and `[a, b, c, c]` agree, so a list
/// in which two neighbours of a level are equal is reported as mutated (CVE-2012-2459).
#[derive(Debug, Clone, Default)]
pub struct MerkleBuilder {
    /// The completed subtree of 2^level leaves waiting for its right sibling, by level.
    pending: Vec<Option<[u8; 32]>>,
    count: u64,
    mutated: bool,
}

impl MerkleBuilder {
    /// Starts without leaves.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next leaf.
    pub fn push(&mut self, txid: Txid) {
        self.count += 1;
        self.carry(0, *txid.as_bytes());
    }

    /// How many leaves were added.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The root, and whether the list is mutated. Without leaves the root is zero.
    #[must_use]
    pub fn finish(mut self) -> ([u8; 32], bool) {
        let mut level = 0;
        while level < self.pending.len() {
            match self.pending[level] {
                Some(last) if level + 1 == self.pending.len() => return (last, self.mutated),
                Some(last) => {
                    self.pending[level] = None;
                    self.carry(level + 1, pair(&last, &last));
                }
                None => {}
            }
            level += 1;
        }
        ([0; 32], self.mutated)
    }

    fn carry(&mut self, mut level: usize, mut hash: [u8; 32]) {
        loop {
            if level == self.pending.len() {
                self.pending.push(None);
            }
            match self.pending[level].take() {
                None => {
                    self.pending[level] = Some(hash);
                    return;
                }
                Some(left) => {
                    self.mutated |= left == hash;
                    hash = pair(&left, &hash);
                    level += 1;
                }
            }
        }
    }
}

fn pair(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut both = [0; 64];
    both[..32].copy_from_slice(left);
    both[32..].copy_from_slice(right);
    sha256d(&both)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The root by the definition: level after level over the whole list.
    fn root_by_levels(leaves: &[Txid]) -> [u8; 32] {
        let mut level: Vec<[u8; 32]> = leaves.iter().map(|leaf| *leaf.as_bytes()).collect();
        while level.len() > 1 {
            level = level.chunks(2).map(|two| pair(&two[0], two.last().unwrap())).collect();
        }
        level.first().copied().unwrap_or_default()
    }

    fn root(leaves: &[Txid]) -> ([u8; 32], bool) {
        let mut builder = MerkleBuilder::new();
        leaves.iter().for_each(|leaf| builder.push(*leaf));
        builder.finish()
    }

    #[test]
    fn equals_the_definition() {
        let leaves: Vec<Txid> = (0..70u8).map(|n| Txid::from_bytes([n; 32])).collect();
        for len in 0..leaves.len() {
            assert_eq!(root(&leaves[..len]), (root_by_levels(&leaves[..len]), false), "{len} leaves");
        }
    }

    #[test]
    fn repeated_transactions_are_found() {
        let leaf = |n| Txid::from_bytes([n; 32]);
        let (honest, mutated) = root(&[leaf(1), leaf(2), leaf(3)]);
        assert!(!mutated);
        assert_eq!(root(&[leaf(1), leaf(2), leaf(3), leaf(3)]), (honest, true));
        let six: Vec<Txid> = (1..=6).map(leaf).collect();
        let mut eight = six.clone();
        eight.extend_from_slice(&six[4..]);
        assert_eq!(root(&eight), (root(&six).0, true));
    }
}
