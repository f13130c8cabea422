//! Where nobody names nodes, those that serve filters are looked for.

use std::io;

use tipward_chain::{
    Node,
    peer::{Dialed, Dialer, PeerAddress, Tcp},
    sync::{WatchSet, async_trait},
    wire::bitcoin::{Network, Services},
};
use tipward_simnet::{ChainSpec, SimChain, SimNode, SimOptions};
use tipward_tests::Found;

/// Knows these addresses for every seed that is asked for filters.
#[derive(Debug)]
struct Seeds(Vec<PeerAddress>, Tcp);

#[async_trait]
impl Dialer for Seeds {
    async fn dial(&self, address: &PeerAddress) -> io::Result<Dialed> {
        self.1.dial(address).await
    }

    async fn resolve(&self, seed: &str, _port: u16) -> io::Result<Vec<PeerAddress>> {
        assert!(seed.starts_with("x49."), "{seed} was asked");
        Ok(self.0.clone())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn seeds_are_asked_for_nodes_with_filters_and_no_others_are_kept() {
    let network: &'static Network =
        Box::leak(Box::new(Network { dns_seeds: &["seed.example"], ..Network::BTC_REGTEST.clone() }));
    let longer = SimChain::generate(network, ChainSpec::new(130, 1));
    let shorter = longer.fork(120, ChainSpec::new(5, 2));
    let mut without = SimOptions::default();
    without.services = Some(Services::NETWORK | Services::WITNESS);
    let without = SimNode::spawn(longer, without, "127.0.0.1:0").await.unwrap();
    let with = SimNode::spawn(shorter, SimOptions::default(), "127.0.0.1:0").await.unwrap();
    let (found, watch) = (Found::default(), WatchSet::new());
    let dir = tempfile::tempdir().unwrap();
    let addresses = vec![without.address().into(), with.address().into()];
    let mut builder = Node::builder(network, dir.path())
        .sink(found.sink(watch.clone(), |_| {}))
        .filters(watch)
        .stop_when_synced();
    builder.peers.dialer = std::sync::Arc::new(Seeds(addresses, Tcp::default()));
    let mut node = builder.spawn().await.unwrap();
    node.wait().await.unwrap();
    // The longer chain is of one who serves no filters.
    assert_eq!(node.progress().applied.map(|tip| tip.height), Some(125));
    assert_eq!(without.stats().handshakes, 0);
}
