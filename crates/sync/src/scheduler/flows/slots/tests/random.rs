//! One honest peer among random others.

use proptest::prelude::*;

use super::*;

/// What another peer is like.
#[derive(Debug, Clone)]
struct Other {
    /// 0: the best chain; 1: a shorter branch with a higher slot; 2: one with an invalid block; 3: an equal branch.
    chain: usize,
    latency: u64,
    pace: u64,
    joins: u64,
    leaves: u64,
    fault: u8,
    at: prop::sample::Index,
    many: usize,
}

#[derive(Debug, Clone)]
struct World {
    length: u64,
    fork: usize,
    /// How many blocks of the equal branch are there at the start.
    held: usize,
    others: Vec<Other>,
    window: usize,
    seed: u64,
}

fn other() -> impl Strategy<Value = Other> {
    let times = (1u64..400, 0u64..20, 0u64..3000, 0u64..8000);
    let faults = (0u8..15, any::<prop::sample::Index>(), 0usize..300);
    (0usize..4, times, faults).prop_map(|(chain, (latency, pace, joins, leaves), (fault, at, many))| Other {
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
    let numbers = (100u64..300, 0usize..99, any::<prop::sample::Index>(), 20usize..600, any::<u64>());
    (numbers, prop::collection::vec(other(), 0..7)).prop_map(
        |((length, fork, held, window, seed), others)| {
            let held = held.index(length as usize);
            World { length, fork, held, others, window, seed }
        },
    )
}

fn chains(length: u64, fork: usize) -> [Vec<SimBlock>; 4] {
    let best = trunk(length);
    let sparse = side(&best, fork, 2, length - fork as u64 - 1, 5);
    let mut bad = best[..=fork].to_vec();
    bad.push(SimBlock::new(best[fork].hash, best[fork].index + 1, 9, false));
    let bad = side(&bad, fork + 1, 9, length, 3);
    let equal = side(&best, fork, 4, length - fork as u64, 3);
    [best, sparse, bad, equal]
}

fn model(chains: &[Vec<SimBlock>; 4], other: &Other) -> Model {
    let chain = &chains[other.chain];
    let mut model = Model { ends_ranges: true, ..Model::honest(chain) };
    model.latency = Duration::from_millis(other.latency);
    model.per_block = Duration::from_millis(other.pace);
    model.joins_after = Duration::from_millis(other.joins);
    let at = other.at.index(chain.len()) as u64;
    match other.fault {
        0 => model.claim = Some(at * 10_000),
        1 => model.claim = Some(at / 2),
        2 => model.mute_after = Some(other.many),
        3 => model.skips = (at..at + 60).step_by(9).collect(),
        4 => model.trickles = true,
        5 => model.reverses = true,
        6 => model.forges_from = Some(at * 3),
        7 => model.repeats = true,
        8 => model.leaves_after = Some(Duration::from_millis(other.leaves)),
        9 => model.max_answer = other.many,
        10 => model.chain.truncate(at as usize + 1),
        11 => model.knows_ancestors = false,
        12 => (model.forges_without_end, model.claim) = (true, Some(at)),
        13 => (model.forges_without_end, model.claim) = (true, Some(at * 10_000_000)),
        _ => model.pruned_below = at * 3,
    }
    model
}

fn run(world: &World) -> (Sim<SlotFlow>, Vec<SimBlock>) {
    let chains = chains(world.length, world.fork);
    let mut models = vec![Model { ends_ranges: true, ..Model::honest(&chains[0]) }];
    models.extend(world.others.iter().map(|other| model(&chains, other)));
    let options = SyncOptions { window: world.window, ..SyncOptions::default() };
    let flow = SlotFlow::new(&options, BATCH, 1000, world.seed);
    let mut sim = Sim::new(flow, SimChain::holding(&chains[3][..=world.held], true), models);
    sim.window = world.window;
    sim.byte_room = world.window as u64 * 3000;
    let [best, .., equal] = chains;
    let is_there = |sim: &Sim<SlotFlow>| {
        let tip = sim.chain.best.last();
        tip == best.last().map(|block| &block.hash) || tip == equal.last().map(|block| &block.hash)
    };
    assert!(sim.run_while(HOUR, |sim| !is_there(sim)), "stuck with {} blocks", sim.chain.best.len());
    let limit = sim.elapsed() + seconds(400);
    sim.run_while(limit, |_| true);
    // Unless it just looks whether there is more.
    let limit = sim.elapsed() + seconds(120);
    assert!(sim.run(limit), "pinned: {:?}", sim.trace.last());
    let asks = sim.asks.len();
    sim.run_while(sim.elapsed() + seconds(600), |_| true);
    let more = sim.asks.len() - asks;
    // Ten polls of each, and what they lead to.
    assert!(more <= 30 * sim.peers.len(), "{more} more questions: {:?}", sim.trace.last());
    (sim, best)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_honest_peer_is_enough(world in world()) {
        let (sim, best) = run(&world);
        prop_assert!(best.iter().all(|block| sim.chain.node(block.hash).is_some()), "its chain was heard");
        prop_assert_eq!(sim.chain.repeated, 0);
        prop_assert!(!sim.dropped.contains_key(&PeerId(0)), "{:?}", sim.dropped);
        prop_assert!(sim.asks.len() < 3000, "{} questions", sim.asks.len());
        prop_assert!(sim.chain.refused <= 1);
    }

    #[test]
    fn the_same_seed_gives_the_same_trace(world in world()) {
        prop_assert_eq!(run(&world).0.trace, run(&world).0.trace);
    }
}
