//! Blocks that turn out to be invalid although their headers are valid: they go, with all that builds on them (Bitcoin Core,
//! `InvalidateBlock`).

use std::cmp::Reverse;

use tipward_sync::peer::wire::BlockHash;

use super::BlockTree;
use crate::Rejection;

impl BlockTree {
    /// Removes a block and all that builds on it. Of what remains the branch with the most work is best, of equals the one
    /// seen first. `None` if the block is not in the tree or is its root.
    ///
    /// The block is forgotten: who offers it again has it taken again.
    pub fn reject(&mut self, hash: BlockHash) -> Option<Rejection> {
        let stays = self.stays_without(hash)?;
        let gone = self.entries.iter().zip(&stays).filter(|(_, stays)| !**stays);
        let gone = gone.map(|(entry, _)| entry.hash).collect();
        let is_tip_gone = !stays[self.tip_index() as usize];
        let update = is_tip_gone.then(|| self.first_with_most_work(&stays)).map(|best| self.switch_to(best));
        self.retain(&stays);
        Some(Rejection { update, gone })
    }

    /// Which headers stay when a block is rejected, in the order of arrival. `None` if it is not in the tree or is its root.
    pub(crate) fn stays_without(&self, hash: BlockHash) -> Option<Vec<bool>> {
        let rejected = self.find(hash).filter(|&at| at > 0)?;
        let mut stays = vec![true; self.entries.len()];
        stays[rejected as usize] = false;
        // Children come after their parents.
        for at in rejected as usize + 1..stays.len() {
            stays[at] = stays[self.entries[at].parent as usize];
        }
        Some(stays)
    }

    fn first_with_most_work(&self, stays: &[bool]) -> u32 {
        let staying = (0..self.entries.len() as u32).filter(|&at| stays[at as usize]);
        staying.max_by_key(|&at| (self.entry(at).work, Reverse(at))).expect("the root stays")
    }
}
