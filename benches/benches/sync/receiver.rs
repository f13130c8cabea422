//! The process that is measured: a whole sync into a sink that counts, or connections alone.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Instant,
};

use tipward_chain::{
    Node,
    sync::{
        Block, BlockId, BlockSink, SinkError, async_trait,
        peer::{
            Discovery, Encrypt, Manager, ManagerOptions, Peer, PeerAddress, PeerEvent, PeerId, Reply, Want,
            bitcoin::Bitcoin,
            wire::{BlockHash, bitcoin::Network},
        },
    },
};
use tokio::sync::mpsc;

use crate::nodes::{LARGE, SMALL};

/// What is checked of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checks {
    /// The checksum of its frame.
    Checksum,
    /// The merkle root, too: what is checked unless it is switched off.
    All,
}

impl Checks {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Checksum => "checksum",
            Self::All => "all",
        }
    }
}

/// What one round came to.
pub(crate) struct Measured {
    pub(crate) blocks: f64,
    pub(crate) bytes: f64,
    /// From the first question for a block to the last block at the sink.
    pub(crate) seconds: f64,
    /// With connecting and headers.
    pub(crate) all_seconds: f64,
    /// Of the receiver's processor time, in seconds, all in all.
    pub(crate) processor: f64,
    /// Peak memory, in MiB.
    pub(crate) peak: f64,
    /// Processor time of all nodes together, in seconds.
    pub(crate) nodes_processor: f64,
}

impl Measured {
    fn print(&self) {
        let Self { blocks, bytes, seconds, all_seconds, processor, peak, .. } = self;
        println!("{blocks} {bytes} {seconds} {all_seconds} {processor} {peak}");
    }

    pub(crate) fn parse(line: &str, nodes_processor: f64) -> Self {
        let numbers: Vec<f64> = line.split_whitespace().map(|word| word.parse().expect("a number")).collect();
        let [blocks, bytes, seconds, all_seconds, processor, peak] = numbers[..] else {
            panic!("the receiver said {line}")
        };
        Self { blocks, bytes, seconds, all_seconds, processor, peak, nodes_processor }
    }
}

pub(crate) fn measure(how: &str, kind: &str, checks: &str, ports: &str) {
    let network = if kind == "small" { SMALL } else { LARGE };
    let mut options = ManagerOptions::default();
    options.addresses = ports
        .split(',')
        .map(|port| PeerAddress { host: "127.0.0.1".to_owned(), port: port.parse().expect("a port") })
        .collect();
    options.link.encrypt = Encrypt::Off;
    options.link.merkle_root = checks == "all";
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let counts = match how {
        "sync" => runtime.block_on(sync(network, options)),
        _ => runtime.block_on(connections(network, options)),
    };
    Measured {
        blocks: counts.blocks as f64,
        bytes: counts.bytes as f64,
        seconds: counts.finish.duration_since(counts.first).as_secs_f64(),
        all_seconds: counts.finish.duration_since(counts.start).as_secs_f64(),
        processor: processor("self"),
        peak: status("VmHWM:") as f64 / 1024.0,
        nodes_processor: 0.0,
    }
    .print();
}

#[derive(Debug, Clone, Copy)]
struct Counts {
    start: Instant,
    first: Instant,
    finish: Instant,
    blocks: u64,
    bytes: u64,
}

impl Counts {
    fn new(start: Instant) -> Self {
        Self { start, first: start, finish: start, blocks: 0, bytes: 0 }
    }

    fn add(&mut self, size: u64) {
        self.blocks += 1;
        self.bytes += size;
    }
}

/// A node with a sink that counts, from its start to the tip.
async fn sync(network: &'static Network, options: ManagerOptions) -> Counts {
    let dir = std::env::temp_dir().join(format!("tipward-bench-{}", std::process::id()));
    let counts = Arc::new(Mutex::new(Counts::new(Instant::now())));
    let mut builder =
        Node::builder(network, &dir).sink(Counter(counts.clone())).stop_when_synced().give_up_without_peers();
    builder.peers = options;
    let mut node = builder.spawn().await.expect("a node");
    node.wait().await.expect("a sync to the tip");
    let progress = node.progress();
    std::fs::remove_dir_all(&dir).ok();
    let counts = *counts.lock().expect("nobody panicked");
    assert_eq!(Some(counts.blocks), progress.applied.map(|tip| tip.height));
    assert_eq!((counts.blocks, counts.bytes), (progress.blocks, progress.bytes));
    counts
}

struct Counter(Arc<Mutex<Counts>>);

#[async_trait]
impl BlockSink for Counter {
    async fn cursor(&mut self) -> Result<Option<BlockId>, SinkError> {
        Ok(None)
    }

    async fn apply(&mut self, block: Block) -> Result<(), SinkError> {
        let mut counts = self.0.lock().expect("nobody panicked");
        // Genesis is there from the start, and comes when the headers are known.
        if block.id.height == 0 {
            counts.first = Instant::now();
        } else {
            counts.add(block.size);
            counts.finish = Instant::now();
        }
        Ok(())
    }

    async fn rollback(&mut self, _: BlockId) -> Result<(), SinkError> {
        Err("nothing is to be undone".into())
    }
}

/// How many blocks are asked of a connection at a time, and on their way at most.
const ASKED: (usize, usize) = (8, 16);

/// The same blocks through connections alone: nothing is put into order, and nothing kept.
async fn connections(network: &'static Network, mut options: ManagerOptions) -> Counts {
    let wanted = options.addresses.len();
    options.pool.discovery = Discovery::Off;
    let (events, mut inbox) = mpsc::channel(64);
    let mut counts = Counts::new(Instant::now());
    let manager = Manager::spawn(Arc::new(Bitcoin::new(network)), options, events).await.expect("a manager");
    let mut peers = BTreeMap::new();
    while peers.len() < wanted {
        if let Some(PeerEvent::Connected(peer)) = inbox.recv().await {
            peers.insert(peer.id(), peer);
        }
    }
    let hashes = headers(network, &peers, &mut inbox).await;
    counts.first = Instant::now();
    let mut hashes = hashes.into_iter();
    let mut in_flight: BTreeMap<PeerId, usize> = peers.keys().map(|id| (*id, 0)).collect();
    let mut ask = |id: PeerId, in_flight: &mut usize| {
        while *in_flight + ASKED.0 <= ASKED.1 {
            let next: Vec<BlockHash> = hashes.by_ref().take(ASKED.0).collect();
            if next.is_empty() {
                return;
            }
            *in_flight += next.len();
            peers[&id].ask(Want::Blocks(next)).expect("a question");
        }
    };
    in_flight.iter_mut().for_each(|(id, in_flight)| ask(*id, in_flight));
    let mut batch = Vec::new();
    while in_flight.values().any(|count| *count > 0) {
        inbox.recv_many(&mut batch, 64).await;
        for event in batch.drain(..) {
            assert!(!matches!(event, PeerEvent::Disconnected { .. }), "lost a node");
            if let PeerEvent::Reply { peer, reply: Reply::BlockEnd(end) } = event {
                counts.add(end.size);
                let in_flight = in_flight.get_mut(&peer).expect("it was asked");
                *in_flight -= 1;
                ask(peer, in_flight);
            }
        }
    }
    counts.finish = Instant::now();
    manager.shutdown().await;
    counts
}

/// The hashes of the chain without genesis, of the first peer.
async fn headers(
    network: &Network,
    peers: &BTreeMap<PeerId, Peer>,
    inbox: &mut mpsc::Receiver<PeerEvent>,
) -> Vec<BlockHash> {
    let peer = peers.values().next().expect("a peer");
    let mut hashes = vec![network.genesis_hash()];
    loop {
        peer.ask(Want::HeadersAfter(hashes.last().copied().into_iter().collect())).expect("a question");
        loop {
            if let Some(PeerEvent::Reply { reply: Reply::Headers { headers, more }, .. }) = inbox.recv().await
            {
                hashes.extend(headers.iter().map(|header| header.hash));
                if !more {
                    return hashes.split_off(1);
                }
                break;
            }
        }
    }
}

/// What a process has used of the processors, user and system, in seconds; counted in ticks of 10 ms.
pub(crate) fn processor(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("this is Linux");
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.map(|ticks| ticks.parse::<f64>().expect("a number") / 100.0).sum()
}

/// A line of `/proc/self/status`, in KiB.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the line is there");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
