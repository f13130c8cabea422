//! The network of the demo: five nodes, of which three are of little use.

use std::{io, net::SocketAddr};

use tipward_wire::bitcoin::Network;

use crate::{Behaviour, ChainSpec, SimChain, SimNode};

/// How many blocks the honest nodes start with.
const BLOCKS: u32 = 2_000;
/// Where the losing branch leaves the others'.
const FORK: u64 = 1_995;
/// How long the losing branch is, longer than the others' at first.
const LOSING: u32 = 8;
/// How many blocks the honest nodes find later, which decides it.
const OVERTAKING: u32 = 12;

/// A simulated network on loopback.
#[derive(Debug)]
pub struct Demo {
    nodes: Vec<(SimNode, &'static str)>,
    trunk: SimChain,
    seed: u64,
}

impl Demo {
    /// Starts the nodes; the same seed gives the same chains.
    ///
    /// # Errors
    /// No ports are free on loopback.
    pub async fn start(seed: u64) -> io::Result<Self> {
        let trunk = SimChain::generate(Network::DEMO, ChainSpec::new(BLOCKS, seed));
        let losing = trunk.fork(FORK, ChainSpec::new(LOSING, seed + 1));
        let mut nodes = Vec::new();
        for (behaviour, chain, what) in [
            (Behaviour::Honest, &trunk, "honest"),
            (Behaviour::Honest, &trunk, "honest"),
            (Behaviour::Slow { bytes_per_second: 100_000 }, &trunk, "slow: 100 kB/s"),
            (Behaviour::SilentAfter { blocks: 50 }, &trunk, "falls silent after 50 blocks"),
            (Behaviour::Honest, &losing, "on a branch that is ahead now and will lose"),
        ] {
            nodes.push((SimNode::spawn(chain.clone(), behaviour, "127.0.0.1:0").await?, what));
        }
        Ok(Self { nodes, trunk, seed })
    }

    /// The nodes' addresses, each with what it is.
    pub fn nodes(&self) -> impl Iterator<Item = (SocketAddr, &'static str)> {
        self.nodes.iter().map(|(node, what)| (node.address(), *what))
    }

    /// The honest nodes find blocks and pass the losing branch. Returns their new height.
    pub fn overtake(&mut self) -> u64 {
        let mut overtaken = self.trunk.clone();
        overtaken.extend(ChainSpec::new(OVERTAKING, self.seed + 2));
        for (node, _) in
            self.nodes.iter().filter(|(node, _)| node.chain().tip().hash == self.trunk.tip().hash)
        {
            node.set_chain(overtaken.clone());
        }
        self.trunk = overtaken;
        self.trunk.height()
    }

    /// Closes everything.
    pub async fn shutdown(self) {
        for (node, _) in self.nodes {
            node.shutdown().await;
        }
    }
}
