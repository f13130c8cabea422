//! Prints transactions as a node relays them: `cargo run --bin print-transactions -- HOST:PORT [NETWORK]`.

use tipward_peer::{
    Client, LinkOptions, PeerAddress, Received,
    bitcoin::Bitcoin,
    wire::bitcoin::{InventoryKind, Message, Network},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("usage: print-transactions HOST:PORT [NETWORK]")?;
    let name = arguments.next().unwrap_or_else(|| "btc".to_owned());
    let network = Network::by_name(&name).ok_or("no such network")?;
    let mut options = LinkOptions::default();
    options.relay_transactions = true;
    let address = PeerAddress::parse(&address, network.default_port)?;
    let mut client = Client::connect(Bitcoin::new(network), address, options).await?;
    loop {
        match client.receive().await? {
            Received::Message(Message::Inv(mut objects)) => {
                objects.retain(|object| object.kind == InventoryKind::Tx);
                client.send(Message::GetData(objects)).await?;
            }
            Received::Message(Message::Tx(transaction)) => {
                println!("{} {} bytes", transaction.txid(), transaction.as_bytes().len());
            }
            _ => {}
        }
    }
}
