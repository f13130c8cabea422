//! Two nodes with different tips, the first of them slow: the better one's chain, and nothing twice without a reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tipward_chain::sync::peer::{
    Encrypt,
    wire::{BlockHash, bitcoin::Network},
};
use tipward_tests::{Bitcoind, Log, Seen, Tap, Throttle, What, assert_archive_holds, wait_for};

use crate::{SLOW, builder, chain, reached, serve, spec};

const STALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Syncs from one node through a slow line, then from another one as well; from then on the line passes on so many bytes a
/// second. How many blocks were asked for twice.
async fn sync(slow: &Bitcoind, other: &Bitcoind, best: &Bitcoind, then: u32) -> usize {
    let (log, dir) = (Log::default(), tempfile::tempdir().unwrap());
    let line = Throttle::start(slow.address(), SLOW).await.unwrap();
    let first = Tap::start(line.address(), 0, &log).await.unwrap();
    let second = Tap::start(other.address(), 1, &log).await.unwrap();
    let mut builder = builder(dir.path(), &[first.address()]).archive();
    // What goes through a tap is in clear text; and nobody is given up for a pause on a busy machine.
    builder.peers.link.encrypt = Encrypt::Off;
    builder.sync.stall_timeout = STALL_TIMEOUT;
    let node = builder.spawn().await.unwrap();
    wait_for(&node, "the first blocks", |progress| progress.blocks > 10).await;
    node.control().add_peer(second.address().into()).await.unwrap();
    line.set_rate(then);
    let progress = reached(&node, &best.hash(best.height())).await;
    assert_eq!((progress.peers, progress.peers_seen), (2, 2), "nobody was dropped");
    node.shutdown().await.unwrap();

    let blocks = best.chain();
    assert_archive_holds(
        dir.path(),
        Network::BTC_REGTEST,
        blocks.iter().map(|(hash, raw)| (*hash, &raw[..])),
    );
    let heights = (0..).zip(&blocks).map(|(height, (hash, _))| (*hash, height)).collect();
    let seen = log.seen();
    let twice = assert_each_once_but_for_the_front(&seen, &heights);
    for relay in 0..2 {
        let brought = seen.iter().filter(|seen| seen.relay == relay && seen.what == What::Brought).count();
        assert!(brought > 0, "node {relay} has served nothing");
        println!("node {relay} has served {brought} blocks");
    }
    println!("asked for twice: {twice}");
    twice
}

/// Every block was asked for once, unless it was the next one, which everything waited for, when it was asked of the other
/// node as well; with that one, all that the first node owed at that moment may be asked of the other. How many were.
fn assert_each_once_but_for_the_front(seen: &[Seen], heights: &BTreeMap<BlockHash, u64>) -> usize {
    let (mut brought, mut times) = (BTreeSet::from([0]), BTreeMap::<BlockHash, usize>::new());
    // When it was asked for, of whom.
    let mut asked = BTreeMap::<BlockHash, Vec<(usize, usize)>>::new();
    // When a node was overtaken last.
    let mut overtaken = BTreeMap::<usize, usize>::new();
    let mut twice = 0;
    for (at, Seen { relay, what, block }) in seen.iter().enumerate() {
        let height = heights.get(block);
        if *what == What::Brought {
            brought.extend(height);
            *times.entry(*block).or_default() += 1;
            continue;
        }
        let before = asked.entry(*block).or_default();
        if !before.is_empty() {
            twice += 1;
            let height = *height.unwrap_or_else(|| panic!("{block} of the losing branch is asked for twice"));
            assert!(before.iter().all(|(_, other)| other != relay), "{height} is asked for twice of {relay}");
            if (0..height).all(|below| brought.contains(&below)) {
                overtaken.extend(before.iter().map(|(_, other)| (*other, at)));
            } else {
                let is_owed =
                    |(asked, other)| overtaken.get(other).is_some_and(|overtaken| asked < overtaken);
                assert!(before.iter().any(|(asked, other)| is_owed((asked, other))), "{height} again, why?");
            }
        }
        before.push((at, *relay));
    }
    for (block, times) in times {
        assert!(times <= asked.get(&block).map_or(0, Vec::len), "{block} came {times} times");
    }
    twice
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_behind_and_the_better_one_is_slow() {
    let chain = chain(600);
    let Some(better) = serve(2, &chain) else { return };
    let Some(behind) = serve(3, &chain.fork(450, spec(0, 0))) else { return };
    sync(&better, &behind, &better, SLOW).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_behind_and_slow() {
    let chain = chain(600);
    let Some(better) = serve(2, &chain) else { return };
    let Some(behind) = serve(3, &chain.fork(450, spec(0, 0))) else { return };
    sync(&behind, &better, &better, SLOW).await;
}

/// So slow in the end that waiting for what it owes would take an hour.
#[tokio::test(flavor = "multi_thread")]
async fn one_is_behind_and_comes_to_a_trickle() {
    let chain = chain(600);
    let Some(better) = serve(2, &chain) else { return };
    let Some(behind) = serve(3, &chain.fork(450, spec(0, 0))) else { return };
    let twice = sync(&behind, &better, &better, 50).await;
    assert!(twice > 0, "what it owed was asked of the other");
}

/// The better node heard of the losing branch first, and of its own from a neighbour.
#[tokio::test(flavor = "multi_thread")]
async fn one_is_on_a_losing_branch_and_slow() {
    let chain = chain(600);
    let losing = chain.fork(400, spec(100, 22));
    let Some(loser) = serve(3, &losing) else { return };
    let Some(neighbour) = serve(4, &chain) else { return };
    let Some(better) = serve(2, &losing) else { return };
    let _ = better.rpc("addnode", &serde_json::json!([neighbour.address().to_string(), "onetry"]));
    better.wait_for("the better branch", |node| node.height() == 600).await;
    sync(&loser, &better, &neighbour, SLOW).await;
}
