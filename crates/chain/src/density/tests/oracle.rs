//! The rule word by word: whole chains as lists.

use std::collections::BTreeMap;

use super::{DensityMode, DensityOptions, SlotBound};

#[derive(Debug)]
pub(crate) struct Words {
    pub(crate) options: DensityOptions,
    pub(crate) mode: DensityMode,
    /// Parent and slot.
    pub(crate) blocks: BTreeMap<u64, (u64, u64)>,
    pub(crate) tip: u64,
    pub(crate) forks: Vec<u64>,
    pub(crate) irreversible: u64,
}

impl Words {
    pub(crate) fn new(options: DensityOptions) -> Self {
        let mode = DensityMode::Bootstrapping;
        Self { options, mode, blocks: BTreeMap::new(), tip: 0, forks: Vec::new(), irreversible: 0 }
    }

    /// From genesis up.
    pub(crate) fn chain(&self, tip: u64) -> Vec<u64> {
        let mut chain = vec![tip];
        while let Some((parent, _)) = self.blocks.get(&chain[chain.len() - 1]) {
            chain.push(*parent);
        }
        chain.reverse();
        chain
    }

    pub(crate) fn slot(&self, n: u64) -> u64 {
        self.blocks.get(&n).map_or(0, |(_, slot)| *slot)
    }

    fn better(&self, best: u64, fork: u64) -> bool {
        let (best, fork) = (self.chain(best), self.chain(fork));
        let common = best.iter().zip(&fork).take_while(|(one, other)| one == other).count();
        if (best.len() - common) as u64 <= self.options.security {
            return fork.len() > best.len();
        }
        let end = self.slot(best[common - 1]) + self.options.window;
        let density = |chain: &[u64]| {
            let early = |n: &&u64| match self.options.bound {
                SlotBound::Exclusive => self.slot(**n) < end,
                SlotBound::Inclusive => self.slot(**n) <= end,
            };
            chain[common - 1..].iter().filter(early).count()
        };
        self.mode == DensityMode::Bootstrapping && density(&fork) > density(&best)
    }

    /// False if it has no place.
    pub(crate) fn offer(&mut self, n: u64, parent: u64, slot: u64) -> bool {
        let is_known = |n: u64| n == 0 || self.blocks.contains_key(&n);
        if is_known(n) || !is_known(parent) || slot <= self.slot(parent) {
            return is_known(n);
        }
        if self.chain(parent).len() < self.chain(self.irreversible).len() {
            return false;
        }
        self.blocks.insert(n, (parent, slot));
        if parent == self.tip {
            self.tip = n;
        } else {
            self.forks.retain(|fork| *fork != parent);
            self.forks.push(n);
            self.choose();
        }
        self.settle();
        true
    }

    fn choose(&mut self) {
        for at in 0..self.forks.len() {
            if self.better(self.tip, self.forks[at]) {
                std::mem::swap(&mut self.tip, &mut self.forks[at]);
            }
        }
    }

    pub(crate) fn set_mode(&mut self, mode: DensityMode) {
        self.mode = mode;
        self.settle();
    }

    /// Forgets what does not descend from the last irreversible block, and of the branches the first if there are too many.
    fn settle(&mut self) {
        let chain = self.chain(self.tip);
        let settled = (chain.len() - 1).saturating_sub(self.options.security as usize);
        let before = self.chain(self.irreversible).len() - 1;
        if self.mode == DensityMode::Online && settled > before {
            self.irreversible = chain[settled];
            let mut forks = self.forks.clone();
            forks.retain(|fork| self.chain(*fork).contains(&self.irreversible));
            self.forks = forks;
        }
        self.forget();
        let is_too_much = |words: &Self| {
            let side = words.blocks.len() + 1 - words.chain(words.tip).len();
            words.forks.len() > 1
                && (words.forks.len() > words.options.max_forks || side > words.options.max_side_blocks)
        };
        while is_too_much(self) {
            self.forks.remove(0);
            self.forget();
        }
    }

    fn forget(&mut self) {
        let mut alive: Vec<u64> = self.chain(self.tip);
        self.forks.iter().for_each(|fork| alive.extend(self.chain(*fork)));
        self.blocks.retain(|n, _| alive.contains(n));
    }

    /// False if it can't be.
    pub(crate) fn reject(&mut self, n: u64) -> bool {
        if !self.blocks.contains_key(&n) || self.chain(self.irreversible).contains(&n) {
            return false;
        }
        let parent = self.blocks[&n].0;
        let is_best = self.chain(self.tip).contains(&n);
        let falls: Vec<u64> = self.blocks.keys().copied().filter(|m| self.chain(*m).contains(&n)).collect();
        self.blocks.retain(|m, _| !falls.contains(m));
        let is_leaf = |words: &Self, n: u64| words.blocks.values().all(|(parent, _)| *parent != n);
        if is_best {
            self.tip = parent;
            self.forks.retain(|fork| !falls.contains(fork));
            self.choose();
        } else {
            // The branch is shorter now, unless it is only a part of another.
            let place = self.forks.iter().position(|fork| falls.contains(fork)).unwrap();
            self.forks.retain(|fork| !falls.contains(fork));
            self.forks.insert(place, parent);
        }
        let best = self.chain(self.tip);
        let mut forks = self.forks.clone();
        forks.retain(|fork| !best.contains(fork) && is_leaf(self, *fork));
        self.forks = forks;
        true
    }
}
