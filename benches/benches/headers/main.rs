//! A million headers: validated in memory, synced into a store and loaded from it:
//! `cargo bench -p tipward-benches --bench headers [-- rules|store]`.
//!
//! `TIPWARD_BENCH_ROUNDS` sets how often each row is measured, 5 unless set; `TIPWARD_BENCH_HEADERS` how many headers there
//! are, 1,000,000 unless set.

use std::{hint::black_box, time::Instant};

use bitcoin::consensus::deserialize;
use tipward_benches::{median, number, rounds};
use tipward_chain::{
    BlockTree, Coin,
    sync::peer::{
        UnixTime,
        wire::bitcoin::{BlockHeader, Network, to_headers},
    },
};

mod chains;
mod store;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve"] => store::serve(),
        ["rules"] => rules(),
        ["store"] => store::measure(),
        _ => {
            rules();
            store::measure();
        }
    }
}

/// Headers as they travel.
type Raw = Vec<[u8; BlockHeader::SIZE]>;

/// One thread, from 80 bytes to a place in the tree.
fn rules() {
    let count = count();
    let btc = chains::easy(Network::BTC);
    let bsv = chains::easy(Network::BSV);
    let (btc_headers, bsv_headers) = (chains::mine(btc, count), chains::mine(bsv, count));
    println!("headers validated in memory by one thread, medians of {} rounds", rounds());
    println!("  BTC: {}; BSV: {}", chains::describe(&btc_headers), chains::describe(&bsv_headers));
    let rows: [(&str, &dyn Fn() -> u64); 3] = [
        ("BTC rules, into the tree", &|| into_tree(btc, &btc_headers)),
        ("`bitcoin`: decode, link, validate_pow", &|| opponent(&btc_headers)),
        ("BSV rules (DAA), into the tree", &|| into_tree(bsv, &bsv_headers)),
    ];
    let mut seconds = vec![Vec::new(); rows.len()];
    for _ in 0..rounds() {
        for ((_, run), seconds) in rows.iter().zip(&mut seconds) {
            let begun = Instant::now();
            assert_eq!(black_box(run()), count as u64);
            seconds.push(begun.elapsed().as_secs_f64());
        }
    }
    println!("  {:40} M headers/s   of `bitcoin`", "");
    for ((name, _), own) in rows.iter().zip(&seconds) {
        let ratio = median(own.iter().zip(&seconds[1]).map(|(own, other)| other / own));
        let rate = count as f64 / median(own.iter().copied()) / 1e6;
        println!("  {name:40} {rate:11.2}   {:10.0} %", 100.0 * ratio);
    }
}

/// Decodes, hashes and checks all of them by all rules; returns the height of the tip.
fn into_tree(network: &'static Network, raw: &Raw) -> u64 {
    let rules = network.rules();
    let genesis = network.genesis_header();
    let mut tree = BlockTree::new(&genesis, rules.read(&genesis).expect("genesis is a header"));
    // As they come in messages.
    for raw in raw.chunks(2000) {
        let headers: Vec<BlockHeader> = raw.iter().map(BlockHeader::from_bytes).collect();
        tree.extend(&to_headers(&headers), &*rules, UnixTime::MAX).expect("they are valid");
    }
    tree.tip().height
}

/// Decodes and hashes all of them, and checks their links and work against the target that each claims.
fn opponent(raw: &Raw) -> u64 {
    let mut headers: Vec<bitcoin::block::Header> = Vec::new();
    let mut last = None;
    for raw in raw {
        let header: bitcoin::block::Header = deserialize(raw).expect("80 bytes are a header");
        assert!(last.is_none_or(|last| header.prev_blockhash == last), "they are linked");
        last = Some(header.validate_pow(header.target()).expect("they have work"));
        headers.push(header);
    }
    headers.len() as u64
}

fn count() -> usize {
    number("TIPWARD_BENCH_HEADERS", 1_000_000) as usize
}
