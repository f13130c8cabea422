//! The header chain: tree, rules and store together, as the scheduler wants it.

use std::{error::Error, path::Path, sync::Arc, time::UNIX_EPOCH};

use tipward_sync::{
    Accepted, Block, BlockHead, BlockId, Chain, RefusedHeaders, Update,
    peer::{
        PeerId, UnixTime,
        wire::{BlockHash, Header},
    },
};

use crate::{BlockTree, Checkpoint, Coin, HeaderError, HeaderRules, HeaderStore, StoreError};
pub use file::{HeaderFileError, Imported};
use presync::Presync;
pub use reader::HeaderReader;
use reader::{Checked, Given, Loaded, find_header};
pub(crate) use rejected::MAX_REJECTED;
use rejected::Rejected;

mod file;
mod presync;
mod reader;
mod rejected;

/// How many headers beside the best chain are kept; real chains have a handful. When there are more, three quarters of so
/// many stay, of the branches with the most work: one that was best a moment ago, to which a sink may still have to go back, is
/// the last to go.
const MAX_SIDE_HEADERS: usize = 100_000;
/// Then branches also go that end so many blocks below the tip.
const MAX_SIDE_DEPTH: u64 = 50_000;

/// How a [`HeaderChain`] is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HeaderOptions {
    /// Headers that extend the best chain above this height are passed over; `None`. A branch may be longer, for it must be
    /// able to show that it has more work.
    pub max_height: Option<u64>,
    /// Where to start instead of at genesis; `None`. A file belongs to one start, which has to be given each time.
    pub start: Option<Checkpoint>,
    /// Whether a chain that has less work than the network is known to have is kept only once it was shown twice, so that easy
    /// headers by the million take no memory; `true`. With a `max_height` it is not. Who learns of headers one by one, with
    /// their blocks, can't show them twice.
    pub looks_twice: bool,
    /// Tells the present time; the system's clock. Headers from the future are passed over until their time has come.
    pub clock: fn() -> UnixTime,
}

impl Default for HeaderOptions {
    fn default() -> Self {
        let clock = || UnixTime::since_epoch(UNIX_EPOCH.elapsed().unwrap_or_default());
        Self { max_height: None, start: None, looks_twice: true, clock }
    }
}

/// All headers of a network: checked, stored, and the best branch known.
#[derive(Debug)]
pub struct HeaderChain {
    tree: BlockTree,
    rules: Box<dyn HeaderRules>,
    /// `None` once it is closed.
    store: Option<HeaderStore>,
    genesis: Block,
    /// Genesis, or the checkpoint. Nothing forks off below it.
    start: BlockId,
    /// The first headers of the tree, which are not in the store: genesis, or a checkpoint's.
    given: Vec<Header>,
    rejected: Rejected,
    /// What is not let in yet; `None` if everything is at once.
    presync: Option<Presync>,
    max_height: Option<u64>,
    max_side_headers: usize,
    clock: fn() -> UnixTime,
    /// The log has a warning already that a header was from the future: peers must not fill it.
    has_warned: bool,
}

impl HeaderChain {
    /// Opens the store and rebuilds the tree from it. Headers that extend the best chain above `max_height` are not taken.
    ///
    /// # Errors
    /// The store can't be opened, or what it holds is no chain.
    pub fn open(path: &Path, coin: &dyn Coin, max_height: Option<u64>) -> Result<Self, StoreError> {
        Self::open_with(path, coin, HeaderOptions { max_height, ..HeaderOptions::default() })
    }

    /// Opens the store and rebuilds the tree from it.
    ///
    /// # Errors
    /// The store can't be opened, what it holds is no chain, or the checkpoint can't be started from.
    pub fn open_with(path: &Path, coin: &dyn Coin, options: HeaderOptions) -> Result<Self, StoreError> {
        let HeaderOptions { max_height, start, looks_twice, clock } = options;
        let rules = coin.rules();
        let given = Given::new(path, coin, &*rules, start)?;
        let mut store = HeaderStore::open(path, coin, given.tree.tip().hash)?;
        let start = given.tree.tip();
        let Loaded { tree, given, rejected, stays } =
            given.load(&store.snapshot()?, coin, &*rules, Checked::Links)?;
        // Those of rejected branches that a crash has left.
        if stays.contains(&false) {
            store.retain(&stays)?;
        }
        let genesis = coin.genesis_block();
        let max_side_headers = MAX_SIDE_HEADERS;
        let has_warned = false;
        Ok(Self {
            tree,
            rules,
            store: Some(store),
            genesis,
            start,
            given,
            rejected,
            presync: (looks_twice && max_height.is_none()).then(Presync::default),
            max_height,
            max_side_headers,
            clock,
            has_warned,
        })
    }

    /// The tree.
    #[must_use]
    pub fn tree(&self) -> &BlockTree {
        &self.tree
    }

    /// Genesis, or the checkpoint that the chain starts at.
    #[must_use]
    pub fn start(&self) -> BlockId {
        self.start
    }

    /// A header of the tree, with its bytes.
    ///
    /// # Errors
    /// The store can't be read, has it not, or was closed with its node.
    pub fn header(&self, hash: BlockHash) -> Result<Option<Header>, StoreError> {
        let store = self.store.as_ref().ok_or(StoreError::Closed)?;
        let stored = |number| store.get(number);
        find_header(&self.tree, &self.given, store.path(), stored, &*self.rules, hash)
    }

    /// Closes the store, so that another can open it; the tree stays as it is, and takes no more.
    pub(crate) fn close(&mut self) {
        self.store = None;
    }

    fn store(&mut self) -> Result<&mut HeaderStore, StoreError> {
        self.store.as_mut().ok_or(StoreError::Closed)
    }

    /// Checks new headers and adds them to the tree, up to the first whose time has not come. Returns how many.
    fn add(&mut self, headers: &[Header]) -> Result<usize, HeaderError> {
        match self.tree.add_all(headers, &*self.rules, (self.clock)()) {
            Ok(()) => Ok(headers.len()),
            // Nothing is wrong with it but the time. The clock may be ours that is wrong.
            Err((count, error @ HeaderError::TimeTooNew { .. })) => {
                if !std::mem::replace(&mut self.has_warned, true) {
                    tracing::warn!(%error, "passed over for now, as will be others");
                }
                Ok(count)
            }
            Err((_, error)) => Err(error),
        }
    }

    /// Takes headers, which a peer has shown or a user has given.
    fn accept_by(&mut self, peer: Option<PeerId>, headers: &[Header]) -> Result<Accepted, RefusedHeaders> {
        let Some(first) = headers.first() else { return Ok(Accepted { added: 0, last: None, update: None }) };
        let is_linked = |pair: &[Header]| pair[1].parent == pair[0].hash;
        if let Some(stray) = headers.windows(2).find(|pair| !is_linked(pair)) {
            return Err(RefusedHeaders::Invalid(Arc::new(HeaderError::NotLinked { hash: stray[1].hash })));
        }
        let known = headers.iter().take_while(|header| self.tree.get(header.hash).is_some()).count();
        let (known, new) = headers.split_at(known);
        let Some(next) = new.first() else {
            return Ok(Accepted { added: 0, last: known.last().map(|header| header.hash), update: None });
        };
        let invalid = |error| RefusedHeaders::Invalid(Arc::new(error));
        let Some(parent) = self.tree.get(next.parent) else {
            if self.presync.as_ref().is_some_and(|presync| presync.expects(peer, next.parent)) {
                return self.look(peer, new, new.len());
            }
            self.rejected.check(next).map_err(invalid)?;
            return Err(RefusedHeaders::UnknownParent { parent: first.parent });
        };
        let below = parent.height + 1;
        if parent.height < self.start.height {
            let (hash, checkpoint) = (next.hash, self.start.height);
            return Err(invalid(HeaderError::BelowCheckpoint { hash, height: below, checkpoint }));
        }
        let new = &new[..self.wanted(parent.hash, below, new.len())];
        new.iter().try_for_each(|header| self.rejected.check(header)).map_err(invalid)?;
        match self.has_to_show(peer, parent, new).map_err(invalid)? {
            Some(news) => self.look(peer, new, news),
            None => self.let_in(new, parent),
        }
    }

    /// Checks and stores headers on top of one in the tree.
    fn let_in(&mut self, new: &[Header], parent: BlockId) -> Result<Accepted, RefusedHeaders> {
        let len = self.tree.len();
        let count = self.add(new).map_err(|error| {
            self.tree.take_back(len);
            RefusedHeaders::Invalid(Arc::new(error))
        })?;
        let new = &new[..count];
        let Some(last) = new.last().map(|last| last.hash).filter(|last| !self.is_too_weak(*last)) else {
            self.tree.take_back(len);
            return Ok(Accepted { added: 0, last: Some(parent.hash), update: None });
        };
        let failed = |error| RefusedHeaders::Store(Arc::new(error));
        let stored = self.store().and_then(|store| store.append(new.iter().map(|header| &header.raw)));
        stored.map_err(|error| {
            self.tree.take_back(len);
            failed(error)
        })?;
        let update = self.tree.choose(last);
        self.prune().map_err(failed)?;
        Ok(Accepted { added: count, last: Some(last), update })
    }

    /// Whether headers have to show the work of what follows them before they are let in; and then, how many of them are news
    /// of this peer, which may have begun before.
    fn has_to_show(
        &mut self,
        peer: Option<PeerId>,
        parent: BlockId,
        new: &[Header],
    ) -> Result<Option<usize>, HeaderError> {
        let (min, work) = (self.rules.min_work(), |hash| self.tree.work(hash).unwrap_or_default());
        let Some(presync) = &mut self.presync else { return Ok(None) };
        if work(self.tree.tip().hash) >= min {
            presync.clear();
            return Ok(None);
        }
        if presync.expects(peer, parent.hash) {
            return Ok(Some(new.len()));
        }
        let (facts, read) = self.rules.read_all(new);
        read?;
        let before = work(parent.hash);
        let is_weak = facts.iter().fold(before, |sum, facts| sum + facts.work) < min;
        Ok(is_weak.then(|| if presync.begin(peer, parent, before) { 0 } else { new.len() }))
    }

    /// Looks at headers that have to show their work, and lets in those that have.
    fn look(
        &mut self,
        peer: Option<PeerId>,
        new: &[Header],
        news: usize,
    ) -> Result<Accepted, RefusedHeaders> {
        let invalid = |error| RefusedHeaders::Invalid(Arc::new(error));
        let (facts, read) = self.rules.read_all(new);
        read.map_err(invalid)?;
        let Some(presync) = &mut self.presync else {
            return Ok(Accepted { added: 0, last: None, update: None });
        };
        let ready = presync.take(peer, new, &facts, self.rules.min_work()).map_err(invalid)?;
        let shown = Accepted { added: news, last: new.last().map(|last| last.hash), update: None };
        // Another peer may have brought them before.
        let known = ready.iter().take_while(|header| self.tree.get(header.hash).is_some()).count();
        let ready = &ready[known..];
        ready.iter().try_for_each(|header| self.rejected.check(header)).map_err(invalid)?;
        let Some(parent) = ready.first().and_then(|first| self.tree.get(first.parent)) else {
            return Ok(shown);
        };
        let Accepted { update, .. } = self.let_in(ready, parent)?;
        Ok(Accepted { update, ..shown })
    }

    /// Whether a branch that ends here need not be looked at: the chain is known to have more work, and has it.
    fn is_too_weak(&self, last: BlockHash) -> bool {
        let (min, work) = (self.rules.min_work(), |hash| self.tree.work(hash).unwrap_or_default());
        work(last) < min && work(self.tree.tip().hash) >= min
    }

    /// Gives up side branches if there are too many headers of them.
    fn prune(&mut self) -> Result<(), StoreError> {
        if self.tree.side_headers() <= self.max_side_headers {
            return Ok(());
        }
        let stays = self.tree.stays(self.max_side_headers * 3 / 4, MAX_SIDE_DEPTH);
        let given = self.given.len();
        self.store()?.retain(&stays[given..])?;
        let gone = self.tree.retain(&stays);
        tracing::info!(gone, "headers of side branches given up");
        Ok(())
    }

    /// How many of so many headers from height `below` on are wanted on top of `parent`.
    fn wanted(&self, parent: BlockHash, below: u64, count: usize) -> usize {
        match self.max_height {
            Some(max) if parent == self.tree.tip().hash => {
                count.min(usize::try_from(max.saturating_add(1).saturating_sub(below)).unwrap_or(usize::MAX))
            }
            _ => count,
        }
    }
}

impl Chain for HeaderChain {
    fn tip(&self) -> BlockId {
        self.tree.tip()
    }

    fn best_at(&self, height: u64) -> Option<BlockHash> {
        self.tree.best_at(height)
    }

    /// Also the last header of a chain that has to show its work, so that more of it is asked for.
    fn find(&self, hash: BlockHash) -> Option<BlockId> {
        self.tree.get(hash).or_else(|| self.presync.as_ref()?.find(hash))
    }

    fn fork_point(&self, hash: BlockHash) -> Option<BlockId> {
        self.tree.fork_point(hash).or_else(|| {
            let (start, _) = self.presync.as_ref()?.start(hash)?;
            self.tree.fork_point(start.hash)
        })
    }

    fn ancestor(&self, hash: BlockHash, height: u64) -> Option<BlockHash> {
        self.tree.ancestor(hash, height).map(|id| id.hash)
    }

    fn locator(&self, from: BlockHash) -> Vec<BlockHash> {
        match self.presync.as_ref().and_then(|presync| presync.start(from)) {
            // It is asked for from its start again.
            Some((start, true)) => self.tree.locator(start.hash),
            Some((start, false)) => [vec![from], self.tree.locator(start.hash)].concat(),
            None => self.tree.locator(from),
        }
    }

    fn accept(&mut self, headers: &[Header]) -> Result<Accepted, RefusedHeaders> {
        self.accept_by(None, headers)
    }

    fn accept_from(&mut self, peer: PeerId, headers: &[Header]) -> Result<Accepted, RefusedHeaders> {
        self.accept_by(Some(peer), headers)
    }

    fn lost(&mut self, peer: PeerId) {
        if let Some(presync) = &mut self.presync {
            presync.forget(peer);
        }
    }

    fn read_head(&self, start: &[u8]) -> Option<BlockHead> {
        self.rules.read_head(start).ok()
    }

    fn reject(
        &mut self,
        block: BlockHash,
        reason: &str,
    ) -> Result<Option<Update>, Arc<dyn Error + Send + Sync>> {
        self.give_up(block, reason)
    }

    fn flush(&mut self) -> Result<(), Arc<dyn Error + Send + Sync>> {
        self.store.as_ref().map_or(Ok(()), HeaderStore::flush).map_err(|error| Arc::new(error) as _)
    }

    fn local_block(&self, id: BlockId) -> Option<Block> {
        (id == self.genesis.id).then(|| self.genesis.clone())
    }
}

#[cfg(test)]
mod tests;
