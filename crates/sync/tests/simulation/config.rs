//! What is drawn for a run.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use tipward_sync::{Strategy, SyncOptions};

use crate::{
    chain::{Universe, View},
    draw,
    nature::{Nature, Start},
    sink::SinkNature,
};

/// Something that happens to all of it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Happening {
    /// The network has another view now.
    View(usize),
    /// The program is killed and started again.
    Kill,
    Pause,
    Resume,
    /// No more peers are to be expected at once.
    Settled,
    /// The program stands still for so long.
    Freeze(Duration),
    /// The peer that brings the block that everything waits for falls silent, or hangs up.
    LoseNext {
        silently: bool,
    },
}

/// When a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// Everything is applied.
    WhenApplied,
    /// Everything is applied and told, and nothing more happens.
    WhenQuiet,
}

/// A run.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) seed: u64,
    pub(crate) options: SyncOptions,
    pub(crate) universe: Arc<Universe>,
    /// What the network has, one after the other; each higher than the one before.
    pub(crate) views: Vec<View>,
    pub(crate) hosts: Vec<Nature>,
    pub(crate) sink: SinkNature,
    pub(crate) happenings: Vec<(Duration, Happening)>,
    /// How many headers one message holds, and how many entries a list of blocks.
    pub(crate) headers: u32,
    pub(crate) list: u32,
    pub(crate) ends: Ends,
    /// How long the run may take.
    pub(crate) limit: Duration,
}

impl Config {
    /// The last block that is to be applied.
    pub(crate) fn target(&self) -> View {
        let last = *self.views.last().expect("the network has something");
        View { height: last.height.saturating_sub(self.options.stay_behind as u32), ..last }
    }

    /// Everything is drawn from the seed.
    pub(crate) fn random(seed: u64, strategy: Strategy) -> Self {
        let random = &mut Rng::with_seed(seed);
        let height = match random.u8(..10) {
            0..6 => random.u32(100..800),
            6..9 => random.u32(800..2000),
            _ => random.u32(2000..=5000),
        };
        let sizes = draw::sizes(random);
        let has_slots = matches!(strategy, Strategy::SlotRange { .. });
        let mut universe = Universe::new(random, sizes, height, has_slots);
        let views = draw::views(&mut universe, height, random);
        let bytes = universe.bytes_up_to(*views.last().expect("there is one"));
        let options = draw::options(strategy, &universe, height, random);

        // The peer on which everything can rely alone.
        let ideal = random.f64() * 30.0 + 5.0;
        let count = if random.bool() { random.usize(1..=8) } else { random.usize(1..=50) };
        let anchor = draw::anchor(&options, &universe, (bytes as f64 / ideal) as u64, random);
        let mut hosts: Vec<Nature> =
            (1..count).map(|_| draw::peer(&options, &mut universe, &views, &anchor, random)).collect();
        hosts.insert(random.usize(..=hosts.len()), anchor.clone());

        let mut happenings = vec![(draw::time(random, 2.0), Happening::Settled)];
        for number in 1..views.len() {
            happenings.push((draw::time(random, 1.5 * ideal), Happening::View(number)));
        }
        // Views come in their order.
        let mut times: Vec<Duration> = happenings[1..].iter().map(|(at, _)| *at).collect();
        times.sort();
        happenings[1..].iter_mut().zip(times).for_each(|((at, _), time)| *at = time);
        draw::disturb(&mut happenings, ideal, random);
        let sink = draw::sink(bytes, u64::from(height), ideal, random);

        // Only who has another branch brings what is on it, at its own speed.
        let aside = |host: &Nature| match host.first_view {
            Start::Branch(view) => {
                let last = *views.last().expect("there is one");
                let shared = View { height: universe.fork_height(view, last), ..view };
                let bytes = universe.bytes_up_to(view) - universe.bytes_up_to(shared);
                bytes as f64 / host.bandwidth as f64
            }
            Start::Network(_) => 0.0,
        };
        let aside = hosts.iter().map(aside).sum();
        let work = (u64::from(height), bytes, aside);
        let limit = limit(&options, &hosts, &anchor, &sink, &happenings, work);
        Self {
            name: format!("seed {seed}"),
            seed,
            options,
            universe: Arc::new(universe),
            views,
            hosts,
            sink,
            happenings,
            headers: [50, 400, 2000, 2000][random.usize(..4)],
            list: 500,
            ends: Ends::WhenQuiet,
            limit,
        }
    }
}

/// How long a run may take: as long as one peer alone would take with what it is asked for at once, twice, and what is lost
/// by waiting for others.
fn limit(
    options: &SyncOptions,
    hosts: &[Nature],
    anchor: &Nature,
    sink: &SinkNature,
    happenings: &[(Duration, Happening)],
    (blocks, bytes, aside): (u64, u64, f64),
) -> Duration {
    let last = happenings.iter().map(|(at, _)| *at).max().unwrap_or_default();
    let kills = happenings.iter().filter(|(_, what)| matches!(what, Happening::Kill)).count();
    let starts = (kills + sink.fails_at.len() + 1) as u32;
    let round_trip = |peer: &Nature| (peer.latency * 2 + peer.jitter).as_secs_f64();
    let blocks = blocks as f64;
    let by_count = blocks / options.max_in_flight.min(options.window) as f64 * round_trip(anchor);
    // Where only few blocks fit the budget, each of them may be asked of the most distant peer.
    let fit = (options.byte_budget as f64 * blocks / bytes as f64 / 2.0).max(1.0);
    let by_bytes = blocks / fit * hosts.iter().map(round_trip).fold(0.0, f64::max);
    let alone = bytes as f64 / anchor.bandwidth as f64 + by_count.max(by_bytes);
    let alone = match options.strategy {
        // One peer of those on the best chain brings all of it, question after question, and stays that one while it brings
        // anything: it may be the slowest, and the most distant.
        Strategy::SlotRange { batch, .. } => {
            let honest = || hosts.iter().filter(|host| host.is_honest());
            let slowest = honest().map(|host| host.bandwidth).min().unwrap_or(anchor.bandwidth);
            let farthest = honest().map(round_trip).fold(0.0, f64::max);
            let questions = blocks / f64::from(batch).min(options.window as f64).min(fit);
            alone.max(bytes as f64 / slowest as f64 + questions * farthest)
        }
        // One peer of those ahead gives the lists and brings what is on them while it brings anything: likewise.
        Strategy::Inventory { batch } => {
            let honest = || hosts.iter().filter(|host| host.is_honest());
            let slowest = honest().map(|host| host.bandwidth).min().unwrap_or(anchor.bandwidth);
            let farthest = honest().map(round_trip).fold(0.0, f64::max);
            let at_once =
                (batch as f64).min(options.max_in_flight as f64).min(options.window as f64).min(fit);
            alone.max(bytes as f64 / slowest as f64 + blocks / at_once * farthest) + aside
        }
        _ => alone,
    };
    let sinking =
        sink.call.as_secs_f64() * blocks + sink.speed.map_or(0.0, |speed| bytes as f64 / speed as f64);
    let pauses: Duration = sink.pauses.iter().map(|(from, to)| *to - *from).sum();
    // Headers may be asked first of everyone who never answers for them.
    let headers = options.header_timeout * hosts.iter().filter(|host| !host.is_honest()).count() as u32;
    let work = Duration::from_secs_f64(2.0 * alone + 2.0 * sinking);
    Duration::from_secs(120) + options.header_interval + last + pauses + (work + headers) * starts
}
