//! How much was ever paid, block by block: `cargo run --bin sum-payments -- HOST:PORT`. It is in `docs/indexing.md`.

use tipward_chain::{
    Node,
    peer::PeerAddress,
    sync::{Block, BlockId, BlockSink, SinkError, async_trait},
    wire::bitcoin::{Network, transactions},
};

/// A real one keeps its cursor in the same database transaction as its data.
#[derive(Default)]
struct Paid {
    blocks: Vec<(BlockId, u64)>,
}

#[async_trait]
impl BlockSink for Paid {
    async fn cursor(&mut self) -> Result<Option<BlockId>, SinkError> {
        Ok(self.blocks.last().map(|(block, _)| *block))
    }

    async fn apply(&mut self, block: Block) -> Result<(), SinkError> {
        let mut paid = self.blocks.last().map_or(0, |(_, paid)| *paid);
        for (_offset, transaction) in transactions(&block.parts) {
            paid += transaction.outputs().map(|output| output.value()).sum::<u64>();
        }
        println!("{}: {paid} satoshi", block.id);
        self.blocks.push((block.id, paid));
        Ok(())
    }

    async fn rollback(&mut self, to: BlockId) -> Result<(), SinkError> {
        self.blocks.retain(|(block, _)| block.height <= to.height);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let network = Network::DEMO;
    let address = std::env::args().nth(1).ok_or("usage: sum-payments HOST:PORT")?;
    let mut node = Node::builder(network, "data")
        .sink(Paid::default())
        .connect(PeerAddress::parse(&address, network.default_port)?)
        .stop_when_synced() // leave this out to go on for ever
        .spawn()
        .await?;
    node.wait().await?;
    Ok(())
}
