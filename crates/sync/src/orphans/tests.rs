//! The pool against rules that are spelled out, and against a pool that is as naive as can be.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn hash(n: u64) -> BlockHash {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    bytes[8] = 1;
    BlockHash::from_bytes(bytes)
}

fn hashes(numbers: impl IntoIterator<Item = u64>) -> Vec<BlockHash> {
    numbers.into_iter().map(hash).collect()
}

fn orphan(n: u64, parents: &[u64], peer: u64) -> Orphan<u64> {
    sized(n, parents, peer, 1)
}

fn sized(n: u64, parents: &[u64], peer: u64, bytes: u64) -> Orphan<u64> {
    let parents = hashes(parents.iter().copied());
    Orphan { hash: hash(n), parents, peer: PeerId(peer), bytes, payload: n }
}

fn numbers(orphans: &[Orphan<u64>]) -> Vec<u64> {
    orphans.iter().map(|orphan| orphan.payload).collect()
}

fn pool(max_count: usize, max_bytes: u64) -> OrphanPool<u64> {
    OrphanPool::new(OrphanOptions { max_count, max_bytes, ..OrphanOptions::default() })
}

#[test]
fn a_resolved_parent_releases_its_subtree_parents_first() {
    let now = Instant::now();
    let mut pool = pool(10, 100);
    // 1 <- 2 <- 3, and 2 <- 4; they come in the wrong order.
    for (n, parent) in [(3, 2), (4, 2), (2, 1)] {
        assert_eq!(pool.insert(now, orphan(n, &[parent], 0)), Ok(vec![]));
    }
    assert!(pool.resolve(hash(9)).is_empty());
    assert_eq!(numbers(&pool.resolve(hash(1))), [2, 3, 4]);
    assert!(pool.is_empty() && pool.bytes() == 0 && pool.missing().next().is_none());
}

#[test]
fn an_orphan_waits_for_all_its_parents() {
    let now = Instant::now();
    let mut pool = pool(10, 100);
    pool.insert(now, orphan(5, &[1, 2, 3], 0)).unwrap();
    pool.insert(now, orphan(6, &[5, 2], 0)).unwrap();
    assert!(pool.resolve(hash(2)).is_empty());
    assert!(pool.resolve(hash(1)).is_empty());
    assert_eq!(pool.missing_ancestors(hash(6)), hashes([3]));
    assert_eq!(numbers(&pool.resolve(hash(3))), [5, 6]);
}

#[test]
fn one_generation_at_a_time_for_those_who_judge_it() {
    let now = Instant::now();
    let mut pool = pool(10, 100);
    for (n, parent) in [(2, 1), (3, 2), (4, 1)] {
        pool.insert(now, orphan(n, &[parent], 0)).unwrap();
    }
    assert_eq!(numbers(&pool.take_ready(hash(1))), [2, 4]);
    assert_eq!(numbers(&pool.remove_subtree(hash(2))), [3], "2 was found invalid");
}

#[test]
fn descendants_of_the_rejected_go_too() {
    let now = Instant::now();
    let mut pool = pool(10, 100);
    // 6 has a parent beside the rejected branch; 7 has nothing to do with it.
    for (n, parents) in [(2, &[1][..]), (3, &[2]), (4, &[3]), (6, &[4, 5]), (7, &[5])] {
        pool.insert(now, orphan(n, parents, 0)).unwrap();
    }
    assert_eq!(numbers(&pool.remove_subtree(hash(2))), [2, 3, 4, 6]);
    assert!(pool.remove_subtree(hash(1)).is_empty());
    assert_eq!(numbers(&pool.resolve(hash(5))), [7]);
    assert!(pool.is_empty());
}

#[test]
fn all_missing_ancestors_are_listed() {
    let now = Instant::now();
    let mut pool = pool(10, 100);
    for (n, parents) in [(10, &[9, 8][..]), (9, &[7, 6]), (8, &[6, 5]), (20, &[19])] {
        pool.insert(now, orphan(n, parents, 0)).unwrap();
    }
    assert_eq!(pool.missing_ancestors(hash(10)), hashes([5, 6, 7]));
    assert_eq!(pool.missing_ancestors(hash(8)), hashes([5, 6]));
    assert!(pool.missing_ancestors(hash(7)).is_empty(), "it is no orphan");
    assert_eq!(pool.missing().collect::<Vec<_>>(), hashes([5, 6, 7, 19]));
    assert!(pool.is_awaited(hash(6)) && pool.is_awaited(hash(9)) && !pool.is_awaited(hash(10)));
}

#[test]
fn a_chain_of_a_hundred_thousand_is_released_without_recursion() {
    let now = Instant::now();
    let length = 100_000;
    let options = OrphanOptions { max_count: length, max_bytes: u64::MAX, ..OrphanOptions::default() };
    let mut pool = OrphanPool::new(options);
    let fill = |pool: &mut OrphanPool<u64>| {
        for n in (2..length as u64 + 2).rev() {
            pool.insert(now, orphan(n, &[n - 1], 0)).unwrap();
        }
    };
    fill(&mut pool);
    assert_eq!(pool.missing_ancestors(hash(length as u64 + 1)), hashes([1]));
    let released = pool.resolve(hash(1));
    assert!(released.len() == length && released.is_sorted_by_key(|orphan| orphan.payload));
    fill(&mut pool);
    assert_eq!(pool.remove_subtree(hash(2)).len(), length);
    assert!(pool.is_empty());
}

#[test]
fn a_peer_that_floods_loses_its_own_oldest() {
    let now = Instant::now();
    let mut pool = pool(8, 1000);
    // Within their share of two.
    pool.insert(now, orphan(1, &[100], 1)).unwrap();
    pool.insert(now, orphan(2, &[100], 1)).unwrap();
    pool.insert(now, orphan(3, &[100], 2)).unwrap();
    for n in 10..15 {
        assert_eq!(pool.insert(now, orphan(n, &[101], 9)), Ok(vec![]), "there is room for more than a share");
    }
    for n in 15..40 {
        let evicted = pool.insert(now, orphan(n, &[101], 9)).unwrap();
        assert_eq!(numbers(&evicted), [n - 5], "its own oldest");
    }
    // Others come to their share at the cost of who is above it.
    let evicted = pool.insert(now, orphan(50, &[100], 2)).unwrap();
    assert_eq!(numbers(&evicted), [35]);
    assert_eq!(pool.len(), 8);
    assert!((1..=3).all(|n| pool.contains(hash(n))));
}

#[test]
fn nobody_within_its_share_is_evicted() {
    let now = Instant::now();
    let mut pool = pool(8, 1000);
    for n in 0..8 {
        pool.insert(now, orphan(n, &[100], n / 2)).unwrap();
    }
    let refused = pool.insert(now, orphan(20, &[100], 9));
    assert_eq!(refused, Err(OrphanRefused::NoRoom { bytes: 1 }));
    assert_eq!(pool.room_for(PeerId(9)), (2, 992), "its share, which others fill");
    // A peer that has some gives its own oldest.
    let evicted = pool.insert(now, orphan(21, &[100], 1)).unwrap();
    assert_eq!(numbers(&evicted), [2]);
    assert_eq!(pool.len(), 8);
}

#[test]
fn bytes_are_bounded_like_the_count() {
    let now = Instant::now();
    let mut pool = pool(100, 80);
    assert_eq!(pool.insert(now, sized(1, &[100], 1, 81)), Err(OrphanRefused::NoRoom { bytes: 81 }));
    assert_eq!(
        pool.insert(now, sized(1, &[100], 1, u64::MAX)),
        Err(OrphanRefused::NoRoom { bytes: u64::MAX })
    );
    pool.insert(now, sized(1, &[100], 1, 20)).unwrap();
    for n in 2..5 {
        pool.insert(now, sized(n, &[100], 2, 20)).unwrap();
    }
    assert_eq!(pool.room_for(PeerId(1)), (96, 0));
    // 40 of the 60 bytes above the share of peer 2 have to go for the 30 of peer 3.
    let evicted = pool.insert(now, sized(5, &[100], 3, 30)).unwrap();
    assert_eq!(numbers(&evicted), [2, 3]);
    // What does not fit whoever goes changes nothing.
    assert_eq!(pool.insert(now, sized(6, &[100], 4, 70)), Err(OrphanRefused::NoRoom { bytes: 70 }));
    assert_eq!((pool.len(), pool.bytes()), (3, 70));
}

#[test]
fn orphans_are_given_up_when_their_time_is_over() {
    let start = Instant::now();
    let hour = Duration::from_secs(3600);
    let mut pool = pool(10, 100);
    assert_eq!(pool.next_expiry(), None);
    pool.insert(start, orphan(2, &[1], 0)).unwrap();
    pool.insert(start + hour / 2, orphan(3, &[2], 0)).unwrap();
    assert_eq!(pool.next_expiry(), Some(start + hour));
    assert!(pool.expire(start + hour - Duration::from_millis(1)).is_empty());
    assert_eq!(numbers(&pool.expire(start + hour)), [2]);
    assert_eq!(pool.missing_ancestors(hash(3)), hashes([2]), "who waits for it waits on");
    assert_eq!(pool.next_expiry(), Some(start + hour * 3 / 2));
}

#[test]
fn odd_ones_are_refused_or_harmless() {
    let now = Instant::now();
    let mut pool = pool(10, 100);
    pool.insert(now, orphan(2, &[1, 1, 1], 0)).unwrap();
    assert_eq!(pool.insert(now, orphan(2, &[5], 7)), Err(OrphanRefused::Duplicate));
    assert_eq!(pool.insert(now, orphan(3, &[], 0)), Err(OrphanRefused::NoParents));
    let many: Vec<u64> = (100..165).collect();
    assert_eq!(pool.insert(now, orphan(4, &many, 0)), Err(OrphanRefused::TooManyParents { count: 65 }));
    // Its own parent, and a circle: they wait for ever, and nothing hangs.
    for (n, parent) in [(10, 10), (11, 12), (12, 11)] {
        pool.insert(now, orphan(n, &[parent], 0)).unwrap();
    }
    assert!(pool.missing_ancestors(hash(10)).is_empty() && pool.missing_ancestors(hash(11)).is_empty());
    assert_eq!(numbers(&pool.resolve(hash(1))), [2]);
    assert_eq!(numbers(&pool.remove_subtree(hash(11))), [11, 12]);
    assert_eq!(numbers(&pool.remove_subtree(hash(10))), [10]);
    assert!(pool.is_empty());
}

/// The same rules on a list.
struct Naive {
    options: OrphanOptions,
    orphans: Vec<(Orphan<u64>, Instant)>,
}

impl Naive {
    fn count(&self, peer: PeerId) -> usize {
        self.orphans.iter().filter(|(orphan, _)| orphan.peer == peer).count()
    }

    fn bytes(&self, peer: PeerId) -> u64 {
        self.orphans.iter().filter(|(orphan, _)| orphan.peer == peer).map(|(orphan, _)| orphan.bytes).sum()
    }

    fn total(&self) -> u64 {
        self.orphans.iter().map(|(orphan, _)| orphan.bytes).sum()
    }

    /// False, and nothing done, if it is refused.
    fn insert(&mut self, now: Instant, orphan: &Orphan<u64>) -> bool {
        if orphan.parents.is_empty() || self.orphans.iter().any(|(it, _)| it.hash == orphan.hash) {
            return false;
        }
        let before = self.orphans.clone();
        let (shares, peer) = (self.options.shares as usize, orphan.peer);
        loop {
            let is_count_short = self.orphans.len() + 1 > self.options.max_count;
            if !is_count_short && self.total() + orphan.bytes <= self.options.max_bytes {
                break;
            }
            let held = |id: PeerId| {
                let own = u64::from(id == peer);
                if is_count_short { self.count(id) as u64 + own } else { self.bytes(id) + own * orphan.bytes }
            };
            let (all, bytes) = (self.options.max_count / shares, self.options.max_bytes / shares as u64);
            let share = if is_count_short { all as u64 } else { bytes };
            let peers = self.orphans.iter().map(|(orphan, _)| orphan.peer);
            let most = peers.max_by_key(|&id| (held(id), id)).filter(|&id| held(id) > share);
            let loser = most.unwrap_or(peer);
            match self.orphans.iter().position(|(orphan, _)| orphan.peer == loser) {
                Some(at) => drop(self.orphans.remove(at)),
                None => {
                    self.orphans = before;
                    return false;
                }
            }
        }
        self.orphans.push((orphan.clone(), now));
        true
    }

    fn resolve(&mut self, known: BlockHash) -> Vec<BlockHash> {
        let mut released = vec![known];
        loop {
            for (orphan, _) in &mut self.orphans {
                orphan.parents.retain(|parent| !released.contains(parent));
            }
            let Some(at) = self.orphans.iter().position(|(orphan, _)| orphan.parents.is_empty()) else {
                break;
            };
            released.push(self.orphans.remove(at).0.hash);
        }
        released.split_off(1)
    }

    fn remove_subtree(&mut self, root: BlockHash) -> Vec<BlockHash> {
        let mut removed = vec![root];
        let mut out = Vec::new();
        while let Some(at) = self.orphans.iter().position(|(orphan, _)| {
            removed.contains(&orphan.hash) || orphan.parents.iter().any(|parent| removed.contains(parent))
        }) {
            let hash = self.orphans.remove(at).0.hash;
            removed.push(hash);
            out.push(hash);
        }
        out
    }

    fn missing(&self) -> Vec<BlockHash> {
        let is_orphan = |hash: &BlockHash| self.orphans.iter().any(|(orphan, _)| orphan.hash == *hash);
        let parents = self.orphans.iter().flat_map(|(orphan, _)| orphan.parents.clone());
        let missing: BTreeSet<BlockHash> = parents.filter(|parent| !is_orphan(parent)).collect();
        missing.into_iter().collect()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Insert { n: u64, parents: Vec<u64>, peer: u64, bytes: u64 },
    Resolve(u64),
    Reject(u64),
    Remove(u64),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    // A DAG of forty blocks: parents have lower numbers.
    let parents = prop::collection::vec(1u64..40, 0..4);
    let insert = (1u64..40, parents, 0u64..6, 1u64..30).prop_map(|(n, parents, peer, bytes)| {
        let parents = parents.into_iter().filter(|parent| *parent < n).collect();
        Step::Insert { n, parents, peer, bytes }
    });
    prop_oneof![
        8 => insert,
        2 => (1u64..40).prop_map(Step::Resolve),
        1 => (1u64..40).prop_map(Step::Reject),
        1 => (1u64..40).prop_map(Step::Remove),
        1 => (0u64..2000).prop_map(Step::Wait),
    ]
}

fn sorted(mut hashes: Vec<BlockHash>) -> Vec<BlockHash> {
    hashes.sort_unstable();
    hashes
}

fn of(orphans: &[Orphan<u64>]) -> Vec<BlockHash> {
    orphans.iter().map(|orphan| orphan.hash).collect()
}

proptest! {
    #[test]
    fn the_pool_is_what_a_list_would_be(steps in prop::collection::vec(step(), 1..200), max_count in 0usize..16) {
        let options = OrphanOptions { max_count, max_bytes: 100, ..OrphanOptions::default() };
        let mut pool = OrphanPool::new(options.clone());
        let mut naive = Naive { options, orphans: Vec::new() };
        let mut now = Instant::now();
        let mut parents_of: BTreeMap<BlockHash, Vec<BlockHash>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Insert { n, parents, peer, bytes } => {
                    let orphan = sized(n, &parents, peer, bytes);
                    let before = pool.len();
                    let outcome = pool.insert(now, orphan.clone());
                    prop_assert_eq!(outcome.is_ok(), naive.insert(now, &orphan));
                    if let Ok(evicted) = outcome {
                        prop_assert_eq!(pool.len(), before + 1 - evicted.len());
                        parents_of.insert(orphan.hash, orphan.parents);
                    }
                }
                Step::Resolve(n) => {
                    let released = of(&pool.resolve(hash(n)));
                    for (at, hash) in released.iter().enumerate() {
                        prop_assert!(!released[at..].iter().any(|later| parents_of[hash].contains(later)));
                    }
                    // Nobody waits for it any more, even if it should become an orphan again.
                    parents_of.values_mut().for_each(|parents| parents.retain(|parent| *parent != hash(n)));
                    prop_assert_eq!(sorted(released), sorted(naive.resolve(hash(n))));
                }
                Step::Reject(n) => {
                    let removed = of(&pool.remove_subtree(hash(n)));
                    prop_assert_eq!(sorted(removed), sorted(naive.remove_subtree(hash(n))));
                }
                Step::Remove(n) => {
                    let is_there = naive.orphans.iter().position(|(orphan, _)| orphan.hash == hash(n));
                    prop_assert_eq!(pool.remove(hash(n)).is_some(), is_there.is_some());
                    is_there.map(|at| naive.orphans.remove(at));
                }
                Step::Wait(seconds) => {
                    now += Duration::from_secs(seconds);
                    let expiry = naive.options.expiry;
                    let expired = of(&pool.expire(now));
                    let old = naive.orphans.iter().filter(|(_, since)| *since + expiry <= now);
                    prop_assert_eq!(expired, old.map(|(orphan, _)| orphan.hash).collect::<Vec<_>>());
                    naive.orphans.retain(|(_, since)| *since + expiry > now);
                }
            }
            let left: Vec<BlockHash> = sorted(naive.orphans.iter().map(|(orphan, _)| orphan.hash).collect());
            prop_assert_eq!(pool.orphans.keys().copied().collect::<Vec<_>>(), left);
            prop_assert_eq!(pool.missing().collect::<Vec<_>>(), naive.missing());
            prop_assert_eq!(pool.bytes(), naive.total());
            prop_assert!(pool.len() <= max_count && pool.bytes() <= 100);
            prop_assert_eq!(pool.next_expiry(), naive.orphans.first().map(|(_, at)| *at + naive.options.expiry));
            for peer in (0..6).map(PeerId) {
                let held = pool.held.get(&peer).map_or((0, 0), |held| (held.numbers.len(), held.bytes));
                prop_assert_eq!(held, (naive.count(peer), naive.bytes(peer)));
            }
        }
    }
}
