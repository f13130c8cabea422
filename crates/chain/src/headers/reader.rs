//! The tree from what is stored of it: for the chain when it is opened, and for who only looks.

use std::{collections::HashSet, path::Path, thread::sleep};

use bytes::Bytes;
use tipward_sync::peer::{
    UnixTime,
    wire::{BlockHash, Header},
};

use super::Rejected;
use crate::{
    BlockTree, Checkpoint, Coin, HeaderRules, HeaderSnapshot, StoreError,
    store::{LOOK_AGAIN, LOOKS},
};

/// The headers that a chain has before any is stored.
pub(super) struct Given {
    pub(super) tree: BlockTree,
    headers: Vec<Header>,
}

/// What there is with those that are stored.
pub(super) struct Loaded {
    pub(super) tree: BlockTree,
    pub(super) given: Vec<Header>,
    pub(super) rejected: Rejected,
    /// Which of the stored headers are of no rejected branch.
    pub(super) stays: Vec<bool>,
}

impl Given {
    /// Genesis, or those of a checkpoint.
    pub(super) fn new(
        path: &Path,
        coin: &dyn Coin,
        rules: &dyn HeaderRules,
        start: Option<Checkpoint>,
    ) -> Result<Self, StoreError> {
        if let Some(start) = start {
            return Ok(Self { tree: start.tree(rules)?, headers: start.headers });
        }
        let genesis = coin.genesis_header();
        let facts = rules.read(&genesis).map_err(|error| StoreError::damaged(path, error.to_string()))?;
        Ok(Self { tree: BlockTree::new(&genesis, facts), headers: vec![genesis] })
    }

    /// The tree of all that is stored. All links, hashes and targets are checked anew, and `by` says what else.
    pub(super) fn load(
        self,
        stored: &HeaderSnapshot,
        coin: &dyn Coin,
        rules: &dyn HeaderRules,
        by: Checked,
    ) -> Result<Loaded, StoreError> {
        let Self { mut tree, headers: given } = self;
        let rejected = Rejected::new(stored.rejected()?);
        let (mut gone, mut stays) = (HashSet::new(), Vec::new());
        stored.load(|first, raw| {
            let damaged = |at: usize, problem: String| {
                StoreError::damaged(stored.path(), format!("header {}: {problem}", first + at as u64))
            };
            let mut headers = Vec::with_capacity(raw.len());
            for (at, raw) in raw.into_iter().enumerate() {
                headers.push(coin.parse_header(raw).map_err(|error| damaged(at, error.to_string()))?);
            }
            let mut start = 0;
            for (at, header) in headers.iter().enumerate() {
                let is_gone = rejected.check(header).is_err() || gone.contains(&header.parent);
                stays.push(!is_gone);
                if is_gone {
                    gone.insert(header.hash);
                }
                // A run of what came together, or of what is left of several after some were removed.
                let next = headers.get(at + 1).filter(|next| next.parent == header.hash && !is_gone);
                if next.is_none() {
                    let end = if is_gone { at } else { at + 1 };
                    add(&mut tree, &headers[start..end], rules, by)
                        .map_err(|(count, problem)| damaged(start + count, problem))?;
                    start = at + 1;
                }
            }
            Ok(())
        })?;
        Ok(Loaded { tree, given, rejected, stays })
    }
}

/// What stored headers are checked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checked {
    /// What shows that they are those that were stored, which were checked then.
    Links,
    /// All rules. They were there in time once, whatever the clock says now.
    Rules,
}

fn add(
    tree: &mut BlockTree,
    headers: &[Header],
    rules: &dyn HeaderRules,
    by: Checked,
) -> Result<(), (usize, String)> {
    let Some((first, last)) = headers.first().zip(headers.last()) else { return Ok(()) };
    if tree.get(first.parent).is_none() {
        return Err((0, format!("its parent {} is not there", first.parent)));
    }
    let added = match by {
        Checked::Links => tree.add_linked(headers, rules),
        Checked::Rules => tree.add_all(headers, rules, UnixTime::MAX),
    };
    added.map_err(|(count, error)| (count, error.to_string()))?;
    tree.choose(last.hash);
    Ok(())
}

/// A header of a tree, with its bytes.
pub(super) fn find_header(
    tree: &BlockTree,
    given: &[Header],
    path: &Path,
    stored: impl Fn(u64) -> Result<Option<Bytes>, StoreError>,
    rules: &dyn HeaderRules,
    hash: BlockHash,
) -> Result<Option<Header>, StoreError> {
    let Some(at) = tree.position(hash) else { return Ok(None) };
    let Some(number) = at.checked_sub(given.len()) else { return Ok(given.get(at).cloned()) };
    let damaged = |problem: String| StoreError::damaged(path, format!("header {number}{problem}"));
    let raw = stored(number as u64)?.ok_or_else(|| damaged(" is not there".to_owned()))?;
    let head = rules.read_head(&raw).map_err(|error| damaged(format!(": {error}")))?;
    if head.header.hash != hash {
        return Err(damaged(format!(" is {}, not {hash}", head.header.hash)));
    }
    Ok(Some(head.header))
}

/// The headers of a data directory as they are at one moment, for who looks at them while another process may write.
#[derive(Debug)]
pub struct HeaderReader {
    tree: BlockTree,
    pub(super) given: Vec<Header>,
    pub(super) stored: HeaderSnapshot,
    rules: Box<dyn HeaderRules>,
}

impl HeaderReader {
    /// Reads all headers of a file that a [`HeaderChain`](super::HeaderChain) with this start writes, and checks each by the full
    /// rules.
    ///
    /// # Errors
    /// The file is not there, can't be read, or belongs to another network or start; a header breaks a rule, or the one that
    /// it builds on is not there.
    pub fn open(path: &Path, coin: &dyn Coin, start: Option<&Checkpoint>) -> Result<Self, StoreError> {
        let rules = coin.rules();
        for _ in 0..LOOKS {
            let given = Given::new(path, coin, &*rules, start.cloned())?;
            let stored = HeaderSnapshot::open(path, coin, given.tree.tip().hash)?;
            let Loaded { tree, given, stays, .. } = given.load(&stored, coin, &*rules, Checked::Rules)?;
            if !stays.contains(&false) {
                return Ok(Self { tree, given, stored, rules });
            }
            // A block was just rejected, and what builds on it is removed next; or a crash has come between.
            sleep(LOOK_AGAIN);
        }
        let problem = "headers of a rejected branch are left, which the next start removes";
        Err(StoreError::damaged(path, problem))
    }

    /// The headers of all branches.
    #[must_use]
    pub fn tree(&self) -> &BlockTree {
        &self.tree
    }

    /// A header of any branch, with its bytes.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn header(&self, hash: BlockHash) -> Result<Option<Header>, StoreError> {
        let stored = |number| self.stored.get(number);
        find_header(&self.tree, &self.given, self.stored.path(), stored, &*self.rules, hash)
    }
}
