use tipward_simnet::{Behaviour, ChainSpec, SimNode};
use tipward_sync::{
    Event,
    peer::{PeerId, wire::bitcoin::Work},
};

use super::*;
use crate::{Node, headers::presync::AHEAD};

/// As many headers as fit into a message.
const BATCH: usize = 2000;

/// A regression test network that is known to have the work of so many headers, and genesis.
fn known_to_have(headers: u64) -> &'static Network {
    let mut work = [0; 32];
    work[24..].copy_from_slice(&(2 * (headers + 1)).to_be_bytes());
    let min_work = Work::from_be_bytes(work);
    Box::leak(Box::new(Network { min_work, ..Network::BTC_REGTEST.clone() }))
}

fn open(dir: &tempfile::TempDir, network: &'static Network) -> HeaderChain {
    HeaderChain::open(&dir.path().join("headers.redb"), &network, None).unwrap()
}

/// What a peer with these headers answers to a locator.
fn answer<'a>(headers: &'a [Header], locator: &[BlockHash]) -> &'a [Header] {
    let after = |hash| headers.iter().position(|header| header.hash == hash).map_or(0, |at| at + 1);
    let start = after(locator[0]);
    &headers[start..headers.len().min(start + BATCH)]
}

/// Asks a peer, by turns of these, until it has no more.
fn ask(chain: &mut HeaderChain, headers: &[Header], mut each: impl FnMut(&HeaderChain, usize)) {
    let mut from = chain.tip().hash;
    for turn in 1.. {
        let answer = answer(headers, &chain.locator(from));
        let Some(last) = chain.accept(answer).unwrap().last else { return };
        from = last;
        assert_eq!(chain.find(last).map(|last| last.hash), Some(last));
        each(chain, turn);
    }
}

#[test]
fn what_has_enough_work_is_let_in_when_it_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let network = known_to_have(18_000);
    let headers = run(network.genesis_hash(), 20_500, 1);
    let mut chain = open(&dir, network);
    let mut heights = Vec::new();
    ask(&mut chain, &headers, |chain, _| heights.push(chain.tip().height as usize));
    // Nine answers have the work. The same nine come again; what is let in of them stays behind by what has to agree first, until
    // they have the work again.
    assert_eq!(heights[..9], [0; 9]);
    let second: Vec<usize> = (1..9).map(|turn| (turn * BATCH).saturating_sub(AHEAD)).collect();
    assert_eq!(heights[9..], [&second[..], &[18_000, 20_000, 20_500]].concat());
    drop(chain);
    // What is there need not be shown again, nor what has the work together with that.
    let mut chain = open(&dir, network);
    assert_eq!(chain.tip().height, 20_500);
    let more = run(chain.tip().hash, 3, 30_000);
    assert_eq!(chain.accept(&more).unwrap().update.unwrap().append.len(), 3);
}

#[test]
fn another_chain_at_the_second_look_is_found_out_before_any_of_it_is_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let network = known_to_have(20_000);
    let shown = run(network.genesis_hash(), 20_000, 1);
    let other = run(network.genesis_hash(), 20_000, 30_000);
    let mut chain = open(&dir, network);
    for answer in shown.chunks(BATCH) {
        chain.accept(answer).unwrap();
    }
    let refused = other.chunks(BATCH).find_map(|answer| chain.accept(answer).err()).unwrap().to_string();
    assert!(refused.ends_with("is not of the chain whose work was shown before"), "{refused}");
    assert_eq!(chain.tree().len(), 1);
    // That was not the fault of the first one.
    ask(&mut chain, &shown, |_, _| {});
    assert_eq!(chain.tip().hash, shown[19_999].hash);
}

#[test]
fn easy_headers_take_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let network = known_to_have(18_000);
    let mut chain = open(&dir, network);
    for seed in 0..20 {
        let easy = run(network.genesis_hash(), 2 * BATCH, 10_000 * seed);
        let peer = PeerId(u64::from(seed) % 5);
        let shown = chain.accept_from(peer, &easy[..BATCH]).unwrap();
        // Who begins anew has nothing new to show, or could do so for ever.
        assert_eq!((shown.added, shown.update), (if seed < 5 { BATCH } else { 0 }, None));
        assert_eq!(chain.accept_from(peer, &easy[BATCH..]).unwrap().update, None);
    }
    assert_eq!(chain.tree().len(), 1);
    assert_eq!(chain.presync.as_ref().unwrap().len(), 5, "one of each peer");
    let first = run(network.genesis_hash(), 1, 1);
    (0..100).for_each(|peer| drop(chain.accept_from(PeerId(peer), &first).unwrap()));
    assert_eq!(chain.presync.as_ref().unwrap().len(), 64);
    (0..100).for_each(|peer| chain.lost(PeerId(peer)));
    assert_eq!(chain.presync.as_ref().unwrap().len(), 0);
    // One without work is none, now as ever.
    let mut lazy = mined(network.genesis_hash(), 9);
    while lazy.meets_target(lazy.bits) {
        lazy.nonce += 1;
    }
    let error = chain.accept(&[lazy.into()]).unwrap_err().to_string();
    assert!(error.contains("lacks proof of work"), "{error}");
}

/// The whole way: the peer has just the work that it takes, so it is asked again although it has no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_asks_twice() {
    let network = known_to_have(5000);
    let mut spec = ChainSpec::new(5000, 1);
    spec.max_transactions = 0;
    let served = SimChain::generate(network, spec);
    let server = SimNode::spawn(served.clone(), Behaviour::Honest, "127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let node = Node::builder(network, dir.path()).connect(server.address().into());
    let mut node = node.headers_only().stop_when_synced().spawn().await.unwrap();
    node.wait().await.unwrap();
    assert_eq!(node.progress().header_tip.map(|tip| tip.hash), Some(served.tip().hash));
    // Less is not taken for the chain.
    let short = SimChain::generate(network, ChainSpec::new(4000, 2));
    server.set_chain(short.clone());
    let dir = tempfile::tempdir().unwrap();
    let node = Node::builder(network, dir.path()).connect(server.address().into());
    let mut node = node.headers_only().stop_when_synced().spawn().await.unwrap();
    node.wait().await.unwrap();
    assert_eq!(node.queries().read(|view| view.tip().id.height), 0);
    // Among many, whoever has the chain shows it.
    let mut servers = vec![server];
    for chain in [&short, &served, &short, &served, &served.fork(1000, ChainSpec::new(2000, 3))] {
        let server = SimNode::spawn(chain.clone(), Behaviour::Honest, "127.0.0.1:0").await;
        servers.push(server.unwrap());
    }
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::builder(network, dir.path()).headers_only();
    for server in &servers {
        node = node.connect(server.address().into());
    }
    let node = node.spawn().await.unwrap();
    let mut events = node.events();
    while let Some(event) = events.next().await {
        if matches!(event, Event::Headers { tip } if tip.hash == served.tip().hash) {
            break;
        }
    }
    assert_eq!(node.queries().read(|view| view.tip().id.hash), served.tip().hash);
    node.shutdown().await.unwrap();
    for server in servers {
        server.shutdown().await;
    }
}

/// Two peers show the same chain, one a step behind the other.
#[test]
fn what_two_peers_show_is_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let network = known_to_have(18_000);
    let headers = run(network.genesis_hash(), 18_500, 1);
    let mut chain = open(&dir, network);
    let mut from = [chain.tip().hash; 2];
    for turn in 0..60 {
        let (peer, from) = (PeerId(turn % 2), &mut from[turn as usize % 2]);
        let answer = answer(&headers, &chain.locator(*from));
        *from = chain.accept_from(peer, answer).unwrap().last.unwrap_or(*from);
    }
    for _ in 0..2 {
        assert_eq!(chain.tree().len(), 18_501);
        for header in headers.iter().step_by(500) {
            assert_eq!(chain.header(header.hash).unwrap().as_ref(), Some(header));
        }
        drop(chain);
        chain = open(&dir, network);
    }
}

/// Nobody needs work for that: the headers of the true chain will do.
#[test]
fn a_peer_is_not_in_the_way_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let network = known_to_have(18_000);
    let headers = run(network.genesis_hash(), 18_500, 1);
    let (honest, other) = (PeerId(1), PeerId(2));
    let mut chain = open(&dir, network);
    let mut from = chain.tip().hash;
    for _ in 0..21 {
        let next = answer(&headers, &chain.locator(from));
        // Steps ahead on the same chain, which would leave the next answer without a parent.
        if let Some(first) = next.first() {
            drop(chain.accept_from(other, std::slice::from_ref(first)));
        }
        // Begins again and again, which would leave no place for others.
        for _ in 0..100 {
            chain.accept_from(other, &headers[..1]).unwrap();
        }
        from = chain.accept_from(honest, next).unwrap().last.unwrap_or(from);
    }
    assert_eq!(chain.tip().hash, headers[18_499].hash);
}

/// One peer's headers are in and their block turns out to be invalid, while another still shows the same.
#[test]
fn what_was_rejected_between_the_looks_stays_out() {
    let dir = tempfile::tempdir().unwrap();
    let network = known_to_have(18_000);
    let headers = run(network.genesis_hash(), 18_500, 1);
    let mut chain = open(&dir, network);
    let mut from = [chain.tip().hash; 2];
    let mut turns = 0;
    let refused = loop {
        let (peer, from) = (PeerId(turns % 2), &mut from[turns as usize % 2]);
        turns += 1;
        match chain.accept_from(peer, answer(&headers, &chain.locator(*from))) {
            Ok(accepted) => *from = accepted.last.unwrap_or(*from),
            Err(refused) => break refused.to_string(),
        }
        if chain.tip().height > 1000 {
            chain.reject(headers[1000].hash, "no").unwrap();
        }
    };
    assert!(refused.ends_with("was rejected: no"), "{refused}");
    assert_eq!((turns, chain.tip().hash), (2 * 17, headers[999].hash));
}

#[test]
fn a_file_need_not_be_shown_twice() {
    let dir = tempfile::tempdir().unwrap();
    let network = known_to_have(5000);
    let headers = run(network.genesis_hash(), 6000, 1);
    let mut chain = open(&dir, network);
    for (count, added) in [(3000, 3000), (6000, 3000)] {
        let file: Vec<u8> = headers[..count].iter().flat_map(|header| header.raw.to_vec()).collect();
        assert_eq!(chain.import(&network, &file[..]).unwrap().added, added);
    }
    assert_eq!(chain.tip().hash, headers[5999].hash);
}
