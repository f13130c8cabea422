//! Random trees against a model that only knows how to walk and to count.

use std::collections::BTreeMap;

use proptest::{prelude::*, sample::Index};

use super::*;

/// What the model knows of a header.
#[derive(Debug, Clone, Copy)]
struct Known {
    parent: u32,
    height: u64,
    work: Work,
    time: u32,
    /// When it came.
    seen: usize,
}

#[derive(Debug)]
struct Model {
    tree: BlockTree,
    headers: BTreeMap<u32, Known>,
    /// The best chain, by the updates alone.
    order: Vec<u32>,
    clock: usize,
}

impl Model {
    fn new() -> Self {
        let root = Header { hash: numbered(0), parent: BlockHash::ZERO, raw: Bytes::new() };
        let known = Known { parent: 0, height: 0, work: unit().work, time: 0, seen: 0 };
        Self { tree: BlockTree::new(&root, unit()), headers: [(0, known)].into(), order: vec![0], clock: 1 }
    }

    fn path(&self, mut n: u32) -> Vec<u32> {
        let mut path = vec![n];
        while n != 0 {
            n = self.headers[&n].parent;
            path.push(n);
        }
        path.reverse();
        path
    }

    /// The first to have the most work.
    fn best(&self) -> u32 {
        let by_rank = |known: &Known| (known.work, std::cmp::Reverse(known.seen));
        *self.headers.iter().max_by_key(|(_, known)| by_rank(known)).unwrap().0
    }

    /// Offers a header. False if its parent is not there.
    fn insert(&mut self, n: u32, parent: u32, weight: u8, time: u32) -> bool {
        let header = Header { hash: numbered(n), parent: numbered(parent), raw: Bytes::new() };
        let facts = HeaderFacts { work: units(weight.into()).work, time, bits: n };
        let update = self.tree.insert(&header, facts);
        let (Some(before), false) = (self.headers.get(&parent), self.headers.contains_key(&n)) else {
            assert_eq!(update, None);
            return self.headers.contains_key(&n);
        };
        let (height, work) = (before.height + 1, before.work + facts.work);
        self.headers.insert(n, Known { parent, height, work, time, seen: self.clock });
        self.clock += 1;
        let best = self.best();
        assert_eq!(update.is_some(), Some(&best) != self.order.last());
        assert!(update.as_ref().is_none_or(|update| !update.append.is_empty()));
        self.follow(update);
        assert_eq!(self.order, self.path(best));
        true
    }

    fn follow(&mut self, update: Option<Update>) {
        let Some(update) = update else { return };
        assert!(update.keep as usize <= self.order.len());
        self.order.truncate(update.keep as usize);
        self.order.extend(update.append.iter().map(|hash| self.tree.node(*hash).unwrap().bits));
    }

    /// The most work and the greatest height of what is or descends from a header.
    fn reach(&self, n: u32) -> (Work, u64) {
        let below = self.headers.keys().filter(|&&other| self.path(other).contains(&n));
        let reach = below.map(|other| (self.headers[other].work, self.headers[other].height));
        reach.reduce(|one, other| (one.0.max(other.0), one.1.max(other.1))).unwrap()
    }

    fn prune(&mut self, keep: usize, depth: u64) {
        let side: Vec<u32> = self.headers.keys().copied().filter(|n| !self.order.contains(n)).collect();
        let floor = (self.order.len() as u64 - 1).saturating_sub(depth);
        let reach: BTreeMap<u32, (Work, u64)> = side.iter().map(|&n| (n, self.reach(n))).collect();
        let gone = self.tree.prune(keep, depth);
        let (stay, go): (Vec<u32>, Vec<u32>) =
            side.iter().partition(|&&n| self.tree.get(numbered(n)).is_some());
        assert_eq!(gone, go.len());
        let near = reach.values().filter(|(_, height)| *height >= floor).count();
        assert_eq!(stay.len(), near.min(keep), "no more go than have to");
        assert!(stay.iter().all(|n| reach[n].1 >= floor));
        for lost in go.iter().filter(|n| reach[n].1 >= floor) {
            assert!(stay.iter().all(|kept| reach[kept].0 >= reach[lost].0), "the weakest go first");
        }
        self.headers.retain(|n, _| !go.contains(n));
        assert!(self.headers.values().all(|known| self.headers.contains_key(&known.parent)));
    }

    fn reject(&mut self, n: u32) {
        let path: Vec<u32> =
            self.headers.keys().copied().filter(|other| self.path(*other).contains(&n)).collect();
        let mut gone = path;
        gone.sort_unstable_by_key(|n| self.headers[n].seen);
        let rejection = self.tree.reject(numbered(n));
        if n == 0 || gone.is_empty() {
            return assert_eq!(rejection, None);
        }
        let Rejection { update, gone: lost } = rejection.unwrap();
        assert_eq!(lost, gone.iter().copied().map(numbered).collect::<Vec<_>>());
        self.headers.retain(|n, _| !gone.contains(n));
        assert_eq!(update.is_some(), self.order.contains(&n));
        self.follow(update);
        assert_eq!(self.order, self.path(self.best()));
    }

    /// Compares all that can be asked.
    fn compare(&self) {
        let id = |n: u32| BlockId { height: self.headers[&n].height, hash: numbered(n) };
        assert_eq!(self.tree.len(), self.headers.len());
        assert_eq!(self.tree.side_headers(), self.headers.len() - self.order.len());
        assert_eq!(self.tree.tip(), id(self.best()));
        for (height, &n) in (0..).zip(&self.order) {
            assert_eq!(self.tree.best_at(height), Some(numbered(n)));
        }
        let mut tips: Vec<u32> = self.headers.keys().copied().collect();
        tips.retain(|n| {
            *n == 0 && self.headers.len() == 1
                || self.headers.iter().all(|(child, known)| known.parent != *n || *child == 0)
        });
        tips.sort_unstable_by_key(|n| self.headers[n].seen);
        assert_eq!(self.tree.tips(), tips.iter().map(|&n| id(n)).collect::<Vec<_>>());
        for (&n, known) in &self.headers {
            let path = self.path(n);
            assert_eq!(self.tree.get(numbered(n)), Some(id(n)));
            let node = self.tree.node(numbered(n)).unwrap();
            assert_eq!((node.work, node.time, node.bits), (known.work, known.time, n));
            for (height, &ancestor) in (0..).zip(&path) {
                assert_eq!(self.tree.ancestor(numbered(n), height), Some(id(ancestor)));
            }
            let on_best = path.iter().rev().find(|n| self.order.contains(n)).unwrap();
            assert_eq!(self.tree.fork_point(numbered(n)), Some(id(*on_best)));
            let mut times: Vec<u32> = path.iter().rev().take(11).map(|n| self.headers[n].time).collect();
            times.sort_unstable();
            assert_eq!(self.tree.median_time(numbered(n)), Some(times[times.len() / 2]));
            let back = self.tree.branch(numbered(n)).unwrap();
            assert!(back.back().map(|node| node.id).eq(path.iter().rev().map(|&n| id(n))));
            for (&other, _) in self.headers.range(n..).take(5) {
                let common = self.path(other).into_iter().zip(&path).rfind(|(a, b)| a == *b).unwrap().0;
                assert_eq!(self.tree.common_ancestor(numbered(n), numbered(other)), Some(id(common)));
            }
        }
    }
}

/// The parent, weight and time of a header, and when it is offered.
type Draft = (Index, u8, u32, u32);

proptest! {
    /// Any tree, any order of arrival: the tip is the first to reach the most work, following the updates gives the best
    /// chain, and everything that can be asked is as walking it shows; also when branches were given up in between.
    #[test]
    fn trees_are_what_a_walk_shows(
        drafts in prop::collection::vec(any::<Draft>(), 1..60),
        is_bushy in any::<bool>(),
        prunes in prop::collection::vec((1_usize..60, 0_usize..20, 0_u64..20), 0..3),
        rejects in prop::collection::vec((1_usize..60, 0_u32..60), 0..3),
    ) {
        let headers: Vec<_> = (1_u32..).zip(&drafts).map(|(n, (parent, weight, time, turn))| {
            // Long branches are rare by chance.
            let near = if is_bushy { 0 } else { n.saturating_sub(4) };
            let parent = near + parent.index((n - near) as usize) as u32;
            (*turn, n, parent, weight % 3 + 1, time % 100)
        }).collect();
        let mut waiting = headers.clone();
        waiting.sort_unstable();
        let mut model = Model::new();
        let mut count = 0;
        loop {
            let len = waiting.len();
            waiting.retain(|&(_, n, parent, weight, time)| {
                let is_there = model.insert(n, parent, weight, time);
                count += usize::from(is_there);
                for (_, keep, depth) in prunes.iter().filter(|(when, ..)| is_there && *when == count) {
                    model.prune(*keep, *depth);
                }
                for (_, n) in rejects.iter().filter(|(when, _)| is_there && *when == count) {
                    model.reject(*n);
                }
                !is_there
            });
            model.compare();
            // What is left has lost an ancestor.
            if waiting.len() == len {
                break;
            }
        }
        prop_assert!(!prunes.is_empty() || !rejects.is_empty() || waiting.is_empty());
        // Those that went may come back.
        for (_, n, parent, weight, time) in headers {
            model.insert(n, parent, weight, time);
        }
        prop_assert_eq!(model.headers.len(), drafts.len() + 1);
        model.compare();
    }
}
