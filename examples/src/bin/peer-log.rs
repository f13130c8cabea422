//! Connects to a node and prints what it says: `cargo run --bin peer-log -- HOST:PORT [NETWORK]`.

use tipward_peer::{Client, LinkOptions, PeerAddress, bitcoin::Bitcoin, wire::bitcoin::Network};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("usage: peer-log HOST:PORT [NETWORK]")?;
    let name = arguments.next().unwrap_or_else(|| "btc".to_owned());
    let network = Network::by_name(&name).ok_or("no such network")?;
    let address = PeerAddress::parse(&address, network.default_port)?;
    let mut client = Client::connect(Bitcoin::new(network), address, LinkOptions::default()).await?;
    println!("{:?}", client.info());
    loop {
        println!("{:?}", client.receive().await?);
    }
}
