//! How a connection behaves.

use std::time::Duration;

use crate::Local;

/// Time-outs of a connection, what its codec may take, and what is told of us.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LinkOptions {
    /// How long a dial may take, host name resolution and proxy included; 10 s.
    pub connect_timeout: Duration,
    /// How long the handshake may take; 30 s.
    pub handshake_timeout: Duration,
    /// How long a request in the dialect's own messages waits for its answer, unless it says otherwise; 30 s.
    pub request_timeout: Duration,
    /// How often to ping; 120 s.
    pub ping_interval: Duration,
    /// How long a peer may be silent, or leave a ping unanswered while it sends less than 1 MiB; 20 min.
    pub idle_timeout: Duration,
    /// How long a peer may leave unread what we send; 60 s.
    pub write_timeout: Duration,
    /// How long sending the rest may take when we close; 1 s.
    pub close_timeout: Duration,
    /// While more bytes than this wait to be sent, nothing is read that could add to them and no message of ours is taken;
    /// 1 MiB. One message more may be on top.
    pub max_unsent: usize,
    /// The largest block accepted, in bytes; `None` for the network's own limit (4,000,000 on BTC and a weight of as much, 8 GiB on
    /// BSV). The limit for the weight is four times what is set here.
    pub max_block_size: Option<u64>,
    /// The target size of a block's parts, in bytes; 4 MiB. Smaller blocks come whole.
    pub part_size: usize,
    /// Who compares blocks with the checksums of their frames.
    pub checksum: Checksum,
    /// Whether blocks are compared with the merkle root of their headers, and witnesses with the commitment to them; on. Costs as
    /// much as two more checksums, or three.
    pub merkle_root: bool,
    /// What is told of the messages that come.
    pub delivery: Delivery,
    /// Encryption, where the dialect knows one (BIP 324 on BTC).
    pub encrypt: Encrypt,
    /// What a peer must offer.
    pub needs: Needs,
    /// What we call ourselves; at most 256 bytes. BSV nodes ban names that contain "abc", "cash" or "bch".
    pub user_agent: String,
    /// What we offer, in the bits of the dialect; 0. Who offers something answers questions in a
    /// [`PeerHandler`](crate::PeerHandler).
    pub services: u64,
    /// Whether peers shall tell us of transactions; off. Needed to see a broadcast come back.
    pub relay_transactions: bool,
    /// What a [`Client`](crate::Client) tells about us that changes; a manager has its own.
    pub local: Local,
}

/// Who compares blocks with the checksums of their frames. Frames without one, BSV's beyond 4 GiB and encrypted ones, are
/// never compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// The connection's task, while the bytes pass.
    Inline,
    /// A thread of its own beside it, which leaves the task time for the socket.
    Thread,
    /// Nobody: the merkle root is to tell. Witnesses are not covered by that.
    Off,
}

/// What is told of the messages that come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// What has neutral words; the rest is dropped.
    Neutral,
    /// What has neutral words in these, and the rest as it came.
    All,
    /// Every message as it came, and blocks in neutral parts.
    Raw,
}

/// Encryption of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encrypt {
    /// If the peer knows how: a peer that hangs up on it is dialled again and spoken to in clear text.
    Prefer,
    /// Or no connection.
    Require,
    /// Never.
    Off,
}

/// What a peer must offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Blocks, with witnesses where the chain has them.
    Blocks,
    /// Blocks and their filters, where the chain has them (BIP 157). DNS seeds are asked for nodes that serve them.
    Filters,
    /// Nothing.
    Nothing,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(30),
            ping_interval: Duration::from_secs(120),
            idle_timeout: Duration::from_secs(20 * 60),
            write_timeout: Duration::from_secs(60),
            close_timeout: Duration::from_secs(1),
            max_unsent: 1 << 20,
            max_block_size: None,
            part_size: 4 << 20,
            checksum: Checksum::Inline,
            merkle_root: true,
            delivery: Delivery::Neutral,
            encrypt: Encrypt::Prefer,
            needs: Needs::Blocks,
            user_agent: concat!("/tipward:", env!("CARGO_PKG_VERSION"), "/").to_owned(),
            services: 0,
            relay_transactions: false,
            local: Local::default(),
        }
    }
}
