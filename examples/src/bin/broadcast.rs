//! Offers a transaction to many nodes and tells what became of it: `cargo run --bin broadcast -- NETWORK HEX HOST:PORT...`.

use std::sync::Arc;

use tipward_chain::{
    peer::{BroadcastPolicy, Manager, ManagerOptions, PeerAddress, bitcoin::Bitcoin},
    wire::bitcoin::Network,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, transaction, hosts @ ..] = &arguments[..] else {
        return Err("usage: broadcast NETWORK HEX HOST:PORT...".into());
    };
    let network = Network::by_name(name).ok_or("no such network")?;
    let mut options = ManagerOptions::default();
    // Otherwise nobody would tell us that the transaction has come around.
    options.link.relay_transactions = true;
    for host in hosts {
        options.addresses.push(PeerAddress::parse(host, network.default_port)?);
    }
    let manager = Manager::spawn_without_events(Arc::new(Bitcoin::new(network)), options).await?;
    let bytes = hex_conservative::decode_to_vec(transaction)?.into();
    println!("{:#?}", manager.broadcast(bytes, BroadcastPolicy::default()).await?);
    manager.shutdown().await;
    Ok(())
}
