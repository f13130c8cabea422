//! An indexer without a node: whoever has it plays the sync.
#![allow(dead_code, reason = "each of the tests uses some of it")]

use std::path::PathBuf;

use indexer::{
    index::Index,
    sink::{IndexSink, Writer},
    view::View,
};
use tempfile::TempDir;
use tipward_chain::{
    Archive,
    sync::{
        Block, BlockId, BlockSink,
        peer::wire::{
            BlockEvent, BlockPart, DownloadId,
            bitcoin::{BlockOptions, BlockReader, Network},
            bytes::BytesMut,
        },
    },
};
use tipward_simnet::{SimBlock, SimChain};

pub(crate) const NETWORK: &Network = Network::BTC_REGTEST;
/// What the index may hold in memory, in bytes.
const CACHE: usize = 16 << 20;

/// A sink, and what it writes to.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) network: &'static Network,
    /// How many entries may wait before they are written.
    most_pending: usize,
    pub(crate) open: Option<(IndexSink, Writer)>,
}

impl World {
    pub(crate) fn new(network: &'static Network) -> Self {
        Self::with_most_pending(network, 1_000_000)
    }

    pub(crate) fn with_most_pending(network: &'static Network, most_pending: usize) -> Self {
        let mut world = Self { dir: tempfile::tempdir().unwrap(), network, most_pending, open: None };
        world.open();
        world
    }

    fn index_path(&self) -> PathBuf {
        self.dir.path().join("index.redb")
    }

    pub(crate) fn open(&mut self) {
        let archive = Archive::open(&self.dir.path().join("blocks"), &self.network).unwrap();
        let index = Index::open(&self.index_path(), self.network, CACHE).unwrap();
        let index = index.with_most_pending(self.most_pending);
        self.open = Some(IndexSink::new(archive, index, self.network.chain));
    }

    pub(crate) fn sink(&mut self) -> &mut IndexSink {
        &mut self.open.as_mut().unwrap().0
    }

    /// The process ends without warning: what was not committed is gone.
    pub(crate) fn crash(&mut self) {
        let (sink, writer) = self.open.take().unwrap();
        drop(sink);
        writer.join().unwrap();
        self.open();
    }

    /// The process ends in good order; what the index holds then.
    pub(crate) async fn end(mut self) -> (TempDir, View) {
        self.sink().flush().await.unwrap();
        let (sink, writer) = self.open.take().unwrap();
        drop(sink);
        writer.join().unwrap();
        let view = Index::open(&self.index_path(), self.network, CACHE).unwrap().reader().view().unwrap();
        (self.dir, view)
    }

    pub(crate) async fn apply(&mut self, chain: &SimChain, height: u64, how: How) {
        let sim = &chain.blocks()[usize::try_from(height).unwrap()];
        let (parts, mut block) = cut(self.network, height, sim, how.part_size);
        let sink = self.sink();
        if how.is_streamed {
            for part in parts {
                sink.apply_part(block.id, part).await.unwrap();
            }
            block.is_streamed = true;
        } else {
            block.parts = parts;
        }
        sink.apply(block).await.unwrap();
    }
}

/// How a block comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    pub(crate) part_size: usize,
    pub(crate) is_streamed: bool,
}

pub(crate) const WHOLE: How = How { part_size: 1 << 20, is_streamed: false };

/// A block as it comes from a peer: its parts, and the rest of it.
pub(crate) fn cut(
    network: &'static Network,
    height: u64,
    sim: &SimBlock,
    part_size: usize,
) -> (Vec<BlockPart>, Block) {
    let (mut parts, mut transactions) = (Vec::new(), 0);
    read(network, sim, part_size, |event| match event {
        BlockEvent::Part(part) => parts.push(part),
        BlockEvent::End(end) => transactions = end.transactions,
    });
    let id = BlockId { height, hash: sim.hash };
    let block =
        Block { id, parts: Vec::new(), transactions, size: sim.size(), served_by: None, is_streamed: false };
    (parts, block)
}

pub(crate) fn read(
    network: &'static Network,
    sim: &SimBlock,
    part_size: usize,
    mut take: impl FnMut(BlockEvent),
) {
    let mut options = BlockOptions::new(network);
    options.part_size = part_size;
    let mut reader = BlockReader::new(DownloadId(1), sim.size(), options);
    let mut input = BytesMut::new();
    for piece in sim.pieces() {
        input.extend_from_slice(&piece);
        while let Some(event) = reader.decode(&mut input).unwrap() {
            take(event);
        }
    }
}

/// What an index of this chain holds, made in one go.
pub(crate) async fn fresh(chain: &SimChain) -> Vec<String> {
    let mut world = World::new(chain.network());
    for height in 0..=chain.height() {
        world.apply(chain, height, WHOLE).await;
    }
    lines(&world.end().await.1)
}

pub(crate) fn lines(view: &View) -> Vec<String> {
    let mut lines = Vec::new();
    view.dump(|line| lines.push(line)).unwrap();
    lines
}
