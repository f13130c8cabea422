//! The pool.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use tipward_peer::{Choice, Dialed, Dialer, Discovery, PeerState, Status, Want};

use super::*;

#[tokio::test(start_paused = true)]
async fn options_and_the_true_height_reach_clients() {
    let (mut options, mut listeners) = pool(1, 1 << 16);
    options.link.user_agent = "/ours:1/".to_owned();
    options.link.services = 5;
    options.link.relay_transactions = true;
    options.link.idle_timeout = Duration::from_secs(7);
    options.local.set_height(800_000);
    let local = options.local.clone();
    let (manager, mut inbox) = manage(options, 64).await;
    let mut far = Far::accept(&mut listeners[0]).await;
    let version = far.shake_hands().await;
    assert_eq!(version.user_agent.to_string(), "/ours:1/");
    assert_eq!((version.services, version.relay, version.start_height), (Services(5), true, 800_000));
    await_peer(&mut inbox).await;
    let start = Instant::now();
    local.set_height(800_001);
    while far.hear().await.is_some() {}
    assert_eq!(start.elapsed(), Duration::from_secs(7));
    let again = Far::accept(&mut listeners[0]).await.shake_hands().await;
    assert_eq!(again.start_height, 800_001, "the height of now");
    assert_ne!(again.nonce, version.nonce);
    manager.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_handshake_leaves_no_stale_event_and_the_pool_does_not_flap() {
    for garbage in [false, true] {
        let before = tasks();
        let (options, mut listeners) = pool(1, 1 << 16);
        let (manager, mut inbox) = manage(options, 1024).await;
        let mut dials = 0;
        let hour = async {
            loop {
                let mut far = Far::accept(&mut listeners[0]).await;
                dials += 1;
                far.say(&[Message::Version(greeting())]).await;
                if garbage {
                    far.stream.write_all(&[7; 100]).await.unwrap();
                }
            }
        };
        timeout(Duration::from_secs(3600), hour).await.unwrap_err();
        // Who breaks the protocol is left alone; a pool without any peer tries others again every half minute at most.
        let most = if garbage { 1 } else { 130 };
        assert!((1..=most).contains(&dials), "{dials} dials in an hour");
        let mut failed = 0;
        while let Ok(event) = inbox.try_recv() {
            match event {
                PeerEvent::ConnectFailed { .. } => failed += 1,
                PeerEvent::Connected(_) | PeerEvent::Disconnected { .. } => panic!("{event:?}"),
                _ => {}
            }
        }
        assert_eq!(failed, dials);
        assert!(manager.peers().await.unwrap().is_empty());
        manager.shutdown().await;
        assert_eq!(tasks(), before);
    }
}

/// Our own back-pressure is never held against a peer, neither by its connection nor by the pool.
#[tokio::test(start_paused = true)]
async fn a_peer_that_is_held_for_hours_stays_and_is_healthy() {
    let (options, mut listeners) = pool(1, 1 << 16);
    let (manager, mut inbox) = manage(options, 64).await;
    let mut far = Far::accept(&mut listeners[0]).await;
    far.shake_hands().await;
    let peer = await_peer(&mut inbox).await;
    peer.hold();
    far.say(&[Message::Headers(Vec::new())]).await;
    sleep(Duration::from_secs(10 * 3600)).await;
    let states: Vec<PeerState> = manager.peers().await.unwrap().into_iter().map(|peer| peer.state).collect();
    assert!(matches!(states[..], [PeerState::Ready { status: Status::Healthy, .. }]), "{states:?}");
    assert!(inbox.try_recv().is_err());
    peer.resume();
    await_event(&mut inbox, |event| matches!(event, PeerEvent::Reply { .. }).then_some(())).await;
    manager.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn round_robin_stays_in_range_when_the_pool_shrinks() {
    let (mut options, mut listeners) = pool(4, 1 << 16);
    options.pool.choice = Choice::RoundRobin;
    let (manager, mut inbox) = manage(options, 1024).await;
    let mut peers = Vec::new();
    for listener in &mut listeners {
        let mut far = Far::accept(listener).await;
        far.shake_hands().await;
        peers.push((await_peer(&mut inbox).await, tokio::spawn(far.live())));
    }
    drop(listeners);
    let choose = || async { manager.choose(Want::Addresses).await.unwrap() };
    while let Some((peer, far)) = peers.pop() {
        let left = peers.len() + 1;
        let mut chosen = Vec::new();
        for _ in 0..2 * left {
            chosen.push(choose().await.unwrap().id());
        }
        assert_eq!(chosen[..left], chosen[left..]);
        chosen.truncate(left);
        chosen.sort_unstable();
        chosen.dedup();
        assert_eq!(chosen.len(), left, "everybody has a turn");
        // The last one chosen is the one that goes.
        while choose().await.unwrap().id() != peer.id() {}
        far.abort();
        await_event(&mut inbox, |event| matches!(event, PeerEvent::Disconnected { .. }).then_some(())).await;
        sleep(Duration::from_millis(1)).await;
    }
    assert!(choose().await.is_none());
    manager.shutdown().await;
}

/// Counts the dials that are under way.
#[derive(Debug, Default, Clone)]
struct Counting {
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    all: Arc<AtomicUsize>,
}

#[async_trait]
impl Dialer for Counting {
    async fn dial(&self, _: &PeerAddress) -> std::io::Result<Dialed> {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(open, Ordering::Relaxed);
        self.all.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_secs(3)).await;
        self.open.fetch_sub(1, Ordering::Relaxed);
        Err(std::io::ErrorKind::ConnectionRefused.into())
    }

    async fn resolve(&self, _: &str, _: u16) -> std::io::Result<Vec<PeerAddress>> {
        Ok(Vec::new())
    }
}

#[tokio::test(start_paused = true)]
async fn dials_are_bounded() {
    let (mut options, _) = pool(250, 1);
    let dialer = Counting::default();
    options.dialer = Arc::new(dialer.clone());
    let (manager, mut inbox) = manage(options, 4).await;
    let draining = async { while inbox.recv().await.is_some() {} };
    timeout(Duration::from_secs(300), draining).await.unwrap_err();
    assert_eq!(dialer.most.load(Ordering::Relaxed), 8);
    assert!(dialer.all.load(Ordering::Relaxed) >= 250, "everybody is tried");
    manager.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_leaves_no_task_and_no_connection() {
    let before = tasks();
    let (options, mut listeners) = pool(3, 1 << 16);
    let (manager, inbox) = manage(options, 2).await;
    // One is ready, one shakes hands, one is being dialled; nobody takes the events.
    let mut ready = Far::accept(&mut listeners[0]).await;
    ready.shake_hands().await;
    let mut shaking = Far::accept(&mut listeners[1]).await;
    sleep(SOON).await;
    let start = Instant::now();
    manager.shutdown().await;
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(tasks(), before);
    assert!(ready.is_closed().await && shaking.is_closed().await);
    drop(inbox);

    let (options, mut listeners) = pool(1, 1 << 16);
    let (manager, mut inbox) = manage(options, 64).await;
    let mut far = Far::accept(&mut listeners[0]).await;
    far.shake_hands().await;
    drop(manager);
    assert!(far.is_closed().await);
    await_tasks(before).await;
    while inbox.recv().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn a_lost_peer_leaves_no_zombie() {
    let (mut options, mut listeners) = pool(1, 1 << 16);
    options.pool.discovery = Discovery::Off;
    let (manager, mut inbox) = manage(options, 64).await;
    let mut far = Far::accept(&mut listeners[0]).await;
    far.shake_hands().await;
    await_peer(&mut inbox).await;
    let is_ready = || async {
        let peers = manager.peers().await.unwrap();
        peers.iter().any(|peer| matches!(peer.state, PeerState::Ready { .. }))
    };
    assert!(is_ready().await);
    let start = Instant::now();
    drop(far);
    while is_ready().await {
        sleep(Duration::from_millis(1)).await;
    }
    assert!(start.elapsed() < Duration::from_secs(1));
    manager.shutdown().await;
}
