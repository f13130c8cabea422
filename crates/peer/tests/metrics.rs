//! Every name in the table of `src/metrics.rs` reaches the recorder. Alone in its program, for the recorder is global.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tipward_peer::{
    DisconnectReason, Manager, ManagerOptions, PeerEvent, bitcoin::Bitcoin, wire::bitcoin::Network,
};
use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode};
use tokio::{sync::mpsc, time::timeout};

/// What was told since the last time, by name and labels: reading empties what was told.
fn taken(snapshotter: &Snapshotter) -> BTreeMap<String, DebugValue> {
    let named = snapshotter.snapshot().into_vec().into_iter().map(|(key, _, _, value)| {
        let labels = key.key().labels().map(|label| format!(" {}={}", label.key(), label.value()));
        (format!("{}{}", key.key().name(), labels.collect::<String>()), value)
    });
    named.collect()
}

/// Adds what was told later; a gauge is what it was last.
fn add(sum: &mut BTreeMap<String, DebugValue>, later: BTreeMap<String, DebugValue>) {
    for (name, value) in later {
        match (sum.get_mut(&name), value) {
            (Some(DebugValue::Counter(sum)), DebugValue::Counter(more)) => *sum += more,
            (Some(DebugValue::Histogram(sum)), DebugValue::Histogram(more)) => sum.extend(more),
            (_, value) => {
                sum.insert(name, value);
            }
        }
    }
}

async fn until(
    inbox: &mut mpsc::Receiver<PeerEvent>,
    mut is_it: impl FnMut(&PeerEvent) -> bool,
) -> PeerEvent {
    let wait = async {
        loop {
            let event = inbox.recv().await.unwrap();
            if is_it(&event) {
                return event;
            }
        }
    };
    timeout(Duration::from_secs(30), wait).await.unwrap()
}

#[tokio::test]
async fn every_documented_name_is_told() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();

    let chain = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(10, 1));
    let node = SimNode::spawn(chain, Behaviour::Honest, "127.0.0.1:0").await.unwrap();
    let mut options = ManagerOptions::default();
    options.addresses =
        vec![node.address().into(), "127.0.0.1:1".parse::<std::net::SocketAddr>().unwrap().into()];
    // A gauge shows the last sample: let there be many.
    options.pool.check_interval = Duration::from_millis(20);
    let (events, mut inbox) = mpsc::channel(64);
    let manager =
        Manager::spawn(Arc::new(Bitcoin::new(Network::BTC_REGTEST)), options, events).await.unwrap();

    let (mut peer, mut failed) = (None, false);
    until(&mut inbox, |event| {
        match event {
            PeerEvent::Connected(connected) => peer = Some(connected.clone()),
            PeerEvent::ConnectFailed { .. } => failed = true,
            _ => {}
        }
        peer.is_some() && failed
    })
    .await;
    let peer = peer.unwrap();
    let mut told = BTreeMap::new();
    let sampled = async {
        loop {
            let all = taken(&snapshotter);
            let is_healthy = all.get("tipward_peers state=healthy") == Some(&DebugValue::Gauge(1.0.into()));
            add(&mut told, all);
            if is_healthy && peer.figures().ping.is_some() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(30), sampled).await.unwrap();
    let gauge = |name: &str| match told.get(name) {
        Some(DebugValue::Gauge(value)) => value.into_inner(),
        other => panic!("{name}: {other:?}"),
    };
    for state in ["slow", "warning", "dead", "closing"] {
        assert_eq!(gauge(&format!("tipward_peers state={state}")), 0.0, "{state}");
    }
    gauge("tipward_peers state=connecting");
    assert_eq!(gauge("tipward_addresses state=known"), 2.0);
    assert_eq!(gauge("tipward_addresses state=tried"), 2.0);
    assert_eq!(gauge("tipward_addresses state=banned"), 0.0);

    let figures = peer.figures();
    peer.disconnect(DisconnectReason::ClosedByUs);
    until(&mut inbox, |event| matches!(event, PeerEvent::Disconnected { .. })).await;
    manager.ban(node.address().into(), "for the test").await.unwrap();
    until(&mut inbox, |event| matches!(event, PeerEvent::Banned { .. })).await;
    manager.shutdown().await;
    add(&mut told, taken(&snapshotter));
    let counter = |name: &str| match told.get(name) {
        Some(DebugValue::Counter(count)) => *count,
        other => panic!("{name}: {other:?} in {told:?}"),
    };
    for command in ["version", "verack", "pong"] {
        assert_eq!(counter(&format!("tipward_messages_received_total command={command}")), 1, "{command}");
    }
    assert!(counter("tipward_received_bytes_total") >= figures.received);
    assert!(counter("tipward_sent_bytes_total") >= figures.sent);
    assert!(counter("tipward_connect_failures_total reason=io") >= 1);
    assert_eq!(counter("tipward_disconnects_total reason=closed_by_us"), 1);
    assert_eq!(counter("tipward_bans_total"), 1);
    match told.get("tipward_ping_seconds") {
        Some(DebugValue::Histogram(pings)) => {
            assert!(pings.len() == 1 && (0.0..30.0).contains(&pings[0].into_inner()), "{pings:?}");
        }
        other => panic!("pings: {other:?}"),
    }
    node.shutdown().await;
}
