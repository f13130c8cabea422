//! How a simulated node behaves.

/// What a node does with those who connect. All but the first are what peers of the real network do as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Behaviour {
    /// Serves what it is asked for.
    Honest,
    /// Sends no more than so many bytes a second.
    Slow {
        /// The rate, at least 1.
        bytes_per_second: u32,
    },
    /// Stops answering anything after so many blocks, and keeps the connection.
    SilentAfter {
        /// Blocks served on each connection before.
        blocks: u32,
    },
    /// Stops once after so many blocks, then goes on with what it was asked.
    PausesAfter {
        /// Blocks served on each connection before.
        blocks: u32,
        /// How long, in milliseconds.
        milliseconds: u64,
    },
    /// Closes the connection after so many blocks.
    ClosesAfter {
        /// Blocks served on each connection before.
        blocks: u32,
    },
    /// Sends blocks in frames of another network.
    WrongMagic,
    /// Sends blocks with a wrong checksum.
    BadChecksum,
    /// Announces a `headers` message of 4 GB.
    OversizedLength,
    /// Closes the connection in the middle of a block.
    TruncatedFrame,
    /// Sends headers that do not link to each other.
    UnlinkedHeaders,
    /// Sends headers that link to nothing known.
    UnknownParent,
    /// Sends headers whose hash misses their own target.
    HeadersWithoutWork,
    /// Sends another block than the one asked for.
    UnrequestedBlock,
    /// Sends blocks in which a transaction was changed.
    WrongMerkleRoot,
}
