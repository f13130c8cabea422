//! The time that a sync takes in virtual time, against the ideal: all bytes at the speed of all peers together.

use std::{fmt, sync::Arc, time::Duration};

use fastrand::Rng;
use tipward_sync::SyncOptions;

use crate::{
    chain::{Sizes, Universe, View, spread},
    config::{Config, Ends, Happening},
    in_parallel,
    nature::{Behaviour, Nature},
    run,
    sink::SinkNature,
};

/// How long a run would take if nothing but bytes took time.
const IDEAL: Duration = Duration::from_secs(60);
/// How much longer it may take with healthy peers, and with two of eight that are not.
const HEALTHY: f64 = 1.15;
const CRIPPLED: f64 = 1.3;
/// The same for fifty peers and blocks the largest of which are two thousand times the smallest. How large a block is shows when it
/// comes: a peer that was taken to need seconds for it may need a minute.
const MANY_AND_MIXED: f64 = 1.35;
/// How much longer it may take if the peer that brings the next block falls silent instead of hanging up.
const DEAD_FRONTIER: Duration = Duration::from_secs(5);
/// How many times as fast as the slowest peer the fastest one is where speeds differ.
const DIFFERENCE: u64 = 32;

/// Healthy peers and a chain.
#[derive(Debug, Clone, Copy)]
struct Setting {
    peers: usize,
    speeds_differ: bool,
    /// In milliseconds, one way.
    latency: (u64, u64),
    sizes: (u64, u64),
    blocks: u32,
    seed: u64,
}

const LATENCIES: [(u64, u64); 3] = [(5, 5), (5, 300), (300, 300)];
/// Small ones, all kinds, large ones.
const SIZES: [(u64, u64); 3] = [(1000, 100_000), (1000, 2_000_000), (1_000_000, 2_000_000)];

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peers, speeds_differ, latency: (near, far), sizes: (small, large), .. } = self;
        let speeds = if *speeds_differ { "different" } else { "equal" };
        write!(f, "{peers} peers, {speeds} speeds, {near} to {far} ms, {small} to {large} bytes")
    }
}

impl Setting {
    /// How many times as much there is to fetch, so that each peer has enough to do.
    fn scale(&self) -> u32 {
        (self.peers as u32).div_ceil(8)
    }

    /// How long the run would take if nothing but bytes took time.
    fn ideal(&self) -> Duration {
        IDEAL * self.scale()
    }

    /// The run in which the first `healthy` peers together take [`ideal`](Self::ideal).
    fn config(&self, healthy: usize) -> Config {
        let mut random = Rng::with_seed(self.seed);
        let sizes = Sizes { usual: self.sizes, large: None };
        let blocks = self.blocks * self.scale();
        let universe = Universe::new(&mut random, sizes, blocks, false);
        let view = View { branch: 0, height: blocks };
        let weight =
            |_| if self.speeds_differ { spread(&mut random, (1000, 1000 * DIFFERENCE)) } else { 1000 };
        let weights: Vec<u64> = (0..self.peers).map(weight).collect();
        let sum: u64 = weights[..healthy].iter().sum();
        let speed = universe.bytes_up_to(view) as f64 / self.ideal().as_secs_f64();
        let peer = |weight: &u64| {
            let latency = Duration::from_millis(random.u64(self.latency.0..=self.latency.1));
            Nature::healthy((speed * *weight as f64 / sum as f64).ceil() as u64, latency)
        };
        Config {
            name: format!("{self:?}"),
            seed: self.seed,
            options: SyncOptions::default(),
            views: vec![view],
            hosts: weights.iter().map(peer).collect(),
            universe: Arc::new(universe),
            sink: SinkNature { burst: 1, ..SinkNature::default() },
            happenings: vec![(Duration::ZERO, Happening::Settled)],
            headers: 2000,
            list: 500,
            ends: Ends::WhenApplied,
            limit: 6 * self.ideal(),
        }
    }
}

fn settings(peers: &[usize]) -> Vec<Setting> {
    let mut settings = Vec::new();
    for &peers in peers {
        for sizes in SIZES {
            // The headers of small blocks, all from one peer of fifty, are a tenth of what there is to fetch.
            if peers > 8 && sizes == SIZES[0] {
                continue;
            }
            for latency in LATENCIES {
                for speeds_differ in [false, true].into_iter().filter(|differ| peers > 1 || !differ) {
                    settings.push(Setting { peers, speeds_differ, latency, sizes, blocks: 4000, seed: 7 });
                }
            }
        }
    }
    settings
}

/// Runs all of them and tells which take too long.
fn check(settings: &[Setting], bar: f64, config: impl Fn(&Setting) -> Config + Sync) {
    let results =
        in_parallel(0..settings.len() as u64, |number| Some(run(config(&settings[number as usize]))));
    let mut missed = Vec::new();
    for (setting, result) in settings.iter().zip(results) {
        let ratio = result.map(|report| report.done_at.as_secs_f64() / setting.ideal().as_secs_f64());
        let text = ratio.as_ref().map_or_else(Clone::clone, |ratio| format!("{ratio:.3} of the ideal"));
        println!("{text} with {setting}");
        if ratio.is_err() || ratio.is_ok_and(|ratio| ratio > bar) {
            missed.push(format!("{text} with {setting}"));
        }
    }
    assert!(missed.is_empty(), "{} of {} take more than {bar}: {missed:#?}", missed.len(), settings.len());
}

#[test]
fn healthy_peers_are_used_to_the_full() {
    check(&settings(&[1, 4, 8]), HEALTHY, |setting| setting.config(setting.peers));
}

#[test]
fn many_healthy_peers_are_used_to_the_full() {
    let (mixed, large): (Vec<Setting>, Vec<Setting>) =
        settings(&[16, 50]).into_iter().partition(|setting| setting.peers == 50 && setting.sizes == SIZES[1]);
    check(&large, HEALTHY, |setting| setting.config(setting.peers));
    check(&mixed, MANY_AND_MIXED, |setting| setting.config(setting.peers));
}

#[test]
fn a_trickling_and_a_silent_peer_cost_little() {
    check(&settings(&[8]), CRIPPLED, |setting| {
        let mut config = setting.config(6);
        config.hosts[6].behaviour = Behaviour::Trickling { after: 10 };
        config.hosts[7].behaviour = Behaviour::Silent { after: 10 };
        config
    });
}

/// Runs them with the peer that brings the next block lost after so many seconds: how long they take, and how long they
/// would take if nothing but bytes took time.
fn lose_next((setting, at): (Setting, u64), silently: bool) -> Result<(f64, f64), String> {
    let mut config = setting.config(setting.peers);
    config.happenings.push((Duration::from_secs(at), Happening::LoseNext { silently }));
    let speeds: Vec<u64> = config.hosts.iter().map(|host| host.bandwidth).collect();
    let report = run(config)?;
    let lost = report.lost_next_at.ok_or("nobody was to bring the next block")?;
    let (all, left) = (speeds.iter().sum::<u64>(), speeds.iter().sum::<u64>() - speeds[lost]);
    let rest = (IDEAL.as_secs_f64() - at as f64) * all as f64 / left as f64;
    Ok((report.done_at.as_secs_f64(), at as f64 + rest))
}

/// Every setting with a loss after 10, 25 and 40 s.
fn losses(peers: &[usize]) -> Vec<(Setting, u64)> {
    settings(peers).into_iter().flat_map(|setting| [10, 25, 40].map(|at| (setting, at))).collect()
}

/// Tells what each loss costs, and which cost more than that.
fn check_losses(
    losses: &[(Setting, u64)],
    bar: f64,
    unit: &str,
    cost: impl Fn((Setting, u64)) -> Result<f64, String> + Sync,
) {
    let costs = in_parallel(0..losses.len() as u64, |number| Some(cost(losses[number as usize])));
    let mut missed = Vec::new();
    for ((setting, at), cost) in losses.iter().zip(costs) {
        let text = cost.as_ref().map_or_else(Clone::clone, |cost| format!("{cost:.2} {unit}"));
        let text = format!("{text}, one lost after {at} s of {setting}");
        println!("{text}");
        if cost.is_err() || cost.is_ok_and(|cost| cost > bar) {
            missed.push(text);
        }
    }
    assert!(missed.is_empty(), "{} of {} cost more than {bar}: {missed:#?}", missed.len(), losses.len());
}

#[test]
fn a_peer_that_hangs_up_costs_its_rate_alone() {
    check_losses(&losses(&[4, 8]), HEALTHY, "of the ideal", |loss| {
        lose_next(loss, false).map(|(took, ideal)| took / ideal)
    });
}

#[test]
fn a_peer_that_dies_with_the_next_block_costs_little() {
    check_losses(&losses(&[4, 8]), DEAD_FRONTIER.as_secs_f64(), "s more", |loss| {
        Ok(lose_next(loss, true)?.0 - lose_next(loss, false)?.0)
    });
}
