//! Random trees, random peers, random times: in the end everything that honest peers have between them is there, and the
//! best of it is best.

use std::{
    collections::BTreeMap,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use fastrand::Rng;
use tipward_chain::{
    Rule,
    density::{DensityMode, DensityOptions, SlotBound},
    sync::peer::wire::BlockHash,
};

use super::{
    blocks::{Flaw, Rules, SimBlock, branch, flawed, genesis},
    peers::Model,
    world::World,
};

/// How many seeds are run unless the environment says otherwise.
const SEEDS: u64 = 1500;

type SimChain = Vec<SimBlock>;

struct Scene {
    options: DensityOptions,
    stays_bootstrapping: bool,
    /// Of honest peers.
    chains: Vec<SimChain>,
    models: Vec<Model>,
    /// So many of them are honest, and stay.
    honest: usize,
    /// When a peer has its whole chain.
    grows: Vec<(Duration, usize, SimChain)>,
    restarts: Vec<(Duration, bool)>,
}

fn millis(random: &mut Rng, range: Range<u64>) -> Duration {
    Duration::from_millis(random.u64(range))
}

/// Slots after another one.
fn slots(random: &mut Rng, after: u64, count: usize) -> Vec<u64> {
    let most = random.u64(1..8);
    let mut slot = after;
    let mut next = || {
        slot += random.u64(1..=most);
        slot
    };
    (0..count).map(|_| next()).collect()
}

fn fork(random: &mut Rng, of: &[SimBlock], salt: u64, flaw: Option<Flaw>) -> SimChain {
    let at = random.usize(..of.len());
    let count = random.usize(1..60);
    let slots = slots(random, of[at].slot, count);
    let bad = slots[random.usize(..slots.len())];
    flawed(of, at, salt, slots, |slot| flaw.filter(|_| slot == bad).unwrap_or(Flaw::Nothing))
}

impl Scene {
    fn draw(seed: u64) -> Self {
        let random = &mut Rng::with_seed(seed);
        let count = random.usize(10..120);
        let first = slots(random, 0, count);
        let mut chains = vec![branch(&genesis(), 0, 1, first)];
        for salt in 2..random.u64(2..6) {
            let of = random.usize(..chains.len());
            chains.push(fork(random, &chains[of].clone(), salt, None));
        }
        let is_deep = random.bool();
        let options = DensityOptions {
            security: if is_deep { 1000 } else { random.u64(1..8) },
            window: random.u64(5..80),
            bound: if random.bool() { SlotBound::Exclusive } else { SlotBound::Inclusive },
            max_forks: 100,
            max_side_blocks: 10_000,
        };
        let mut scene = Self {
            options,
            stays_bootstrapping: random.u8(..4) > 0,
            chains,
            models: Vec::new(),
            honest: 0,
            grows: Vec::new(),
            restarts: Vec::new(),
        };
        let others = scene.draw_others(random);
        // Somebody honest follows what is valid of an invalid chain, or nobody would have it when the liar is gone.
        let is_flawed = |model: &&Model| (2..model.chain.len()).contains(&valid(&model.chain).len());
        scene.chains.extend(others.iter().filter(is_flawed).map(|model| valid(&model.chain)));
        scene.draw_honest(random);
        scene.models.extend(others);
        for _ in 0..random.usize(..3) {
            // What the sink has from one who left nobody may have yet.
            let keeps_headers = random.bool() || !scene.grows.is_empty();
            scene.restarts.push((millis(random, 100..20_000), keeps_headers));
        }
        scene.restarts.sort_unstable();
        scene
    }

    /// At least one for every chain; what one lacks another one that follows the chain has: bodies of known blocks are asked of
    /// nobody else.
    fn draw_honest(&mut self, random: &mut Rng) {
        let mut following: Vec<usize> = (0..self.chains.len()).collect();
        (0..random.usize(..4)).for_each(|_| following.push(random.usize(..self.chains.len())));
        self.honest = following.len();
        for &chain in &following {
            let others = self.chains.iter().filter(|_| random.u8(..3) == 0).cloned().collect();
            let chain = self.chains[chain].clone();
            let tip = chain[chain.len() - 1].slot;
            let mut lacks = Vec::new();
            for _ in 0..random.usize(..3) {
                let from = random.u64(1..=tip);
                lacks.push(from..(from + random.u64(1..40)).min(tip));
            }
            let grows_at = (random.u8(..3) == 0).then(|| millis(random, 1..30_000));
            let start = if grows_at.is_some() { random.usize(1..=chain.len()) } else { chain.len() };
            let model = Model {
                others,
                lacks,
                latency: millis(random, 1..300),
                per_block: millis(random, 0..20),
                joins_at: if random.bool() { Duration::ZERO } else { millis(random, 0..20_000) },
                knows_ancestors: random.u8(..5) > 0,
                ..Model::new(&chain[..start])
            };
            self.grows.extend(grows_at.map(|at| (at, self.models.len(), chain)));
            self.models.push(model);
        }
        for (chain, follower) in self.chains.iter().zip(0..) {
            for block in chain {
                let grown =
                    |n: usize| self.grows.iter().find(|(_, peer, _)| *peer == n).map(|(.., chain)| chain);
                let has = |(n, model): (usize, &Model)| {
                    model.has(block) && grown(n).unwrap_or(&model.chain).contains(block)
                };
                if !self.models.iter().enumerate().any(has) {
                    let lacks = &mut self.models[follower as usize].lacks;
                    lacks.retain(|slots| !slots.contains(&block.slot));
                }
            }
        }
    }

    /// Liars, and peers that come and go.
    fn draw_others(&self, random: &mut Rng) -> Vec<Model> {
        let mut others = Vec::new();
        for salt in 0..random.u64(..4) {
            let of = self.chains[random.usize(..self.chains.len())].clone();
            let joins_at = millis(random, 0..10_000);
            let model = match random.u8(..4) {
                0 => {
                    let flaw = if random.bool() { Flaw::Alone } else { Flaw::OnParent };
                    Model::new(&fork(random, &of, 100 + salt, Some(flaw)))
                }
                1 => Model { leaves_at: Some(joins_at + millis(random, 1..3000)), ..Model::new(&of) },
                2 => Model { silent_after: Some(random.usize(..30)), ..Model::new(&of) },
                _ => Model { claim: Some(random.u64(..2000)), ..Model::new(&of) },
            };
            others.push(Model { joins_at, latency: millis(random, 1..200), ..model });
        }
        others
    }

    fn tell(&self) {
        let short =
            |chain: &SimChain| (chain.len(), chain[chain.len() - 1].slot, chain[chain.len() - 1].hash);
        eprintln!(
            "{:?}, grows {:?}",
            self.options,
            self.grows.iter().map(|(at, n, chain)| (at, n, short(chain))).collect::<Vec<_>>()
        );
        eprintln!("chains {:?}", self.chains.iter().map(short).collect::<Vec<_>>());
        for model in &self.models {
            let others: Vec<_> = model.others.iter().map(short).collect();
            eprintln!("  {:?} beside {others:?}", short(&model.chain));
            eprintln!("      lacks {:?}, ancestors {}", model.lacks, model.knows_ancestors);
        }
    }

    fn run(&self, seed: u64) -> World {
        if std::env::var_os("TIPWARD_LOG").is_some() {
            self.tell();
        }
        let rules = Rules { stays_bootstrapping: self.stays_bootstrapping, ..Rules::default() };
        let mut world = World::with(self.options, rules, self.models.clone(), seed);
        let grow = |world: &mut World, after: Duration| {
            for (at, peer, chain) in self.grows.iter().filter(|(at, ..)| *at > after) {
                world.grow(*at, *peer, chain);
            }
        };
        grow(&mut world, Duration::ZERO);
        for (at, keeps_headers) in &self.restarts {
            world.run_to(*at);
            world.restart(*keeps_headers);
            // What is due was forgotten with everything else.
            grow(&mut world, *at);
        }
        world.run();
        world
    }

    /// What is promised at the end.
    fn check(&self, world: &World) {
        let (tip, tree) = (world.tip(), world.chain.tree());
        let mode = if self.stays_bootstrapping { DensityMode::Bootstrapping } else { DensityMode::Online };
        assert_eq!(tree.mode(), mode);
        let is_final = tree.irreversible().height > 0;
        if is_final {
            // Other branches are forgotten, and whoever follows them is at fault.
            let irreversible = tree.irreversible().hash;
            let goes_on = |chain: &&SimChain| chain.iter().any(|block| block.hash == irreversible);
            for chain in self.chains.iter().filter(goes_on) {
                assert!(chain.iter().all(|block| world.knows(block)));
            }
            return;
        }
        for (n, chain) in self.chains.iter().enumerate() {
            let lost = chain.iter().find(|block| !world.knows(block)).map(|block| block.slot);
            assert_eq!(lost, None, "the slot of a block of chain {n} that is not there");
        }
        if let Some(best) = self.best() {
            let best_at = self.chains.iter().position(|chain| chain[chain.len() - 1].hash == best);
            assert_eq!(tip, best, "of all that is served chain {best_at:?} is best");
        }
        let harmed = world.dropped.iter().find(|(peer, _)| *peer < self.honest);
        assert_eq!(harmed, None, "an honest peer is dropped");
        assert!(!world.penalised.iter().any(|peer| *peer < self.honest));
    }

    /// The tip that is best in whatever order all is looked at; `None` if it depends on that.
    fn best(&self) -> Option<BlockHash> {
        let mut leaves: BTreeMap<BlockHash, SimChain> = BTreeMap::new();
        for model in &self.models {
            let wholes = self.grows.iter().map(|(.., chain)| chain);
            for chain in model.others.iter().chain([&model.chain]).chain(wholes) {
                let valid = valid(chain);
                leaves.insert(valid[valid.len() - 1].hash, valid);
            }
        }
        let leaves: Vec<SimChain> = leaves.into_values().collect();
        let beats_all =
            |one: &&SimChain| leaves.iter().all(|other| other == *one || self.is_best(one, other));
        let best = leaves.iter().find(beats_all)?;
        Some(best[best.len() - 1].hash)
    }

    /// Whether one chain is better than another, and than every start of it, whichever of them is there first.
    fn is_best(&self, one: &[SimBlock], other: &[SimBlock]) -> bool {
        let common = one.iter().zip(other).take_while(|(a, b)| a == b).count();
        (common..=other.len()).all(|length| {
            let start = &other[..length];
            self.is_better(start, one) && !self.is_better(one, start)
        })
    }

    /// `maxvalid-bg` for one fork.
    fn is_better(&self, best: &[SimBlock], fork: &[SimBlock]) -> bool {
        let common = best.iter().zip(fork).take_while(|(a, b)| a == b).count();
        if (best.len() - common) as u64 <= self.options.security {
            return fork.len() > best.len();
        }
        let end = best[common - 1].slot + self.options.window;
        let is_early = |block: &&SimBlock| match self.options.bound {
            SlotBound::Exclusive => block.slot < end,
            SlotBound::Inclusive => block.slot <= end,
        };
        let density = |chain: &[SimBlock]| chain[common..].iter().filter(is_early).count();
        density(fork) > density(best)
    }
}

/// A chain up to what is wrong with it.
fn valid(chain: &[SimBlock]) -> SimChain {
    chain.iter().take_while(|block| block.flaw() == Flaw::Nothing).cloned().collect()
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn whatever_honest_peers_have_between_them_the_best_of_it_is_found() {
    let first = setting("TIPWARD_FIRST_SEED", 0);
    let seeds = first..first + setting("TIPWARD_SEEDS", SEEDS);
    let (mut failures, mut decided, mut reorgs) = (Vec::new(), 0, 0);
    for seed in seeds.clone() {
        let scene = Scene::draw(seed);
        let result = catch_unwind(AssertUnwindSafe(|| {
            let world = scene.run(seed);
            scene.check(&world);
            world.reorgs
        }));
        match result {
            Ok(count) => {
                let is_final = !scene.stays_bootstrapping && scene.options.security < 1000;
                decided += usize::from(!is_final && scene.best().is_some());
                reorgs += count;
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                failures.push(format!("seed {seed}: {}", text.unwrap_or_default()));
            }
        }
    }
    println!("{decided} scenes decided, {reorgs} reorgs");
    assert!(failures.is_empty(), "{} seeds failed: {failures:#?}", failures.len());
    let count = (seeds.end - seeds.start) as usize;
    assert!(
        count < SEEDS as usize || decided > count / 4 && reorgs > count / 2,
        "{decided}, {reorgs} of {count}"
    );
}
