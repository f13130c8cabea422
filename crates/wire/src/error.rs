//! What can be wrong with bytes from the network.

use hex_conservative::DisplayHex;

use crate::BlockHash;

/// A frame or message that breaks the protocol. The stream it came from can't be read on.
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
    /// A block does not parse or does not agree with its own header.
    #[error(transparent)]
    Block(#[from] BlockError),
}

/// A block that does not parse or does not agree with its own header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The block is too short to hold a header and a transaction count.
    #[error("a block of {size} bytes has no room for a header and a transaction")]
    NoHeader {
        /// The block's size in bytes.
        size: u64,
    },
    /// A field reaches past the end of the block, or bytes follow the last transaction.
    #[error("block {block} does not parse at byte {offset}: {problem}")]
    Malformed {
        /// The block.
        block: BlockHash,
        /// Where, in bytes from the start of the block.
        offset: u64,
        /// What is wrong there.
        problem: &'static str,
    },
    /// The merkle root of the transactions is not the header's.
    #[error("block {block} has a wrong merkle root")]
    MerkleRoot {
        /// The block.
        block: BlockHash,
    },
    /// The transactions give the right merkle root only because some are listed twice (CVE-2012-2459).
    #[error("block {block} repeats transactions (CVE-2012-2459)")]
    Mutated {
        /// The block.
        block: BlockHash,
    },
}
