//! Side branches that are given up, so that a tree stays within bounds.

use std::cmp::Reverse;

use super::{BlockTree, Entry, Work, links::Linked};

/// How far the branches reach that a header is part of.
#[derive(Clone, Copy)]
struct Reach {
    work: Work,
    depth: u32,
}

impl BlockTree {
    /// Gives up side headers until no more than `keep` are left, and all whose branches end more than `depth` blocks below
    /// the best chain's height. The branches with the most work stay, or as much of them as may, from where they fork off.
    /// Returns how many headers went.
    pub fn prune(&mut self, keep: usize, depth: u64) -> usize {
        let stays = self.stays(keep, depth);
        self.retain(&stays)
    }

    /// Which headers stay when the tree is pruned, in the order of arrival.
    pub(crate) fn stays(&self, keep: usize, depth: u64) -> Vec<bool> {
        let reach = self.reaches();
        let floor = u64::from(self.entry(self.tip_index()).depth).saturating_sub(depth);
        let mut side: Vec<u32> = (0..self.entries.len() as u32)
            .filter(|&at| !self.is_best(at) && u64::from(reach[at as usize].depth) >= floor)
            .collect();
        // A parent reaches as far as its children and came before them, so it stays when one of them does.
        side.sort_unstable_by_key(|&at| (Reverse(reach[at as usize].work), at));
        side.truncate(keep);
        let mut stays = vec![false; self.entries.len()];
        side.iter().chain(&self.best).for_each(|&at| stays[at as usize] = true);
        stays
    }

    /// For every header, the most work and depth of what is or descends from it.
    fn reaches(&self) -> Vec<Reach> {
        let own = |entry: &Entry| Reach { work: entry.work, depth: entry.depth };
        let mut reaches: Vec<Reach> = self.entries.iter().map(own).collect();
        // Children come after their parents.
        for at in (1..reaches.len()).rev() {
            let child = reaches[at];
            let parent = &mut reaches[self.entries[at].parent as usize];
            parent.work = parent.work.max(child.work);
            parent.depth = parent.depth.max(child.depth);
        }
        reaches
    }

    /// Keeps these headers; with each all its ancestors. Returns how many went.
    pub(crate) fn retain(&mut self, stays: &[bool]) -> usize {
        let mut count = 0;
        let places: Vec<u32> = stays
            .iter()
            .map(|&stays| {
                count += u32::from(stays);
                count.saturating_sub(1)
            })
            .collect();
        let gone = self.entries.len() - count as usize;
        let mut stay = stays.iter();
        self.entries.retain(|_| stay.next() == Some(&true));
        for entry in &mut self.entries {
            entry.parent = places[entry.parent as usize];
            entry.skip = places[entry.skip as usize];
        }
        self.best.iter_mut().for_each(|at| *at = places[*at as usize]);
        self.index.clear();
        (0..count).for_each(|at| self.put_into_index(at));
        gone
    }
}
