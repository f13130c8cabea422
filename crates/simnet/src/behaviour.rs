//! How a simulated node behaves.

use tipward_wire::bitcoin::RejectCode;

/// What a node does with those who connect. All but the first are what peers of the real network do as well. One that comes
/// and goes is [stopped](crate::SimNode::stop) and restarted.
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
    /// Comes to this in the middle of a block, after so many.
    Midway {
        /// Blocks served on each connection before.
        blocks: u32,
        /// What happens then.
        then: Midway,
    },
    /// Sends headers that do not link to each other.
    UnlinkedHeaders,
    /// Sends headers that link to nothing known.
    UnknownParent,
    /// Sends headers whose hash misses their own target.
    HeadersWithoutWork,
    /// Sends another block than the one asked for.
    UnrequestedBlock,
    /// Sends its last block unasked, once, after the handshake.
    PushesBlock,
    /// Says `notfound` to whoever asks for blocks.
    LacksBlocks,
    /// Shows its chain up to this height only, and claims no more.
    StaleTip {
        /// The height of the last block that it shows.
        height: u64,
    },
    /// Sends blocks in which a transaction was changed.
    WrongMerkleRoot,
    /// Sends blocks with other witnesses than they commit to: their hashes and merkle roots are right.
    WrongWitnesses,
    /// Accepts connections, reads, and says nothing.
    SilentAtConnect,
    /// Neither answers nor reads after so many blocks, as a host does that has lost its power; 0 for right after the
    /// handshake. It notices that the client is gone only when that resets the connection, or has nothing left to send.
    HalfOpen {
        /// Blocks served on each connection before.
        blocks: u32,
    },
    /// Resets the connection (RST instead of FIN).
    ResetsAt(Stage),
    /// After the handshake sends the same over and over, as fast as it is taken, and answers nothing.
    Flooding {
        /// What it sends.
        kind: Flood,
    },
    /// Claims another height in its version, and serves its chain.
    LiesAboutHeight {
        /// The height it claims.
        height: i32,
    },
    /// Serves, instead of its chain, one as long that begins with another genesis block.
    WrongChain,
    /// Serves its chain, and filters in this way.
    Filters(FilterFault),
    /// Refuses every transaction with `reject`.
    RejectsTransactions {
        /// The code.
        code: RejectCode,
        /// The reason as text, at most 111 bytes.
        reason: &'static str,
    },
}

/// What is wrong with the compact filters of a node that claims to serve them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterFault {
    /// They have nothing that transactions other than the coinbase pay. Hashes and headers agree with that.
    LackPayments,
    /// They have a script that is not in the block. Hashes and headers agree with that.
    HaveMore,
    /// They do not have the hashes that it tells.
    MissTheirHashes,
    /// Of hashes it tells the right ones and those of [`LackPayments`](Self::LackPayments) by turns.
    ChangeTheirHashes,
    /// Whoever asks is disconnected, as by a node that does not serve them.
    Refused,
    /// Who asks hears nothing.
    Silent,
}

/// What a node comes to in the middle of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Midway {
    /// It closes the connection.
    Closes,
    /// It resets the connection (RST instead of FIN).
    Resets,
    /// It sends nothing more, and keeps the connection.
    Stalls,
    /// It sends the rest, and all that follows, at this rate.
    Trickles {
        /// The rate, at least 1.
        bytes_per_second: u32,
    },
}

/// A point in the life of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// As soon as it is accepted.
    Connect,
    /// When the client's `version` has come, before the node's own.
    BeforeVersion,
    /// When the node has sent its `version`.
    AfterVersion,
    /// When the client's `verack` has come, before the node's own.
    BeforeVerack,
    /// When both sides have sent `verack`.
    AfterVerack,
}

/// What a flooding node sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// `ping`.
    Pings,
    /// `addr` with a thousand addresses.
    Addresses,
    /// A message of a command that nobody knows.
    Unknown,
}
