//! Nodes to sync from, in this process and over real sockets.
//!
//! A [`SimChain`] is generated (the same seed gives the same blocks) or read from a block file; a [`SimNode`] serves it
//! on loopback and misbehaves as its [`Behaviour`] says. Generated blocks are valid by the rules of a regression test
//! network, so real nodes accept them too.
//!
//! A node serves full nodes and wallets alike: headers, inventories, blocks with and without witnesses, filtered blocks
//! (BIP 37), compact filters (BIP 157), transactions of its mempool, addresses. Nothing that it is sent is validated.
//!
//! ```
//! use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode};
//! use tipward_wire::bitcoin::Network;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let chain = SimChain::generate(Network::DEMO, ChainSpec::new(10, 42));
//! assert_eq!(chain.height(), 10);
//! let node = SimNode::spawn(chain, Behaviour::Honest, "127.0.0.1:0").await?;
//! println!("serving on {}", node.address());
//! node.shutdown().await;
//! # Ok::<(), std::io::Error>(()) })?;
//! # Ok::<(), std::io::Error>(())
//! ```

mod behaviour;
mod chain;
mod demo;
mod mempool;
mod node;
mod options;
mod serve;
mod stats;
mod transaction;

pub use behaviour::{Behaviour, FilterFault, Flood, Midway, Stage};
pub use chain::{ChainSpec, LoadError, SimBlock, SimChain};
pub use demo::Demo;
pub use node::SimNode;
pub use options::SimOptions;
pub use stats::SimStats;
