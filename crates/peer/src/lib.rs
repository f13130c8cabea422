//! Talks to the nodes of a block chain: one connection with its handshake and time-outs, and a pool of them.
//!
//! The layers above ask neutral questions ([`Want`]) and get neutral answers ([`Reply`]); a [`Session`] translates them
//! into the messages of its dialect ([`bitcoin`] is the one of BTC and BSV). Rules are machines without I/O
//! ([`Link`], [`Pool`]); `driver.rs` and `transport.rs` alone touch sockets.
//!
//! ```
//! use std::sync::Arc;
//! use tipward_peer::{bitcoin::Bitcoin, wire::bitcoin::Network, Manager, ManagerOptions, PeerAddress, PeerEvent};
//!
//! # use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode};
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let chain = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(10, 1));
//! # let node = SimNode::spawn(chain, Behaviour::Honest, "127.0.0.1:0").await?;
//! # let address = node.address().to_string(); // such as "127.0.0.1:18444"
//! let mut options = ManagerOptions::default();
//! options.addresses = vec![PeerAddress::parse(&address, 18444)?];
//! let (events, mut inbox) = tokio::sync::mpsc::channel(64);
//! let manager = Manager::spawn(Arc::new(Bitcoin::new(Network::BTC_REGTEST)), options, events);
//!
//! while let Some(event) = inbox.recv().await {
//!     match event {
//!         PeerEvent::Connected(peer) => {
//!             println!("{} is {}", peer.address(), peer.info().user_agent);
//!             break;
//!         }
//!         PeerEvent::Reply { reply, .. } => println!("{reply:?}"),
//!         PeerEvent::ConnectFailed { address, reason } => println!("{address}: {reason}"),
//!         _ => {}
//!     }
//! }
//! manager.shutdown().await;
//! # Ok(()) }
//! ```

pub use tipward_wire as wire;

mod address;
pub mod bitcoin;
mod driver;
mod error;
mod link;
mod manager;
mod pool;
mod session;
mod transport;
mod want;

pub use address::{ParseAddressError, PeerAddress};
pub use driver::Peer;
pub use error::{ConnectError, DisconnectReason, Penalty, Violation};
pub use link::{Connection, Link, LinkEvent, LinkOptions};
pub use manager::{Manager, ManagerOptions, PeerEvent};
pub use pool::{Dial, Pool, PoolOptions};
pub use session::{Local, Outbox, PeerInfo, Protocol, Session, SessionEvent};
pub use want::{PeerId, Reply, Unsupported, Want};
