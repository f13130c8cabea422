//! The slot-range flow against simulated peers in virtual time.

mod backfill;
mod past;
mod quiet;
mod random;

use tipward_peer::Want;

use super::{
    super::ranges_sim::{Event, Machine, Model, Sim, SimBlock, SimChain, genesis, slots},
    *,
};

const BATCH: u32 = 50;
const HOUR: Duration = Duration::from_secs(3600);

impl Machine for SlotFlow {
    fn handle(&mut self, now: Instant, input: FlowInput, context: &mut FlowContext<'_>) {
        self.handle(now, input, context);
        assert!(self.orphans.len() <= orphans::MAX_ORPHANS);
        if let Some(walk) = &self.walk {
            assert!(walk.len() <= self.options.max_back_fill + 1, "walked too far");
        }
    }
    fn poll(&mut self) -> Option<FlowOutput> {
        self.poll()
    }
    fn deadline(&self) -> Option<Instant> {
        self.deadline()
    }
    fn is_caught_up(&self) -> bool {
        self.is_caught_up()
    }
    fn buffered_bytes(&self) -> u64 {
        self.buffered_bytes()
    }
}

/// A chain with blocks in every third slot.
fn trunk(length: u64) -> Vec<SimBlock> {
    slots(&[genesis()], 0, 1, (1..=length).map(|n| n * 3))
}

/// A chain that leaves `of` after its block number `fork`, with `length` blocks on, one in every `pace` slots.
fn side(of: &[SimBlock], fork: usize, salt: u64, length: u64, pace: u64) -> Vec<SimBlock> {
    let slot = of[fork].index;
    slots(of, fork, salt, (1..=length).map(|n| slot + n * pace))
}

fn hashes(chain: &[SimBlock]) -> Vec<BlockHash> {
    chain.iter().map(|block| block.hash).collect()
}

fn sim_with(max_back_fill: usize, models: Vec<Model>) -> Sim<SlotFlow> {
    let models = models.into_iter().map(|model| Model { ends_ranges: true, ..model }).collect();
    let flow = SlotFlow::new(&SyncOptions::default(), BATCH, max_back_fill, 7);
    Sim::new(flow, SimChain::holding(&[genesis()], true), models)
}

fn sim(models: Vec<Model>) -> Sim<SlotFlow> {
    sim_with(1000, models)
}

fn holding(sim: &mut Sim<SlotFlow>, chain: &[SimBlock]) {
    sim.chain = SimChain::holding(chain, true);
}

/// Runs to the end, with this chain as the best one.
fn runs_to(sim: &mut Sim<SlotFlow>, chain: &[SimBlock]) {
    assert!(sim.run(HOUR), "not done with {} blocks: {:?}", sim.chain.best.len(), sim.trace.last());
    assert_eq!(sim.failed, None);
    assert_eq!(sim.chain.best.len(), chain.len());
    assert_eq!(sim.chain.best, hashes(chain));
    assert_eq!(sim.chain.repeated, 0, "blocks offered again");
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn count(sim: &Sim<SlotFlow>, is_meant: impl Fn(&Want) -> bool) -> usize {
    sim.asks.iter().filter(|(.., want)| is_meant(want)).count()
}

#[test]
fn one_peer_of_a_group_brings_everything() {
    let chain = trunk(400);
    let mut sim = sim(vec![Model::honest(&chain); 3]);
    runs_to(&mut sim, &chain);
    assert_eq!(sim.bodies.len(), 400);
    let mut served: Vec<usize> = sim.peers.values().map(|peer| peer.served).collect();
    served.sort_unstable();
    assert!(served[1] <= 2, "the others have the same tip: {served:?}");
    assert!(sim.dropped.is_empty() && sim.penalised.is_empty());
    assert!(count(&sim, |want| matches!(want, Want::SlotRange { .. })) <= 14);
}

#[test]
fn the_next_peer_of_a_group_goes_on_at_the_last_slot() {
    let chain = trunk(300);
    let mut models = vec![Model { mute_after: Some(120), ..Model::honest(&chain) }; 3];
    models.push(Model::honest(&chain));
    let mut sim = sim(models);
    runs_to(&mut sim, &chain);
    assert!(sim.elapsed() < seconds(12), "took {:?}", sim.elapsed());
    let served: usize = sim.peers.values().map(|peer| peer.served).sum();
    assert!(served <= 300 + 8, "{served} blocks were sent: nothing that was there is asked for again");
    assert!(sim.dropped.is_empty());
}

#[test]
fn a_lost_peer_and_one_without_slots_are_replaced() {
    let chain = trunk(300);
    let leaving = Model { leaves_after: Some(Duration::from_millis(300)), ..Model::honest(&chain) };
    let mut sim = sim(vec![leaving.clone(), leaving, Model::honest(&chain)]);
    runs_to(&mut sim, &chain);
    assert!(sim.elapsed() < seconds(3), "took {:?}", sim.elapsed());
}

#[test]
fn a_shorter_chain_with_a_higher_tip_ends_after_one_round() {
    let best = trunk(200);
    // Fewer blocks, in later slots.
    let sparse = side(&best, 100, 2, 50, 20);
    assert!(sparse.last().unwrap().index > best.last().unwrap().index);
    let mut sim = sim(vec![Model::honest(&best), Model::honest(&sparse), Model::honest(&sparse)]);
    runs_to(&mut sim, &best);
    assert!(sparse.iter().all(|block| sim.chain.node(block.hash).is_some()), "it was heard");
    let asks = sim.asks.len();
    assert!(asks < 20, "{asks} questions");
    sim.run_while(sim.elapsed() + seconds(300), |_| true);
    assert!(sim.asks.len() - asks <= 30, "{} more: only a look now and then", sim.asks.len() - asks);
    assert!(sim.flow.is_caught_up());
    assert!(sim.dropped.is_empty() && sim.penalised.is_empty(), "it is honest: {:?}", sim.penalised);
}

#[test]
fn groups_are_heard_at_the_same_time_and_the_chain_decides() {
    let first = trunk(150);
    let second = side(&first, 70, 2, 120, 4);
    let third = side(&first, 100, 3, 20, 30);
    let mut sim = sim(vec![Model::honest(&first), Model::honest(&second), Model::honest(&third)]);
    runs_to(&mut sim, &second);
    for chain in [&first, &second, &third] {
        assert!(chain.iter().all(|block| sim.chain.node(block.hash).is_some()));
    }
    assert!(sim.dropped.is_empty() && sim.penalised.is_empty());
}

#[test]
fn an_invalid_block_and_all_that_builds_on_it_is_rejected_once() {
    let good = trunk(200);
    let mut bad = good[..=120].to_vec();
    bad.push(SimBlock::new(good[120].hash, good[120].index + 1, 9, false));
    let bad = side(&bad, 121, 9, 150, 3);
    let mut sim = sim(vec![Model::honest(&bad), Model::honest(&bad), Model::honest(&good)]);
    runs_to(&mut sim, &good);
    sim.run_while(seconds(300), |_| true);
    assert!(!sim.dropped.contains_key(&PeerId(2)));
    assert!(sim.dropped.values().any(|reason| reason.contains("invalid block")), "{:?}", sim.dropped);
    assert_eq!(sim.chain.refused, 1, "the chain is not bothered again");
}

#[test]
fn a_lie_about_the_slot_ends_with_its_round() {
    let chain = trunk(100);
    let lying = Model { claim: Some(1_000_000), ..Model::honest(&chain) };
    let mut sim = sim(vec![lying, Model::honest(&chain)]);
    runs_to(&mut sim, &chain);
    assert!(sim.penalised.iter().any(|(id, reason)| *id == PeerId(0) && reason.contains("claims height")));
    (1..200).for_each(|n| sim.after(f64::from(n), Event::Boast(PeerId(0), 1_000_000 + n as u64)));
    let asks = sim.asks.len();
    sim.run_while(sim.elapsed() + seconds(200), |_| true);
    assert!(sim.asks.len() - asks <= 30, "{} more", sim.asks.len() - asks);
    assert!(sim.flow.is_caught_up());
    assert!(!sim.dropped.contains_key(&PeerId(1)));
}

#[test]
fn a_liar_does_not_end_the_tip_of_the_honest() {
    let chain = trunk(100);
    let claim = chain.last().map(|block| block.index);
    // They claim the same tip; one has nothing, one sends what links to nothing.
    let empty = Model { claim, ..Model::honest(&chain[..1]) };
    let junk = Model { forges_from: Some(0), ..Model::honest(&chain) };
    for seed in 0..20 {
        let mut sim = sim(vec![empty.clone(), junk.clone(), Model::honest(&chain)]);
        sim.flow.rng = fastrand::Rng::with_seed(seed);
        assert!(
            sim.run_while(seconds(60), |sim| sim.chain.best.len() < chain.len()),
            "seed {seed} {:#?}",
            sim.trace
        );
        assert!(!sim.dropped.contains_key(&PeerId(2)));
    }
}

#[test]
fn bytes_without_blocks_end_in_time() {
    let chain = trunk(100);
    let trickling = Model { trickles: true, ..Model::honest(&chain) };
    let mut sim = sim(vec![trickling.clone(), trickling, Model::honest(&chain)]);
    runs_to(&mut sim, &chain);
    assert!(sim.elapsed() < seconds(40), "took {:?}", sim.elapsed());
}

#[test]
fn new_blocks_are_found_when_told_announced_or_asked_for() {
    let chain = trunk(103);
    let mut sim = sim(vec![Model::honest(&chain[..=100]); 2]);
    runs_to(&mut sim, &chain[..=100]);
    let from = sim.elapsed();
    sim.after(5.0, Event::Chain(PeerId(0), chain[..=101].to_vec()));
    assert!(sim.run_while(from + seconds(6), |sim| sim.chain.best.len() < 102), "told");
    sim.peers.get_mut(&PeerId(0)).unwrap().model.chain = chain[..=102].to_vec();
    sim.after(5.0, Event::Input(FlowInput::Announced(PeerId(0), vec![chain[102].hash])));
    assert!(sim.run_while(from + seconds(20), |sim| sim.chain.best.len() < 103), "announced");
    sim.peers.get_mut(&PeerId(1)).unwrap().model.chain = chain.clone();
    assert!(sim.run_while(from + seconds(150), |sim| sim.chain.best.len() < 104), "asked for");
    assert!(sim.dropped.is_empty() && sim.penalised.is_empty(), "{:?}", sim.penalised);
}

#[test]
fn hashes_that_nobody_has_do_not_pin_the_sync() {
    let chain = trunk(50);
    let mut sim = sim(vec![Model::honest(&chain); 2]);
    runs_to(&mut sim, &chain);
    for n in 0..2000u64 {
        let hash = BlockHash::from_bytes([(n % 250) as u8 + 1; 32]);
        sim.after(n as f64 * 0.1, Event::Input(FlowInput::Announced(PeerId(0), vec![hash])));
    }
    let asks = sim.asks.len();
    sim.run_while(sim.elapsed() + seconds(200), |_| true);
    assert!(sim.asks.len() - asks < 30, "{} questions", sim.asks.len() - asks);
}

#[test]
fn a_pause_and_a_full_sink_blame_nobody() {
    let chain = trunk(600);
    let mut sim = sim(vec![Model::honest(&chain); 2]);
    sim.window = 60;
    sim.sink_rate = Some(50.0);
    (1..=400).for_each(|n| sim.after(f64::from(n) * 0.05, Event::Room(!(100..150).contains(&n))));
    runs_to(&mut sim, &chain);
    assert!(sim.elapsed() >= seconds(10));
    assert!(sim.dropped.is_empty() && sim.penalised.is_empty());
}

#[test]
fn a_peer_that_we_hold_is_not_late_until_it_is_let_go() {
    let chain = trunk(100);
    let mute = Model { mute_after: Some(10), ..Model::honest(&chain) };
    let mut sim = sim(vec![mute]);
    sim.after(0.05, Event::Input(FlowInput::Held(PeerId(0))));
    sim.after(60.0, Event::Input(FlowInput::Released(PeerId(0))));
    let strikes = |sim: &Sim<SlotFlow>| sim.flow.peers[&PeerId(0)].strikes;
    sim.run_while(seconds(61), |_| true);
    assert_eq!((strikes(&sim), count(&sim, |_| true)), (0, 1), "it is our doing: {:?}", sim.trace);
    sim.run_while(seconds(63), |_| true);
    assert_eq!(strikes(&sim), 1, "its time starts when it is let go");
}

#[test]
fn a_failing_store_ends_it() {
    let chain = trunk(100);
    let mut sim = sim(vec![Model::honest(&chain)]);
    sim.chain.fails_at = Some(40);
    assert!(sim.run(HOUR));
    assert!(sim.failed.is_some() && sim.dropped.is_empty());
}

#[test]
fn nothing_is_asked_for_above_the_height_to_stop_at() {
    let chain = trunk(300);
    let mut sim = sim(vec![Model::honest(&chain)]);
    sim.flow.options.stop_at = 100;
    assert!(sim.run(HOUR));
    let best = sim.chain.best.len();
    assert!((101..=150).contains(&best), "{best}");
    sim.run_while(seconds(600), |_| true);
    assert_eq!(sim.chain.best.len(), best);
}
