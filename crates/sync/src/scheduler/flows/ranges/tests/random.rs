//! One honest peer among random others.

use proptest::prelude::*;

use super::*;

/// What another peer is like.
#[derive(Debug, Clone)]
struct Other {
    /// 0: the best chain; 1: a shorter branch of it; 2: one with an invalid block.
    chain: usize,
    latency: u64,
    pace: u64,
    joins: u64,
    leaves: Option<u64>,
    fault: u8,
    at: prop::sample::Index,
    many: usize,
}

#[derive(Debug, Clone)]
struct World {
    length: u64,
    fork: u64,
    others: Vec<Other>,
    window: usize,
    seed: u64,
}

fn other() -> impl Strategy<Value = Other> {
    let times = (1u64..400, 0u64..20, 0u64..3000, prop::option::of(0u64..8000));
    let faults = (0u8..14, any::<prop::sample::Index>(), 0usize..300);
    (0usize..3, times, faults).prop_map(|(chain, (latency, pace, joins, leaves), (fault, at, many))| Other {
        chain,
        latency,
        pace,
        joins,
        leaves,
        fault,
        at,
        many,
    })
}

fn world() -> impl Strategy<Value = World> {
    let numbers = (150u64..500, 0u64..149, 20usize..600, any::<u64>());
    (numbers, prop::collection::vec(other(), 0..7)).prop_map(|((length, fork, window, seed), others)| World {
        length,
        fork,
        others,
        window,
        seed,
    })
}

fn model(chains: &[Vec<SimBlock>; 3], other: &Other) -> Model {
    let chain = &chains[other.chain];
    let mut model = Model::honest(chain);
    model.latency = Duration::from_millis(other.latency);
    model.per_block = Duration::from_millis(other.pace);
    model.joins_after = Duration::from_millis(other.joins);
    let at = other.at.index(chain.len()) as u64;
    match other.fault {
        0 => model.claim = Some(at * 10_000),
        1 => model.claim = Some(at / 2),
        2 => model.mute_after = Some(other.many),
        3 => model.skips = (at..at + 20).step_by(3).collect(),
        4 => model.skips_once = (0..=at).step_by(7).collect(),
        5 => model.trickles = true,
        6 => model.reverses = true,
        7 => model.forges_from = Some(at),
        8 => model.repeats = true,
        9 => model.leaves_after = other.leaves.map(Duration::from_millis),
        10 => model.ends_ranges = true,
        11 => (model.ends_ranges, model.max_answer) = (true, other.many),
        12 => model.chain.truncate(at as usize + 1),
        _ => {}
    }
    model
}

fn chains(length: u64, fork: u64) -> [Vec<SimBlock>; 3] {
    let best = trunk(length);
    let side = branch(&best, fork, 2, length - 1);
    let mut bad = branch(&best, fork, 3, length + 50);
    bad[fork as usize + 1] = SimBlock::new(bad[fork as usize].hash, fork + 1, 9, false);
    for n in fork as usize + 2..bad.len() {
        bad[n] = SimBlock::new(bad[n - 1].hash, n as u64, 9, true);
    }
    [best, side, bad]
}

fn run(world: &World) -> (Sim<RangeFlow>, Vec<SimBlock>) {
    let chains = chains(world.length, world.fork);
    let options = SyncOptions { window: world.window, ..SyncOptions::default() };
    let mut models = vec![Model::honest(&chains[0])];
    models.extend(world.others.iter().map(|other| model(&chains, other)));
    let mut sim = Sim::new(RangeFlow::new(&options, BATCH, world.seed), SimChain::new(), models);
    sim.window = world.window;
    sim.byte_room = world.window as u64 * 1500;
    let [best, ..] = chains;
    let length = best.len();
    assert!(sim.run_while(HOUR, |sim| sim.chain.best.len() < length), "stuck at {}", sim.chain.best.len());
    // All that was to happen has happened.
    let limit = sim.elapsed() + seconds(400);
    sim.run_while(limit, |_| true);
    (sim, best)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_honest_peer_is_enough(world in world()) {
        let (sim, best) = run(&world);
        prop_assert_eq!(&sim.chain.best, &hashes(&best));
        prop_assert!(best[1..].iter().all(|block| sim.bodies.contains(&block.hash)));
        prop_assert_eq!(sim.chain.repeated, 0);
        prop_assert!(!sim.dropped.contains_key(&PeerId(0)), "{:?}", sim.dropped);
        let late: Vec<_> = sim.flow.peers.values().map(|peer| (peer.branch, peer.reach(), peer.shown_height())).collect();
        prop_assert!(sim.flow.is_caught_up(), "{:?}", late);
        prop_assert!(sim.asks.len() < 4000, "{} questions", sim.asks.len());
    }

    #[test]
    fn the_same_seed_gives_the_same_trace(world in world()) {
        prop_assert_eq!(run(&world).0.trace, run(&world).0.trace);
    }
}
