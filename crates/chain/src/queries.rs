//! Questions to a running node about its chain: headers, heights, confirmations, forks.
//!
//! The sync changes the chain while others ask. All that is asked within one [`Queries::read`] is answered from one state of
//! it, so that a reorg in between can't mix two branches.

use std::{
    error::Error,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use tipward_sync::{
    Accepted, Block, BlockHead, BlockId, Chain, Past, RefusedHeaders, Update,
    peer::{
        PeerId,
        wire::{BlockHash, Header},
    },
};

use crate::{HeaderChain, HeaderNode, StoreError};

/// Answers questions about a node's chain. Clones ask the same node; after its end they answer from where it was, but for
/// [`ChainView::header`], since its files are closed then.
#[derive(Debug, Clone)]
pub struct Queries(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    chain: RwLock<HeaderChain>,
    /// The last block that the sink has applied or was rolled back to.
    applied: RwLock<Option<BlockId>>,
}

impl Queries {
    /// Nothing is applied yet.
    pub(crate) fn new(chain: HeaderChain) -> Self {
        Self(Arc::new(Shared { chain: RwLock::new(chain), applied: RwLock::new(None) }))
    }

    /// Asks as much as is needed of one state of the chain:
    ///
    /// ```
    /// # use tipward_chain::{Queries, sync::{BlockId, peer::wire::BlockHash}};
    /// # fn ask(queries: &Queries, funding: BlockHash) {
    /// let (confirmations, tip) = queries.read(|chain| (chain.confirmations(funding), chain.tip().id));
    /// # }
    /// ```
    ///
    /// The sync waits as long as `questions` takes, so that must be short: return values, and work with them outside. To ask
    /// again from inside may block for ever.
    pub fn read<T>(&self, questions: impl FnOnce(&ChainView<'_>) -> T) -> T {
        let chain = self.0.chain.read().unwrap_or_else(PoisonError::into_inner);
        let applied = *self.0.applied.read().unwrap_or_else(PoisonError::into_inner);
        questions(&ChainView { chain, applied })
    }

    /// Takes note of where the sink is.
    pub(crate) fn set_applied(&self, block: Option<BlockId>) {
        *self.0.applied.write().unwrap_or_else(PoisonError::into_inner) = block;
    }

    /// The chain as the sync takes it.
    pub(crate) fn chain(&self) -> SharedChain {
        SharedChain(Arc::clone(&self.0))
    }
}

/// One state of a node's chain. See [`Queries::read`].
#[derive(Debug)]
pub struct ChainView<'a> {
    chain: RwLockReadGuard<'a, HeaderChain>,
    applied: Option<BlockId>,
}

impl ChainView<'_> {
    /// The last header of the best chain, with the work of the whole chain.
    #[must_use]
    pub fn tip(&self) -> HeaderNode {
        let tree = self.chain.tree();
        tree.node(tree.tip().hash).expect("the tip is in the tree")
    }

    /// The last block that the sink has applied, or was rolled back to; `None` before the first, and with headers only. It
    /// is behind the headers' tip while blocks are fetched, and may be on a branch that has just been left.
    #[must_use]
    pub fn applied(&self) -> Option<BlockId> {
        self.applied
    }

    /// Genesis, or the checkpoint that the chain starts at.
    #[must_use]
    pub fn start(&self) -> BlockId {
        self.chain.start()
    }

    /// What is known of a header of any branch.
    #[must_use]
    pub fn node(&self, hash: BlockHash) -> Option<HeaderNode> {
        self.chain.tree().node(hash)
    }

    /// A header of any branch, with its bytes, read from the store.
    ///
    /// # Errors
    /// The store can't be read, or the node has ended.
    pub fn header(&self, hash: BlockHash) -> Result<Option<Header>, StoreError> {
        self.chain.header(hash)
    }

    /// The block at a height of the best chain.
    #[must_use]
    pub fn at(&self, height: u64) -> Option<BlockHash> {
        self.chain.best_at(height)
    }

    /// The median time of a header and the ten before it, in seconds since 1970 (BIP 113). `None` if it is not there, or the
    /// chain starts too late for it.
    #[must_use]
    pub fn median_time(&self, hash: BlockHash) -> Option<u32> {
        self.chain.tree().median_time(hash)
    }

    /// Whether a block is on the best chain.
    #[must_use]
    pub fn is_best(&self, hash: BlockHash) -> bool {
        self.confirmations(hash).is_some()
    }

    /// How many blocks of the best chain confirm what is in this block: 1 for the tip. `None` if the block is not on the best
    /// chain.
    #[must_use]
    pub fn confirmations(&self, hash: BlockHash) -> Option<u64> {
        let id = self.chain.find(hash).filter(|id| self.at(id.height) == Some(id.hash))?;
        Some(self.chain.tip().height - id.height + 1)
    }

    /// The last block that both are or descend from.
    #[must_use]
    pub fn common_ancestor(&self, one: BlockHash, other: BlockHash) -> Option<BlockId> {
        self.chain.tree().common_ancestor(one, other)
    }

    /// The highest block of the best chain that this one is or descends from.
    #[must_use]
    pub fn fork_point(&self, hash: BlockHash) -> Option<BlockId> {
        self.chain.fork_point(hash)
    }

    /// A block locator of the best chain: ten headers back from its tip, then at doubling distances, then the first.
    #[must_use]
    pub fn locator(&self) -> Vec<BlockHash> {
        self.chain.locator(self.chain.tip().hash)
    }
}

/// The chain in the hands of the sync, which alone changes it.
pub(crate) struct SharedChain(Arc<Shared>);

impl SharedChain {
    fn read(&self) -> RwLockReadGuard<'_, HeaderChain> {
        self.0.chain.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut HeaderChain) -> T) -> T {
        change(&mut self.0.chain.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The sync has ended: another node may open the store.
impl Drop for SharedChain {
    fn drop(&mut self) {
        self.change(HeaderChain::close);
    }
}

impl Chain for SharedChain {
    fn tip(&self) -> BlockId {
        self.read().tip()
    }

    fn best_at(&self, height: u64) -> Option<BlockHash> {
        self.read().best_at(height)
    }

    fn find(&self, hash: BlockHash) -> Option<BlockId> {
        self.read().find(hash)
    }

    fn fork_point(&self, hash: BlockHash) -> Option<BlockId> {
        self.read().fork_point(hash)
    }

    fn ancestor(&self, hash: BlockHash, height: u64) -> Option<BlockHash> {
        self.read().ancestor(hash, height)
    }

    fn locator(&self, from: BlockHash) -> Vec<BlockHash> {
        self.read().locator(from)
    }

    fn accept(&mut self, headers: &[Header]) -> Result<Accepted, RefusedHeaders> {
        self.change(|chain| chain.accept(headers))
    }

    fn accept_from(&mut self, peer: PeerId, headers: &[Header]) -> Result<Accepted, RefusedHeaders> {
        self.change(|chain| chain.accept_from(peer, headers))
    }

    fn lost(&mut self, peer: PeerId) {
        self.change(|chain| chain.lost(peer));
    }

    fn reject(
        &mut self,
        block: BlockHash,
        reason: &str,
    ) -> Result<Option<Update>, Arc<dyn Error + Send + Sync>> {
        self.change(|chain| chain.reject(block, reason))
    }

    fn flush(&mut self) -> Result<(), Arc<dyn Error + Send + Sync>> {
        self.change(Chain::flush)
    }

    fn local_block(&self, id: BlockId) -> Option<Block> {
        self.read().local_block(id)
    }

    fn read_head(&self, start: &[u8]) -> Option<BlockHead> {
        self.read().read_head(start)
    }

    fn irreversible(&self) -> u64 {
        self.read().irreversible()
    }

    fn slot(&self, hash: BlockHash) -> Option<u64> {
        self.read().slot(hash)
    }

    fn wanted_past(&self) -> Option<Past> {
        self.read().wanted_past()
    }

    fn accept_past(&mut self, head: &BlockHead, block: Block) -> Result<(), RefusedHeaders> {
        self.change(|chain| chain.accept_past(head, block))
    }
}
