//! Finds payments by block filters: `cargo run --bin find-payments -- NETWORK SCRIPT HOST:PORT...`. It is in `docs/wallet.md`.

use tipward_chain::{
    Node,
    peer::PeerAddress,
    sync::{Block, BlockId, BlockSink, SinkError, WatchSet, async_trait},
    wire::bitcoin::{Network, transactions},
};

/// A real wallet keeps its cursor in one transaction with what it has found.
struct Payments {
    watch: WatchSet,
    cursor: Option<BlockId>,
}

#[async_trait]
impl BlockSink for Payments {
    async fn cursor(&mut self) -> Result<Option<BlockId>, SinkError> {
        Ok(self.cursor)
    }

    async fn apply(&mut self, block: Block) -> Result<(), SinkError> {
        for (_, transaction) in transactions(&block.parts) {
            for output in transaction.outputs().filter(|it| self.watch.contains(it.script().as_bytes())) {
                println!("{}: {} pays {} satoshi", block.id, transaction.txid(), output.value());
            }
        }
        self.cursor = Some(block.id);
        Ok(())
    }

    async fn skip(&mut self, to: BlockId) -> Result<(), SinkError> {
        self.cursor = Some(to); // nothing of ours up to there
        Ok(())
    }

    async fn rollback(&mut self, to: BlockId) -> Result<(), SinkError> {
        println!("what was found above {to} does not count any more");
        self.cursor = Some(to);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, script, hosts @ ..] = &arguments[..] else {
        return Err("usage: find-payments NETWORK SCRIPT HOST:PORT...".into());
    };
    let network = Network::by_name(name).ok_or("no such network")?;
    let watch = WatchSet::new();
    watch.insert(hex_conservative::decode_to_vec(script)?);
    let sink = Payments { watch: watch.clone(), cursor: None };
    let mut node = Node::builder(network, "data").sink(sink).filters(watch).stop_when_synced();
    for host in hosts {
        node = node.connect(PeerAddress::parse(host, network.default_port)?);
    }
    node.spawn().await?.wait().await?;
    Ok(())
}
