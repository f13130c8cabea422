//! Blocks that were given up although their headers are valid, and what builds on them.

use std::{
    collections::{HashMap, VecDeque},
    error::Error,
    sync::Arc,
};

use tipward_sync::{
    Update,
    peer::wire::{BlockHash, Header},
};

use super::HeaderChain;
use crate::{HeaderError, StoreError};

/// So many rejected blocks are kept in mind; of more, the first are forgotten. Each was mined.
pub(crate) const MAX_REJECTED: usize = 1000;
/// So many of the blocks that build on them, so that who goes on with such a branch is told why.
const MAX_DESCENDANTS: usize = 100_000;
/// The most of a reason that is kept, in bytes.
const MAX_REASON: usize = 1000;

/// Why headers are refused that break no rule of headers.
#[derive(Debug, Default)]
pub(super) struct Rejected {
    reasons: HashMap<BlockHash, Arc<str>>,
    /// The rejected blocks, in their order.
    blocks: VecDeque<BlockHash>,
    descendants: VecDeque<BlockHash>,
}

impl Rejected {
    pub(super) fn new(stored: Vec<(BlockHash, String)>) -> Self {
        let mut rejected = Self::default();
        stored.into_iter().for_each(|(hash, reason)| rejected.add(hash, &reason.into(), []));
        rejected
    }

    fn add(&mut self, block: BlockHash, reason: &Arc<str>, descendants: impl IntoIterator<Item = BlockHash>) {
        self.reasons.insert(block, Arc::clone(reason));
        self.blocks.push_back(block);
        for hash in descendants {
            self.reasons.insert(hash, Arc::clone(reason));
            self.descendants.push_back(hash);
        }
        for (list, most) in [(&mut self.blocks, MAX_REJECTED), (&mut self.descendants, MAX_DESCENDANTS)] {
            let more = list.len().saturating_sub(most);
            list.drain(..more).for_each(|hash| drop(self.reasons.remove(&hash)));
        }
    }

    /// Whether a header is of a branch that was given up.
    pub(super) fn check(&self, header: &Header) -> Result<(), HeaderError> {
        let reason = self.reasons.get(&header.hash).or_else(|| self.reasons.get(&header.parent));
        match reason {
            Some(reason) => {
                Err(HeaderError::Rejected { hash: header.hash, reason: reason.as_ref().to_owned() })
            }
            None => Ok(()),
        }
    }
}

impl HeaderChain {
    /// Gives up a block and all that build on it, for good. Returns how the best chain changed.
    pub(super) fn give_up(
        &mut self,
        block: BlockHash,
        reason: &str,
    ) -> Result<Option<Update>, Arc<dyn Error + Send + Sync>> {
        let starts = |error: String| Arc::from(Box::<dyn Error + Send + Sync>::from(error));
        let Some(id) = self.tree.get(block) else { return Ok(None) };
        if id.height <= self.start.height {
            return Err(starts(format!(
                "the chain starts with block {}, which is rejected: {reason}",
                self.start
            )));
        }
        let end = (0..=MAX_REASON.min(reason.len())).rev().find(|&end| reason.is_char_boundary(end));
        let reason = &reason[..end.unwrap_or(0)];
        let failed = |error: StoreError| -> Arc<dyn Error + Send + Sync> { Arc::new(error) };
        // First: with this alone a restart finds the same.
        self.store().and_then(|store| store.reject(block, reason)).map_err(failed)?;
        let stays = self.tree.stays_without(block);
        let Some((stays, rejection)) = stays.zip(self.tree.reject(block)) else { return Ok(None) };
        let descendants = rejection.gone.into_iter().filter(|hash| *hash != block);
        self.rejected.add(block, &reason.into(), descendants);
        let given = self.given.len();
        self.store().and_then(|store| store.retain(&stays[given..])).map_err(failed)?;
        Ok(rejection.update)
    }
}

#[cfg(test)]
mod tests;
