//! Every rule against a model that only knows how to walk and to count: random trees in random orders of arrival, blocks that
//! are rejected, and whatever else may happen to a tree in between.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use tipward_sync::peer::wire::{
    Header,
    bitcoin::{CompactTarget, Work},
};

use super::*;
use crate::{
    BlockTree, HeaderFacts,
    density::{DensityMode, DensityOptions, DensityTree, SlotBound, tests::oracle::Words},
};

fn id(n: u64) -> BlockHash {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    BlockHash::from_bytes(bytes)
}

/// What a rule is held against. Block 0 is the first.
trait Oracle {
    type Rule: Rule;
    /// What a block of this weight says.
    fn facts(&self, parent: u64, weight: u64) -> <Self::Rule as Rule>::Facts;
    /// False if it has no place.
    fn offer(&mut self, n: u64, parent: u64, weight: u64) -> bool;
    /// False if it can't be.
    fn reject(&mut self, n: u64) -> bool;
    /// Something else happens, to the rule too. Returns what is forgotten, if that is told.
    fn happen(&mut self, what: u64, rule: &mut Self::Rule) -> Option<Vec<BlockHash>>;
    /// All blocks but the first, and their parents.
    fn parents(&self) -> BTreeMap<u64, u64>;
    fn tip(&self) -> u64;
    fn irreversible(&self) -> u64;
}

/// Most work, and of equals the first.
#[derive(Debug, Default)]
struct Most {
    /// Parent, own work in units, and when it came.
    blocks: BTreeMap<u64, (u64, u64, usize)>,
    count: usize,
}

fn work(units: u64) -> HeaderFacts {
    let unit = CompactTarget(0x207f_ffff).to_target().unwrap().work();
    HeaderFacts { work: (0..units).map(|_| unit).sum::<Work>(), time: 0, bits: 0 }
}

impl Most {
    fn rule() -> BlockTree {
        BlockTree::new(&Header { hash: id(0), parent: BlockHash::ZERO, raw: Bytes::new() }, work(1))
    }

    fn total(&self, n: u64) -> u64 {
        self.blocks.get(&n).map_or(0, |(parent, units, _)| self.total(*parent) + units)
    }

    fn descends(&self, n: u64, from: u64) -> bool {
        n == from || self.blocks.get(&n).is_some_and(|(parent, ..)| self.descends(*parent, from))
    }
}

impl Oracle for Most {
    type Rule = BlockTree;

    fn facts(&self, _: u64, weight: u64) -> HeaderFacts {
        work(weight)
    }

    fn offer(&mut self, n: u64, parent: u64, weight: u64) -> bool {
        let has_place = parent == 0 || self.blocks.contains_key(&parent);
        if has_place && n > 0 {
            self.count += 1;
            self.blocks.entry(n).or_insert((parent, weight, self.count));
        }
        has_place
    }

    fn reject(&mut self, n: u64) -> bool {
        let gone: Vec<u64> = self.blocks.keys().copied().filter(|m| self.descends(*m, n)).collect();
        let is_there = self.blocks.contains_key(&n);
        self.blocks.retain(|m, _| !gone.contains(m) || !is_there);
        is_there
    }

    fn happen(&mut self, what: u64, rule: &mut BlockTree) -> Option<Vec<BlockHash>> {
        rule.prune(what as usize, what * 2);
        self.blocks.retain(|n, _| rule.get(id(*n)).is_some());
        None
    }

    fn parents(&self) -> BTreeMap<u64, u64> {
        self.blocks.iter().map(|(n, (parent, ..))| (*n, *parent)).collect()
    }

    fn tip(&self) -> u64 {
        let first = |n: &u64| std::cmp::Reverse(self.blocks[n].2);
        self.blocks.keys().copied().max_by_key(|n| (self.total(*n), first(n))).unwrap_or(0)
    }

    fn irreversible(&self) -> u64 {
        0
    }
}

impl Oracle for Words {
    type Rule = DensityTree;

    fn facts(&self, parent: u64, weight: u64) -> u64 {
        self.slot(parent) + weight
    }

    fn offer(&mut self, n: u64, parent: u64, weight: u64) -> bool {
        let slot = self.slot(parent) + weight;
        self.offer(n, parent, slot)
    }

    fn reject(&mut self, n: u64) -> bool {
        self.reject(n)
    }

    fn happen(&mut self, what: u64, rule: &mut DensityTree) -> Option<Vec<BlockHash>> {
        let mode = if what.is_multiple_of(2) { DensityMode::Online } else { DensityMode::Bootstrapping };
        self.set_mode(mode);
        let gone = rule.set_mode(mode);
        assert!(rule.forks().eq(self.forks.iter().copied().map(id)));
        Some(gone)
    }

    fn parents(&self) -> BTreeMap<u64, u64> {
        self.blocks.iter().map(|(n, (parent, _))| (*n, *parent)).collect()
    }

    fn tip(&self) -> u64 {
        self.tip
    }

    fn irreversible(&self) -> u64 {
        self.irreversible
    }
}

#[derive(Debug, Clone)]
enum Step {
    Offer { n: u64, on: On, weight: u64 },
    Reject { n: u64, on: Option<usize> },
    Happen(u64),
}

/// What a block builds on.
#[derive(Debug, Clone)]
enum On {
    Number(u64),
    /// So many blocks below the tip.
    Best(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let on = prop_oneof![(0..60_u64).prop_map(On::Number), (0..4_usize).prop_map(On::Best)];
    prop_oneof![
        20 => (1..90_u64, on, 1..6_u64).prop_map(|(n, on, weight)| Step::Offer { n, on, weight }),
        2 => (0..90_u64, prop::option::of(0..6_usize)).prop_map(|(n, on)| Step::Reject { n, on }),
        1 => (0..10_u64).prop_map(Step::Happen),
    ]
}

/// A rule, its oracle, and who follows the updates.
struct Machine<O: Oracle> {
    rule: O::Rule,
    oracle: O,
    order: Vec<BlockHash>,
}

fn path(parents: &BTreeMap<u64, u64>, mut n: u64) -> Vec<u64> {
    let mut path = vec![n];
    while n != 0 {
        n = parents[&n];
        path.push(n);
    }
    path.reverse();
    path
}

impl<O: Oracle> Machine<O> {
    fn new(rule: O::Rule, oracle: O) -> Self {
        Self { rule, oracle, order: vec![id(0)] }
    }

    fn run(mut self, steps: Vec<Step>) {
        for step in steps {
            let before = self.oracle.parents();
            let below_tip =
                |back: usize| path(&before, self.oracle.tip()).into_iter().nth_back(back).unwrap_or(0);
            match step {
                Step::Offer { n, on, weight } => {
                    let parent = match on {
                        On::Number(parent) => parent,
                        On::Best(back) => below_tip(back),
                    };
                    self.offer(n, parent, weight, &before);
                }
                Step::Reject { n, on } => {
                    let n = on.map_or(n, below_tip);
                    self.reject(n, &before);
                }
                Step::Happen(what) => {
                    if let Some(gone) = self.oracle.happen(what, &mut self.rule) {
                        self.is_lost(&before, &[], &gone);
                    }
                }
            }
            self.compare();
        }
    }

    fn offer(&mut self, n: u64, parent: u64, weight: u64, before: &BTreeMap<u64, u64>) {
        let facts = self.oracle.facts(parent, weight);
        let block = Candidate { hash: id(n), parent: id(parent), facts };
        let is_taken = self.oracle.offer(n, parent, weight);
        match self.rule.offer(block) {
            Ok(Offered { update, pruned }) => {
                assert!(is_taken);
                assert!(update.as_ref().is_none_or(|update| !update.append.is_empty()));
                self.follow(update);
                self.is_lost(before, &[n], &pruned);
            }
            Err(OfferError::ParentNotFound { .. }) => {
                assert!(parent != 0 && !before.contains_key(&parent));
            }
            Err(error) => assert!(!is_taken, "{error}"),
        }
    }

    fn reject(&mut self, n: u64, before: &BTreeMap<u64, u64>) {
        let is_best = path(before, self.oracle.tip()).contains(&n);
        let is_done = self.oracle.reject(n);
        let rejection = self.rule.reject(id(n));
        assert_eq!(rejection.is_some(), is_done);
        if let Some(Rejection { update, gone }) = rejection {
            assert_eq!(update.is_some(), is_best);
            self.follow(update);
            self.is_lost(before, &[], &gone);
            assert!(
                path(before, *before.keys().find(|m| id(**m) == gone[gone.len() - 1]).unwrap()).contains(&n)
            );
        }
    }

    fn follow(&mut self, update: Option<Update>) {
        if let Some(Update { keep, append }) = update {
            assert!(keep as usize <= self.order.len());
            // Nothing is undone only to be done again.
            let undone = self.order.split_off(keep as usize);
            assert!(undone.is_empty() || append.first() != undone.first());
            self.order.extend(append);
        }
    }

    fn lost(&self, before: &BTreeMap<u64, u64>, new: &[u64]) -> BTreeSet<BlockHash> {
        let after = self.oracle.parents();
        before.keys().chain(new).filter(|n| **n != 0 && !after.contains_key(*n)).map(|n| id(*n)).collect()
    }

    /// What went is told, parents before children.
    fn is_lost(&self, before: &BTreeMap<u64, u64>, new: &[u64], gone: &[BlockHash]) {
        assert_eq!(gone.iter().copied().collect::<BTreeSet<_>>(), self.lost(before, new));
        for (at, hash) in gone.iter().enumerate() {
            let number = u64::from_be_bytes(*hash.as_bytes().first_chunk().unwrap());
            let parent = before.get(&number).map(|parent| id(*parent));
            assert!(!gone[at + 1..].iter().any(|later| Some(*later) == parent));
        }
    }

    /// Compares all that can be asked.
    fn compare(&self) {
        let (parents, rule) = (self.oracle.parents(), &self.rule);
        let paths: BTreeMap<u64, Vec<u64>> =
            parents.keys().chain(&[0]).map(|n| (*n, path(&parents, *n))).collect();
        let block = |n: u64| BlockId { height: paths[&n].len() as u64 - 1, hash: id(n) };
        let best = &paths[&self.oracle.tip()];
        assert_eq!(rule.tip(), block(self.oracle.tip()));
        assert_eq!(rule.irreversible(), block(self.oracle.irreversible()));
        assert!(self.order.iter().copied().eq(best.iter().map(|n| id(*n))));
        assert!((0..).map_while(|height| rule.best_at(height)).eq(self.order.iter().copied()));
        let is_leaf = |n: &u64| !parents.values().any(|parent| parent == n);
        let leaves: BTreeSet<_> = paths.keys().filter(|n| is_leaf(n)).map(|n| block(*n)).collect();
        let tips = rule.tips();
        assert_eq!((tips.len(), tips.into_iter().collect::<BTreeSet<_>>()), (leaves.len(), leaves));
        for n in 0..90 {
            let Some(path) = paths.get(&n) else {
                assert_eq!((rule.get(id(n)), rule.fork_point(id(n))), (None, None));
                continue;
            };
            assert_eq!(rule.get(id(n)), Some(block(n)));
            assert_eq!(rule.ancestor(id(n), path.len() as u64), None);
            for (height, ancestor) in (0..).zip(path) {
                assert_eq!(rule.ancestor(id(n), height), Some(block(*ancestor)));
            }
            let common = |other: &[u64]| *path.iter().zip(other).rfind(|(a, b)| a == b).unwrap().0;
            assert_eq!(rule.fork_point(id(n)), Some(block(common(best))));
            for (other, other_path) in paths.range(n..).take(5) {
                assert_eq!(rule.common_ancestor(id(n), id(*other)), Some(block(common(other_path))));
            }
            let recent = path.iter().rev().map(|n| id(*n));
            let locator = rule.locator(id(n));
            assert!(locator.iter().copied().take(10).eq(recent.take(10)));
            assert_eq!(locator.last(), Some(&id(0)));
        }
    }
}

proptest! {
    #[test]
    fn most_work_is_what_a_walk_shows(steps in prop::collection::vec(step(), 1..100)) {
        Machine::new(Most::rule(), Most::default()).run(steps);
    }

    #[test]
    fn density_is_what_its_words_say(
        steps in prop::collection::vec(step(), 1..100),
        security in 0..6_u64,
        window in 0..20_u64,
        is_inclusive: bool,
        // Mostly none are too many.
        max_forks in prop_oneof![Just(1000), 1..6_usize],
        max_side_blocks in prop_oneof![Just(1000), 0..30_usize],
    ) {
        let bound = if is_inclusive { SlotBound::Inclusive } else { SlotBound::Exclusive };
        let options = DensityOptions { security, window, bound, max_forks, max_side_blocks };
        Machine::new(DensityTree::new(id(0), 0, options), Words::new(options)).run(steps);
    }
}
