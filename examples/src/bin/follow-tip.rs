//! Follows a regtest node and prints blocks and reorgs: `cargo run --bin follow-tip -- 127.0.0.1:18444 [DIRECTORY]`.

use tipward_chain::{Node, peer::PeerAddress, sync::Event, wire::bitcoin::Network};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("usage: follow-tip HOST:PORT [DIRECTORY]")?;
    let network = Network::BTC_REGTEST;
    let node = Node::builder(network, arguments.next().unwrap_or_else(|| "follow-tip-data".to_owned()))
        .archive()
        .connect(PeerAddress::parse(&address, network.default_port)?)
        .spawn()
        .await?;
    let mut events = node.events();
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            event = events.next() => match event {
                Some(Event::Applied { block, transactions, .. }) => println!("{block}: {transactions} transactions"),
                Some(Event::Reorg { old_tip, common, depth, .. }) => {
                    println!("reorg: {old_tip} is gone, {depth} blocks back to {common}");
                },
                Some(Event::Synced { tip }) => println!("at the tip, {tip}"),
                Some(_) => {}
                None => break,
            },
        }
    }
    node.shutdown().await?;
    Ok(())
}
