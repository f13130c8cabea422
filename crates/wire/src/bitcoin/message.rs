//! The messages, as values. Layouts: the Bitcoin developer reference; BIPs 31 (pong), 37 (relay flag), 130 (sendheaders),
//! 144 (witness inventory); `protoconf` from the BSV node.

use std::{
    fmt,
    net::{Ipv6Addr, SocketAddr},
    ops::BitOr,
};

use bytes::Bytes;

use super::{BlockHeader, Command};
use crate::BlockHash;

/// The most headers in one `headers` message.
pub const MAX_HEADERS: usize = 2000;
/// The most entries in one `inv`, `getdata` or `notfound` message.
pub const MAX_INVENTORY: usize = 50_000;
/// The most hashes in one block locator; nodes disconnect who sends more.
pub const MAX_LOCATOR: usize = 101;

/// A message of the Bitcoin dialect.
///
/// Blocks arrive as [`Incoming::Block`](crate::Incoming::Block) and never as a message; [`Message::Block`] is for those
/// who serve them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// Opens the handshake.
    Version(Version),
    /// Answers `version`.
    Verack,
    /// Asks for a `pong` with the same nonce (BIP 31).
    Ping(u64),
    /// Answers `ping`.
    Pong(u64),
    /// Asks for the headers after the first hash of the locator that the node has on its best chain.
    GetHeaders(Locator),
    /// Asks for an `inv` of the blocks after the locator.
    GetBlocks(Locator),
    /// Headers, each the child of the one before; at most [`MAX_HEADERS`].
    Headers(Vec<BlockHeader>),
    /// Announces objects.
    Inv(Vec<Inventory>),
    /// Asks for objects.
    GetData(Vec<Inventory>),
    /// Objects that were asked for and are not there. Nodes send it for transactions, not for blocks.
    NotFound(Vec<Inventory>),
    /// Asks for announcements by `headers` instead of `inv` (BIP 130).
    SendHeaders,
    /// What the sender of this message accepts (BSV).
    Protoconf(Protoconf),
    /// Refuses a message.
    Reject(Reject),
    /// A block to be sent, serialized.
    Block(Bytes),
    /// Any other command, kept as it came.
    Other {
        /// The command.
        command: Command,
        /// The payload.
        payload: Bytes,
    },
}

impl Message {
    /// The command under which the message travels.
    #[must_use]
    pub fn command(&self) -> Command {
        let name = match self {
            Self::Version(_) => "version",
            Self::Verack => "verack",
            Self::Ping(_) => "ping",
            Self::Pong(_) => "pong",
            Self::GetHeaders(_) => "getheaders",
            Self::GetBlocks(_) => "getblocks",
            Self::Headers(_) => "headers",
            Self::Inv(_) => "inv",
            Self::GetData(_) => "getdata",
            Self::NotFound(_) => "notfound",
            Self::SendHeaders => "sendheaders",
            Self::Protoconf(_) => "protoconf",
            Self::Reject(_) => "reject",
            Self::Block(_) => "block",
            Self::Other { command, .. } => return *command,
        };
        Command::new(name).expect("command names are short ASCII")
    }
}

/// What a node offers, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Services(pub u64);

impl Services {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// All blocks.
    pub const NETWORK: Self = Self(1);
    /// Blocks with witnesses (BIP 144).
    pub const WITNESS: Self = Self(1 << 3);
    /// The last 288 blocks (BIP 159).
    pub const NETWORK_LIMITED: Self = Self(1 << 10);

    /// Whether every bit of `other` is set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Services {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Services({:#x})", self.0)
    }
}

/// An address inside `version`: 26 bytes, IPv4 mapped into IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkAddress {
    /// What the node there is said to offer.
    pub services: Services,
    /// The address.
    pub ip: Ipv6Addr,
    /// The port.
    pub port: u16,
}

impl NetworkAddress {
    /// No address, as nodes send it for themselves.
    pub const UNSPECIFIED: Self = Self { services: Services::NONE, ip: Ipv6Addr::UNSPECIFIED, port: 0 };
}

impl From<SocketAddr> for NetworkAddress {
    fn from(address: SocketAddr) -> Self {
        let ip = match address {
            SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped(),
            SocketAddr::V6(v6) => *v6.ip(),
        };
        Self { services: Services::NONE, ip, port: address.port() }
    }
}

/// The `version` message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The highest protocol version the sender speaks.
    pub protocol: i32,
    /// What the sender offers.
    pub services: Services,
    /// The sender's clock, in seconds since 1970 (UTC).
    pub time: i64,
    /// The receiver as the sender sees it.
    pub receiver: NetworkAddress,
    /// The sender as it sees itself; not to be relied on.
    pub sender: NetworkAddress,
    /// A random number; a node that receives its own has dialled itself.
    pub nonce: u64,
    /// The sender's software, at most 256 bytes.
    pub user_agent: String,
    /// The height that the sender claims for its best block: a hint, never a fact.
    pub start_height: i32,
    /// Whether the sender wants transactions announced (BIP 37); a message without the flag says yes.
    pub relay: bool,
}

/// A block locator: hashes from a tip back to genesis, at growing distances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locator {
    /// The sender's protocol version; nodes ignore it.
    pub protocol: u32,
    /// Known hashes, highest first, at most [`MAX_LOCATOR`].
    pub hashes: Vec<BlockHash>,
    /// The last hash wanted; [`BlockHash::ZERO`] for as many as fit.
    pub stop: BlockHash,
}

/// One entry of an inventory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inventory {
    /// What kind of object.
    pub kind: InventoryKind,
    /// The object's hash, in the order in which it travels.
    pub hash: [u8; 32],
}

impl Inventory {
    /// A block.
    #[must_use]
    pub const fn block(kind: InventoryKind, hash: BlockHash) -> Self {
        Self { kind, hash: *hash.as_bytes() }
    }
}

/// The kind of an inventory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InventoryKind {
    /// A transaction.
    Tx,
    /// A block.
    Block,
    /// A block with its witnesses (BIP 144).
    WitnessBlock,
    /// Any other kind, kept as it came.
    Other(u32),
}

impl InventoryKind {
    pub(crate) const fn from_u32(kind: u32) -> Self {
        match kind {
            1 => Self::Tx,
            2 => Self::Block,
            0x4000_0002 => Self::WitnessBlock,
            other => Self::Other(other),
        }
    }

    pub(crate) const fn to_u32(self) -> u32 {
        match self {
            Self::Tx => 1,
            Self::Block => 2,
            Self::WitnessBlock => 0x4000_0002,
            Self::Other(other) => other,
        }
    }
}

/// The `protoconf` message of BSV.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protoconf {
    /// The longest payload that the sender accepts, in bytes; at least 1,048,576. Blocks are not bound by it.
    pub max_receive_payload: u32,
    /// The stream policies that the sender knows, comma separated, at most 650 bytes; `None` if it doesn't say.
    pub stream_policies: Option<String>,
}

/// The `reject` message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The command that is refused, at most 12 bytes.
    pub message: String,
    /// The reason as a number: 1 malformed, 16 invalid, 17 obsolete, 18 duplicate and so on.
    pub code: u8,
    /// The reason as text, at most 111 bytes.
    pub reason: String,
    /// The object's hash, for a transaction or a block that is well formed.
    pub hash: Option<[u8; 32]>,
}
