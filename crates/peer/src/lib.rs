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
//! let manager = Manager::spawn(Arc::new(Bitcoin::new(Network::BTC_REGTEST)), options, events).await?;
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

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use tipward_wire as wire;

mod address;
pub mod bitcoin;
mod book;
mod broadcast;
mod client;
pub mod connectivity;
mod dial;
mod driver;
mod encryption;
mod error;
mod handler;
mod hold;
mod link;
mod manager;
mod message;
mod metrics;
mod peer;
mod pool;
mod requests;
mod session;
mod transport;
mod want;

pub use async_trait::async_trait;

pub use address::{HostKind, NetworkGroup, ParseAddressError, PeerAddress};
pub use book::{
    Ban, Book, BookCounts, BookEntry, BookFile, BookFileError, BookOptions, BookProblem, Failure, Loaded,
    Source, Transport, UnixTime,
};
pub use broadcast::{
    BroadcastError, BroadcastId, BroadcastOutcome, BroadcastPolicy, HostRejection, RejectRule,
};
pub use client::{Client, Received};
pub use connectivity::{
    Change, Connectivity, ConnectivityOptions, InvalidTimings, MemberInfo, NetworkTime, Status, Timings,
    TimingsChange,
};
pub use encryption::{Encryption, EncryptionError, EncryptionOptions, Entropy, is_v1};
pub use error::{ConnectError, DisconnectReason, Penalty, Violation};
pub use handler::{Announced, BoxError, Context, HandlerError, HandlerResult, OnError, PeerHandler};
pub use link::{
    CallError, Checksum, Connection, Cover, Delivery, Encrypt, Figures, Link, LinkEvent, LinkOptions, Needs,
};
pub use manager::{
    AskFailed, BroadcastFailed, Manager, ManagerHandle, ManagerOptions, PeerEvent, ShutDown, StartError,
};
pub use message::AnyMessage;
pub use peer::{Disconnected, Peer};
pub use pool::{Choice, Discovery, PeerState, PeerView, Pool, PoolOptions, PoolOutput, Refusal};
pub use requests::{Answer, AskError, GaveUp, RequestError, RequestId, RequestPolicy, SubmitError};
pub use session::{
    Direction, Local, MalformedTransaction, Outbox, PeerInfo, Protocol, Session, SessionEvent, Start, Typed,
};
pub use transport::{
    Dialed, Dialer, Memory, MemoryListener, Proxy, ProxyAuthentication, Stream, Tcp, TcpOptions,
};
pub use want::{KnownAddress, PeerId, Rejection, Reply, Unsupported, Want};
