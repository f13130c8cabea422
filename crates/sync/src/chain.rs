//! What the scheduler needs to know of the chain.

use std::{error::Error, fmt, sync::Arc};

use tipward_peer::{
    PeerId,
    wire::{BlockHash, Header},
};

use crate::Block;

/// A block and its height; genesis has height 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId {
    /// The height.
    pub height: u64,
    /// The hash.
    pub hash: BlockHash,
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at height {}", self.hash, self.height)
    }
}

/// A fork choice rule's answer: the best chain so far cut to `keep` blocks, then `append` on top. If `keep` is less than
/// there were, that is a reorg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// How many blocks stay, genesis included.
    pub keep: u64,
    /// The blocks that follow, in order.
    pub append: Vec<BlockHash>,
}

/// What a block says about itself at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockHead {
    /// The header, as [`Chain::accept`] takes it.
    pub header: Header,
    /// The blocks that it builds on: one on most chains, several in a DAG; none for genesis.
    pub parents: Vec<BlockHash>,
    /// The index that it claims: a height, or a slot.
    pub index: Option<u64>,
}

/// Where the past of a trusted block ends so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// The lowest block that is there.
    pub of: BlockId,
    /// Its parent, which is wanted.
    pub parent: BlockHash,
}

/// What became of a run of headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// How many were new.
    pub added: usize,
    /// The last of the run that is in the tree now; `None` if none is.
    pub last: Option<BlockHash>,
    /// How the best chain changed, if it did.
    pub update: Option<Update>,
}

/// Why a run of headers was refused as a whole.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RefusedHeaders {
    /// The first header's parent is not in the tree.
    #[error("the parent {parent} is not known")]
    UnknownParent {
        /// The parent.
        parent: BlockHash,
    },
    /// A header breaks the chain's rules.
    #[error(transparent)]
    Invalid(Arc<dyn Error + Send + Sync>),
    /// They fork off below the block below which nothing changes any more: whoever follows them is on another chain for good.
    #[error(transparent)]
    TooDeep(Arc<dyn Error + Send + Sync>),
    /// The headers are valid and could not be stored; not the peer's fault.
    #[error(transparent)]
    Store(Arc<dyn Error + Send + Sync>),
}

/// The block tree as the scheduler sees it. All calls are quick; none may block for long.
pub trait Chain: Send + 'static {
    /// The last block of the best chain.
    fn tip(&self) -> BlockId;

    /// The hash at a height of the best chain.
    fn best_at(&self, height: u64) -> Option<BlockHash>;

    /// Where a block is, on the best chain or not; `None` if it is not in the tree.
    fn find(&self, hash: BlockHash) -> Option<BlockId>;

    /// The highest block of the best chain that `hash` is or descends from; `None` if `hash` is not in the tree.
    fn fork_point(&self, hash: BlockHash) -> Option<BlockId>;

    /// The block at that height that `hash` is or descends from. By default it is told for blocks of the best chain only.
    fn ancestor(&self, hash: BlockHash, height: u64) -> Option<BlockHash> {
        let point = self.fork_point(hash)?;
        self.best_at(height).filter(|_| point.hash == hash && height <= point.height)
    }

    /// A block locator that starts at `from`, which is in the tree. It may start below, if what lies between is wanted again: then
    /// whoever has shown `from` is asked again, even if it has no more.
    fn locator(&self, from: BlockHash) -> Vec<BlockHash>;

    /// Takes headers, each the child of the one before. All or nothing.
    ///
    /// # Errors
    /// They break a rule, or can't be stored; nothing of them is kept then.
    fn accept(&mut self, headers: &[Header]) -> Result<Accepted, RefusedHeaders>;

    /// The same for headers of this peer: a chain that looks at headers before it takes them tells peers apart, so that none can
    /// be in another's way.
    ///
    /// # Errors
    /// As of [`accept`](Self::accept).
    fn accept_from(&mut self, _peer: PeerId, headers: &[Header]) -> Result<Accepted, RefusedHeaders> {
        self.accept(headers)
    }

    /// This peer is gone: what it has begun to show is not waited for.
    fn lost(&mut self, _peer: PeerId) {}

    /// Gives up a block that breaks a rule which its header does not show, and everything that builds on it, for good: headers
    /// of that branch are refused from now on. Returns how the best chain changed, if it did. By default a chain does not
    /// know how.
    ///
    /// # Errors
    /// It can't be given up: it is where the chain starts, say, or the store fails.
    fn reject(
        &mut self,
        block: BlockHash,
        reason: &str,
    ) -> Result<Option<Update>, Arc<dyn Error + Send + Sync>> {
        let error: Box<dyn Error + Send + Sync> =
            format!("block {block} can't be given up ({reason})").into();
        Err(error.into())
    }

    /// Waits until everything that was accepted is durable, at the end. A crash may lose what was accepted last: peers have it.
    ///
    /// # Errors
    /// It can't be stored.
    fn flush(&mut self) -> Result<(), Arc<dyn Error + Send + Sync>> {
        Ok(())
    }

    /// A block that need not be asked for, such as genesis.
    fn local_block(&self, id: BlockId) -> Option<Block>;

    /// What a block says about itself, read from its first bytes: its first part, or all of it. For strategies that get
    /// blocks before headers; a chain that answers `None` to everything can't be synced by those.
    ///
    /// `None` unless it passes every check that needs no other block: that it parses, that its hash meets the difficulty that
    /// it claims, and that everything told here is what the hash stands for. Where parents are outside of the bytes that are
    /// hashed, as in a DAG, they have to agree with what the hash does commit to: a copy with other parents must not take the
    /// place of the true block. Who serves a block of which this is `None` is at fault, and it is asked of another.
    fn read_head(&self, _start: &[u8]) -> Option<BlockHead> {
        None
    }

    /// The height below which nothing changes any more: back-fill does not go below it.
    fn irreversible(&self) -> u64 {
        0
    }

    /// The slot of a block in the tree, for chains whose blocks claim slots and not heights. By default the height, which no
    /// slot is below, of blocks of the best chain.
    fn slot(&self, hash: BlockHash) -> Option<u64> {
        self.fork_point(hash).filter(|point| point.hash == hash).map(|point| point.height)
    }

    /// Everything that the peers have is known and, unless only headers are wanted, with the sink: told together with each
    /// [`Event::Synced`](crate::Event::Synced). A rule may make final then what it may not while the chain could be one that was
    /// made in secret.
    fn caught_up(&mut self) {}

    /// For a tree that starts at a trusted block: where its past ends so far, if more of it is wanted.
    fn wanted_past(&self) -> Option<Past> {
        None
    }

    /// Takes the block that [`wanted_past`](Self::wanted_past) asks for; afterwards that must ask for another, or none.
    ///
    /// # Errors
    /// It breaks a rule, and with it everything that builds on it, the trusted block too; or it can't be stored.
    fn accept_past(&mut self, _head: &BlockHead, _block: Block) -> Result<(), RefusedHeaders> {
        Ok(())
    }
}
