//! What a node may be told beside its chain.

use std::{net::SocketAddr, time::Duration};

use tipward_wire::bitcoin::Services;

use crate::Behaviour;

/// Choices of a [`SimNode`](crate::SimNode).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SimOptions {
    /// What it does with those who connect, at first; honest.
    pub behaviour: Behaviour,
    /// The most that it sends on one connection, in bytes a second; any number.
    pub bytes_per_second: Option<u64>,
    /// How long after a message has come it acts on it; at once. What comes meanwhile waits no longer for that.
    pub latency: Duration,
    /// The height in its version; that of its chain.
    pub claimed_height: Option<i32>,
    /// The services in its version; all that it serves: blocks and bloom filters, on BTC also witnesses and compact filters.
    pub services: Option<Services>,
    /// The user agent in its version; `/tipward-simnet:` and the crate's version.
    pub user_agent: Option<String>,
    /// The protocol version; 70016.
    pub protocol: i32,
    /// What is random in its messages is drawn from this; 0.
    pub seed: u64,
    /// The addresses that it answers `getaddr` with, the first 1000 of them; none.
    pub addresses: Vec<SocketAddr>,
    /// How long a transaction needs to each of the nodes that this one [relays to](crate::SimNode::relay_to); 10 ms.
    pub relay_delay: Duration,
    /// Whether it offers to announce transactions by wtxid (BIP 339, BTC alone); no.
    pub wtxid_relay: bool,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            behaviour: Behaviour::Honest,
            bytes_per_second: None,
            latency: Duration::ZERO,
            claimed_height: None,
            services: None,
            user_agent: None,
            protocol: 70016,
            seed: 0,
            addresses: Vec::new(),
            relay_delay: Duration::from_millis(10),
            wtxid_relay: false,
        }
    }
}

impl From<Behaviour> for SimOptions {
    fn from(behaviour: Behaviour) -> Self {
        Self { behaviour, ..Self::default() }
    }
}
