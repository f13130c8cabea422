//! The range flow against simulated peers in virtual time.

mod branches;
mod holes;
mod random;

use tipward_peer::wire::BlockHash;

use super::super::ranges_sim::{Event, Machine, Model, Sim, SimBlock, SimChain, arrived, branch, genesis};
use super::*;

const BATCH: u32 = 100;
const HOUR: Duration = Duration::from_secs(3600);

impl Machine for RangeFlow {
    fn handle(&mut self, now: Instant, input: FlowInput, context: &mut FlowContext<'_>) {
        self.handle(now, input, context);
        let tip = context.chain.tip().height;
        assert!(self.kept.len() <= self.options.window, "more is kept than the window has");
        assert!(self.skips.keys().all(|&height| height <= tip + self.options.window as u64), "far heights");
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

fn trunk(length: u64) -> Vec<SimBlock> {
    branch(&[genesis()], 0, 1, length)
}

fn hashes(chain: &[SimBlock]) -> Vec<BlockHash> {
    chain.iter().map(|block| block.hash).collect()
}

fn sim_with(options: &SyncOptions, models: Vec<Model>) -> Sim<RangeFlow> {
    Sim::new(RangeFlow::new(options, BATCH, 7), SimChain::new(), models)
}

fn sim(models: Vec<Model>) -> Sim<RangeFlow> {
    sim_with(&SyncOptions::default(), models)
}

/// Runs to the end, which is this chain, every block of it brought once.
fn runs_to(sim: &mut Sim<RangeFlow>, chain: &[SimBlock]) {
    assert!(sim.run(HOUR), "not done at height {}: {:?}", sim.chain.best.len() - 1, sim.trace.last());
    assert_eq!(sim.failed, None);
    assert_eq!(sim.chain.best.len(), chain.len());
    assert_eq!(sim.chain.best, hashes(chain));
    assert!(chain[1..].iter().all(|block| sim.bodies.contains(&block.hash)), "every body was handed on");
    assert_eq!(sim.chain.repeated, 0, "blocks offered again");
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn peers_share_the_work_and_nothing_is_asked_for_twice() {
    let chain = trunk(3000);
    let mut sim = sim(vec![Model::honest(&chain); 4]);
    runs_to(&mut sim, &chain);
    assert!(sim.dropped.is_empty() && sim.penalised.is_empty());
    for height in 1..=3000 {
        assert_eq!(sim.times_asked(height), 1, "height {height}");
    }
    for (id, peer) in &sim.peers {
        assert!(peer.served > 400, "{id} served {}", peer.served);
    }
    // 3000 blocks of 2 ms from four peers are 1.5 s.
    assert!(sim.elapsed() < Duration::from_millis(2700), "took {:?}", sim.elapsed());
}

#[test]
fn no_question_is_larger_than_the_batch_nor_above_the_claims() {
    let chain = trunk(1500);
    let mut sim = sim(vec![Model::honest(&chain), Model::honest(&chain[..=700])]);
    runs_to(&mut sim, &chain);
    for (_, id, want) in &sim.asks {
        let Want::Range { start, count } = want else { panic!("{want:?}") };
        assert!(*count <= BATCH);
        let claim = sim.peers[id].model.claim();
        assert!(start + u64::from(*count) - 1 <= claim, "{id} was asked {want:?}");
    }
}

#[test]
fn all_that_waits_and_is_asked_for_stays_within_the_room() {
    let chain = trunk(2000);
    let options = SyncOptions { window: 64, ..SyncOptions::default() };
    let mut slow = Model::honest(&chain);
    slow.per_block = Duration::from_millis(100);
    let mut sim = sim_with(&options, vec![slow, Model::honest(&chain), Model::honest(&chain)]);
    sim.window = 64;
    sim.byte_room = 40_000;
    runs_to(&mut sim, &chain);
    assert!(sim.most_buffered <= 40_000, "{}", sim.most_buffered);
    for (_, _, want) in &sim.asks {
        let Want::Range { count, .. } = want else { continue };
        assert!(*count <= 64, "{want:?}");
    }
}

#[test]
fn a_slow_sink_is_not_run_over_and_no_peer_is_blamed() {
    let chain = trunk(600);
    let options = SyncOptions { window: 50, ..SyncOptions::default() };
    let mut sim = sim_with(&options, vec![Model::honest(&chain); 2]);
    sim.window = 50;
    sim.sink_rate = Some(20.0);
    // What makes room is told.
    (1..=1000).for_each(|n| sim.after(f64::from(n) * 0.05, Event::Room(true)));
    assert!(sim.run_while(HOUR, |sim| sim.chain.best.len() < 300));
    assert!(sim.elapsed() >= seconds(12), "as fast as the sink: {:?}", sim.elapsed());
    runs_to(&mut sim, &chain);
    assert!(sim.penalised.is_empty() && sim.dropped.is_empty());
}

#[test]
fn nothing_is_asked_for_in_a_pause() {
    let chain = trunk(3000);
    let mut sim = sim(vec![Model::honest(&chain); 2]);
    sim.after(0.5, Event::Room(false));
    sim.after(60.0, Event::Room(true));
    runs_to(&mut sim, &chain);
    let in_pause = |at: Duration| Duration::from_millis(500) < at && at < seconds(60);
    assert!(!sim.asks.iter().any(|(at, ..)| in_pause(*at)));
    assert!(sim.penalised.is_empty() && sim.dropped.is_empty());
}

#[test]
fn a_silent_peer_costs_its_patience_once() {
    let chain = trunk(2000);
    let mut mute = Model::honest(&chain);
    mute.mute_after = Some(20);
    let mut sim = sim(vec![mute, Model::honest(&chain), Model::honest(&chain)]);
    runs_to(&mut sim, &chain);
    assert!(sim.elapsed() < seconds(5), "took {:?}", sim.elapsed());
    assert!(!sim.dropped.contains_key(&PeerId(1)) && !sim.dropped.contains_key(&PeerId(2)));
}

#[test]
fn bytes_that_never_become_a_block_hold_nobody_up() {
    let chain = trunk(2000);
    let mut trickling = Model::honest(&chain);
    trickling.trickles = true;
    let mut sim = sim(vec![trickling, Model::honest(&chain), Model::honest(&chain)]);
    assert!(sim.run_while(HOUR, |sim| sim.chain.best.len() < 2001));
    assert!(sim.elapsed() < seconds(8), "took {:?}", sim.elapsed());
    assert!(sim.penalised.is_empty(), "it is busy sending, as far as known: {:?}", sim.penalised);
    runs_to(&mut sim, &chain);
}

#[test]
fn who_sends_some_blocks_and_then_only_bytes_loses_its_claim() {
    let chain = trunk(300);
    let mut sim =
        sim(vec![Model::honest(&chain[..=100]), Model { mute_after: Some(60), ..Model::honest(&chain) }]);
    (1..1000).for_each(|n| sim.after(f64::from(n), Event::Input(FlowInput::Progress(PeerId(1)))));
    assert!(sim.run(seconds(140)), "pinned: {:?}", sim.trace.last());
    assert!(sim.chain.best.len() > 100);
}

#[test]
fn the_frontier_is_asked_of_others_after_growing_waits() {
    let chain = trunk(10);
    let mut trickling = Model::honest(&chain);
    trickling.trickles = true;
    let mut sim = sim(vec![trickling; 4]);
    sim.run_while(seconds(30), |_| true);
    let frontier = |want: &Want| matches!(want, Want::Range { start: 1, .. });
    let asks = sim.asks.iter().filter(|(.., want)| frontier(want));
    let asks: Vec<u64> = asks.map(|(at, ..)| at.as_secs()).collect();
    assert_eq!(asks, [0, 2, 6], "three at most");
}

#[test]
fn a_slow_peer_gets_smaller_ranges_than_a_fast_one() {
    let chain = trunk(3000);
    let mut slow = Model::honest(&chain);
    slow.per_block = Duration::from_millis(100);
    let mut sim = sim(vec![slow, Model::honest(&chain)]);
    runs_to(&mut sim, &chain);
    let largest = |peer| {
        let counts = sim.asks.iter().filter(|(_, id, _)| *id == PeerId(peer)).map(|(.., want)| match want {
            Want::Range { count, .. } => *count,
            _ => 0,
        });
        counts.max().unwrap()
    };
    assert!(largest(0) <= 16, "{}", largest(0));
    assert_eq!(largest(1), BATCH);
    assert!(sim.penalised.is_empty() && sim.dropped.is_empty());
    // The fast one alone needs 6 s and the slow one brings 20 blocks in that time.
    assert!(sim.elapsed() < Duration::from_millis(7500), "took {:?}", sim.elapsed());
}

#[test]
fn a_lost_peer_costs_nothing_but_its_part() {
    let chain = trunk(2000);
    let mut leaving = Model::honest(&chain);
    leaving.leaves_after = Some(Duration::from_millis(400));
    let mut sim = sim(vec![leaving, Model::honest(&chain)]);
    runs_to(&mut sim, &chain);
    assert!(sim.elapsed() < Duration::from_millis(5500), "took {:?}", sim.elapsed());
}

#[test]
fn a_peer_with_nothing_new_is_asked_now_and_then() {
    let chain = trunk(50);
    let longer = branch(&chain, 50, 1, 55);
    let mut sim = sim(vec![Model::honest(&chain)]);
    runs_to(&mut sim, &chain);
    // It grows and does not tell.
    if let Some(peer) = sim.peers.get_mut(&PeerId(0)) {
        peer.model.chain = longer.clone();
    }
    assert!(sim.run_while(seconds(100), |sim| sim.chain.best.len() < 56), "found by asking");
    assert_eq!(sim.chain.best, hashes(&longer));
    assert!(sim.penalised.is_empty() && sim.dropped.is_empty());
    let before = sim.asks.len();
    sim.run_while(sim.elapsed() + seconds(600), |_| true);
    assert!(
        (5..=25).contains(&(sim.asks.len() - before)),
        "{} questions in ten minutes",
        sim.asks.len() - before
    );
    assert!(sim.penalised.is_empty() && sim.dropped.is_empty(), "silence is an answer there");
}

#[test]
fn what_a_peer_announces_is_asked_for_at_once_and_of_one() {
    let chain = trunk(20);
    let longer = branch(&chain, 20, 1, 21);
    let mut sim = sim(vec![Model::honest(&chain); 3]);
    runs_to(&mut sim, &chain);
    sim.run_while(sim.elapsed() + seconds(10), |_| true);
    for id in 0..3 {
        sim.peers.get_mut(&PeerId(id)).unwrap().model.chain = longer.clone();
        sim.after(0.0, Event::Input(FlowInput::Announced(PeerId(id), vec![longer[21].hash])));
    }
    let from = sim.elapsed();
    assert!(sim.run_while(from + seconds(2), |sim| sim.chain.best.len() < 22));
    assert_eq!(sim.times_asked(21), 1);
}

#[test]
fn a_peer_that_tells_the_end_of_a_range_is_not_misread() {
    let chain = trunk(2000);
    let mut ending = Model::honest(&chain);
    ending.ends_ranges = true;
    let mut short = ending.clone();
    short.max_answer = 7;
    let mut sim = sim(vec![ending.clone(), ending, short]);
    runs_to(&mut sim, &chain);
    assert!(sim.penalised.is_empty() && sim.dropped.is_empty(), "{:?}", sim.penalised);
    for height in 1..=2000 {
        assert!(sim.times_asked(height) <= 2, "height {height}");
    }
}

#[test]
fn peers_without_ranges_are_left_alone() {
    let chain = trunk(30);
    let mut sim = sim(vec![Model::honest(&chain)]);
    let want = Want::Range { start: 1, count: 1 };
    runs_to(&mut sim, &chain);
    sim.connect(PeerId(9), Model { trickles: true, claim: Some(500), ..Model::honest(&chain) });
    sim.after(0.01, Event::Input(FlowInput::Unsupported(PeerId(9), want)));
    sim.run_while(sim.elapsed() + seconds(30), |_| true);
    assert!(sim.shows_nothing.contains(&PeerId(9)));
    assert!(sim.flow.is_caught_up());
    assert_eq!(sim.asks.iter().filter(|(_, id, _)| *id == PeerId(9)).count(), 2, "greeting and share");
}

#[test]
fn nothing_is_asked_for_above_the_height_to_stop_at() {
    let chain = trunk(500);
    let options = SyncOptions { stop_at: Some(120), ..SyncOptions::default() };
    let mut sim = sim_with(&options, vec![Model::honest(&chain); 2]);
    runs_to(&mut sim, &chain[..=120]);
    assert_eq!(sim.times_asked(121), 0);
    sim.run_while(seconds(600), |_| true);
    assert_eq!(sim.times_asked(121), 0);
    assert!(sim.penalised.is_empty());
}

#[test]
fn what_the_sink_is_kept_behind_is_asked_for_above_the_stop() {
    let chain = trunk(500);
    let options = SyncOptions { stop_at: Some(120), stay_behind: 5, ..SyncOptions::default() };
    let mut sim = sim_with(&options, vec![Model::honest(&chain); 2]);
    runs_to(&mut sim, &chain[..=125]);
    assert_eq!(sim.times_asked(126), 0);
}

#[test]
fn who_is_held_is_not_late() {
    let chain = trunk(100);
    let mut mute = Model::honest(&chain);
    mute.mute_after = Some(0);
    let mut sim = sim(vec![mute]);
    sim.after(0.1, Event::Input(FlowInput::Held(PeerId(0))));
    sim.after(300.0, Event::Input(FlowInput::Released(PeerId(0))));
    sim.run_while(seconds(301), |_| true);
    assert!(
        sim.penalised.is_empty() && sim.dropped.is_empty(),
        "our own back-pressure is not held against it"
    );
    sim.run_while(seconds(400), |_| true);
    assert!(sim.dropped.contains_key(&PeerId(0)), "its time counts from when it is let go");
}

#[test]
fn who_says_that_it_lacks_a_block_is_not_taken_for_a_liar() {
    let chain = trunk(100);
    let mut pruned = Model::honest(&chain);
    (pruned.ends_ranges, pruned.pruned_below) = (true, 200);
    let mut sim = sim(vec![pruned]);
    sim.after(0.02, Event::Input(FlowInput::Missing(PeerId(0), vec![chain[1].hash])));
    sim.run_while(seconds(1), |_| true);
    assert!(sim.penalised.is_empty() && sim.dropped.is_empty(), "{:?}", sim.penalised);
}

#[test]
fn a_chain_that_wants_no_more_is_not_pressed() {
    let chain = trunk(100);
    let mut sim = sim(vec![Model::honest(&chain); 2]);
    sim.chain.max_height = Some(40);
    sim.run_while(seconds(600), |_| true);
    assert_eq!(sim.chain.best.len(), 41);
    assert!(sim.penalised.is_empty() && sim.dropped.is_empty());
    assert!(sim.asks.len() < 120, "{}", sim.asks.len());
}

#[test]
fn a_failing_store_ends_it() {
    let chain = trunk(100);
    let mut sim = sim(vec![Model::honest(&chain); 2]);
    sim.chain.fails_at = Some(40);
    assert!(sim.run(HOUR));
    assert!(sim.failed.is_some());
    assert_eq!(sim.flow.deadline(), None);
    assert!(sim.dropped.is_empty(), "nobody's fault");
}

#[test]
fn a_restart_finds_who_has_our_chain() {
    let chain = trunk(400);
    let mut sim = sim(vec![Model::honest(&chain), Model::honest(&chain[..=300])]);
    sim.chain = SimChain::holding(&chain[..=300], false);
    assert!(sim.run(HOUR));
    assert_eq!(sim.chain.best, hashes(&chain));
    assert_eq!(sim.shown[&PeerId(1)], chain[300].hash);
    assert!((1..300).all(|height| sim.times_asked(height) == 0), "what is known is not asked for");
}
