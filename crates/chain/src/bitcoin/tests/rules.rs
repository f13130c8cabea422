//! What the rules refuse, header by header, with the work done.

use std::time::Duration;

use super::*;

const LIMIT: CompactTarget = Network::BTC_REGTEST.pow_limit;

fn network(change: impl FnOnce(&mut Network)) -> &'static Network {
    let mut network = Network::BTC_REGTEST.clone();
    change(&mut network);
    Box::leak(Box::new(network))
}

/// A chain of so many mined headers after genesis, ten minutes apart.
struct Mined {
    headers: Vec<BlockHeader>,
    tree: BlockTree,
    rules: Box<dyn HeaderRules>,
}

impl Mined {
    fn new(network: &'static Network, count: usize) -> Self {
        let (rules, genesis) = (network.rules(), network.genesis_header());
        let tree = BlockTree::new(&genesis, rules.read(&genesis).unwrap());
        let mut mined = Self { headers: vec![network.genesis()], tree, rules };
        (0..count).for_each(|_| mined.extend());
        mined
    }

    fn tip(&self) -> BlockHeader {
        *self.headers.last().unwrap()
    }

    fn extend(&mut self) {
        let header = child(&self.tip(), self.tip().time + 600, LIMIT);
        let facts = self.check(&header, UnixTime::MAX).unwrap();
        self.tree.insert(&header.into(), facts).expect("it is best");
        self.headers.push(header);
    }

    fn check(&self, header: &BlockHeader, now: UnixTime) -> Result<crate::HeaderFacts, HeaderError> {
        self.rules.check(&(*header).into(), &self.tree.branch(header.parent).unwrap(), now)
    }

    /// Checks a child of the header at a height.
    fn fork(&self, height: usize) -> Result<BlockHash, HeaderError> {
        let parent = self.headers[height];
        let header = child(&parent, parent.time + 601, LIMIT);
        self.check(&header, UnixTime::MAX).map(|_| header.hash())
    }
}

#[test]
fn the_time_is_later_than_the_median_and_not_too_late() {
    for count in [0, 1, 2, 9, 10, 11, 30] {
        let mined = Mined::new(Network::BTC_REGTEST, count);
        let mut times: Vec<u32> = mined.headers.iter().rev().take(11).map(|header| header.time).collect();
        times.sort_unstable();
        let median = times[times.len() / 2];
        assert_eq!(mined.tree.median_time(mined.tip().hash()), Some(median));
        let at = |time| child(&mined.tip(), time, LIMIT);
        let (early, good) = (at(median), at(median + 1));
        let refused = HeaderError::TimeTooOld { hash: early.hash(), time: median, median };
        assert_eq!(mined.check(&early, UnixTime::MAX), Err(refused));
        let facts = mined.check(&good, UnixTime::MAX).unwrap();
        assert_eq!((facts.time, facts.bits, facts.work), (median + 1, LIMIT.0, good.work()));
        let time = mined.tip().time + 100_000;
        let late = at(time);
        let now = UnixTime::from_secs(u64::from(time) - 7200);
        assert!(mined.check(&late, now).is_ok());
        let earlier = now.before(Duration::from_millis(1));
        let refused = HeaderError::TimeTooNew { hash: late.hash(), time, now: earlier.as_secs() };
        assert_eq!(mined.check(&late, earlier), Err(refused));
    }
}

#[test]
fn the_target_is_the_one_that_is_due() {
    let mined = Mined::new(Network::BTC_REGTEST, 3);
    let bits = CompactTarget(0x207f_fffe);
    let header = child(&mined.tip(), mined.tip().time + 1, bits);
    let refused = mined.check(&header, UnixTime::MAX).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("header {} at height 4 claims target 207ffffe, where 207fffff is due", header.hash())
    );
    let easier = network(|network| network.pow_limit = CompactTarget(0x2100_ffff));
    let tree = Mined::new(easier, 0);
    let header = child(&tree.tip(), tree.tip().time + 1, CompactTarget(0x2100_ffff));
    let refused = tree.check(&header, UnixTime::MAX);
    assert!(matches!(refused, Err(HeaderError::Difficulty { height: 1, .. })), "{refused:?}");
}

#[test]
fn a_header_is_checked_against_its_parent_and_no_other() {
    let mined = Mined::new(Network::BTC_REGTEST, 3);
    let header = child(&mined.tip(), mined.tip().time + 1, LIMIT);
    let other = mined.tree.branch(mined.headers[2].hash()).unwrap();
    let refused = mined.rules.check(&header.into(), &other, UnixTime::MAX);
    assert_eq!(refused, Err(HeaderError::NotLinked { hash: header.hash() }));
}

#[test]
fn a_checkpoint_is_the_block_at_its_height_and_closes_the_past() {
    let plain = Mined::new(Network::BTC_REGTEST, 8);
    let expected = plain.headers[5].hash();
    let checkpoints = &*Box::leak(Box::new([(5, expected), (8, plain.headers[8].hash())]));
    let network = network(|network| network.checkpoints = checkpoints);
    let mut mined = Mined::new(network, 4);
    assert!(mined.fork(2).is_ok(), "nothing is known of it yet");
    let header = child(&mined.tip(), mined.tip().time + 601, LIMIT);
    let refused = HeaderError::Checkpoint { hash: header.hash(), height: 5, expected };
    assert_eq!(mined.check(&header, UnixTime::MAX), Err(refused));
    mined.extend();
    let refused = mined.fork(3).unwrap_err();
    assert!(matches!(refused, HeaderError::BelowCheckpoint { height: 4, checkpoint: 5, .. }), "{refused}");
    mined.extend();
    assert!(mined.fork(5).is_ok(), "above it");
    mined.extend();
    mined.extend();
    let refused = mined.fork(5).unwrap_err();
    assert!(matches!(refused, HeaderError::BelowCheckpoint { height: 6, checkpoint: 8, .. }), "{refused}");
    assert!(mined.fork(8).is_ok());
}

/// Under BIP 94 the first header of a period may be ten minutes before its parent, and no more.
#[test]
fn a_period_does_not_begin_in_the_past() {
    for bip94 in [true, false] {
        let network =
            network(|network| network.difficulty = Difficulty::Retarget { easy_when_late: true, bip94 });
        let mut mined = Mined::new(network, 2015);
        let (parent, time) = (mined.tip(), mined.tip().time);
        let branch = mined.tree.branch(parent.hash()).unwrap();
        let due = difficulty::required(network, &branch, &branch.tip(), time).unwrap();
        let (at_once, earlier) = (child(&parent, time - 600, due), child(&parent, time - 601, due));
        assert!(mined.check(&at_once, UnixTime::MAX).is_ok());
        let warp = HeaderError::TimeWarp { hash: earlier.hash(), time: time - 601, parent: time };
        assert_eq!(mined.check(&earlier, UnixTime::MAX).err(), bip94.then_some(warp));
        mined.headers.pop();
        let earlier = child(&mined.tip(), mined.tip().time - 601, LIMIT);
        assert!(mined.check(&earlier, UnixTime::MAX).is_ok(), "within a period");
    }
}
