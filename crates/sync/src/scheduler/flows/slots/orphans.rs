//! Blocks whose parent is not in the tree.

use std::collections::{BTreeMap, BTreeSet};

use tipward_peer::{
    PeerId,
    wire::{BlockHash, Header},
};

use crate::scheduler::flow::Arrived;

/// How many orphans there are at most.
pub(in super::super) const MAX_ORPHANS: usize = 4096;

/// Orphans by hash, by parent and by slot. If there are too many, whoever brought most loses the lowest: the highest are
/// where back-fill starts, and finds the others again.
#[derive(Debug, Default)]
pub(in super::super) struct Orphans {
    blocks: BTreeMap<BlockHash, Orphan>,
    children: BTreeSet<(BlockHash, BlockHash)>,
    shares: BTreeMap<PeerId, BTreeSet<(u64, BlockHash)>>,
    bytes: u64,
}

#[derive(Debug)]
pub(in super::super) struct Orphan {
    pub(in super::super) header: Header,
    pub(in super::super) slot: u64,
    pub(in super::super) server: PeerId,
    /// Left out where there is no room for it.
    pub(in super::super) body: Option<Arrived>,
}

impl Orphans {
    pub(in super::super) fn len(&self) -> usize {
        self.blocks.len()
    }

    pub(in super::super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds an orphan; its body only if there are at most `max_bytes` then.
    pub(in super::super) fn add(&mut self, mut orphan: Orphan, max_bytes: u64) {
        let hash = orphan.header.hash;
        if self.blocks.contains_key(&hash) {
            return;
        }
        if self.blocks.len() >= MAX_ORPHANS {
            let largest = self.shares.values().max_by_key(|share| share.len());
            if let Some(&(_, lowest)) = largest.and_then(BTreeSet::first) {
                self.take(lowest);
            }
        }
        orphan.body.take_if(|body| self.bytes + body.size > max_bytes);
        self.bytes += orphan.size();
        self.children.insert((orphan.header.parent, hash));
        self.shares.entry(orphan.server).or_default().insert((orphan.slot, hash));
        self.blocks.insert(hash, orphan);
    }

    pub(in super::super) fn take(&mut self, hash: BlockHash) -> Option<Orphan> {
        let orphan = self.blocks.remove(&hash)?;
        self.bytes -= orphan.size();
        self.children.remove(&(orphan.header.parent, hash));
        if let Some(share) = self.shares.get_mut(&orphan.server) {
            share.remove(&(orphan.slot, hash));
            if share.is_empty() {
                self.shares.remove(&orphan.server);
            }
        }
        Some(orphan)
    }

    /// Takes the orphan with the highest slot, of a peer that `is_meant`.
    pub(in super::super) fn take_highest(&mut self, is_meant: impl Fn(PeerId) -> bool) -> Option<Orphan> {
        let meant = self.shares.iter().filter(|(server, _)| is_meant(**server));
        let &(_, hash) = meant.filter_map(|(_, share)| share.last()).max()?;
        self.take(hash)
    }

    /// Forgets what this peer brought.
    pub(in super::super) fn forget(&mut self, server: PeerId) {
        for (_, hash) in self.shares.get(&server).cloned().unwrap_or_default() {
            self.take(hash);
        }
    }

    /// Takes those that build on this block.
    pub(in super::super) fn take_children(&mut self, parent: BlockHash) -> Vec<Orphan> {
        let children = self.children.range((parent, BlockHash::ZERO)..);
        let children = children.take_while(|(of, _)| *of == parent).map(|&(_, hash)| hash);
        let children: Vec<BlockHash> = children.collect();
        children.into_iter().filter_map(|hash| self.take(hash)).collect()
    }
}

impl Orphan {
    fn size(&self) -> u64 {
        self.body.as_ref().map_or(0, |body| body.size)
    }
}
