//! Follows a chain, indexes it, and answers over HTTP.

mod demo;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{ArgAction, Parser};
use indexer::{
    http::{self, Api},
    index::Index,
    sink::{IndexSink, Writer},
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tipward_chain::{
    Archive, ArchiveReader, Node,
    sync::{
        Event, Progress,
        peer::{PeerAddress, wire::bitcoin::Network},
    },
};
use tokio::{net::TcpListener, sync::watch};

use demo::Demonstration;

/// How often to say how far it is, and to let the metrics forget what is old.
const INTERVAL: Duration = Duration::from_secs(5);
/// Upper bounds of the buckets of times, in seconds.
const BUCKETS: [f64; 8] = [0.0001, 0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Indexes a block chain over the peer-to-peer network, and answers over HTTP.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// btc, btc-testnet3, btc-testnet4, btc-signet, btc-regtest, bsv, bsv-testnet, bsv-stn, bsv-regtest or demo.
    #[arg(long, value_name = "NAME", default_value = "demo", value_parser = network)]
    network: &'static Network,
    /// A node to connect to, instead of those that DNS seeds name; may be given several times.
    #[arg(long, value_name = "HOST:PORT")]
    connect: Vec<String>,
    /// Where to keep headers, blocks and the index. The demo takes a temporary one.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where to answer.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// How much of the index to hold in memory, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=1_048_576))]
    cache: u32,
    /// End when everything that the connected nodes have is indexed.
    #[arg(long)]
    until_synced: bool,
    /// Log to stderr; twice for more.
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
}

fn network(name: &str) -> Result<&'static Network, String> {
    Network::by_name(name).ok_or_else(|| {
        let names: Vec<&str> = Network::ALL.iter().map(|network| network.name).collect();
        format!("no such network; there are {}", names.join(", "))
    })
}

/// What ends the program early: one line for the user, and the exit code.
enum Failure {
    /// Something could not be done; exit code 1.
    Failed(String),
    /// Something else must be asked for; exit code 2.
    Usage(String),
}

impl Failure {
    fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let (line, code) = match run(Arguments::parse()).await {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Failed(line)) => (line, 1),
        Err(Failure::Usage(line)) => (line, 2),
    };
    eprintln!("error: {line}");
    ExitCode::from(code)
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    trace(arguments.verbose);
    let network = arguments.network;
    let mut addresses = Vec::new();
    for text in &arguments.connect {
        let address = PeerAddress::parse(text, network.default_port);
        addresses.push(address.map_err(|error| Failure::Usage(format!("--connect: {error}")))?);
    }
    let is_demo = network == Network::DEMO && addresses.is_empty();
    // Deleted when the demo ends.
    let mut temporary = None;
    let dir = match &arguments.data_dir {
        Some(dir) => dir.clone(),
        None if is_demo => temporary.insert(tempfile::tempdir().map_err(Failure::failed)?).path().to_owned(),
        None => return Err(Failure::Usage("where to keep the data? Give --data-dir DIR".to_owned())),
    };
    let listener = TcpListener::bind(arguments.listen).await;
    let listener =
        listener.map_err(|error| Failure::Failed(format!("--listen {}: {error}", arguments.listen)))?;
    let mut demo = None;
    if is_demo {
        let started = Demonstration::start().await.map_err(Failure::failed)?;
        addresses = started.addresses();
        demo = Some(started);
    }
    let metrics = recorder()?;
    let running = start(&arguments, &dir, addresses, demo.is_some()).await?;
    let url = format!("http://{}", listener.local_addr().map_err(Failure::failed)?);
    println!("answering on {url}: /tip /block/100 /status /metrics ...");
    let (stop, stopped) = watch::channel(());
    let api = Api {
        reader: running.reader.clone(),
        archive: running.archive,
        network,
        control: running.node.control(),
        metrics: metrics.clone(),
    };
    let server = tokio::spawn(http::serve(listener, api, async move {
        let mut stopped = stopped;
        // The end of the sender is the signal.
        while stopped.changed().await.is_ok() {}
    }));
    let began = Instant::now();
    let ended = follow(running.node, &metrics, demo.as_mut(), arguments.until_synced).await;
    drop(stop);
    server.await.map_err(Failure::failed)?;
    // Why the index could not be written says more than that it could not.
    running.writer.join().map_err(Failure::failed)?;
    let progress = ended.map_err(Failure::failed)?;
    summary(&progress, began.elapsed());
    if let Some(demo) = demo {
        demo.end().await;
    }
    Ok(())
}

struct Running {
    node: Node,
    writer: Writer,
    reader: indexer::view::Reader,
    archive: ArchiveReader,
}

/// Opens what is in the directory, and starts the node that fills it.
async fn start(
    arguments: &Arguments,
    dir: &Path,
    addresses: Vec<PeerAddress>,
    is_demo: bool,
) -> Result<Running, Failure> {
    let network = arguments.network;
    std::fs::create_dir_all(dir).map_err(|error| Failure::Failed(format!("{}: {error}", dir.display())))?;
    let blocks = dir.join("blocks");
    let archive = Archive::open(&blocks, &network).map_err(Failure::failed)?;
    let index = Index::open(&dir.join("index.redb"), network, (arguments.cache as usize) << 20);
    let index = index.map_err(Failure::failed)?;
    let reader = index.reader();
    let (sink, writer) = IndexSink::new(archive, index, network.chain);
    let archive = ArchiveReader::open(&blocks, &network).map_err(Failure::failed)?;
    let mut builder = Node::builder(network, dir).sink(sink).give_up_without_peers();
    builder.peers.addresses = addresses;
    // The demo goes on after that.
    if arguments.until_synced && !is_demo {
        builder = builder.stop_when_synced();
    }
    let node = builder.spawn().await.map_err(Failure::failed)?;
    Ok(Running { node, writer, reader, archive })
}

/// Says what happens until the node ends, or is to end.
async fn follow(
    mut node: Node,
    metrics: &PrometheusHandle,
    mut demo: Option<&mut Demonstration>,
    until_synced: bool,
) -> Result<Progress, tipward_chain::NodeError> {
    let (mut events, mut tick) = (node.events(), tokio::time::interval(INTERVAL));
    let mut interrupt = std::pin::pin!(interrupted());
    loop {
        tokio::select! {
            biased;
            () = &mut interrupt => return node.shutdown().await,
            ended = node.wait() => {
                ended?;
                return Ok(node.progress());
            }
            _ = tick.tick() => {
                metrics.run_upkeep();
                report(&node.progress());
            }
            Some(event) = events.next() => match event {
                Event::Reorg { old_tip, common, depth, .. } => {
                    println!("reorg: {depth} blocks down from {old_tip} are taken back, to {common}");
                }
                Event::Synced { tip } => {
                    println!("everything is indexed up to {tip}");
                    let is_over = demo.as_deref_mut().is_none_or(|demo| demo.synced(tip.height));
                    if is_over && demo.is_some() && until_synced {
                        return node.shutdown().await;
                    }
                }
                _ => {}
            },
        }
    }
}

fn report(progress: &Progress) {
    if let (false, Some(at), Some(tip)) = (progress.synced, progress.applied, progress.header_tip) {
        let rate = progress.bytes_per_second as f64 / 1e6;
        println!("block {} of {}, {rate:.1} MB/s, {} peers", at.height, tip.height, progress.peers);
    }
}

fn summary(progress: &Progress, took: Duration) {
    let Progress { blocks, transactions, bytes, reorgs, .. } = *progress;
    let at = progress.applied.map_or("nowhere".to_owned(), |at| at.to_string());
    println!(
        "indexed {blocks} blocks, {transactions} transactions, {:.1} MB, {reorgs} reorgs in {:.1} s; now at {at}",
        bytes as f64 / 1e6,
        took.as_secs_f64(),
    );
}

/// Takes the metrics of this program and of Tipward.
fn recorder() -> Result<PrometheusHandle, Failure> {
    let seconds = Matcher::Suffix("_seconds".to_owned());
    let builder =
        PrometheusBuilder::new().set_buckets_for_metric(seconds, &BUCKETS).map_err(Failure::failed)?;
    builder.install_recorder().map_err(Failure::failed)
}

/// Turns `tracing` on, to stderr.
fn trace(verbosity: u8) {
    let level = ["warn", "info", "debug", "trace"][usize::from(verbosity.min(3))];
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// Waits for Ctrl-C or a request to terminate.
async fn interrupted() {
    #[cfg(unix)]
    if let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        return;
    }
    tokio::signal::ctrl_c().await.ok();
}
