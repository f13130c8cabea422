//! The pool among 200 nodes of mixed character, over hours of virtual time.
//!
//! Honest, slow, flapping, silent, half-open, deaf, flooding and lying nodes, nodes on other chains, and nodes that hang up
//! at every stage of the handshake; blocks, transactions, questions and broadcasts; cables that are pulled. The pool and the
//! connections are the real machines, with the real session and codec, in clear text; the network is a queue of events.
//!
//! In every run the pool is at its target size again within a bound, who is banned is not dialled, nobody honest is banned,
//! who broke the protocol is, no network is connected to twice, every question and broadcast ends once and in time, and
//! nothing grows beyond its bound. The same seed gives the same trace.
//!
//! More seeds: `TIPWARD_SEEDS=5000 cargo test -p tipward-peer --test simulation`. One alone, such as 17:
//! `TIPWARD_FIRST_SEED=17 TIPWARD_SEEDS=1 cargo test -p tipward-peer --test simulation`.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use watch::Tally;
use world::World;

mod character;
mod far;
mod ledger;
mod line;
mod trace;
mod traffic;
mod watch;
mod wires;
mod world;

/// How much virtual time a run takes, besides what its last questions need.
const DURATION: Duration = Duration::from_secs(2 * 3600);
/// How many seeds are run unless the environment says otherwise.
const SEEDS: u64 = 500;
/// Every so many of them is run twice.
const REPEATED: u64 = 25;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number of seeds"))
}

#[test]
fn the_pool_keeps_its_promises_among_nodes_of_every_character() {
    let first = setting("TIPWARD_FIRST_SEED", 0);
    let end = first + setting("TIPWARD_SEEDS", SEEDS);
    let (next, total) = (AtomicU64::new(first), Mutex::new(Tally::default()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let (tally, trace) = World::new(seed).run(DURATION);
            if seed % REPEATED == 0 {
                assert_eq!(World::new(seed).run(DURATION).1, trace, "seed {seed} gives two traces");
            }
            total.lock().expect("nobody panics with it").add(&tally);
        }
    };
    thread::scope(|scope| {
        (0..thread::available_parallelism().map_or(1, usize::from)).for_each(|_| _ = scope.spawn(work));
    });
    let total = total.into_inner().expect("nobody panicked");
    println!("{total:?}");
    if end - first >= SEEDS {
        total.is_a_test(end - first);
    }
}

#[test]
fn different_seeds_give_different_traces() {
    let trace = |seed| World::new(seed).run(Duration::from_secs(600)).1;
    assert_ne!(trace(1), trace(2));
}
