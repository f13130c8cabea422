//! What every flow has in common: how blocks are found is a flow's business, how known blocks are fetched and delivered is
//! not.
//!
//! A flow is a machine: `handle(now, input, context)`, then `poll()` until `None`, and again at `deadline()`. It learns of
//! blocks, asks the chain to accept them, and says which peer has what. Blocks whose place in the chain is known are
//! fetched, if a flow has not brought them already, and delivered by the scheduler.

use std::{error::Error, sync::Arc, time::Instant};

use tipward_peer::{
    PeerId, PeerInfo, Want,
    wire::{BlockHash, BlockPart, Header},
};

use super::{
    Fault,
    flows::{HeadersFlow, InventoryFlow, RangeFlow, SlotFlow},
};
use crate::{Accepted, Block, BlockHead, BlockId, Chain, Strategy, SyncOptions};

/// The flow that a strategy names.
#[derive(Debug)]
pub(crate) enum Flow {
    Headers(Box<HeadersFlow>),
    Inventory(Box<InventoryFlow>),
    Range(Box<RangeFlow>),
    Slots(Box<SlotFlow>),
}

impl Flow {
    pub(crate) fn new(options: &SyncOptions, seed: u64) -> Self {
        match options.strategy {
            Strategy::HeadersFirst => Self::Headers(Box::new(HeadersFlow::new(options, seed))),
            Strategy::Inventory { batch } => {
                Self::Inventory(Box::new(InventoryFlow::new(options, batch, seed)))
            }
            Strategy::Range { batch } => Self::Range(Box::new(RangeFlow::new(options, batch, seed))),
            Strategy::SlotRange { batch, max_back_fill } => {
                Self::Slots(Box::new(SlotFlow::new(options, batch, max_back_fill, seed)))
            }
        }
    }

    pub(crate) fn handle(&mut self, now: Instant, input: FlowInput, context: &mut FlowContext<'_>) {
        match self {
            Self::Headers(flow) => flow.handle(now, input, context),
            Self::Inventory(flow) => flow.handle(now, input, context),
            Self::Range(flow) => flow.handle(now, input, context),
            Self::Slots(flow) => flow.handle(now, input, context),
        }
    }

    pub(crate) fn poll(&mut self) -> Option<FlowOutput> {
        match self {
            Self::Headers(flow) => flow.poll(),
            Self::Inventory(flow) => flow.poll(),
            Self::Range(flow) => flow.poll(),
            Self::Slots(flow) => flow.poll(),
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Headers(flow) => flow.deadline(),
            Self::Inventory(flow) => flow.deadline(),
            Self::Range(flow) => flow.deadline(),
            Self::Slots(flow) => flow.deadline(),
        }
    }

    /// Whether known blocks may be fetched yet.
    pub(crate) fn may_fetch(&self) -> bool {
        match self {
            Self::Headers(flow) => flow.may_fetch(),
            Self::Inventory(flow) => flow.may_fetch(),
            Self::Range(flow) => flow.may_fetch(),
            Self::Slots(flow) => flow.may_fetch(),
        }
    }

    /// Whether everything that the connected peers have is known.
    pub(crate) fn is_caught_up(&self) -> bool {
        match self {
            Self::Headers(flow) => flow.is_caught_up(),
            Self::Inventory(flow) => flow.is_caught_up(),
            Self::Range(flow) => flow.is_caught_up(),
            Self::Slots(flow) => flow.is_caught_up(),
        }
    }

    /// Bytes of blocks that the flow keeps.
    pub(crate) fn buffered_bytes(&self) -> u64 {
        match self {
            Self::Headers(_) => 0,
            Self::Inventory(flow) => flow.buffered_bytes(),
            Self::Range(flow) => flow.buffered_bytes(),
            Self::Slots(flow) => flow.buffered_bytes(),
        }
    }

    /// Whether the flow finds blocks by getting them. It makes do with the header of one that has no room: known, its body is
    /// fetched in its turn. Then no peer is held with a block that may have to wait for one that would come after it.
    pub(crate) fn takes_blocks(&self) -> bool {
        !matches!(self, Self::Headers(_))
    }
}

/// What a flow is told.
#[derive(Debug)]
pub(crate) enum FlowInput {
    /// A peer can be asked.
    Connected(PeerId, PeerInfo),
    /// A peer is gone: lost, or dropped by anybody but this flow.
    Disconnected(PeerId),
    /// Headers came, asked for or not.
    Headers { peer: PeerId, headers: Vec<Header>, more: bool },
    /// A peer tells that it has these blocks, asked for or not.
    Announced(PeerId, Vec<BlockHash>),
    /// A peer says how high it is.
    Height(PeerId, u64),
    /// A whole block came that the flow asked for, or of which the scheduler knows nothing.
    Block(Arrived),
    /// A block comes whose body is not for the flow: it has no room before its place in the chain is known, or its place was found
    /// while it came. What it says at its start, if that is to be understood; a flow that [takes blocks](Flow::takes_blocks) is
    /// told before the chain is.
    NoRoom { peer: PeerId, block: BlockHash, head: Option<BlockHead> },
    /// A block of the tree has begun to come from this peer that the scheduler has asked for itself. The flow does not get it,
    /// although it may be part of an answer to the flow. For flows that [take blocks](Flow::takes_blocks).
    Passes(PeerId, BlockHead),
    /// The scheduler has found the place of a block that the flow asked for, and gets it to the sink: the request is done.
    Known(BlockHash),
    /// A peer does not have these blocks, which the flow asked for, or can't bring them now.
    Missing(PeerId, Vec<BlockHash>),
    /// A peer has answered the oldest open question for a range.
    RangeEnd(PeerId),
    /// A peer can't be asked this.
    Unsupported(PeerId, Want),
    /// Bytes of a block came from this peer: it is busy sending. Or it is held by us. A flow that takes blocks is not told of
    /// a trickle.
    Progress(PeerId),
    /// Nothing is read from this peer until it is let go: what it does not say meanwhile is not its fault.
    Held(PeerId),
    /// The peer is let go.
    Released(PeerId),
    /// The chain has given up this block and all that build on it; this is its parent. For the flow that knows headers only.
    Rejected { parent: BlockId },
    /// There is more room, or the user goes on after a pause. For flows that take blocks.
    Room,
    /// Nothing but the time has changed. Time-outs are acted on here only: everything that came before was told.
    Tick,
}

/// What a flow can look at and change.
pub(crate) struct FlowContext<'a> {
    /// The block tree.
    pub(crate) chain: &'a mut dyn Chain,
    /// How many more blocks have room beyond those of the best chain that are known. Blocks that the flow has asked for, or
    /// keeps, are for it to subtract.
    pub(crate) room: usize,
    /// How many more bytes have room, likewise.
    pub(crate) byte_room: u64,
    /// False while the user has paused: ask for no blocks.
    pub(crate) may_ask: bool,
}

/// What a flow wants done, in this order.
#[derive(Debug)]
pub(crate) enum FlowOutput {
    /// Ask a peer.
    Ask(PeerId, Want),
    /// Disconnect a peer. [`FlowInput::Disconnected`] does not follow; the flow forgets it by itself.
    Drop(PeerId, Fault),
    /// Count something against a peer that stays.
    Penalise(PeerId, Fault),
    /// The chain has taken headers or a block; its best branch may have changed.
    Accepted(Accepted),
    /// The body of a block that the chain has taken. Comes after that.
    Body(Block),
    /// The peer has this block, which is in the tree, and its ancestors.
    Shows(PeerId, BlockHash),
    /// The peer has answered and shown nothing: what it claims is all that is known.
    ShowsNothing(PeerId),
    /// What the peer claims is not to be believed any more.
    Disbelieve(PeerId),
    /// The chain's store failed: the sync can't go on.
    Failed(Arc<dyn Error + Send + Sync>),
}

/// A whole block that came, whose place in the chain the scheduler does not know.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    pub(crate) hash: BlockHash,
    pub(crate) parts: Vec<BlockPart>,
    pub(crate) transactions: u64,
    pub(crate) size: u64,
    pub(crate) served_by: PeerId,
}

impl Arrived {
    /// The first bytes, for [`Chain::read_head`].
    pub(crate) fn start(&self) -> &[u8] {
        self.parts.first().map_or(&[], |part| &part.bytes[..])
    }

    pub(crate) fn into_block(self, height: u64) -> Block {
        Block {
            id: BlockId { height, hash: self.hash },
            parts: self.parts,
            transactions: self.transactions,
            size: self.size,
            served_by: Some(self.served_by),
            is_streamed: false,
        }
    }
}
