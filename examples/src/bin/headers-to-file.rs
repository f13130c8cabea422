//! Writes all headers of a chain to a file, 80 bytes each: `cargo run --bin headers-to-file -- NETWORK FILE [HOST:PORT...]`.

use std::{fs::File, path::Path};

use tipward_chain::{HeaderReader, Node, peer::PeerAddress, wire::bitcoin::Network};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, file, hosts @ ..] = &arguments[..] else {
        return Err("usage: headers-to-file NETWORK FILE [HOST:PORT...]".into());
    };
    let network = Network::by_name(name).ok_or("no such network")?;
    // Kept beside the file: run it again, and it goes on from there.
    let data_dir = format!("{file}.data");
    let mut node = Node::builder(network, &data_dir).headers_only().stop_when_synced();
    for host in hosts {
        node = node.connect(PeerAddress::parse(host, network.default_port)?);
    }
    node.spawn().await?.wait().await?;
    let headers = HeaderReader::open(&Path::new(&data_dir).join("headers.redb"), &network, None)?;
    let count = headers.export(File::create(file)?)?;
    println!("{count} headers, tip {}", headers.tree().tip());
    Ok(())
}
