//! The scheduler among 1 to 50 peers of every kind, with a sink of every kind, in virtual time.
//!
//! Peers have a bandwidth, a latency and a line of their own, over which everything comes in the order of the questions.
//! They fall silent, trickle, reset, lie about their height, serve wrong blocks or invalid headers, come and go, or are just
//! slow; tips grow and branches win while all of that goes on. Sinks are slow, work in bursts, pause and fail. The program
//! stands still or is killed, and starts again from the sink's cursor. Only the scheduler's public interface is used.
//!
//! At every output it is checked that blocks are applied in their order on the best chain, once and with all their bytes,
//! that memory stays within the budget, that nobody honest is dropped or penalised, that a pause is one, and that ticks have
//! an effect; at the end, that everything that an honest peer has is applied and told to be. The same seed gives the same
//! trace. `bars` holds the time that it takes against the ideal.
//!
//! More seeds: `TIPWARD_SEEDS=5000 cargo test -p tipward-sync --test simulation`. One alone, such as 17, with all that is
//! said: `TIPWARD_LOG=1 TIPWARD_FIRST_SEED=17 TIPWARD_SEEDS=1 cargo test -p tipward-sync --test simulation headers_first`.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use tipward_sync::Strategy;

use config::Config;
use report::Report;
use world::World;

mod answers;
mod bars;
mod chain;
mod config;
mod draw;
mod events;
mod nature;
mod oracle;
mod outputs;
mod peers;
mod pipe;
mod report;
mod scene;
mod sink;
mod trace;
mod world;

/// How many seeds are run unless the environment says otherwise.
const SEEDS: u64 = 2000;
/// Every so many of them is run twice.
const REPEATED: u64 = 25;
/// After so many that fail no more are run.
const FAILURES: u64 = 10;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// What came of a run, or which promise was broken.
fn run(config: Config) -> Result<Report, String> {
    catch_unwind(AssertUnwindSafe(|| World::new(config).run())).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
    })
}

/// Does it for all of these on all processors; the results are in their order.
fn in_parallel<T: Send>(numbers: std::ops::Range<u64>, work: impl Fn(u64) -> Option<T> + Sync) -> Vec<T> {
    let (next, results) = (AtomicU64::new(numbers.start), Mutex::new(BTreeMap::new()));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(result) = (number < numbers.end).then(|| work(number)).flatten() else { return };
            results.lock().expect("nobody panics with it").insert(number, result);
        }
    };
    thread::scope(|scope| {
        (0..thread::available_parallelism().map_or(1, usize::from)).for_each(|_| _ = scope.spawn(work));
    });
    results.into_inner().expect("nobody panicked").into_values().collect()
}

/// Runs all seeds. At most one input in so many may be a tick that wants nothing.
fn run_seeds(strategy: Strategy, idle_ticks: u64) {
    let first = setting("TIPWARD_FIRST_SEED", 0);
    let seeds = first..first + setting("TIPWARD_SEEDS", SEEDS);
    let (most, failed) = (setting("TIPWARD_FAILURES", FAILURES), AtomicU64::new(0));
    let config = |seed| Config::random(seed, strategy);
    let results = in_parallel(seeds.clone(), |seed| {
        if failed.load(Ordering::Relaxed) >= most {
            return None;
        }
        let mut result = run(config(seed));
        if let Ok(report) = &result
            && seed % REPEATED == 0
            && run(config(seed)).map(|again| again.trace) != Ok(report.trace)
        {
            result = Err("two traces".to_owned());
        }
        failed.fetch_add(u64::from(result.is_err()), Ordering::Relaxed);
        Some((seed, result))
    });
    let (mut total, mut failures) = (Report::default(), Vec::new());
    for (seed, result) in results {
        match result {
            Ok(report) => total.add(&report),
            Err(reason) => failures.push(format!("seed {seed}: {reason}")),
        }
    }
    println!("{total:?}");
    assert!(failures.is_empty(), "{} seeds failed: {failures:#?}", failures.len());
    if seeds.end - seeds.start >= SEEDS {
        total.is_a_test(idle_ticks);
    }
}

#[test]
fn headers_first() {
    run_seeds(Strategy::HeadersFirst, 20);
}

#[test]
fn ranges() {
    run_seeds(Strategy::Range { batch: 500 }, 20);
}

#[test]
fn slot_ranges() {
    run_seeds(Strategy::SlotRange { batch: 100, max_back_fill: 1000 }, 7);
}

#[test]
fn inventory() {
    run_seeds(Strategy::Inventory { batch: 500 }, 7);
}

#[test]
fn different_seeds_give_different_traces() {
    let trace = |seed| run(Config::random(seed, Strategy::HeadersFirst)).map(|report| report.trace);
    assert_ne!(trace(0), trace(7));
}
