//! Rules one by one, on chains made up for them.

use super::*;
use crate::HeaderNode;

/// A chain of which only heights, times, bits and work are made up; no hashes, no proof of work.
struct Line {
    base: u64,
    nodes: Vec<HeaderNode>,
}

impl Line {
    fn new(height: u64, time: u32, bits: u32) -> Self {
        let mut line = Self { base: height, nodes: Vec::new() };
        line.push(time, bits);
        line
    }

    fn push(&mut self, time: u32, bits: u32) {
        let own = CompactTarget(bits).to_target().unwrap().work();
        let work = self.nodes.last().map_or(own, |last| last.work + own);
        let id = BlockId { height: self.base + self.nodes.len() as u64, hash: BlockHash::ZERO };
        self.nodes.push(HeaderNode { id, work, time, bits });
    }

    fn push_after(&mut self, seconds: i64, bits: u32) {
        let time = i64::from(self.tip().time) + seconds;
        self.push(u32::try_from(time).unwrap(), bits);
    }

    /// What a child has to claim that comes so many seconds later.
    fn required(&self, network: &Network, seconds: u32) -> u32 {
        difficulty::required(network, self, &self.tip(), self.tip().time + seconds).unwrap().0
    }
}

impl Branch for Line {
    fn tip(&self) -> HeaderNode {
        *self.nodes.last().unwrap()
    }

    fn at(&self, height: u64) -> Option<HeaderNode> {
        self.nodes.get(usize::try_from(height.checked_sub(self.base)?).ok()?).copied()
    }

    fn knows(&self, _: BlockHash) -> bool {
        false
    }
}

/// Bitcoin Core, `pow_tests.cpp`.
#[test]
fn retargets_as_bitcoin_core_computes_them() {
    for (last, first_time, time, bits, required) in [
        (32_255, 1_261_130_161, 1_262_152_739, 0x1d00_ffff, 0x1d00_d86a),
        (2015, 1_231_006_505, 1_233_061_996, 0x1d00_ffff, 0x1d00_ffff),
        (68_543, 1_279_008_237, 1_279_297_671, 0x1c05_a3f4, 0x1c01_68fd),
        (46_367, 1_263_163_443, 1_269_211_443, 0x1c38_7f6f, 0x1d00_e1fd),
    ] {
        let mut line = Line::new(last - 2015, first_time, bits);
        (0..2014).for_each(|_| line.push(first_time, bits));
        line.push(time, bits);
        for network in [Network::BTC, Network::BSV, Network::BTC_TESTNET3, Network::BTC_TESTNET4] {
            assert_eq!(line.required(network, 600), required, "{} {last}", network.name);
        }
        assert_eq!(line.required(Network::BTC_REGTEST, 600), bits);
        line.nodes.pop();
        assert_eq!(line.required(Network::BTC, 600), bits, "not yet");
        let mut short = Line { base: line.base + 1, nodes: line.nodes.split_off(1) };
        short.push(time, bits);
        let refused = difficulty::required(Network::BTC, &short, &short.tip(), time);
        assert_eq!(refused, Err(HeaderError::NoPast { height: last - 2015 }));
    }
}

#[test]
fn a_late_block_of_a_test_network_may_be_easy_and_those_after_it_not() {
    const REAL: u32 = 0x1c05_a3f4;
    const EASY: u32 = 0x1d00_ffff;
    for network in [Network::BTC_TESTNET3, Network::BTC_TESTNET4, Network::BSV_TESTNET] {
        let mut line = Line::new(2016, 1_300_000_000, REAL);
        assert_eq!((line.required(network, 1200), line.required(network, 1201)), (REAL, EASY));
        for _ in 0..30 {
            line.push_after(1201, EASY);
            assert_eq!((line.required(network, 1200), line.required(network, 1201)), (REAL, EASY));
        }
        // The last header of the period before does not count.
        let mut line = Line::new(2015, 1_300_000_000, REAL);
        line.push_after(600, EASY);
        line.push_after(600, EASY);
        assert_eq!(line.required(network, 600), EASY);
    }
    for network in [Network::BTC, Network::BTC_SIGNET, Network::BSV, Network::BSV_STN] {
        assert_eq!(Line::new(2016, 1_300_000_000, EASY).required(network, 100_000), EASY);
        let mut line = Line::new(0, 1_300_000_000, REAL);
        (0..20).for_each(|_| line.push_after(600, REAL));
        assert_eq!(line.required(network, 100_000), REAL, "{}", network.name);
    }
}

/// An easy block at the end of a period makes the next one easy, on testnet3; BIP 94 mends that.
#[test]
fn bip_94_retargets_from_the_first_of_the_period() {
    let mut line = Line::new(2016, 1_300_000_000, 0x1c05_a3f4);
    (0..2014).for_each(|_| line.push_after(600, 0x1c05_a3f4));
    line.push_after(1800, 0x1d00_ffff);
    let took = 2014 * 600 + 1800;
    assert_eq!(line.tip().time - line.nodes[0].time, took);
    let scaled = |bits| CompactTarget(bits).to_target().unwrap().scaled(took, 1_209_600).to_compact().0;
    assert_eq!(line.required(Network::BTC_TESTNET4, 600), scaled(0x1c05_a3f4));
    assert_eq!(line.required(Network::BTC_TESTNET3, 600), 0x1d00_ffff);
    assert_eq!(line.required(Network::BTC_TESTNET4, 6000), scaled(0x1c05_a3f4), "late or not");
}

#[test]
fn six_slow_blocks_ease_the_target_by_a_quarter() {
    // 0x0404cb * 5 / 4 = 0x0505fd.
    const BITS: u32 = 0x1b04_04cb;
    let slow = |gap: i64, last: i64, bits: u32| {
        let mut line = Line::new(2016, 1_500_000_000, bits);
        (0..20).for_each(|_| line.push_after(600, bits));
        (0..12).for_each(|_| line.push_after(gap, bits));
        line.push_after(last, bits);
        line.required(Network::BSV, 600)
    };
    assert_eq!(slow(7200, 7200, BITS), 0x1b05_05fd, "twelve hours between the medians");
    assert_eq!(slow(7199, 7200, BITS), BITS, "six seconds less");
    assert_eq!(slow(7200, 7200, 0x1d00_ffff), 0x1d00_ffff);
    assert_eq!(slow(7200, 7200, 0x1d00_f000), 0x1d00_ffff, "limited");
    // Only BSV had that.
    let mut line = Line::new(2016, 1_500_000_000, BITS);
    (0..30).for_each(|_| line.push_after(7200, BITS));
    assert_eq!(line.required(Network::BTC, 600), BITS);
    assert_eq!(line.required(Network::BSV, 600), 0x1b05_05fd);
    assert_eq!(line.required(Network::BSV_STN, 600), 0x1b05_05fd);
}

/// The values of Bitcoin ABC's `cash_difficulty_test`, from which BSV has its rule.
#[test]
fn the_daa_as_its_authors_computed_it() {
    let network = &Network {
        difficulty: Difficulty::Daa { height: 2017, easy_when_late: false },
        ..Network::BSV.clone()
    };
    let mut bits = 0x1c0f_ffff;
    let mut line = Line::new(0, 1_269_211_443, bits);
    (1..2050).for_each(|_| line.push_after(600, bits));
    assert_eq!(line.required(network, 600), bits);
    let mut push = |seconds: i64, bits: u32| {
        line.push_after(seconds, bits);
        line.required(network, 100_000)
    };
    (0..10).for_each(|_| assert_eq!(push(600, bits), bits));
    // A time far off and one that makes up for it have no effect.
    assert_eq!(push(6000, bits), bits);
    assert_eq!(push(2 * 600 - 6000, bits), bits);
    (0..20).for_each(|_| assert_eq!(push(600, bits), bits));
    assert_eq!(push(550, bits), bits, "the first of the faster ones");
    (0..10).for_each(|_| bits = push(550, bits));
    assert_eq!(bits, 0x1c0f_e7b1);
    (0..20).for_each(|_| bits = push(10, bits));
    assert_eq!(bits, 0x1c0d_b19f);
    bits = push(6000, bits);
    assert_eq!(bits, 0x1c0d_9222);
    (0..93).for_each(|_| bits = push(6000, bits));
    assert_eq!(bits, 0x1c2f_13b9);
    // The fast blocks leave the window, and the time is bounded: a harder target.
    bits = push(6000, bits);
    assert_eq!(bits, 0x1c2e_e9bf);
    (0..192).for_each(|_| bits = push(6000, bits));
    assert_eq!(bits, 0x1d00_ffff);
    (0..5).for_each(|_| assert_eq!(push(6000, 0x1d00_ffff), 0x1d00_ffff));
}

#[test]
fn the_daa_begins_with_the_child_of_its_height() {
    let network = |easy_when_late| {
        &*Box::leak(Box::new(Network {
            difficulty: Difficulty::Daa { height: 3000, easy_when_late },
            ..Network::BSV.clone()
        }))
    };
    let mut line = Line::new(2016, 1_500_000_000, 0x1c05_a3f4);
    (0..983).for_each(|_| line.push_after(200, 0x1c05_a3f4));
    assert_eq!((line.tip().id.height, line.required(network(false), 200)), (2999, 0x1c05_a3f4));
    line.push_after(200, 0x1c05_a3f4);
    let harder = line.required(network(false), 200);
    assert!((0x1c02_d000..0x1c02_d400).contains(&harder), "half of it, and no more than half: {harder:08x}");
    assert_eq!(line.required(network(true), 1200), harder);
    assert_eq!(
        (line.required(network(true), 1201), line.required(network(false), 1201)),
        (0x1d00_ffff, harder)
    );
}

/// Of blocks with equal times, which one is in the middle depends on the order of the exchanges.
#[test]
fn the_middle_one_of_three_blocks() {
    let network =
        &Network { difficulty: Difficulty::Daa { height: 0, easy_when_late: false }, ..Network::BSV.clone() };
    for (times, middle) in [
        ([1, 2, 3], 1),
        ([1, 3, 2], 2),
        ([3, 1, 2], 2),
        ([3, 2, 1], 1),
        ([2, 1, 1], 1),
        ([1, 1, 2], 1),
        ([1, 2, 1], 2),
        ([1, 2, 2], 1),
        ([2, 1, 2], 0),
        ([2, 2, 1], 1),
        ([1, 1, 1], 1),
    ] {
        let mut line = Line::new(0, 1_500_000_000, 0x1c05_a3f4);
        (0..200).for_each(|_| line.push_after(600, 0x1c05_a3f4));
        let before = line.tip().time;
        times.iter().for_each(|seconds| line.push(before + seconds * 100, 0x1c05_a3f4));
        let (first, last) = (line.nodes[203 - 144 - 1], line.nodes[201 + middle]);
        let work = last.work.checked_sub(first.work).unwrap().scaled(600, last.time - first.time);
        assert_eq!(line.required(network, 600), work.to_target().to_compact().0, "{times:?}");
    }
}

proptest! {
    /// What a checkpoint must bring is enough for every header after it, and not one too many.
    #[test]
    fn the_past_that_is_asked_for_is_what_it_takes(height in 2016_u64..9000, rule in 0_usize..4, seed in any::<u32>()) {
        let difficulty = [
            Difficulty::Fixed,
            Difficulty::Retarget { easy_when_late: seed % 2 == 0, bip94: seed % 4 < 2 },
            Difficulty::Daa { height: height.saturating_sub(1), easy_when_late: seed % 2 == 0 },
            Difficulty::Daa { height: height + 1 + u64::from(seed % 300), easy_when_late: seed % 2 == 0 },
        ][rule];
        let network = &Network { difficulty, ..Network::BSV.clone() };
        let past = difficulty::past(network, height);
        // Whether a chain that begins there lacks something for one of the headers after `height`.
        let lacks = |base: u64| {
            let mut line = Line::new(base, 1_500_000_000, 0x1c05_a3f4);
            while line.tip().id.height < height {
                line.push_after(600, 0x1c05_a3f4);
            }
            (0..2400).any(|_| {
                let time = line.tip().time + 600;
                let is_missing = difficulty::required(network, &line, &line.tip(), time).is_err()
                    || line.median_time(line.tip().id.height).is_none();
                line.push_after(600, 0x1c05_a3f4);
                is_missing
            })
        };
        prop_assert!(past <= height && !lacks(past));
        // Before the DAA, what it will take is asked for wherever it begins.
        prop_assert!(lacks(past + 1) || rule == 3);
    }
}
