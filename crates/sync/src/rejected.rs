//! Blocks that are not to be taken again.

use std::collections::{BTreeSet, VecDeque};

use tipward_peer::wire::BlockHash;

/// So many of them as are kept in mind, the last ones: who offers one again, or a child of it, is told from who is not at fault.
#[derive(Debug)]
pub struct RejectedBlocks {
    most: usize,
    known: BTreeSet<BlockHash>,
    order: VecDeque<BlockHash>,
}

impl RejectedBlocks {
    /// None yet; of more than `most` the first are forgotten.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, known: BTreeSet::new(), order: VecDeque::new() }
    }

    /// Whether a block is one of them.
    #[must_use]
    pub fn contains(&self, hash: BlockHash) -> bool {
        self.known.contains(&hash)
    }

    /// Adds a block, unless it is one of them.
    pub fn add(&mut self, hash: BlockHash) {
        if self.known.insert(hash) {
            self.order.push_back(hash);
        }
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_remembered_as_may_be() {
        let number = |n: u8| BlockHash::from_bytes([n; 32]);
        let mut rejected = RejectedBlocks::new(10);
        (0..20).for_each(|n| rejected.add(number(n)));
        // Once more, which makes it no newer.
        rejected.add(number(10));
        rejected.add(number(20));
        let kept: Vec<u8> = (0..=20).filter(|n| rejected.contains(number(*n))).collect();
        assert_eq!(kept, [11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
        assert_eq!(rejected.order.len(), 10);
    }
}
