//! The merkle root of a block's transactions, computed while they pass.

use bitcoin_hashes::sha256d;

use crate::Txid;

/// Leaves are hashed in batches of so many, a power of two: several pairs at once are faster than one by one.
const BATCH: usize = 1 << BATCH_LEVELS;
const BATCH_LEVELS: usize = 9;

/// Folds txids into a merkle root with memory for one hash per level and a batch of 512 leaves.
///
/// A level with an odd number of hashes repeats its last one. That makes `[a, b, c]` and `[a, b, c, c]` agree, so a list
/// in which two neighbours of a level are equal is reported as mutated (CVE-2012-2459).
#[derive(Debug, Clone, Default)]
pub struct MerkleBuilder {
    /// The completed subtree of 2^level leaves waiting for its right sibling, by level.
    pending: Vec<Option<[u8; 32]>>,
    /// Leaves that are not folded yet.
    batch: Vec<[u8; 32]>,
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
        self.push_hash(*txid.as_bytes());
    }

    pub(super) fn push_hash(&mut self, leaf: [u8; 32]) {
        self.count += 1;
        self.batch.push(leaf);
        if self.batch.len() == BATCH {
            self.fold_batch();
        }
    }

    /// How many leaves were added.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The root, and whether the list is mutated. Without leaves the root is zero.
    #[must_use]
    pub fn finish(mut self) -> ([u8; 32], bool) {
        for leaf in std::mem::take(&mut self.batch) {
            self.carry(0, leaf);
        }
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

    /// Folds a full batch into the root of its subtree.
    fn fold_batch(&mut self) {
        let mut parents = [[0; 32]; BATCH / 2];
        let mut len = BATCH;
        while len > 1 {
            let pairs = self.batch[..len].as_flattened().as_chunks::<64>().0;
            self.mutated |= pairs.iter().any(|pair| pair[..32] == pair[32..]);
            len /= 2;
            sha256d::Hash::hash_64_many(&mut parents[..len], pairs);
            self.batch[..len].copy_from_slice(&parents[..len]);
        }
        self.batch.clear();
        self.carry(BATCH_LEVELS, parents[0]);
    }

    fn carry(&mut self, mut level: usize, mut hash: [u8; 32]) {
        loop {
            if level >= self.pending.len() {
                self.pending.resize(level + 1, None);
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

/// The parent of two nodes.
pub(super) fn pair(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut both = [0; 64];
    both[..32].copy_from_slice(left);
    both[32..].copy_from_slice(right);
    crate::sha256d(&both)
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
        let leaves: Vec<Txid> = (0..4 * BATCH as u64 + 7)
            .map(|n| Txid::from_bytes(std::array::from_fn(|byte| n.to_le_bytes()[byte % 8])))
            .collect();
        for len in (0..70).chain(BATCH - 2..BATCH + 3).chain(4 * BATCH - 2..leaves.len()) {
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

        // Inside a batch and across batches.
        let many: Vec<Txid> = (0..3 * BATCH as u64)
            .map(|n| Txid::from_bytes(std::array::from_fn(|byte| n.to_le_bytes()[byte % 8])))
            .collect();
        assert!(!root(&many).1);
        let mut more = many.clone();
        more.extend_from_slice(&many[2 * BATCH..]);
        assert_eq!(root(&more), (root(&many).0, true));
        // On a level above the leaves, inside a batch; and in what is left behind one.
        let short = &many[..BATCH - 4];
        let mut long = short.to_vec();
        long.extend_from_slice(&short[BATCH - 8..]);
        assert_eq!(root(&long), (root(short).0, true));
        let mut four = many[..BATCH + 3].to_vec();
        four.push(many[BATCH + 2]);
        assert_eq!(root(&four), (root(&many[..BATCH + 3]).0, true));
        let odd = &many[..BATCH - 1];
        let mut even = odd.to_vec();
        even.push(odd[BATCH - 2]);
        assert_eq!(root(&even), (root(odd).0, true));
    }
}
