//! What an audit of another light client found, and what peers do to one another.

use tipward_peer::{
    AskFailed, BroadcastFailed, DisconnectReason, Discovery, PeerId, PeerState, RequestPolicy, ShutDown,
    TimingsChange, Want, wire::BlockHash,
};

use super::*;

/// A manager with one peer, and its far side.
async fn with_one_peer() -> (Manager, mpsc::Receiver<PeerEvent>, Far, Peer, MemoryListener) {
    let (options, mut listeners) = pool(1, 1 << 16);
    let (manager, mut inbox) = manage(options, 4096).await;
    let mut far = Far::accept(&mut listeners[0]).await;
    far.shake_hands().await;
    let peer = await_peer(&mut inbox).await;
    (manager, inbox, far, peer, listeners.remove(0))
}

async fn await_end(inbox: &mut mpsc::Receiver<PeerEvent>) -> DisconnectReason {
    await_event(inbox, |event| match event {
        PeerEvent::Disconnected { reason, .. } => Some(reason),
        _ => None,
    })
    .await
}

/// Whether the address is left alone for most of a day, from now on.
async fn is_banned(listener: &mut MemoryListener) -> bool {
    timeout(Duration::from_secs(20 * 3600), listener.accept()).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn panics_with_zero_peers() {
    let mut options = ManagerOptions::default();
    options.pool.discovery = Discovery::Off;
    let (manager, _inbox) = manage(options, 64).await;
    let handle = manager.handle();
    let (want, nobody) = (Want::HeadersAfter(vec![BlockHash::ZERO]), PeerId(7));
    let mut fast = RequestPolicy::default();
    fast.fail_fast = true;
    assert!(matches!(handle.request(want.clone(), fast).await, Err(AskFailed::NotAnswered(_))));
    let waiting = handle.request(want.clone(), RequestPolicy::default()).await;
    assert!(matches!(waiting, Err(AskFailed::NotAnswered(_))));
    let broadcast = || handle.broadcast(transaction(1), tipward_peer::BroadcastPolicy::default());
    broadcast().await.unwrap();
    assert!(handle.peers().await.unwrap().is_empty());
    assert!(handle.choose(want.clone()).await.unwrap().is_none());
    assert!(handle.primary().await.unwrap().is_none());
    for force in [Some(true), Some(false), None] {
        handle.force_primary(nobody, force).await.unwrap();
    }
    handle.set_timings(TimingsChange::default()).await.unwrap().unwrap();
    assert_eq!(handle.time_offset().await.unwrap(), None);
    handle.book().await.unwrap();
    handle.ban(address(9), "no reason").await.unwrap();
    handle.unban(address(9)).await.unwrap();
    handle.misbehaved(nobody, 1000, "nothing").await.unwrap();
    let open = tokio::spawn({
        let (handle, want) = (handle.clone(), want.clone());
        async move { handle.request(want, RequestPolicy::default()).await }
    });
    sleep(SOON).await;

    manager.shutdown().await;
    assert!(matches!(open.await.unwrap(), Err(AskFailed::ShutDown(_))), "who waited is told");
    let asked = handle.request(want.clone(), RequestPolicy::default()).await;
    assert!(matches!(asked, Err(AskFailed::ShutDown(_))));
    assert!(matches!(broadcast().await, Err(BroadcastFailed::ShutDown(_))));
    assert_eq!(handle.peers().await.err(), Some(ShutDown));
    assert_eq!(handle.choose(want).await.err(), Some(ShutDown));
    assert_eq!(handle.primary().await.err(), Some(ShutDown));
    assert_eq!(handle.force_primary(nobody, None).await, Err(ShutDown));
    assert_eq!(handle.set_timings(TimingsChange::default()).await.err(), Some(ShutDown));
    assert_eq!(handle.time_offset().await, Err(ShutDown));
    assert_eq!(handle.book().await.err(), Some(ShutDown));
    assert_eq!(handle.add(address(9)).await, Err(ShutDown));
    assert_eq!(handle.ban(address(9), "").await, Err(ShutDown));
    assert_eq!(handle.unban(address(9)).await, Err(ShutDown));
    assert_eq!(handle.misbehaved(nobody, 1, "").await, Err(ShutDown));
}

/// A transaction that spends nothing known.
fn transaction(n: u32) -> Bytes {
    let mut bytes = vec![1, 0, 0, 0, 1];
    bytes.extend([7; 36]);
    bytes.extend([0, 255, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(n.to_le_bytes());
    bytes.into()
}

#[tokio::test(start_paused = true)]
async fn undrained_event_channels_freezing_the_node() {
    let (options, mut listeners) = pool(2, 1 << 16);
    let (manager, mut inbox) = manage(options, 1).await;
    let mut lively = Vec::new();
    for listener in &mut listeners {
        let mut far = Far::accept(listener).await;
        far.shake_hands().await;
        far.say(&(0..50).map(|_| Message::Headers(Vec::new())).collect::<Vec<_>>()).await;
        lively.push(tokio::spawn(far.live()));
    }
    for _ in 0..10 {
        sleep(Duration::from_secs(600)).await;
        let peers = timeout(SOON, manager.peers()).await.expect("the manager answers").unwrap();
        assert_eq!(peers.iter().filter(|peer| matches!(peer.state, PeerState::Ready { .. })).count(), 2);
        manager.add(address(200)).await.unwrap();
    }
    let (mut connected, mut headers) = (0, 0);
    while connected < 2 || headers < 100 {
        let event = timeout(Duration::from_secs(1), inbox.recv()).await.expect("events flow").unwrap();
        connected += usize::from(matches!(event, PeerEvent::Connected(_)));
        headers += usize::from(matches!(event, PeerEvent::Reply { .. }));
        assert!(!matches!(event, PeerEvent::Disconnected { .. }), "{event:?}");
    }
    assert!(lively.iter().all(|far| !far.is_finished()));
    manager.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn full_outbound_buffer() {
    // It asks more and more and takes no answers: we stop to listen, and part with it in the end.
    let (mut client, mut far) = connected(in_clear(), 1 << 12).await;
    let pings = far.bytes(&(0..1500).map(Message::Ping).collect::<Vec<_>>());
    let start = Instant::now();
    let flood = tokio::spawn(async move { while far.stream.write_all(&pings).await.is_ok() {} });
    let reason = loop {
        if let Err(reason) = client.receive().await {
            break reason;
        }
    };
    // By its questions or by what it does not read, whichever shows first.
    assert!(matches!(reason, DisconnectReason::Violation(_) | DisconnectReason::WriteTimedOut), "{reason}");
    assert!(start.elapsed() <= LinkOptions::default().write_timeout);
    flood.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_question_does_not_multiply_the_answer() {
    let (manager, _inbox, mut far, peer, _listener) = with_one_peer().await;
    let bytes = transaction(1);
    let id = tipward_peer::wire::bitcoin::Transaction::new(bytes.clone()).unwrap().txid();
    peer.ask(Want::Offer { id, bytes }).unwrap();
    let Message::Inv(offers) = far.hear_until(|message| matches!(message, Message::Inv(_))).await else {
        return;
    };
    let again: Vec<_> = std::iter::repeat_n(offers[0], 1000).collect();
    far.say(&[Message::GetData(again), Message::Ping(5)]).await;
    let mut handed_over = 0;
    loop {
        match far.hear().await.unwrap() {
            Message::Tx(_) => handed_over += 1,
            Message::Pong(5) => break,
            _ => {}
        }
    }
    assert_eq!(handed_over, 1);
    manager.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn who_fetches_and_brings_what_it_was_asked_does_not_flood() {
    let (manager, mut inbox, mut far, peer, _listener) = with_one_peer().await;
    let transactions: Vec<_> =
        (0..3000).map(|n| tipward_peer::wire::bitcoin::Transaction::new(transaction(n)).unwrap()).collect();
    for transaction in &transactions {
        let offer = Want::Offer { id: transaction.txid(), bytes: transaction.as_bytes().clone() };
        peer.ask(offer).unwrap();
        let Message::Inv(offered) = far.hear_until(|message| matches!(message, Message::Inv(_))).await else {
            return;
        };
        far.say(&[Message::GetData(offered)]).await;
        far.hear_until(|message| matches!(message, Message::Tx(_))).await;
        while inbox.try_recv().is_ok() {}
    }
    let ids = transactions.iter().map(tipward_peer::wire::bitcoin::Transaction::txid).collect();
    peer.ask(Want::Transactions(ids)).unwrap();
    far.hear_until(|message| matches!(message, Message::GetData(_))).await;
    far.say(&transactions.into_iter().map(Message::Tx).collect::<Vec<_>>()).await;
    far.say(&[Message::Ping(5)]).await;
    let draining = tokio::spawn(async move { while inbox.recv().await.is_some() {} });
    far.hear_until(|message| matches!(message, Message::Pong(5))).await;
    manager.shutdown().await;
    draining.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_block_that_nobody_asked_for_gets_its_sender_banned() {
    let (manager, mut inbox, mut far, _, mut listener) = with_one_peer().await;
    let chain = tipward_simnet::SimChain::genesis(NETWORK);
    far.say(&[Message::Block(chain.tip().raw.clone())]).await;
    let reason = await_end(&mut inbox).await;
    assert!(reason.to_string().contains("not asked for"), "{reason}");
    assert!(is_banned(&mut listener).await);
    manager.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn one_malformed_message_is_tolerated_and_many_within_an_hour_are_not() {
    let (manager, mut inbox, mut far, _, mut listener) = with_one_peer().await;
    let bytes = malformed(&far);
    far.stream.write_all(&bytes).await.unwrap();
    far.say(&[Message::Ping(5)]).await;
    far.hear_until(|message| matches!(message, Message::Pong(5))).await;
    assert_eq!(manager.peers().await.unwrap()[0].misbehaviour.round() as u32, 10);
    let mut sent = 1;
    let mut heard = BytesMut::new();
    let many = async {
        loop {
            sleep(Duration::from_secs(240)).await;
            if far.stream.write_all(&bytes).await.is_err() {
                return;
            }
            sent += 1;
            while let Ok(Ok(1..)) = timeout(SOON, far.stream.read_buf(&mut heard)).await {}
        }
    };
    let (reason, ()) = tokio::join!(await_end(&mut inbox), many);
    assert!(reason.to_string().starts_with("misbehaved too often"), "{reason}");
    assert!((10..20).contains(&sent), "{sent}");
    assert!(is_banned(&mut listener).await);
    manager.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_few_malformed_messages_a_day_are_tolerated() {
    let (manager, _inbox, mut far, _, _listener) = with_one_peer().await;
    let bytes = malformed(&far);
    for nonce in 1000..1100 {
        far.stream.write_all(&bytes).await.unwrap();
        far.say(&[Message::Ping(nonce)]).await;
        far.hear_until(|message| *message == Message::Pong(nonce)).await;
        sleep(Duration::from_secs(900)).await;
    }
    manager.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn floods_end_the_connection() {
    let floods = [Message::Ping(1), other(0, 1000), Message::GetAddr, Message::Headers(Vec::new())];
    for message in floods {
        let (manager, mut inbox, far, _, mut listener) = with_one_peer().await;
        let bytes = far.bytes(&vec![message.clone(); 100]);
        let flood = async {
            let (mut reader, mut writer) = tokio::io::split(far.stream);
            let reading = tokio::spawn(async move {
                let mut sink = [0; 4096];
                while let Ok(1..) = reader.read(&mut sink).await {}
            });
            while writer.write_all(&bytes).await.is_ok() {}
            reading.await.unwrap();
        };
        let (reason, ()) = tokio::join!(await_end(&mut inbox), flood);
        assert!(reason.to_string().starts_with("floods with"), "{message:?}: {reason}");
        assert!(is_banned(&mut listener).await);
        manager.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn messages_before_the_handshake_end_it() {
    for message in [Message::Ping(1), Message::Headers(Vec::new()), Message::Inv(Vec::new())] {
        let (options, mut listeners) = pool(1, 1 << 16);
        let (manager, mut inbox) = manage(options, 64).await;
        let mut far = Far::accept(&mut listeners[0]).await;
        far.say(std::slice::from_ref(&message)).await;
        let reason = await_event(&mut inbox, |event| match event {
            PeerEvent::ConnectFailed { reason, .. } => Some(reason),
            PeerEvent::Connected(peer) => panic!("{peer:?}"),
            _ => None,
        });
        let reason = reason.await.to_string();
        assert!(reason.contains("before the handshake was done"), "{message:?}: {reason}");
        manager.shutdown().await;
    }
}
