//! Chains of a million headers that follow a main network's rules, but for how hard they are.

use tipward_chain::{
    BlockTree, Coin, HeaderError,
    sync::peer::{
        UnixTime,
        wire::{
            Header,
            bitcoin::{BlockHeader, CompactTarget, Difficulty, Network, Work},
        },
    },
};

/// A network with the rules of another, whose blocks take a hash or two.
pub(crate) fn easy(of: &'static Network) -> &'static Network {
    let difficulty = match of.difficulty {
        Difficulty::Daa { .. } => Difficulty::Daa { height: 2016, easy_when_late: false },
        other => other,
    };
    Box::leak(Box::new(Network {
        name: "bench",
        genesis_header: Network::BTC_REGTEST.genesis_header,
        pow_limit: CompactTarget(0x207f_ffff),
        chain_block: None,
        checkpoints: &[],
        min_work: Work::ZERO,
        difficulty,
        ..of.clone()
    }))
}

/// A regression test network that began in 2001: ten minutes for each of a million blocks are not over yet in others.
pub(crate) fn early() -> &'static Network {
    let mut genesis = BlockHeader { time: 1_000_000_000, ..Network::BTC_REGTEST.genesis() };
    while !genesis.meets_target(genesis.bits) {
        genesis.nonce += 1;
    }
    let genesis_header = genesis.to_bytes();
    Box::leak(Box::new(Network { name: "bench", genesis_header, ..Network::BTC_REGTEST.clone() }))
}

/// So many headers on top of genesis, as they travel, with the targets that are due.
pub(crate) fn mine(network: &'static Network, count: usize) -> Vec<[u8; BlockHeader::SIZE]> {
    let rules = network.rules();
    let genesis = network.genesis_header();
    let mut tree = BlockTree::new(&genesis, rules.read(&genesis).expect("genesis is a header"));
    let mut random = fastrand::Rng::with_seed(1);
    let mut header = BlockHeader { merkle_root: [7; 32], ..network.genesis() };
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        // Blocks come too early while they are easy and too late when they are not, so targets vary and stay easy.
        let is_hard = header.work() > hashes(60);
        let took = random.u32(if is_hard { 1..1400 } else { 1..1000 });
        header = BlockHeader { parent: tree.tip().hash, time: header.time + took, ..header };
        loop {
            while !header.meets_target(network.pow_limit) {
                header.nonce = header.nonce.wrapping_add(1);
            }
            let next = Header::from(header);
            let branch = tree.branch(next.parent).expect("the tip is in the tree");
            match rules.check(&next, &branch, UnixTime::MAX) {
                Ok(facts) => {
                    tree.insert(&next, facts);
                    break;
                }
                // The rules know best what is due.
                Err(HeaderError::Difficulty { required, .. }) => {
                    header.bits = CompactTarget(u32::from_str_radix(&required, 16).expect("bits in hex"));
                }
                Err(error) => panic!("{error}"),
            }
        }
        headers.push(header.to_bytes());
    }
    headers
}

/// How many hashes the last header stands for, and how many different targets there are.
pub(crate) fn describe(headers: &[[u8; BlockHeader::SIZE]]) -> String {
    let bits = headers.iter().map(|raw| BlockHeader::from_bytes(raw).bits.0);
    let kinds: std::collections::BTreeSet<u32> = bits.collect();
    format!("{} headers, {} different targets", headers.len(), kinds.len())
}

fn hashes(count: u8) -> Work {
    let mut work = [0; 32];
    work[31] = count;
    Work::from_be_bytes(work)
}
