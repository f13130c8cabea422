//! The slot-range sync with the real chain by density, from simulated peers none of which need have everything.
//!
//! The scheduler's public machine is driven through its `Want`s and `Reply`s in virtual time; a sink follows it. More random
//! scenes: `TIPWARD_SEEDS=5000 cargo test -p tipward-chain --test slots`; one alone, such as 17:
//! `TIPWARD_FIRST_SEED=17 TIPWARD_SEEDS=1 …`, and with `TIPWARD_LOG=1` all that is said.

mod blocks;
mod checkpoint;
mod peers;
mod random;
mod scenes;
mod world;
