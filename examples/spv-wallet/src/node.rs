//! The node under the wallet: how it is started, and what a sync prints.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tipward_chain::{
    Node, NodeBuilder,
    sync::{
        BlockId, Event, Progress,
        peer::{BroadcastOutcome, BroadcastPolicy, PeerAddress, wire::bitcoin::Network},
    },
};

use crate::{
    Failure,
    args::{Connection, Mode},
    print, show,
    wallet::{News, Shared, WalletSink},
};

/// How often a sync tells how far it is.
const TELL: Duration = Duration::from_secs(10);
/// How long is waited for somebody who serves filters.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a node is to be started.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    /// Whom to connect to; by default those that DNS seeds name.
    pub(crate) connect: Vec<PeerAddress>,
    /// Whether peers shall tell of transactions, so that a broadcast is seen to come back.
    pub(crate) relay: bool,
    /// Whether to end when everything is there.
    pub(crate) until_synced: bool,
    /// How transactions are found.
    pub(crate) mode: Mode,
    /// Nobody has chosen the mode.
    pub(crate) may_change: bool,
}

impl Way {
    /// Follows the chain, with whom these name.
    pub(crate) fn new(connect: Vec<PeerAddress>, mode: Mode) -> Self {
        Self { connect, relay: false, until_synced: false, mode, may_change: false }
    }

    pub(crate) fn of(connection: &Connection, network: &Network) -> Result<Self, Failure> {
        let addresses = connection.connect.iter().map(|text| PeerAddress::parse(text, network.default_port));
        let connect = addresses.collect::<Result<_, _>>();
        let connect = connect.map_err(|error| Failure::Usage(format!("--connect: {error}")))?;
        let mode = connection.mode.unwrap_or_else(|| Mode::best(network));
        Ok(Self { may_change: connection.mode.is_none(), ..Self::new(connect, mode) })
    }

    fn builder(&self, wallet: &Shared) -> NodeBuilder {
        let wallet = wallet.lock();
        let mut builder = Node::builder(wallet.network(), wallet.dir());
        if let Some(checkpoint) = wallet.checkpoint() {
            builder = builder.start_at(checkpoint.clone());
        }
        builder.peers.addresses.clone_from(&self.connect);
        builder.peers.link.relay_transactions = self.relay;
        builder
    }
}

/// Starts a node that feeds the wallet. If nobody who is connected serves filters, whole blocks do without, unless the user has
/// chosen: no mode tells a peer what is looked for.
pub(crate) async fn start(
    wallet: &Shared,
    way: &Way,
    tell: impl Fn(News) + Send + Sync + 'static,
) -> Result<Node, Failure> {
    find_birthday(wallet, way).await?;
    let tell: Arc<dyn Fn(News) + Send + Sync> = Arc::new(tell);
    let node = spawn(wallet, way, way.mode, &tell).await?;
    if way.mode == Mode::Blocks || !lacks_filters(&node).await {
        return Ok(node);
    }
    if !way.may_change {
        eprintln!("waiting: no peer that is connected serves filters; '--mode blocks' does without");
        return Ok(node);
    }
    eprintln!("no peer that is connected serves filters: looking through whole blocks");
    node.shutdown().await.map_err(Failure::failed)?;
    spawn(wallet, way, Mode::Blocks, &tell).await
}

async fn spawn(
    wallet: &Shared,
    way: &Way,
    mode: Mode,
    tell: &Arc<dyn Fn(News) + Send + Sync>,
) -> Result<Node, Failure> {
    let sink = WalletSink { wallet: wallet.clone(), tell: tell.clone() };
    let mut builder = way.builder(wallet).sink(sink);
    if mode == Mode::Filters {
        builder = builder.filters(wallet.lock().ledger.watched().clone());
    }
    if way.until_synced {
        builder = builder.stop_when_synced();
    }
    // Whoever waits for an end is told that there will be none.
    if way.until_synced || way.relay {
        builder = builder.give_up_without_peers();
    }
    builder.spawn().await.map_err(Failure::failed)
}

/// Waits for the first filter, or until there is nothing to look through; not for ever if nobody serves filters.
async fn lacks_filters(node: &Node) -> bool {
    let mut progress = node.control().watch();
    let has_begun = progress.wait_for(|progress| progress.filters > 0 || progress.synced);
    // If the node has ended, who listens to it is told.
    if tokio::time::timeout(PATIENCE, has_begun).await.is_ok() {
        return false;
    }
    let progress = node.progress();
    progress.peers > 0 && progress.filter_peers == 0
}

/// Finds the block that the wallet is to look from, if one is asked for, which takes all headers and no block.
async fn find_birthday(wallet: &Shared, way: &Way) -> Result<(), Failure> {
    let Some(height) = wallet.lock().settings.scan_from else { return Ok(()) };
    let cursor = match height.checked_sub(1) {
        None => None,
        Some(before) => Some(block_at(wallet, way, before).await?),
    };
    let mut wallet = wallet.lock();
    wallet.ledger.restart_from(cursor).map_err(Failure::failed)?;
    wallet.is_at_start().map_err(Failure::failed)
}

async fn block_at(wallet: &Shared, way: &Way, height: u64) -> Result<BlockId, Failure> {
    let builder = way.builder(wallet).headers_only().stop_when_synced().give_up_without_peers();
    let mut node = builder.spawn().await.map_err(Failure::failed)?;
    let queries = node.queries();
    wait(&mut node).await?;
    let (start, tip, hash) = queries.read(|chain| (chain.start(), chain.tip().id, chain.at(height)));
    node.shutdown().await.map_err(Failure::failed)?;
    let hash = hash.ok_or_else(|| {
        Failure::Failed(format!("no block at height {height}: the headers go from {start} to {tip}"))
    })?;
    Ok(BlockId { height, hash })
}

/// Waits for the end, or for the user to end it.
async fn wait(node: &mut Node) -> Result<(), Failure> {
    tokio::select! {
        ended = node.wait() => ended.map_err(Failure::failed),
        () = interrupted() => Err(Failure::Failed("interrupted".to_owned())),
    }
}

/// Syncs until it is interrupted or, if so asked, everything is there.
pub(crate) async fn sync(wallet: Shared, way: Way, is_json: bool) -> Result<(), Failure> {
    let began = Instant::now();
    // Who has closed our output ends the sync by the next line of its own.
    let tell = move |news| drop(print(show::news(news, is_json)));
    let mut node = start(&wallet, &way, tell).await?;
    let mut events = node.events();
    let interrupted = interrupted();
    tokio::pin!(interrupted);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + TELL, TELL);
    loop {
        let event = tokio::select! {
            () = &mut interrupted => break,
            event = events.next() => event,
            _ = ticks.tick() => {
                let progress = Some(node.progress()).filter(|progress| !progress.synced);
                progress.map_or(Ok(()), |progress| print(on_the_way(&progress, is_json)))?;
                continue;
            }
        };
        let Some(event) = event else { break };
        if let Some(line) = line(&event, is_json) {
            print(line)?;
        }
    }
    let ended = if way.until_synced { node.wait().await } else { Ok(()) };
    let progress = node.shutdown().await;
    ended.map_err(Failure::failed)?;
    let progress = progress.map_err(Failure::failed)?;
    let tip = wallet.lock().ledger.cursor();
    if is_json {
        return print(json!({
            "event": "summary",
            "height": tip.map(|tip| tip.height),
            "block": tip.map(|tip| tip.hash.to_string()),
            "headers": progress.headers,
            "filters": progress.filters,
            "blocks": progress.blocks,
            "block_bytes": progress.bytes,
            "reorgs": progress.reorgs,
            "peers": progress.peers_seen,
            "elapsed_ms": began.elapsed().as_millis() as u64,
        }));
    }
    let at = tip.map_or("nothing".to_owned(), |tip| tip.to_string());
    let (headers, filters, blocks) = (progress.headers, progress.filters, progress.blocks);
    print(format_args!("stopped at {at}: {headers} headers, {filters} filters, {blocks} blocks read"))
}

/// How far the sync is.
fn on_the_way(progress: &Progress, is_json: bool) -> String {
    let [at, tip] =
        [progress.applied, progress.header_tip].map(|block| block.map_or(0, |block| block.height));
    let (filters, blocks, peers) = (progress.filters, progress.blocks, progress.peers);
    if is_json {
        let facts = json!({"event": "progress", "height": at, "headers_height": tip, "filters": filters, "blocks": blocks, "peers": peers});
        return facts.to_string();
    }
    format!("at block {at} of {tip}: {filters} filters and {blocks} blocks read, {peers} peers")
}

fn line(event: &Event, is_json: bool) -> Option<String> {
    let (json, text) = match event {
        Event::Reorg { old_tip, common, depth, .. } => (
            json!({"event": "reorg", "depth": depth, "height": common.height, "block": common.hash.to_string()}),
            format!("reorg: {old_tip} is left, {depth} blocks back to {common}"),
        ),
        Event::Synced { tip } => (
            json!({"event": "synced", "height": tip.height, "block": tip.hash.to_string()}),
            format!("everything is there up to {tip}"),
        ),
        Event::PeerConnected { address, user_agent, .. } => (
            json!({"event": "connected", "peer": address.to_string(), "user_agent": user_agent}),
            format!("connected to {address}, {user_agent:?}"),
        ),
        Event::ConnectFailed { address, reason } => (
            json!({"event": "not connected", "peer": address.to_string(), "reason": reason}),
            format!("no connection to {address}: {reason}"),
        ),
        _ => return None,
    };
    Some(if is_json { json.to_string() } else { text })
}

/// Waits until the wallet knows everything that the connected peers have.
pub(crate) async fn until_synced(node: &mut Node) -> Result<(), Failure> {
    let mut events = node.events();
    loop {
        let event = tokio::select! {
            () = interrupted() => return Err(Failure::Failed("interrupted".to_owned())),
            event = events.next() => event,
        };
        match event {
            Some(Event::Synced { .. }) => return Ok(()),
            Some(Event::ConnectFailed { address, reason }) => {
                eprintln!("no connection to {address}: {reason}");
            }
            Some(_) => {}
            None => {
                node.wait().await.map_err(Failure::failed)?;
                return Err(Failure::Failed("the node has ended".to_owned()));
            }
        }
    }
}

/// Hands a transaction to the peers, and waits for what tells whether they took it.
pub(crate) async fn broadcast(node: &Node, bytes: Vec<u8>) -> Result<BroadcastOutcome, Failure> {
    let mut policy = BroadcastPolicy::default();
    let control = node.control();
    // With one peer there is nobody to see it come back from.
    policy.accept_fetched = control.peers().peers().await.map_err(Failure::failed)?.len() < 2;
    control.peers().broadcast(bytes.into(), policy).await.map_err(Failure::failed)
}

/// Where headers are.
pub(crate) fn headers_file(dir: &std::path::Path) -> PathBuf {
    dir.join("headers.redb")
}

/// Waits for Ctrl-C.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
