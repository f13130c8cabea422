//! The upper half of the waist: what every chain can be asked, and what it answers.

use std::fmt;

use bytes::Bytes;
use tipward_wire::{BlockEnd, BlockHash, BlockPart, DownloadId, FilterHash, FilterHeader, Header, Txid};

use crate::PeerAddress;

/// Numbers the connections of one manager; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {}", self.0)
    }
}

/// A question to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Want {
    /// The headers after the first of these hashes that the peer has on its best chain; highest first.
    HeadersAfter(Vec<BlockHash>),
    /// The hashes of the blocks after the first of these that the peer has on its best chain, up to `stop`, or as many as
    /// it tells at once. Answered by [`Reply::Announced`]; a peer that has none stays silent.
    BlocksAfter {
        /// Blocks of our chain, highest first.
        locator: Vec<BlockHash>,
        /// The last block wanted; [`BlockHash::ZERO`] for as many as the peer tells.
        stop: BlockHash,
    },
    /// These blocks, in this order if the peer keeps one.
    Blocks(Vec<BlockHash>),
    /// The blocks of the peer's best chain from this index on, in order. A peer that has fewer sends fewer, and says
    /// [`Reply::RangeEnd`] if its dialect can tell.
    Range {
        /// The index of the first: a height.
        start: u64,
        /// How many.
        count: u32,
    },
    /// The blocks of the peer's best chain whose slot is not before this one, in order; [`Reply::RangeEnd`] follows.
    SlotRange {
        /// The first slot.
        start: u64,
        /// At most so many blocks.
        count: u32,
    },
    /// The ancestors of a block, whole, its parent first; [`Reply::RangeEnd`] follows.
    Ancestors {
        /// The block.
        of: BlockHash,
        /// At most so many blocks.
        count: u32,
    },
    /// These transactions, as far as the peer has them and gives them away.
    Transactions(Vec<Txid>),
    /// Takes note of a transaction: it is announced to the peer, and handed over when the peer asks for it.
    Offer {
        /// The transaction's identifier.
        id: Txid,
        /// The transaction as it travels.
        bytes: Bytes,
    },
    /// The hashes of the filters of these blocks, which follow each other, for light clients (BIP 157). Answered by
    /// [`Reply::FilterHashes`]; on Bitcoin a node disconnects who names a block that it does not have.
    FilterHashes {
        /// The height of the first block.
        start: u64,
        /// How many blocks; 2000 at most on Bitcoin.
        count: u32,
        /// The last block.
        stop: BlockHash,
    },
    /// The filters of these blocks, each of which is the child of the one before. Answered by a [`Reply::Filter`] for each.
    Filters {
        /// The height of the first block.
        start: u64,
        /// The blocks; 1000 at most on Bitcoin.
        blocks: Vec<BlockHash>,
    },
    /// Addresses of other nodes.
    Addresses,
}

/// An answer, or what a peer says unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// Headers, in the order received; whether they link is for the chain to say.
    Headers {
        /// The headers.
        headers: Vec<Header>,
        /// The message was full: the peer has more after the last of them.
        more: bool,
    },
    /// The peer has these blocks, in its order: the answer to [`Want::BlocksAfter`], or told unasked. What the peer lists is
    /// here as it came; [`BlockHash::ZERO`] may be among it.
    Announced(Vec<BlockHash>),
    /// The peer has a new tip, and tells unasked. Comes after the headers or the list of blocks that say so.
    NewTip(BlockHash),
    /// The peer has these transactions.
    AnnouncedTransactions(Vec<Txid>),
    /// A transaction.
    Transaction {
        /// Its identifier, computed from its bytes.
        id: Txid,
        /// The transaction as it came.
        bytes: Bytes,
    },
    /// A part of a block that was asked for. Void if the peer is lost before the block's end.
    Part(BlockPart),
    /// A block that was asked for is complete: every part has come, and checksum, transaction count and merkle root agree.
    BlockEnd(BlockEnd),
    /// A block's parts stop here and are void. Why is told when the connection ends, which is next.
    BlockAborted {
        /// The block.
        block: BlockHash,
        /// The download that ends here.
        download: DownloadId,
    },
    /// More of a block has arrived than its parts tell: so many bytes so far.
    Progress {
        /// Bytes of the block seen so far.
        received: u64,
    },
    /// The peer does not have these blocks.
    Missing(Vec<BlockHash>),
    /// The peer has sent everything that it sends in answer to the oldest open [`Want::Range`], [`Want::SlotRange`] or
    /// [`Want::Ancestors`].
    RangeEnd,
    /// The peer says how high it is now: a hint, like what it says at the start.
    Height(u64),
    /// The peer does not have these transactions.
    MissingTransactions(Vec<Txid>),
    /// The peer asked for a transaction that we had offered, and it was sent.
    Fetched(Txid),
    /// The peer refuses something that it was sent.
    Rejected(Rejection),
    /// The hashes of the filters of the blocks up to `stop`, as many as were asked for.
    FilterHashes {
        /// The last block.
        stop: BlockHash,
        /// The filter header of the block before the first.
        previous: FilterHeader,
        /// The hashes, that of the first block first.
        hashes: Vec<FilterHash>,
    },
    /// The filter of a block, which was asked for.
    Filter {
        /// The block.
        block: BlockHash,
        /// The filter as it travels.
        bytes: Bytes,
    },
    /// Addresses of other nodes. Hearsay.
    Addresses(Vec<KnownAddress>),
    /// The peer's dialect can't express the question, or can't be asked it now.
    Unsupported(Want),
}

/// What a peer says about something that it refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The transaction that is refused, if one is and the peer names it: one that does not parse it can't name.
    pub transaction: Option<Txid>,
    /// The block that is refused.
    pub block: Option<BlockHash>,
    /// The dialect's number for the reason; for Bitcoin those of BIP 61 and the BSV node's.
    pub code: u8,
    /// The reason in the peer's words, without control characters; at most 111 bytes on Bitcoin.
    pub reason: String,
}

/// An address that a peer tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownAddress {
    /// Where the node is said to be.
    pub address: PeerAddress,
    /// What it is said to offer, in the bits of its dialect.
    pub services: u64,
    /// When it was last heard of, in seconds since 1970 (UTC), as the sender says.
    pub last_seen: u64,
}

/// A [`Want`] that a dialect can't express, or that would exceed what one peer may be asked at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer can't be asked this")]
pub struct Unsupported;
