//! How a pool behaves.

use std::time::Duration;

use crate::{BookOptions, Timings};

/// How a pool behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PoolOptions {
    /// With fewer peers than this the pool hurries: it recycles addresses and looks for new ones at once; 1.
    pub min_peers: usize,
    /// The most connections that we open, dials included; 8.
    pub max_peers: usize,
    /// The most connections that others open; 32.
    pub max_inbound: usize,
    /// How many connections to open to one address, for lines with a long delay; 1.
    pub connections_per_host: usize,
    /// The most connections to one network group (IPv4 /16, IPv6 /32) among those to addresses that nobody has given; 1.
    pub per_network_group: usize,
    /// How long an address is left alone that broke the protocol; 24 h.
    pub ban: Duration,
    /// How often peers are looked at; 10 s.
    pub check_interval: Duration,
    /// How often a peer is asked for addresses while too few are known; 15 s.
    pub address_interval: Duration,
    /// How long a peer may miss what others know; 120 s.
    pub not_advancing: Duration,
    /// How many useless answers are too many on one connection; 5.
    pub max_errors: u32,
    /// How many unanswered requests are too many on one connection; 15.
    pub max_time_outs: u32,
    /// How long a peer is kept before it may be replaced by one that was measured to be twice as fast; 5 min.
    pub replace_after: Duration,
    /// Who is chosen for a request.
    pub choice: Choice,
    /// Whether addresses are looked for; by default if none are given.
    pub discovery: Discovery,
    /// How long silence may last, by status.
    pub timings: Timings,
    /// How addresses are kept.
    pub book: BookOptions,
}

/// Who is chosen for a request among the peers that can answer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// One after the other.
    RoundRobin,
    /// By chance, in proportion to measured speed, time since the last use, and how few errors and time-outs there were.
    Weighted,
}

/// Where addresses come from besides those given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discovery {
    /// DNS seeds and peers if no address is given, else nowhere.
    IfNoneGiven,
    /// DNS seeds and peers.
    On,
    /// Nowhere.
    Off,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            min_peers: 1,
            max_peers: 8,
            max_inbound: 32,
            connections_per_host: 1,
            per_network_group: 1,
            ban: Duration::from_secs(24 * 3600),
            check_interval: Duration::from_secs(10),
            address_interval: Duration::from_secs(15),
            not_advancing: Duration::from_secs(120),
            max_errors: 5,
            max_time_outs: 15,
            replace_after: Duration::from_secs(300),
            choice: Choice::Weighted,
            discovery: Discovery::IfNoneGiven,
            timings: Timings::chain(),
            book: BookOptions::default(),
        }
    }
}
