//! One handle for those who embed a node: build it, start it, listen to it, stop it.

use std::{fmt, path::PathBuf};

use tipward_sync::{
    Block, BlockId, BlockSink, Control, Events, Progress, Running, SinkError, Strategy, SyncError,
    SyncOptions, SyncParts, WatchSet, async_trait,
    peer::{ManagerOptions, Needs, PeerAddress},
    run,
};

use crate::{
    Archive, ArchiveOptions, ArchiveReader, ArchiveSink, BlockRules, Checkpoint, Coin, HeaderChain,
    HeaderOptions, Queries, StoreError,
};
use sink::NodeSink;

mod sink;

/// Why a node can't start or has ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// A store can't be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Blocks can't be chosen by their filters on this network.
    #[error("nodes of {network} serve no block filters")]
    NoFilters {
        /// The network.
        network: &'static str,
    },
    /// A node has one sink.
    #[error(
        "there are a sink and an archive: a node has one sink, which may give its blocks to an `ArchiveSink`"
    )]
    SinkAndArchive,
    /// Block rules have to see every block, and filters leave out most.
    #[error("block rules need every block: they can't be used with filters")]
    RulesWithFilters,
    /// The sync has ended.
    #[error(transparent)]
    Sync(#[from] SyncError),
}

/// Sets up a [`Node`].
pub struct NodeBuilder {
    coin: Box<dyn Coin>,
    data_dir: PathBuf,
    sink: Option<Box<dyn BlockSink>>,
    archive: Option<ArchiveOptions>,
    rules: Option<Box<dyn BlockRules>>,
    filters: Option<WatchSet>,
    start: Option<Checkpoint>,
    give_up_without_peers: bool,
    /// How to connect. [`connect`](Self::connect) adds to its addresses.
    pub peers: ManagerOptions,
    /// Bounds and time-outs of the sync.
    pub sync: SyncOptions,
}

impl NodeBuilder {
    /// Connects to this node and to no others but those added likewise. Without any, DNS seeds are asked.
    #[must_use]
    pub fn connect(mut self, address: PeerAddress) -> Self {
        self.peers.addresses.push(address);
        self
    }

    /// Gives the blocks to this sink.
    #[must_use]
    pub fn sink(mut self, sink: impl BlockSink) -> Self {
        self.sink = Some(Box::new(sink));
        self
    }

    /// Gives the blocks to an [`Archive`] in the folder `blocks` of the data directory, instead of a [sink](Self::sink). A sink
    /// that wants an archive too has an [`ArchiveSink`] inside.
    #[must_use]
    pub fn archive(self) -> Self {
        self.archive_with(ArchiveOptions::default())
    }

    /// The same, kept and pruned as these options say.
    #[must_use]
    pub fn archive_with(mut self, options: ArchiveOptions) -> Self {
        self.archive = Some(options);
        self
    }

    /// Lets these rules decide which blocks are valid, before the sink gets them. They need
    /// [`Order::Chain`](tipward_sync::Order::Chain) and [`Strategy::HeadersFirst`](tipward_sync::Strategy::HeadersFirst), as
    /// are set: otherwise an invalid block ends the node. Genesis, or the checkpoint, is where the chain starts, so that can't be
    /// invalid. With headers only there is nothing to decide.
    #[must_use]
    pub fn block_rules(mut self, rules: impl BlockRules) -> Self {
        self.rules = Some(Box::new(rules));
        self
    }

    /// Gives the sink those blocks alone in which one of these scripts may be paid or spent, as the blocks' filters tell
    /// (BIP 157); the others it [skips](BlockSink::skip). Scripts that the sink adds to the set while it applies a block are looked
    /// for in all blocks above; for those below, there is [`Control::rescan`]. No script leaves the process.
    ///
    /// Without [given addresses](Self::connect), only nodes that serve filters are kept.
    ///
    /// What peers say of a filter is compared among three of them, where there are so many: one who is honest is enough for
    /// nothing to be left out. A single peer that serves filters is believed. Now and then, and where peers differ, comes a block
    /// that has none of the scripts.
    #[must_use]
    pub fn filters(mut self, watch: WatchSet) -> Self {
        self.filters = Some(watch);
        self
    }

    /// Starts at a checkpoint instead of genesis. A sink without a cursor gets the blocks after it; one whose cursor is lower
    /// ends the sync with an error.
    #[must_use]
    pub fn start_at(mut self, checkpoint: Checkpoint) -> Self {
        self.start = Some(checkpoint);
        self
    }

    /// Downloads headers and no blocks. This is so too without a sink.
    #[must_use]
    pub fn headers_only(mut self) -> Self {
        self.sync.headers_only = true;
        self
    }

    /// Ends when the block at this height is applied; asks for nothing above it.
    #[must_use]
    pub fn stop_at(mut self, height: u64) -> Self {
        self.sync.stop_at = Some(height);
        self
    }

    /// Ends when everything that the connected peers have is applied.
    #[must_use]
    pub fn stop_when_synced(mut self) -> Self {
        self.sync.stop_when_synced = true;
        self
    }

    /// Ends with [`SyncError::NoPeers`] when no address has ever worked, instead of trying for ever.
    #[must_use]
    pub fn give_up_without_peers(mut self) -> Self {
        self.give_up_without_peers = true;
        self
    }

    /// Opens the stores and starts. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// A store can't be opened, the sink can't tell its cursor, or what was asked for does not go together, or not with the
    /// network.
    pub async fn spawn(mut self) -> Result<Node, NodeError> {
        if self.sink.is_some() && self.archive.is_some() {
            return Err(NodeError::SinkAndArchive);
        }
        let filters = match self.filters.take() {
            None => None,
            Some(_) if self.rules.is_some() => return Err(NodeError::RulesWithFilters),
            Some(watch) => {
                let network = self.coin.name();
                let rules = self.coin.filter_rules().ok_or(NodeError::NoFilters { network })?;
                self.sync.strategy = Strategy::HeadersFirst;
                // Few nodes serve filters: where any may be chosen, only they are of use.
                if self.peers.addresses.is_empty() {
                    self.peers.link.needs = Needs::Filters;
                }
                Some((rules, watch))
            }
        };
        std::fs::create_dir_all(&self.data_dir).map_err(StoreError::io(&self.data_dir))?;
        let headers = self.data_dir.join("headers.redb");
        let is_late = self.start.is_some();
        let options = HeaderOptions {
            max_height: self.sync.stop_at,
            start: self.start,
            looks_twice: self.sync.strategy == Strategy::HeadersFirst,
            ..HeaderOptions::default()
        };
        let chain = HeaderChain::open_with(&headers, &*self.coin, options)?;
        let mut archive_dir = None;
        let sink: Box<dyn BlockSink> = match (self.sink, self.archive) {
            _ if self.sync.headers_only => Box::new(NoSink),
            (Some(sink), _) => sink,
            (None, Some(options)) => {
                let dir = self.data_dir.join("blocks");
                let archive = Archive::open_with(&dir, &*self.coin, options)?;
                archive_dir = Some(dir);
                Box::new(ArchiveSink::new(archive))
            }
            (None, None) => {
                self.sync.headers_only = true;
                Box::new(NoSink)
            }
        };
        let start = is_late.then(|| chain.start());
        let queries = Queries::new(chain);
        let running = run(SyncParts {
            protocol: self.coin.protocol(),
            peers: self.peers,
            options: self.sync,
            give_up_without_peers: self.give_up_without_peers,
            chain: Box::new(queries.chain()),
            sink: Box::new(NodeSink { sink, start, queries: queries.clone(), rules: self.rules, at: None }),
            filters,
        })
        .await?;
        Ok(Node { running, queries, archive_dir, coin: self.coin })
    }
}

impl fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeBuilder")
            .field("coin", &self.coin)
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

/// A node that runs. Dropping it stops it without waiting for its sink.
#[derive(Debug)]
pub struct Node {
    running: Running,
    queries: Queries,
    /// If the node fills an archive.
    archive_dir: Option<PathBuf>,
    coin: Box<dyn Coin>,
}

impl Node {
    /// Sets up a node of a network that keeps its headers, and what else it stores, in this directory.
    pub fn builder(coin: impl Coin + 'static, data_dir: impl Into<PathBuf>) -> NodeBuilder {
        NodeBuilder {
            coin: Box::new(coin),
            data_dir: data_dir.into(),
            sink: None,
            archive: None,
            rules: None,
            filters: None,
            start: None,
            give_up_without_peers: false,
            peers: ManagerOptions::default(),
            sync: SyncOptions::default(),
        }
    }

    /// What happens: all from the start for the first caller, for others from now on. A receiver that does not keep up
    /// misses events, is told so, and slows nobody down.
    #[must_use]
    pub fn events(&self) -> Events {
        self.running.events()
    }

    /// Where the node is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.running.progress().borrow().clone()
    }

    /// A handle to ask about the chain with: headers, heights, confirmations.
    #[must_use]
    pub fn queries(&self) -> Queries {
        self.queries.clone()
    }

    /// The archive that the node fills, to read from; `None` if it has another sink. Blocks are archived in batches, so the last
    /// ones are there a moment after they were applied.
    ///
    /// # Errors
    /// The archive can't be opened.
    pub fn archive(&self) -> Result<Option<ArchiveReader>, StoreError> {
        self.archive_dir.as_ref().map(|dir| ArchiveReader::open(dir, &*self.coin)).transpose()
    }

    /// A handle to pause, resume and add peers with, and to ask for the progress.
    #[must_use]
    pub fn control(&self) -> Control {
        self.running.control()
    }

    /// Waits for the end that [`NodeBuilder::stop_at`], [`NodeBuilder::stop_when_synced`] or an error brings. May be
    /// dropped and called again; an error is returned once.
    ///
    /// # Errors
    /// What ended the node.
    pub async fn wait(&mut self) -> Result<(), NodeError> {
        Ok(self.running.wait().await?)
    }

    /// Stops: the sink finishes what it was given, connections close. Returns where the node was.
    ///
    /// # Errors
    /// What had ended the node before, or the sink's error on the way out.
    pub async fn shutdown(self) -> Result<Progress, NodeError> {
        let progress = self.running.progress();
        self.running.shutdown().await?;
        let last = progress.borrow().clone();
        Ok(last)
    }
}

/// The sink of a node that downloads no blocks.
struct NoSink;

#[async_trait]
impl BlockSink for NoSink {
    async fn cursor(&mut self) -> Result<Option<BlockId>, SinkError> {
        Ok(None)
    }

    async fn apply(&mut self, _block: Block) -> Result<(), SinkError> {
        Ok(())
    }

    async fn rollback(&mut self, _to: BlockId) -> Result<(), SinkError> {
        Ok(())
    }
}
