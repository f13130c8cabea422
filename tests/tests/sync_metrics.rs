//! Every name in the table of the sync layer's `metrics.rs` reaches the recorder. Alone in its program, for the recorder is
//! global.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{collections::BTreeMap, time::Duration};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tipward_chain::{Node, sync::peer::wire::bitcoin::Network};
use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode};

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_name_is_told() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();

    let chain = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(200, 5));
    let server = SimNode::spawn(chain.clone(), Behaviour::Honest, "127.0.0.1:0").await.unwrap();
    // Silent in the midst of it: a stall, and in the end a drop.
    let silent = Behaviour::SilentAfter { blocks: 3 };
    let silent = SimNode::spawn(chain.clone(), silent, "127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut builder = Node::builder(Network::BTC_REGTEST, dir.path()).archive();
    builder.sync.stall_timeout = Duration::from_millis(100);
    builder.sync.max_strikes = 1;
    let node =
        builder.connect(server.address().into()).connect(silent.address().into()).spawn().await.unwrap();
    // Its address is tried again, but not at once.
    tipward_tests::wait_for(&node, "the end of the silent one", |progress| {
        progress.blocks == 200 && progress.peers_seen >= 2 && progress.peers == 1
    })
    .await;
    let last = node.shutdown().await.unwrap();

    let told: BTreeMap<String, DebugValue> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, _, _, value)| {
            let labels = key.key().labels().map(|label| format!(" {}={}", label.key(), label.value()));
            (format!("{}{}", key.key().name(), labels.collect::<String>()), value)
        })
        .collect();
    let counter = |name: &str| match told.get(name) {
        Some(DebugValue::Counter(count)) => *count,
        other => panic!("{name}: {other:?} in {:?}", told.keys()),
    };
    let gauge = |name: &str| match told.get(name) {
        Some(DebugValue::Gauge(value)) => value.into_inner(),
        other => panic!("{name}: {other:?} in {:?}", told.keys()),
    };
    let calls = |call: &str| match told.get(&format!("tipward_sink_seconds call={call}")) {
        Some(DebugValue::Histogram(seconds)) => seconds.len(),
        other => panic!("{call}: {other:?} in {:?}", told.keys()),
    };
    assert_eq!(counter("tipward_sync_headers_total"), last.headers);
    assert_eq!(counter("tipward_sync_blocks_total"), last.blocks);
    assert_eq!(counter("tipward_sync_block_bytes_total"), last.bytes);
    assert_eq!(counter("tipward_sync_transactions_total"), last.transactions);
    assert_eq!(counter("tipward_sync_reorgs_total"), last.reorgs);
    assert!(counter("tipward_sync_stalls_total") > 0);
    let drops: u64 = told
        .iter()
        .filter(|(name, _)| name.starts_with("tipward_sync_drops_total reason="))
        .map(|(name, _)| counter(name))
        .sum();
    assert!(drops > 0, "{:?}", told.keys());
    assert_eq!(gauge("tipward_sync_height of=applied"), last.applied.unwrap().height as f64);
    assert_eq!(gauge("tipward_sync_height of=headers"), last.header_tip.unwrap().height as f64);
    for name in ["in_flight_blocks", "window_blocks", "buffered_bytes", "paused"] {
        assert_eq!(gauge(&format!("tipward_sync_{name}")), 0.0, "{name}");
    }
    gauge("tipward_sync_bytes_per_second");
    gauge("tipward_sync_blocks_per_second");
    // Genesis is applied as well.
    assert_eq!(calls("apply") as u64, last.blocks + 1);
    assert!(calls("flush") >= 1);
}
