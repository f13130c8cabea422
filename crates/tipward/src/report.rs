//! What `tipward sync` shows: bars on a terminal, lines in a pipe, JSON lines when asked.

use std::{
    io::{IsTerminal, Write},
    path::Path,
    time::{Duration, Instant},
};

use indicatif::{HumanBytes, HumanDuration, MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tipward_chain::sync::{BlockId, Event, Progress, peer::wire::bitcoin::Network};
use tipward_simnet::Demo;

use crate::args::SyncArguments;

mod shares;

/// How often lines tell the progress.
const LINE_INTERVAL: Duration = Duration::from_secs(1);
/// How often lines tell of each peer.
const PEERS_INTERVAL: Duration = Duration::from_secs(2);

/// How to show things.
pub(crate) enum Reporter {
    Bars(Bars),
    Lines,
    Json,
}

pub(crate) struct Bars {
    all: MultiProgress,
    headers: ProgressBar,
    blocks: ProgressBar,
    /// The speed, and a line for each peer that is shown.
    lines: Vec<ProgressBar>,
}

impl Bars {
    /// Bars with nothing in them.
    fn new() -> Self {
        let all = MultiProgress::new();
        let bar = |name: &'static str| {
            let style = style("{prefix:8} {wide_bar} {human_pos}/{human_len}");
            all.add(ProgressBar::new(0).with_style(style).with_prefix(name))
        };
        let (headers, blocks) = (bar("headers"), bar("blocks"));
        Self { all, headers, blocks, lines: Vec::new() }
    }

    fn show(&mut self, place: &Place, progress: &Progress, headers_only: bool) {
        self.headers.set_length(place.target);
        self.headers.set_position(place.headers);
        self.blocks.set_length(if headers_only { 0 } else { place.headers });
        self.blocks.set_position(place.applied);
        let mut lines = vec![format!("         {}", speed(progress))];
        lines.extend(shares::lines(progress));
        while self.lines.len() > lines.len() {
            if let Some(bar) = self.lines.pop() {
                self.all.remove(&bar);
            }
        }
        while self.lines.len() < lines.len() {
            let bar = ProgressBar::new_spinner().with_style(style("{wide_msg}"));
            self.lines.push(self.all.add(bar));
        }
        for (bar, line) in self.lines.iter().zip(lines) {
            bar.set_message(line);
        }
    }

    fn close(&self) {
        self.lines.iter().chain([&self.headers, &self.blocks]).for_each(ProgressBar::finish_and_clear);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// How much has come, how fast, and how long the rest will take.
fn speed(progress: &Progress) -> String {
    let eta = match progress.eta {
        _ if progress.paused => ", paused".to_owned(),
        Some(eta) if !eta.is_zero() => format!(", {} left", HumanDuration(eta)),
        _ => String::new(),
    };
    format!(
        "{}, {:.0}/s, {}{eta}, {} peers",
        HumanBytes(progress.bytes),
        progress.blocks_per_second,
        shares::rate(progress.bytes_per_second),
        progress.peers
    )
}

/// Heights of a progress.
struct Place {
    headers: u64,
    applied: u64,
    /// Where the headers will end, by what is known.
    target: u64,
}

impl Reporter {
    /// JSON when asked, bars on a terminal that nothing else writes to, else lines.
    pub(crate) fn choose(json: bool, verbose: bool) -> Self {
        if json {
            return Self::Json;
        }
        if verbose || !std::io::stdout().is_terminal() || !std::io::stderr().is_terminal() {
            return Self::Lines;
        }
        Self::Bars(Bars::new())
    }

    /// Introduces the simulated network.
    pub(crate) fn demo(&self, demo: &Demo) {
        let height = demo.nodes().count();
        self.line(&format!("demo: a simulated network of {height} nodes on loopback"));
        for (address, what) in demo.nodes() {
            self.line(&format!("  {address}  {what}"));
        }
    }

    /// A line for people.
    fn line(&self, line: &str) {
        match self {
            Self::Bars(bars) => bars.all.println(line).unwrap_or_default(),
            Self::Lines => print(line),
            Self::Json => {}
        }
    }

    fn json(&self, value: &Value) {
        if matches!(self, Self::Json) {
            print(&value.to_string());
        }
    }
}

/// Like `println!`, but a closed pipe is no reason to panic in the middle of a sync.
fn print(line: &str) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).unwrap_or_default();
}

/// Shows one sync.
pub(crate) struct Report {
    reporter: Reporter,
    network: &'static Network,
    headers_only: bool,
    stop_at: Option<u64>,
    is_demo: bool,
    started: Instant,
    /// When a line was printed last.
    last_line: Instant,
    /// When a line for each peer was.
    last_peers: Instant,
}

impl Report {
    pub(crate) fn new(reporter: Reporter, arguments: &SyncArguments, started: Instant) -> Self {
        Self {
            reporter,
            network: arguments.network,
            headers_only: arguments.headers_only,
            stop_at: arguments.stop_at,
            is_demo: arguments.network == Network::DEMO && arguments.connect.is_empty(),
            started,
            last_line: started,
            last_peers: started,
        }
    }

    /// Shows where the sync is; quick enough to be called often.
    pub(crate) fn progress(&mut self, progress: &Progress) {
        let headers = progress.header_tip.map_or(0, |tip| tip.height);
        let applied = progress.applied.map_or(0, |tip| tip.height);
        let target = headers.max(progress.claimed_height).min(self.stop_at.unwrap_or(u64::MAX));
        let place = Place { headers, applied, target };
        if let Reporter::Bars(bars) = &mut self.reporter {
            return bars.show(&place, progress, self.headers_only);
        }
        if self.last_line.elapsed() < LINE_INTERVAL {
            return;
        }
        self.last_line = Instant::now();
        self.reporter
            .line(&format!("headers {headers}/{target}, blocks {applied}/{headers}, {}", speed(progress)));
        if self.last_peers.elapsed() >= PEERS_INTERVAL {
            self.last_peers = self.last_line;
            shares::lines(progress).iter().for_each(|line| self.reporter.line(line));
        }
        self.reporter.json(&json!({
            "event": "progress",
            "headers": headers,
            "target": target,
            "applied": progress.applied.map(|tip| tip.height),
            "blocks": progress.blocks,
            "bytes": progress.bytes,
            "blocks_per_second": progress.blocks_per_second,
            "bytes_per_second": progress.bytes_per_second,
            "eta_seconds": progress.eta.map(|eta| eta.as_secs()),
            "buffered_bytes": progress.buffered_bytes,
            "connected": progress.peers,
            "peers": shares::values(progress),
        }));
    }

    /// Shows what happened.
    pub(crate) fn event(&mut self, event: &Event, progress: &Progress) {
        let line = match event {
            Event::PeerConnected { address, user_agent, .. } => {
                self.reporter.json(&json!({"event": "peer_connected", "address": address.to_string(), "user_agent": user_agent}));
                format!("connected to {address} ({})", printable(user_agent))
            }
            Event::PeerDisconnected { address, reason, .. } => {
                self.reporter.json(
                    &json!({"event": "peer_disconnected", "address": address.to_string(), "reason": reason}),
                );
                format!("lost {address}: {reason}")
            }
            Event::ConnectFailed { address, reason } => {
                self.reporter.json(
                    &json!({"event": "connect_failed", "address": address.to_string(), "reason": reason}),
                );
                format!("cannot connect to {address}: {reason}")
            }
            Event::Reorg { old_tip, new_tip, common, depth, .. } => {
                self.reporter.json(&json!({
                    "event": "reorg",
                    "old_tip": id(old_tip),
                    "new_tip": id(new_tip),
                    "common": id(common),
                    "depth": depth,
                }));
                format!("reorg: {depth} blocks undone, back to height {}", common.height)
            }
            Event::Synced { tip } => {
                self.reporter.json(&json!({"event": "synced", "tip": id(tip)}));
                format!("synced to height {} with {} peers", tip.height, progress.peers)
            }
            // Told by the progress.
            _ => return,
        };
        self.reporter.line(&line);
    }

    /// Takes the bars away.
    pub(crate) fn close(&self) {
        if let Reporter::Bars(bars) = &self.reporter {
            bars.close();
        }
    }

    /// The last words.
    pub(crate) fn summary(&self, progress: &Progress, data_dir: &Path) {
        let elapsed = self.started.elapsed();
        let tip = if self.headers_only { progress.header_tip } else { progress.applied };
        self.reporter.json(&json!({
            "event": "summary",
            "network": self.network.name,
            "tip_height": tip.map(|tip| tip.height),
            "tip_hash": tip.map(|tip| tip.hash.to_string()),
            "headers": progress.headers,
            "blocks": progress.blocks,
            "txs": progress.transactions,
            "bytes": progress.bytes,
            "reorgs": progress.reorgs,
            "peers": progress.peers_seen,
            "resumed_from": progress.resumed_from.map(|from| from.height),
            "elapsed_ms": u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        }));
        if matches!(self.reporter, Reporter::Json) {
            return;
        }
        let place = tip
            .map_or_else(|| "nothing yet".to_owned(), |tip| format!("height {}, {}", tip.height, tip.hash));
        print(&format!("{}: {place}", self.network.name));
        let resumed = progress
            .resumed_from
            .map_or_else(String::new, |from| format!(", resumed from height {}", from.height));
        print(&format!(
            "  {} headers, {} blocks, {} transactions, {} from {} peers in {:.1} s, {} reorgs{resumed}",
            progress.headers,
            progress.blocks,
            progress.transactions,
            HumanBytes(progress.bytes),
            progress.peers_seen,
            elapsed.as_secs_f64(),
            progress.reorgs,
        ));
        print(&format!("  in {}", data_dir.display()));
        if self.is_demo {
            let height = tip.map_or(0, |tip| tip.height);
            print(&format!(
                "look at a block:        tipward block {height} --data-dir {}",
                data_dir.display()
            ));
            print("sync the real network:  tipward sync --network btc");
        }
    }
}

fn id(block: &BlockId) -> Value {
    json!({"height": block.height, "hash": block.hash.to_string()})
}

/// A peer's words without what could move the cursor.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}
