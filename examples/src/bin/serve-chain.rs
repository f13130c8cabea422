//! Serves a regtest chain, generated or of a block file, to other nodes: `cargo run --bin serve-chain -- HOST:PORT [FILE.blk]`.
//! Let a node fetch it: `bitcoind -regtest -connect=HOST:PORT`.

use tipward_chain::wire::bitcoin::Network;
use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("usage: serve-chain HOST:PORT [FILE.blk]")?;
    let network = Network::BTC_REGTEST;
    let chain = match arguments.next() {
        Some(file) => SimChain::from_blk(file.as_ref(), network)?,
        None => SimChain::generate(network, ChainSpec::new(200, 1)),
    };
    let (height, tip) = (chain.height(), chain.tip().hash);
    let node = SimNode::spawn(chain, Behaviour::Honest, address).await?;
    println!("{tip} at height {height} on {}", node.address());
    tokio::signal::ctrl_c().await?;
    node.shutdown().await;
    Ok(())
}
