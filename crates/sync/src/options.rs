//! Strategy, bounds and time-outs of a sync.

use std::time::Duration;

/// How blocks are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Strategy {
    /// Headers from one peer, challenged by the others, then blocks from all peers at once.
    HeadersFirst,
    /// Lists of blocks from one peer, then these blocks from all that announce or claim them, for nodes and chains without
    /// headers first: `getblocks`, `inv`, `getdata`.
    Inventory {
        /// How long a list is cut; 500 on Bitcoin. A list of this length has more behind it.
        batch: usize,
    },
    /// Ranges of blocks by index, different ones from different peers.
    Range {
        /// How many blocks are asked for at once; 500 at most on NEO.
        batch: u32,
    },
    /// Blocks by slot from one peer of every group with the same tip, and back-fill of what does not link.
    SlotRange {
        /// How many blocks are asked for at once.
        batch: u32,
        /// How many ancestors of one block are fetched before it is given up.
        max_back_fill: usize,
    },
}

/// In which order blocks are given to the sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// That of the chain: a block after its parent.
    Chain,
    /// As they come, each once. A rollback still undoes everything above a height. The sink's cursor must be the last block
    /// below which none is missing; what lies above it comes again after a restart.
    AsReceived,
}

/// Strategy, bounds and time-outs of a sync.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SyncOptions {
    /// How blocks are found; headers first.
    pub strategy: Strategy,
    /// In which order they are given to the sink; that of the chain.
    pub order: Order,
    /// How many blocks behind the tip the sink is kept, so that it sees fewer reorgs; 0.
    pub stay_behind: u64,
    /// How many blocks may be asked for or wait ahead of what the sink has applied; 16,384. Where blocks are found by getting
    /// them, which is with all strategies but headers first, those of `stay_behind` come on top.
    pub window: usize,
    /// How many blocks may be in flight from one peer; 512. Fewer are, as its
    /// speed and latency tell.
    pub max_in_flight: usize,
    /// How many bytes of blocks may be held; 256 MiB. Larger blocks pass through to the sink in parts.
    pub byte_budget: u64,
    /// How long a peer with requests may bring nothing, at first; 2 s. Doubles up to 64 s.
    pub stall_timeout: Duration,
    /// How long a peer may take to answer for headers; 10 s.
    pub header_timeout: Duration,
    /// How often a peer is asked for headers although it announced none; 60 s.
    pub header_interval: Duration,
    /// After so many stalls or unanswered requests in a row a peer is dropped; 3.
    pub max_strikes: u32,
    /// Stop when the block at this height is applied; nothing above it is asked for.
    pub stop_at: Option<u64>,
    /// Stop when everything that the connected peers have is applied.
    pub stop_when_synced: bool,
    /// Ask for no blocks.
    pub headers_only: bool,
}

impl Default for SyncOptions {
    fn default() -> Self {
        Self {
            strategy: Strategy::HeadersFirst,
            order: Order::Chain,
            stay_behind: 0,
            window: 16_384,
            max_in_flight: 512,
            byte_budget: 256 << 20,
            stall_timeout: Duration::from_secs(2),
            header_timeout: Duration::from_secs(10),
            header_interval: Duration::from_secs(60),
            max_strikes: 3,
            stop_at: None,
            stop_when_synced: false,
            headers_only: false,
        }
    }
}
