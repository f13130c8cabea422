//! Ancestors in few steps: how rules walk through the trees that they keep.
//!
//! Blocks are in a list and refer to each other by position. Each has a second link far back (Bitcoin Core,
//! `CBlockIndex::BuildSkip`), so that an ancestor is found in O(log n).

use tipward_sync::peer::wire::BlockHash;

/// What a block refers to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Links {
    pub(crate) parent: u32,
    /// An ancestor farther back, at [`skip_depth`].
    pub(crate) skip: u32,
    /// The height above the tree's first block.
    pub(crate) depth: u32,
}

/// A tree of which one chain is best.
pub(crate) trait Linked {
    fn links(&self, at: u32) -> Links;

    fn hash(&self, at: u32) -> BlockHash;

    /// The best chain, by depth.
    fn best(&self) -> &[u32];

    fn is_best(&self, at: u32) -> bool {
        self.best().get(self.links(at).depth as usize) == Some(&at)
    }

    /// The last block of the best chain that this is or descends from.
    fn on_best_chain(&self, mut at: u32) -> u32 {
        while !self.is_best(at) {
            let links = self.links(at);
            at = if self.is_best(links.skip) { links.parent } else { links.skip };
        }
        at
    }

    /// The ancestor at a depth, which is not below `at`'s (Bitcoin Core, `CBlockIndex::GetAncestor`).
    fn back_to(&self, mut at: u32, depth: u32) -> u32 {
        loop {
            let links = self.links(at);
            if links.depth <= depth {
                return at;
            }
            if self.is_best(at) {
                return self.best()[depth as usize];
            }
            // The parent's far link is better than one that leads too far back or hardly as far.
            let (skip, before) = (skip_depth(links.depth), skip_depth(links.depth - 1));
            let is_good = skip == depth || (skip > depth && !(before + 2 < skip && before >= depth));
            at = if is_good { links.skip } else { links.parent };
        }
    }

    /// The last block that both are or descend from.
    fn common(&self, one: u32, other: u32) -> u32 {
        let depth = self.links(one).depth.min(self.links(other).depth);
        let (mut one, mut other) = (self.back_to(one, depth), self.back_to(other, depth));
        while one != other {
            let (a, b) = (self.links(one), self.links(other));
            // At equal depths both links lead to equal depths.
            (one, other) = if a.skip == b.skip { (a.parent, b.parent) } else { (a.skip, b.skip) };
        }
        one
    }

    /// Ten blocks back, then at doubling distances, then the first.
    fn locator_from(&self, mut at: u32) -> Vec<BlockHash> {
        let mut hashes = Vec::new();
        let mut step = 1;
        loop {
            let depth = self.links(at).depth;
            hashes.push(self.hash(at));
            if depth == 0 {
                return hashes;
            }
            if hashes.len() >= 10 {
                step *= 2;
            }
            at = self.back_to(at, depth.saturating_sub(step));
        }
    }

    /// The blocks above an ancestor up to this one, ascending.
    fn path(&self, above: u32, mut to: u32) -> Vec<u32> {
        let mut path = Vec::new();
        while to != above {
            path.push(to);
            to = self.links(to).parent;
        }
        path.reverse();
        path
    }
}

/// Where the far link of a block at this depth leads: chosen such that a walk over any distance takes O(log n) steps
/// (Bitcoin Core, `GetSkipHeight`).
pub(crate) fn skip_depth(depth: u32) -> u32 {
    let without_lowest_bit = |number: u32| number & number.wrapping_sub(1);
    match depth {
        0 | 1 => 0,
        odd if odd & 1 == 1 => without_lowest_bit(without_lowest_bit(odd - 1)) + 1,
        even => without_lowest_bit(even),
    }
}
