//! What to ask of whom and when, and in which order to deliver it.
//!
//! The [`Scheduler`] is a machine without I/O: headers from one peer, then blocks from all peers at once, in flight and in
//! memory within bounds, requests of a lost or silent peer asked of another, delivered in chain order to a [`BlockSink`].
//! What a valid header is and which chain is best is for the [`Chain`] to say. [`run`] drives it with real peers.
//!
//! A sink is all that an indexer has to write:
//!
//! ```
//! use tipward_sync::{async_trait, Block, BlockId, BlockSink, SinkError};
//!
//! /// Counts transactions; a real sink stores its cursor together with its data.
//! #[derive(Default)]
//! struct Counter { cursor: Option<BlockId>, transactions: u64 }
//!
//! #[async_trait]
//! impl BlockSink for Counter {
//!     async fn cursor(&mut self) -> Result<Option<BlockId>, SinkError> {
//!         Ok(self.cursor)
//!     }
//!     async fn apply(&mut self, block: Block) -> Result<(), SinkError> {
//!         self.transactions += block.transactions;
//!         self.cursor = Some(block.id);
//!         Ok(())
//!     }
//!     async fn rollback(&mut self, to: BlockId) -> Result<(), SinkError> {
//!         self.cursor = Some(to);
//!         Ok(())
//!     }
//! }
//! # let _: Box<dyn BlockSink> = Box::new(Counter::default());
//! ```

pub use async_trait::async_trait;
pub use tipward_peer as peer;

// The lowest layer by its own name.
pub use peer::wire;

mod chain;
mod control;
mod delivery;
mod driver;
mod event;
mod filters;
mod metrics;
mod options;
mod orphans;
mod progress;
mod rejected;
mod scheduler;
mod sink;
mod watch;

pub use chain::{Accepted, BlockHead, BlockId, Chain, Past, RefusedHeaders, Update};
pub use control::{Control, RescanError, SyncEnded};
pub use driver::{Running, SyncError, SyncParts, run};
pub use event::{Event, Events};
pub use filters::FilterRules;
pub use options::{Order, Strategy, SyncOptions};
pub use orphans::{Orphan, OrphanOptions, OrphanPool, OrphanRefused};
pub use progress::{PeerProgress, PeerShare, Progress};
pub use rejected::RejectedBlocks;
pub use scheduler::{Fault, Input, Output, Scheduler};
pub use sink::{Block, BlockRejected, BlockSink, SinkError};
pub use watch::WatchSet;
