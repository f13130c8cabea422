//! A start in the middle of a chain.

use tipward_sync::peer::wire::{BlockHash, Header, bitcoin::Work};

use crate::{BlockTree, HeaderError, HeaderRules};

/// A trusted header to start from instead of genesis, with the headers before it that it takes to check those after it.
///
/// Nothing is deferred for want of a past: the rules of what follows are the same as after a start from genesis. How far
/// back the headers must go is what [`HeaderRules::past`] tells: on BTC to the begin of the period of 2016 blocks and over
/// ten blocks at least, on BSV over 146 blocks.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The height of the last header, the trusted one.
    pub height: u64,
    /// The work of the whole chain up to the last header, that included.
    pub work: Work,
    /// The headers, each the child of the one before.
    pub headers: Vec<Header>,
}

/// Why a checkpoint can't be started from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The headers do not go back far enough.
    #[error("its headers must go back to height {needed} at least")]
    TooShort {
        /// The height of the first header that is needed.
        needed: u64,
    },
    /// There are more headers than its height allows.
    #[error("{count} headers up to height {height}")]
    TooLong {
        /// How many headers there are.
        count: usize,
        /// The height of the last one.
        height: u64,
    },
    /// A header is not the child of the one before.
    #[error("header {hash} does not follow the one before it")]
    NotLinked {
        /// The block.
        hash: BlockHash,
    },
    /// A header is none.
    #[error(transparent)]
    Invalid(#[from] HeaderError),
    /// Its headers have more work than the whole chain.
    #[error("total work {work} is less than that of its headers")]
    Work {
        /// The work of the whole chain, as given.
        work: Work,
    },
}

impl Checkpoint {
    /// The tree that starts with the first of the headers, and has the last for its tip.
    pub(crate) fn tree(&self, rules: &dyn HeaderRules) -> Result<BlockTree, CheckpointError> {
        let needed = rules.past(self.height);
        let (count, height) = (self.headers.len(), self.height);
        let Some(base) = (height + 1).checked_sub(count as u64) else {
            return Err(CheckpointError::TooLong { count, height });
        };
        let Some((first, rest)) = self.headers.split_first().filter(|_| base <= needed) else {
            return Err(CheckpointError::TooShort { needed });
        };
        if let Some(pair) = self.headers.windows(2).find(|pair| pair[1].parent != pair[0].hash) {
            return Err(CheckpointError::NotLinked { hash: pair[1].hash });
        }
        let mut before = self.work;
        let mut facts = Vec::with_capacity(count);
        for header in &self.headers {
            let read = rules.read(header)?;
            before = before.checked_sub(read.work).ok_or(CheckpointError::Work { work: self.work })?;
            facts.push(read);
        }
        let mut tree = BlockTree::above(base, before, first, facts[0]);
        for (header, facts) in rest.iter().zip(&facts[1..]) {
            tree.insert(header, *facts);
        }
        Ok(tree)
    }
}
