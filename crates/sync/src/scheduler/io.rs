//! What goes into the scheduler and what comes out of it.

use std::{error::Error, sync::Arc};

use tipward_peer::{PeerId, PeerInfo, Reply, Want, wire::BlockPart};

use super::Fault;
use crate::{Block, BlockId, Event};

/// What the scheduler is told.
#[derive(Debug)]
pub enum Input {
    /// A peer can be asked.
    Connected(PeerId, PeerInfo),
    /// A peer is gone.
    Disconnected(PeerId),
    /// A peer said something.
    Reply(PeerId, Reply),
    /// No more peers are to be expected at once.
    Settled,
    /// The sink has done so many more of the outputs that are for it, in their order: [`Output::Apply`],
    /// [`Output::ApplyPart`], [`Output::Abort`], [`Output::Skip`] and [`Output::Rollback`].
    Delivered(usize),
    /// The sink has refused a block, and everything that it was given on top of it. It is at the block's parent.
    Rejected {
        /// The block.
        block: BlockId,
        /// Which rule it breaks.
        reason: String,
    },
    /// Let the sink go back to this height, and look again at the filters of all blocks above. Of no effect without filters, and
    /// if the sink is lower.
    Rescan(u64),
    /// Ask for no more blocks until [`Input::Resume`]. What is under way still comes and is delivered.
    Pause,
    /// Go on after [`Input::Pause`].
    Resume,
    /// Nothing but the time has changed: everything that has come before `now` was told. Time-outs are acted on here, so that
    /// nobody is blamed for what was merely not read yet.
    Tick,
}

/// What the scheduler wants done, in this order.
#[derive(Debug)]
pub enum Output {
    /// Ask a peer.
    Ask(PeerId, Want),
    /// Disconnect a peer. [`Input::Disconnected`] need not follow.
    Drop(PeerId, Fault),
    /// Count something against a peer that stays.
    Penalise(PeerId, Fault),
    /// Read nothing from a peer until [`Output::Resume`]: what it sends has no room now. A little more may come.
    Hold(PeerId),
    /// Read from a peer again.
    Resume(PeerId),
    /// Undo every block above this one. For the sink, like the next four.
    Rollback(BlockId),
    /// Give the sink its next block; if [`Block::is_streamed`], its parts went before.
    Apply(Block),
    /// Give the sink a part of its next block, which is too large to be held.
    ApplyPart(BlockId, BlockPart),
    /// The parts of this block that the sink was given are void.
    Abort(BlockId),
    /// There is nothing for the sink in the blocks up to this one.
    Skip(BlockId),
    /// Tell the user.
    Event(Event),
    /// So many headers were new.
    Headers(usize),
    /// What [`SyncOptions::stop_at`](crate::SyncOptions::stop_at) or
    /// [`SyncOptions::stop_when_synced`](crate::SyncOptions::stop_when_synced) waits for has come about.
    Stopped,
    /// Headers could not be stored, or the sink is on a block that no peer knows: the sync can't go on.
    Failed(Arc<dyn Error + Send + Sync>),
}
