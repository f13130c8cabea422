//! Real headers under the full rules.

use std::collections::BTreeMap;

use tipward_sync::peer::wire::bitcoin::Work;

use super::*;
use crate::{Checkpoint, HeaderNode, testdata};

/// 2025: later than all headers there are.
const NOW: UnixTime = UnixTime::from_secs(1_760_000_000);

/// A chain that takes headers one by one.
struct Taker {
    tree: BlockTree,
    rules: Box<dyn HeaderRules>,
}

impl Taker {
    fn new(network: &'static Network) -> Self {
        let (rules, genesis) = (network.rules(), network.genesis_header());
        Self { tree: BlockTree::new(&genesis, rules.read(&genesis).unwrap()), rules }
    }

    /// Starts with as few headers as will do. Returns the others.
    fn above<'a>(
        network: &'static Network,
        height: u64,
        work: Work,
        headers: &'a [BlockHeader],
    ) -> (Self, &'a [BlockHeader]) {
        let rules = network.rules();
        let last = (0..headers.len()).find(|&at| rules.past(height + at as u64) >= height && at > 0).unwrap();
        let (start, rest) = headers.split_at(last + 1);
        let checkpoint = Checkpoint {
            height: height + last as u64,
            work: work + start[1..].iter().map(BlockHeader::work).sum(),
            headers: start.iter().copied().map(Header::from).collect(),
        };
        (Self { tree: checkpoint.tree(&*rules).unwrap(), rules }, rest)
    }

    fn check(&self, header: &BlockHeader) -> Result<crate::HeaderFacts, HeaderError> {
        let branch = self.tree.branch(header.parent).expect("the parent is there");
        self.rules.check(&(*header).into(), &branch, NOW)
    }

    fn take(&mut self, header: &BlockHeader) -> Option<tipward_sync::Update> {
        let facts = self.check(header).unwrap_or_else(|error| panic!("{:?}: {error}", self.tree.tip()));
        self.tree.insert(&(*header).into(), facts)
    }

    /// Takes all, and looks at what becomes of every 97th with a bit flipped.
    fn take_all(&mut self, network: &Network, headers: &[BlockHeader]) {
        for (at, header) in headers.iter().enumerate() {
            if at % 97 == 0 {
                (0..640).for_each(|bit| self.refuses(network, header, bit));
            }
            assert!(self.take(header).is_some());
        }
    }

    fn refuses(&self, network: &Network, header: &BlockHeader, bit: usize) {
        let mut raw = header.to_bytes();
        raw[bit / 8] ^= 1 << (bit % 8);
        let flipped = BlockHeader::from_bytes(&raw);
        let branch = self.tree.branch(header.parent).expect("the parent is there");
        let error = self.rules.check(&flipped.into(), &branch, NOW).unwrap_err();
        let (hash, bits) = (flipped.hash(), flipped.bits.to_string());
        let expected = match flipped.bits.to_target_within(network.pow_limit) {
            None => HeaderError::Target { hash, bits },
            Some(_) => HeaderError::ProofOfWork { hash, bits },
        };
        assert_eq!(error, expected, "bit {bit}");
    }
}

/// Total work by height.
fn works() -> Option<BTreeMap<u64, Work>> {
    let text = String::from_utf8(testdata::read("btc-mainnet-chainwork.csv")?).unwrap();
    let work = |line: &str| {
        let (height, work) = line.split_once(',').unwrap();
        let digits: BlockHash = work.parse().unwrap();
        let mut bytes = *digits.as_bytes();
        bytes.reverse();
        (height.parse().unwrap(), Work::from_be_bytes(bytes))
    };
    Some(text.lines().skip(1).map(work).collect())
}

/// Compares total work where the list has it. Returns how often.
fn compare_works(tree: &BlockTree, works: &BTreeMap<u64, Work>) -> usize {
    let there = works.range(tree.root().height..=tree.tip().height);
    there
        .map(|(&height, &work)| assert_eq!(tree.work(tree.best_at(height).unwrap()), Some(work), "{height}"))
        .count()
}

#[test]
fn the_first_headers_of_btc() {
    let Some(headers) = testdata::headers("btc-mainnet-headers-0-10236.bin") else { return };
    let Some(works) = works() else { return };
    for network in [Network::BTC, Network::BSV] {
        let mut taker = Taker::new(network);
        taker.take_all(network, &headers[1..]);
        assert_eq!(taker.tree.tip().height, 10_236);
        assert_eq!(compare_works(&taker.tree, &works), 11);
    }
}

#[test]
fn the_first_headers_of_signet() {
    let Some(headers) = testdata::headers("btc-signet-headers-0-2015.bin") else { return };
    let mut taker = Taker::new(Network::BTC_SIGNET);
    taker.take_all(Network::BTC_SIGNET, &headers[1..]);
    assert_eq!(taker.tree.tip().height, 2015);
}

/// Of the two headers that once competed with the run, the second is the run's own.
fn stale(headers: &[BlockHeader]) -> Option<BlockHeader> {
    let [stale, own] = testdata::headers("btc-mainnet-stale-headers-823226-829613.bin")?.try_into().unwrap();
    assert!(headers.contains(&own) && !headers.contains(&stale));
    Some(stale)
}

#[test]
fn btc_over_four_retargets_and_a_stale_header() {
    let Some(headers) = testdata::headers("btc-mainnet-headers-822528-830592.bin") else { return };
    let (Some(stale), Some(works)) = (stale(&headers), works()) else { return };
    let (mut taker, rest) = Taker::above(Network::BTC, 822_528, works[&822_528], &headers);
    assert_eq!(taker.tree.tip().height, 822_538, "ten more than the period's first, for the median");
    // Up to the checkpoint, which closes the past.
    let (last, rest) = rest.split_last().unwrap();
    taker.take_all(Network::BTC, rest);
    let tip = taker.tree.tip();
    assert_eq!(taker.take(&stale), None, "no reorg");
    assert_eq!(taker.tree.get(stale.hash()).unwrap().height, 823_226);
    assert_eq!(taker.tree.fork_point(stale.hash()).unwrap().height, 823_225);
    assert_eq!((taker.tree.tip(), taker.tree.side_headers()), (tip, 1));
    assert!(taker.tree.tips().iter().map(|id| id.hash).eq([tip.hash, stale.hash()]));
    taker.take_all(Network::BTC, std::slice::from_ref(last));
    assert_eq!(compare_works(&taker.tree, &works), 9);
    let refused = HeaderError::BelowCheckpoint { hash: stale.hash(), height: 823_226, checkpoint: 830_592 };
    assert_eq!(taker.check(&stale), Err(refused));
}

#[test]
fn a_stale_header_seen_first_is_best_until_the_other_has_a_child() {
    let Some(headers) = testdata::headers("btc-mainnet-headers-822528-830592.bin") else { return };
    let Some(stale) = stale(&headers) else { return };
    let (mut taker, rest) = Taker::above(Network::BTC, 822_528, headers[0].work(), &headers);
    let at = rest.iter().position(|header| header.parent == stale.parent).unwrap();
    rest[..at].iter().for_each(|header| drop(taker.take(header)));
    assert!(taker.take(&stale).is_some());
    assert_eq!(taker.take(&rest[at]), None);
    let update = taker.take(&rest[at + 1]).unwrap();
    assert_eq!((update.keep, update.append), (823_226, vec![rest[at].hash(), rest[at + 1].hash()]));
}

#[test]
fn bsv_under_the_daa() {
    let Some(headers) = testdata::headers("bsv-mainnet-headers-886001-888000.bin") else { return };
    let (mut taker, rest) = Taker::above(Network::BSV, 886_001, headers[0].work(), &headers);
    assert_eq!(taker.tree.tip().height, 886_147);
    taker.take_all(Network::BSV, rest);
    let tip = taker.tree.tip();
    assert_eq!((tip.height, Network::BSV.checkpoints.last()), (888_000, Some(&(tip.height, tip.hash))));
}

/// Both sides of every retarget, and nothing between.
struct Sides {
    nodes: BTreeMap<u64, HeaderNode>,
    tip: u64,
}

impl Branch for Sides {
    fn tip(&self) -> HeaderNode {
        self.nodes[&self.tip]
    }

    fn at(&self, height: u64) -> Option<HeaderNode> {
        self.nodes.get(&height).copied()
    }

    fn knows(&self, _: BlockHash) -> bool {
        false
    }
}

#[test]
fn all_retargets_of_btc() {
    let Some(file) = testdata::read("btc-mainnet-headers-at-retargets.bin") else { return };
    let Some(works) = works() else { return };
    let headers = file.as_chunks::<84>().0.iter().map(|entry| {
        let (height, header) = entry.split_first_chunk::<4>().unwrap();
        let header = BlockHeader::from_bytes(header.try_into().unwrap());
        assert!(header.meets_target(Network::BTC.pow_limit));
        (u64::from(u32::from_le_bytes(*height)), header)
    });
    let headers: BTreeMap<u64, BlockHeader> = headers.collect();
    let node = |(&height, header): (&u64, &BlockHeader)| {
        let id = BlockId { height, hash: header.hash() };
        (height, HeaderNode { id, work: works[&height], time: header.time, bits: header.bits.0 })
    };
    let mut sides = Sides { nodes: headers.iter().map(node).collect(), tip: 0 };
    let mut retargets = 0;
    for (&height, header) in headers.iter().filter(|(height, _)| **height > 0 && **height % 2016 == 0) {
        sides.tip = height - 1;
        assert_eq!(sides.tip().id.hash, header.parent);
        let required = |network| difficulty::required(network, &sides, &sides.tip(), header.time);
        assert_eq!(required(Network::BTC), Ok(header.bits), "{height}");
        if height < 478_559 {
            assert_eq!(required(Network::BSV), Ok(header.bits), "{height}, the past of both");
        }
        // One target for a whole period.
        let period = (0..2015).map(|_| headers[&(height - 1)].work()).sum();
        assert_eq!(works[&(height - 2016)] + period, works[&(height - 1)]);
        assert_eq!(works[&(height - 1)] + header.work(), works[&height]);
        retargets += 1;
    }
    assert_eq!(retargets, 413);
    for (network, known) in [(Network::BTC, 4), (Network::BSV, 2)] {
        let there = network
            .checkpoints
            .iter()
            .filter(|(at, hash)| headers.get(at).is_some_and(|header| header.hash() == *hash));
        assert_eq!(there.count(), known, "checkpoints of {}", network.name);
    }
    assert_eq!(works[&830_592], Network::BTC.min_work);
}
