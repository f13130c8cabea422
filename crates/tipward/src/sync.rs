//! `tipward sync`.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use tipward_chain::{
    ArchiveOptions, Node, NodeError,
    sync::{Event, Strategy, peer::ManagerOptions, peer::wire::bitcoin::Network},
};
use tipward_simnet::Demo;

use crate::{
    Failure,
    args::{FindBlocks, SyncArguments, default_data_dir},
    interrupted,
    report::{Report, Reporter},
    runtime, trace,
    transport::addresses,
};

/// What the chains of the demo are drawn from.
pub(crate) const DEMO_SEED: u64 = 1;
/// How many blocks nodes put in a list.
const MAX_LIST: usize = 500;
const TICK: Duration = Duration::from_millis(100);

pub(crate) fn run(arguments: &SyncArguments) -> Result<(), Failure> {
    if arguments.headers_only && arguments.strategy == FindBlocks::Inventory {
        return Err(Failure::Usage("--headers-only: lists of blocks bring no headers".to_owned()));
    }
    let mut options = ManagerOptions::default();
    options.addresses = addresses(&arguments.connect, arguments.network)?;
    arguments.transport.apply(arguments.network, &mut options)?;
    trace(arguments.verbose);
    runtime()?.block_on(sync(arguments, options))
}

async fn sync(arguments: &SyncArguments, mut options: ManagerOptions) -> Result<(), Failure> {
    let started = Instant::now();
    let reporter = Reporter::choose(arguments.json, arguments.verbose > 0);
    let is_demo = arguments.network == Network::DEMO && options.addresses.is_empty();
    let data_dir = data_dir(arguments, is_demo)?;
    let mut demo = None;
    if is_demo {
        let network = Demo::start(DEMO_SEED)
            .await
            .map_err(|error| Failure::Failed(format!("cannot start the simulated network: {error}")))?;
        reporter.demo(&network);
        options.addresses = network.nodes().map(|(address, _)| address.into()).collect();
        demo = Some(network);
    }
    let node = builder(arguments, data_dir.clone(), options).spawn().await.map_err(Failure::failed)?;
    let mut report = Report::new(reporter, arguments, started);
    let result = follow(node, &mut report, demo.as_mut()).await;
    if let Some(demo) = demo {
        demo.shutdown().await;
    }
    let progress = result.map_err(Failure::failed)?;
    report.summary(&progress, &data_dir);
    Ok(())
}

fn builder(
    arguments: &SyncArguments,
    data_dir: PathBuf,
    options: ManagerOptions,
) -> tipward_chain::NodeBuilder {
    let mut archive = ArchiveOptions::default();
    (archive.max_depth, archive.max_bytes) = (arguments.prune_depth, arguments.prune_size);
    let mut builder =
        Node::builder(arguments.network, data_dir).archive_with(archive).give_up_without_peers();
    builder.peers = options;
    builder.sync.stay_behind = arguments.stay_behind;
    builder.sync.strategy = match arguments.strategy {
        FindBlocks::HeadersFirst => Strategy::HeadersFirst,
        FindBlocks::Inventory => Strategy::Inventory { batch: MAX_LIST },
    };
    if let Some(window) = arguments.window {
        builder.sync.window = window as usize;
    }
    if let Some(budget) = arguments.budget {
        builder.sync.byte_budget = budget;
    }
    if arguments.headers_only {
        builder = builder.headers_only();
    }
    if let Some(height) = arguments.stop_at {
        builder = builder.stop_at(height);
    }
    if arguments.until_synced {
        builder = builder.stop_when_synced();
    }
    builder
}

fn data_dir(arguments: &SyncArguments, is_demo: bool) -> Result<PathBuf, Failure> {
    match &arguments.data_dir {
        Some(dir) => Ok(dir.clone()),
        // Kept, so that its blocks can be looked at.
        None if is_demo => Ok(tempfile::Builder::new()
            .prefix("tipward-demo-")
            .tempdir()
            .map_err(|error| Failure::Failed(format!("cannot create a temporary directory: {error}")))?
            .keep()),
        None => default_data_dir(arguments.network),
    }
}

/// Shows what happens until the node ends, or is to end.
async fn follow(
    mut node: Node,
    report: &mut Report,
    mut demo: Option<&mut Demo>,
) -> Result<tipward_chain::sync::Progress, NodeError> {
    let mut events = node.events();
    let mut tick = tokio::time::interval(TICK);
    let mut interrupt = std::pin::pin!(interrupted());
    // Where the demo ends: at the tip of the branch that wins.
    let mut ends_at = None;
    let mut listening = true;
    let ended = loop {
        tokio::select! {
            biased;
            () = &mut interrupt => break None,
            ended = node.wait() => break Some(ended),
            _ = tick.tick() => report.progress(&node.progress()),
            event = events.next(), if listening => match event {
                Some(Event::Synced { tip }) => {
                    report.event(&Event::Synced { tip }, &node.progress());
                    if let Some(demo) = demo.as_deref_mut() {
                        let end = *ends_at.get_or_insert_with(|| demo.overtake());
                        if tip.height >= end {
                            break None;
                        }
                    }
                }
                Some(event) => report.event(&event, &node.progress()),
                // The end of the node is on its way.
                None => listening = false,
            },
        }
    };
    let last = match ended {
        Some(Ok(())) => node.progress(),
        Some(Err(error)) => {
            report.close();
            return Err(error);
        }
        None => node.shutdown().await?,
    };
    // What happened between the last look and the end.
    while let Some(event) = events.next().await {
        report.event(&event, &last);
    }
    report.progress(&last);
    report.close();
    Ok(last)
}
