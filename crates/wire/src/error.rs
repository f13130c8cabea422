//! What can be wrong with bytes from the network.

use std::fmt;

use hex_conservative::DisplayHex;

use crate::{BlockHash, DownloadId};

/// A frame or message that breaks the protocol. The stream can be read on after [`WireError::Malformed`] and
/// [`WireError::Checksum`], for then the frame was consumed; after any other error it can't.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The frame is of another network, or the stream is not of this protocol at all.
    #[error("wrong network magic {}, expected {}", found.as_hex(), expected.as_hex())]
    Magic {
        /// The four bytes found.
        found: [u8; 4],
        /// The network's magic.
        expected: [u8; 4],
    },
    /// The command field is not ASCII padded with NUL.
    #[error("command field {} is not NUL-padded ASCII", found.as_hex())]
    Command {
        /// The twelve bytes found.
        found: [u8; 12],
    },
    /// The contents of an encrypted connection's record are too short to say what message they are.
    #[error("contents of {length} bytes have no message type")]
    NoType {
        /// The length of the contents, in bytes.
        length: u32,
    },
    /// A message type of one byte that is assigned to no command.
    #[error("message type {found} is assigned to no command")]
    ShortId {
        /// The type.
        found: u8,
    },
    /// The payload announced is longer than the command allows here. Nothing was allocated for it.
    #[error("'{command}' announces {length} bytes, the limit is {limit}")]
    TooLong {
        /// The frame's command.
        command: String,
        /// The length announced, in bytes.
        length: u64,
        /// The most that is accepted, in bytes.
        limit: u64,
    },
    /// The payload is not what its checksum says.
    #[error("'{command}' has checksum {}, its payload {}", expected.as_hex(), found.as_hex())]
    Checksum {
        /// The frame's command.
        command: String,
        /// The first four bytes of SHA-256d of the payload.
        found: [u8; 4],
        /// The checksum in the frame's header.
        expected: [u8; 4],
    },
    /// A payload does not parse.
    #[error("'{command}' is malformed at byte {offset}, field {field}: {problem}")]
    Malformed {
        /// The frame's command.
        command: String,
        /// The field that does not parse.
        field: &'static str,
        /// Where, in bytes from the start of the payload.
        offset: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The stream ends inside a frame.
    #[error("the stream ends inside a frame")]
    Cut,
    /// A block was given up: it does not parse, does not agree with its own header, or does not come to its end.
    #[error(transparent)]
    Block(#[from] BlockAborted),
}

/// A block was given up; all its parts that were yielded under the download's id are void.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", BlockName(*block))]
pub struct BlockAborted {
    /// The download that ends here.
    pub download: DownloadId,
    /// The block; `None` if not even its header came.
    pub block: Option<BlockHash>,
    /// Why.
    #[source]
    pub reason: BlockError,
}

struct BlockName(Option<BlockHash>);

impl fmt::Display for BlockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(hash) => write!(f, "block {hash}"),
            None => f.write_str("a block without header"),
        }
    }
}

/// Why a block was given up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The block is too short to hold a header and a transaction count.
    #[error("{size} bytes have no room for a header and a transaction")]
    NoHeader {
        /// The block's size in bytes.
        size: u64,
    },
    /// A field reaches past the end of the block, or bytes follow the last transaction.
    #[error("it does not parse at byte {offset}: {problem}")]
    Malformed {
        /// Where, in bytes from the start of the block.
        offset: u64,
        /// What is wrong there.
        problem: &'static str,
    },
    /// The payload is not what its frame's checksum says.
    #[error("its frame has checksum {}, its bytes {}", expected.as_hex(), found.as_hex())]
    Checksum {
        /// The first four bytes of SHA-256d of the block.
        found: [u8; 4],
        /// The checksum in the frame's header.
        expected: [u8; 4],
    },
    /// The merkle root of the transactions is not the header's.
    #[error("wrong merkle root")]
    MerkleRoot,
    /// The transactions give the right merkle root only because some are listed twice (CVE-2012-2459).
    #[error("it repeats transactions (CVE-2012-2459)")]
    Mutated,
    /// The first transaction is no coinbase. Without one the merkle root proves nothing: it may be that of two transactions
    /// whose ids were given for one transaction of 64 bytes (CVE-2017-12842).
    #[error("its first transaction is no coinbase")]
    NoCoinbase,
    /// The witnesses are not those that the coinbase commits to (BIP 141).
    #[error("wrong witness commitment")]
    WitnessCommitment,
    /// It weighs more than its network allows (BIP 141).
    #[error("a weight of {weight}, the limit is {limit}")]
    Weight {
        /// Its weight, in weight units.
        weight: u64,
        /// The most that is allowed, in weight units.
        limit: u64,
    },
    /// The stream ends inside the block.
    #[error("the stream ends after {received} of {size} bytes")]
    Cut {
        /// How many bytes came.
        received: u64,
        /// The block's size in bytes.
        size: u64,
    },
}
