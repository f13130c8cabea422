//! What is drawn for a run, piece by piece.

use std::time::Duration;

use fastrand::Rng;
use tipward_sync::{Order, Strategy, SyncOptions};

use crate::{
    chain::{MAX_PART, Sizes, Universe, View, spread},
    config::Happening,
    nature::{Announces, Behaviour, Nature, Start},
    sink::SinkNature,
};

fn one_in(random: &mut Rng, count: u32) -> bool {
    random.u32(..count) == 0
}

/// A time in the first so many seconds.
pub(crate) fn time(random: &mut Rng, seconds: f64) -> Duration {
    Duration::from_secs_f64(random.f64() * seconds)
}

pub(crate) fn sizes(random: &mut Rng) -> Sizes {
    let usual = match random.u8(..4) {
        0 => (250, 1000),
        1 => (300, 50_000),
        2 => (1000, 500_000),
        _ => (200, 2_000_000),
    };
    let large = match random.u8(..4) {
        0 => Some((random.u64(20..200), random.u64(2..16) << 20)),
        1 => Some((random.u64(100..500), random.u64(16..256) << 20)),
        _ => None,
    };
    Sizes { usual, large }
}

/// Growth and reorgs while the sync runs.
pub(crate) fn views(universe: &mut Universe, height: u32, random: &mut Rng) -> Vec<View> {
    let mut at = height - random.u32(..height / 4);
    let mut branch = 0;
    let mut views = vec![View { branch, height: at }];
    let mut top = height;
    for _ in 0..random.u32(..6) {
        if one_in(random, 3) {
            let depth = spread(random, (1, 80)) as u32;
            let fork = at - depth.min(at);
            top = at + random.u32(1..20) + random.u32(..20);
            branch = universe.fork(branch, fork, top, None, random);
            at += random.u32(1..=(top - at).min(15));
        } else if at < top {
            let most = if random.bool() { 1 } else { 200 };
            at += random.u32(1..=most.min(top - at));
        } else {
            break;
        }
        views.push(View { branch, height: at });
    }
    views
}

pub(crate) fn options(strategy: Strategy, universe: &Universe, height: u32, random: &mut Rng) -> SyncOptions {
    let mut options = SyncOptions::default();
    options.strategy = strategy;
    options.order = if one_in(random, 5) { Order::AsReceived } else { Order::Chain };
    options.window = spread(random, (16, 2048)) as usize;
    options.max_in_flight = spread(random, (1, 64)) as usize;
    // In one run of three less than a large block.
    options.byte_budget = match random.u8(..3) {
        0 => (universe.largest() / random.u64(1..8)).max(256 << 10),
        1 => universe.largest() * random.u64(2..10) + (256 << 10),
        _ => options.byte_budget,
    };
    options.header_interval = Duration::from_secs(random.u64(10..=60));
    if one_in(random, 6) {
        options.stay_behind = random.u64(1..20);
    }
    if one_in(random, 8) {
        options.stop_at = Some(random.u64(1..u64::from(height) * 5 / 4));
    } else if one_in(random, 20) {
        options.stop_when_synced = true;
    }
    options
}

/// Parts are at most a quarter of the budget, so that what arrives can be told from what is kept.
fn part_size(options: &SyncOptions, random: &mut Rng) -> u64 {
    spread(random, (16 << 10, MAX_PART as u64)).min(options.byte_budget / 4)
}

/// Always there, honest, has everything.
pub(crate) fn anchor(options: &SyncOptions, universe: &Universe, bandwidth: u64, random: &mut Rng) -> Nature {
    // Large blocks take a while, and not for ever.
    let bandwidth = bandwidth.max(universe.largest() / 30).max(64 << 10);
    let mut anchor = Nature::healthy(bandwidth, Duration::from_millis(random.u64(5..300)));
    anchor.part_size = part_size(options, random);
    anchor.jitter = time(random, 0.1);
    anchor.learns_after = time(random, 3.0);
    // It comes back if it is lost, which it hardly ever is by itself.
    anchor.life = Some((Duration::from_secs(1 << 20), time(random, 5.0)));
    anchor
}

/// Any other.
pub(crate) fn peer(
    options: &SyncOptions,
    universe: &mut Universe,
    views: &[View],
    anchor: &Nature,
    random: &mut Rng,
) -> Nature {
    // No block takes more than two minutes.
    let slowest = (universe.largest() / 120).max(64 << 10);
    let bandwidth = spread(random, (anchor.bandwidth / 20, anchor.bandwidth * 4)).max(slowest);
    let mut peer = Nature::healthy(bandwidth, Duration::from_millis(random.u64(2..500)));
    peer.part_size = part_size(options, random);
    peer.jitter = time(random, 0.3);
    peer.learns_after = time(random, 6.0);
    peer.announces = [Announces::Headers, Announces::Inventory, Announces::Nothing][random.usize(..3)];
    if one_in(random, 5) {
        peer.joins_at = time(random, 30.0);
    }
    if one_in(random, 5) {
        peer.first_view = Start::Network(random.usize(..views.len()));
    }
    if one_in(random, 6) {
        // A claim from long ago is no lie.
        peer.claim = -(random.i64(1..200));
    }
    let after = random.u64(..60);
    match random.u8(..30) {
        0..2 => peer.behaviour = Behaviour::Silent { after },
        2 => peer.behaviour = Behaviour::Silent { after: 0 },
        3..5 => peer.behaviour = Behaviour::Trickling { after },
        5 => peer.behaviour = Behaviour::Resetting { after },
        6 => peer.behaviour = Behaviour::Aborting { after },
        7 => peer.behaviour = Behaviour::WrongBlock { after },
        8 => {
            peer.behaviour = Behaviour::LyingHigh;
            peer.claim = random.i64(10..1_000_000);
        }
        9 => peer.behaviour = Behaviour::Missing { one_in: random.u64(1..20) },
        10 => peer.behaviour = Behaviour::NoHeaders,
        11 => {
            peer.behaviour = Behaviour::LateHeaders;
            peer.header_delay = Duration::from_secs(random.u64(11..40));
        }
        12 => {
            peer.behaviour = Behaviour::InvalidHeaders;
            peer.first_view = Start::Branch(other_branch(universe, views, false, random));
            peer.last_view = 0;
        }
        13..15 => {
            peer.first_view = Start::Branch(other_branch(universe, views, true, random));
            if random.bool() {
                peer.last_view = 0;
            }
        }
        15 => peer.last_view = random.usize(..views.len()),
        16..18 => peer.life = Some((Duration::from_secs(random.u64(2..60)), time(random, 10.0))),
        18 => peer.recent_only = Some(random.u64(20..400)),
        19 => peer.header_delay = time(random, 6.0),
        20 => peer.bandwidth = slowest,
        21..23 => {
            let from = time(random, 30.0);
            peer.stalls = vec![(from, from + time(random, 5.0))];
        }
        _ => {}
    }
    if matches!(peer.behaviour, Behaviour::Resetting { .. } | Behaviour::Aborting { .. }) && random.bool() {
        peer.life = Some((Duration::from_secs(3600), Duration::from_secs(5)));
    }
    peer
}

/// A branch that the network does not take: lower than what it has at last, unless it breaks a rule. Then what comes before
/// that is lower, or it would stay the best branch with blocks that nobody has.
fn other_branch(universe: &mut Universe, views: &[View], is_valid: bool, random: &mut Rng) -> View {
    let (first, last) = (views[0], views[views.len() - 1]);
    let fork = first.height - random.u32(2..=first.height.min(60));
    let mut height = random.u32(fork + 1..last.height);
    let mut breaks_at = None;
    if !is_valid {
        breaks_at = Some(height);
        height = last.height + random.u32(1..20);
    }
    View { branch: universe.fork(first.branch, fork, height, breaks_at, random), height }
}

/// Kills, pauses and standstills.
pub(crate) fn disturb(happenings: &mut Vec<(Duration, Happening)>, ideal: f64, random: &mut Rng) {
    if one_in(random, 4) {
        for _ in 0..random.u32(1..4) {
            happenings.push((time(random, 1.5 * ideal), Happening::Kill));
        }
    }
    if one_in(random, 4) {
        let from = time(random, ideal);
        happenings.push((from, Happening::Pause));
        happenings.push((from + time(random, 40.0), Happening::Resume));
    }
    if one_in(random, 5) {
        happenings.push((time(random, ideal), Happening::Freeze(time(random, 8.0))));
    }
    if one_in(random, 8) {
        happenings.push((time(random, ideal), Happening::LoseNext { silently: false }));
    }
}

pub(crate) fn sink(bytes: u64, height: u64, ideal: f64, random: &mut Rng) -> SinkNature {
    let mut sink = SinkNature { burst: 1, ..SinkNature::default() };
    match random.u8(..6) {
        0 => sink.call = Duration::from_secs_f64(ideal * 2.0 * random.f64() / height as f64),
        1 => sink.speed = Some((bytes as f64 / ideal / (0.5 + 2.0 * random.f64())) as u64 + 1),
        2 => sink.burst = random.usize(2..200),
        3 => {
            for _ in 0..random.u32(1..4) {
                let from = time(random, ideal);
                sink.pauses.push((from, from + time(random, 60.0)));
            }
        }
        _ => {}
    }
    if one_in(random, 8) {
        sink.fails_at = (0..random.u32(1..3)).map(|_| random.u64(1..height)).collect();
    }
    sink
}
