//! Blocks that came before their turn.

use std::collections::BTreeMap;

use tipward_peer::{
    PeerId,
    wire::{BlockHash, Header},
};

use crate::scheduler::flow::Arrived;

/// Blocks whose parent is not in the tree yet, by height and hash. Several may have the same height, from different
/// branches. What is thrown out is missing again, and asked for again.
#[derive(Debug, Default)]
pub(super) struct Kept {
    blocks: BTreeMap<(u64, BlockHash), KeptBlock>,
    bytes: u64,
}

#[derive(Debug)]
pub(super) struct KeptBlock {
    pub(super) header: Header,
    pub(super) height: u64,
    pub(super) server: PeerId,
    /// All of it; without, its header holds the place, and the body is fetched when that is known.
    pub(super) body: Option<Arrived>,
}

impl Kept {
    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Bytes of all blocks.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keeps a block; if there are more than `count` then, or more bytes than `bytes`, the highest go.
    pub(super) fn keep(&mut self, block: KeptBlock, count: usize, bytes: u64) {
        if block.body.is_none() && self.blocks.contains_key(&block.key()) {
            return;
        }
        self.bytes += block.size();
        let old = self.blocks.insert(block.key(), block);
        self.bytes -= old.map_or(0, |old| old.size());
        while self.blocks.len() > count || self.bytes > bytes {
            let Some((_, last)) = self.blocks.pop_last() else { return };
            self.bytes -= last.size();
        }
    }

    /// Takes the blocks at this height that build on `parent`.
    pub(super) fn take_children(&mut self, height: u64, parent: BlockHash) -> Vec<KeptBlock> {
        self.take(height, height, |kept| kept.header.parent == parent)
    }

    /// Takes what `is_meant` of the blocks at these heights, both included.
    pub(super) fn take(
        &mut self,
        from: u64,
        to: u64,
        mut is_meant: impl FnMut(&KeptBlock) -> bool,
    ) -> Vec<KeptBlock> {
        let meant: Vec<_> = self.at(from, to).filter(|kept| is_meant(kept)).map(KeptBlock::key).collect();
        let taken: Vec<_> = meant.iter().filter_map(|key| self.blocks.remove(key)).collect();
        self.bytes -= taken.iter().map(KeptBlock::size).sum::<u64>();
        taken
    }

    /// The blocks at these heights, both included, lowest first.
    pub(super) fn at(&self, from: u64, to: u64) -> impl Iterator<Item = &KeptBlock> {
        let keys = (from, BlockHash::ZERO)..(to.saturating_add(1).max(from), BlockHash::ZERO);
        self.blocks.range(keys).map(|(_, kept)| kept)
    }

    /// Throws out what this peer brought.
    pub(super) fn forget(&mut self, peer: PeerId) {
        self.take(0, u64::MAX - 1, |kept| kept.server == peer);
    }
}

impl KeptBlock {
    fn size(&self) -> u64 {
        self.body.as_ref().map_or(0, |body| body.size)
    }

    fn key(&self) -> (u64, BlockHash) {
        (self.height, self.header.hash)
    }
}
