//! The demo: a simulated network inside the process, with a reorg.

use std::io;

use tipward_chain::sync::peer::PeerAddress;
use tipward_simnet::Demo;

/// What the chains are drawn from.
const SEED: u64 = 1;

pub(crate) struct Demonstration {
    network: Demo,
    /// The height of the branch that wins, once it is there.
    ends_at: Option<u64>,
}

impl Demonstration {
    pub(crate) async fn start() -> io::Result<Self> {
        let network = Demo::start(SEED).await?;
        println!("a simulated network:");
        for (address, what) in network.nodes() {
            println!("  {address} {what}");
        }
        Ok(Self { network, ends_at: None })
    }

    pub(crate) fn addresses(&self) -> Vec<PeerAddress> {
        self.network.nodes().map(|(address, _)| address.into()).collect()
    }

    /// Everything is indexed up to this height: says whether that was all. If not, another branch wins now.
    pub(crate) fn synced(&mut self, height: u64) -> bool {
        let end = *self.ends_at.get_or_insert_with(|| {
            println!("now another branch overtakes");
            self.network.overtake()
        });
        height >= end
    }

    pub(crate) async fn end(self) {
        self.network.shutdown().await;
    }
}
