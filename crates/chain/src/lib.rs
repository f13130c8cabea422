//! Which blocks count: the block tree, fork choice and stores, and the [`Node`] that brings a program to the tip of a
//! chain and keeps it there.
//!
//! ```
//! use tipward_chain::{Node, sync::Event, wire::bitcoin::Network};
//!
//! # use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode};
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let chain = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(10, 1));
//! # let server = SimNode::spawn(chain, Behaviour::Honest, "127.0.0.1:0").await?;
//! # let (address, dir) = (server.address().into(), tempfile::tempdir()?);
//! # let data_dir = dir.path();
//! let node = Node::builder(Network::BTC_REGTEST, data_dir).archive().connect(address).spawn().await?;
//! let mut events = node.events();
//! while let Some(event) = events.next().await {
//!     match event {
//!         Event::Applied { block, transactions, .. } => println!("{block}: {transactions} transactions"),
//!         Event::Reorg { common, .. } => println!("back to {common}"),
//!         Event::Synced { tip } => { println!("at the tip, {tip}"); break }
//!         _ => {}
//!     }
//! }
//! node.shutdown().await?;
//! # Ok(()) }
//! ```

pub use tipward_sync as sync;

// The layers below by their own names, for who uses them all.
pub use peer::wire;
pub use sync::peer;

mod archive;
mod bitcoin;
mod branch;
mod checkpoint;
mod coin;
pub mod density;
mod disk;
mod error;
mod headers;
mod node;
mod proof;
mod queries;
mod rule;
mod rules;
mod store;
#[cfg(test)]
mod testdata;
mod tree;

pub use archive::{
    Archive, ArchiveOptions, ArchiveProblem, ArchiveReader, ArchiveSink, ArchivedBlock, BlockBytes,
    CheckedBlock, Repaired, Verify,
};
pub use branch::{Branch, HeaderFacts, HeaderNode};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use coin::{Coin, HeaderRules};
pub use error::HeaderError;
pub use headers::{HeaderChain, HeaderFileError, HeaderOptions, HeaderReader, Imported};
pub use node::{Node, NodeBuilder, NodeError};
pub use proof::{Inclusion, InclusionRefused, ProofError, prove};
pub use queries::{ChainView, Queries};
pub use rule::{Candidate, OfferError, Offered, Rejection, Rule};
pub use rules::{BlockRules, Verdict};
pub use store::{HeaderSnapshot, HeaderStore, StoreError};
pub use tree::{BlockTree, TreeBranch};
