//! Peers that are held.

use tokio::{
    net::{TcpListener, TcpStream},
    time::{advance, sleep},
};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// Announcements of one block each, numbered from `first`.
fn announcements(numbers: std::ops::Range<u64>) -> Vec<Message> {
    let inv = |n: u64| {
        let mut hash = [1; 32];
        hash[..8].copy_from_slice(&n.to_le_bytes());
        let kind = tipward_wire::bitcoin::InventoryKind::Block;
        Message::Inv(vec![tipward_wire::bitcoin::Inventory { kind, hash }])
    };
    numbers.map(inv).collect()
}

/// The number of the announcement that comes next.
async fn next<S>(talk: &mut Talk<S>) -> u64 {
    loop {
        match talk.events.recv().await {
            // The last of what an announcement says.
            Some(PeerEvent::Reply { reply: Reply::NewTip(block), .. }) => {
                return u64::from_le_bytes(block.as_bytes()[..8].try_into().unwrap());
            }
            Some(PeerEvent::Reply { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_comes_from_a_held_peer_and_all_of_it_afterwards() {
    let mut talk = Talk::start(1 << 16, 4);
    let peer = talk.shake_hands().await;
    talk.say(&announcements(0..1)).await;
    assert_eq!(next(&mut talk).await, 0);
    let mut sent = 1;
    for round in 1..20 {
        // The task may be waiting for the socket, or be about to; what it reads in between stays below.
        for _ in 0..round % 3 {
            yield_now().await;
        }
        peer.hold();
        assert!(peer.is_held());
        let before = peer.figures().received;
        talk.say(&announcements(sent..sent + 500)).await;
        sleep(HOUR + Duration::from_millis(500)).await;
        assert!(talk.events.try_recv().is_err(), "in round {round}");
        let read = peer.figures().received - before;
        assert!(read <= 64 << 10, "{read} bytes were read");
        // Without a look in between it is the same as never.
        peer.resume();
        peer.hold();
        peer.hold();
        assert!(talk.events.try_recv().is_err());
        let start = now();
        peer.resume();
        for n in sent..sent + 500 {
            assert_eq!(next(&mut talk).await, n);
        }
        assert_eq!(now(), start, "who is resumed is read at once");
        sent += 500;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_held_peer_sends_fills_its_own_buffers() {
    let mut talk = Talk::start(5000, 4);
    let peer = talk.shake_hands().await;
    peer.hold();
    yield_now().await;
    let mut bytes = BytesMut::new();
    announcements(0..10_000).iter().for_each(|message| talk.codec.encode(message, &mut bytes));
    let mut written = 0;
    while let Ok(length) =
        timeout(Duration::from_secs(1), talk.stream.write(&bytes[written..bytes.len()])).await
    {
        written += length.unwrap();
    }
    // One read that was waiting when it was held, and the buffer between the two.
    assert!(written <= 5000 + (64 << 10) && written < bytes.len(), "{written} bytes were taken");
    peer.resume();
    let mut told = 0;
    let take = async {
        while told < 10_000 {
            let event = talk.events.recv().await;
            told += u32::from(matches!(event, Some(PeerEvent::Reply { reply: Reply::Announced(_), .. })));
        }
    };
    let (sent, ()) = tokio::join!(talk.stream.write_all(&bytes[written..]), take);
    sent.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_held_peer_is_not_late() {
    let options = LinkOptions { idle_timeout: Duration::from_secs(600), ..LinkOptions::default() };
    let mut talk = Talk::with_options(1 << 16, 4, options);
    let peer = talk.shake_hands().await;
    sleep(Duration::from_secs(1)).await;
    peer.hold();
    talk.say(&announcements(0..1)).await;
    // Pings of before stay unanswered.
    sleep(10 * HOUR).await;
    assert!(!talk.task.is_finished());
    peer.resume();
    assert_eq!(next(&mut talk).await, 0);
    // Its time starts anew, and does end.
    let start = now();
    assert!(matches!(
        talk.task.await.unwrap().reason,
        DisconnectReason::Idle | DisconnectReason::Unresponsive
    ));
    assert_eq!((now() - start).as_secs(), 600);
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_nobody_noticed_gives_time_too() {
    let mut talk = Talk::start(1 << 16, 4);
    let peer = talk.shake_hands().await;
    let idle = LinkOptions::default().idle_timeout;
    while let Ok(message) = timeout(Duration::from_secs(1), talk.hear()).await {
        if let Message::Ping(nonce) = message {
            talk.say(&[Message::Pong(nonce)]).await;
        }
    }
    sleep(idle - Duration::from_secs(10)).await;
    peer.hold();
    peer.resume();
    sleep(idle - Duration::from_secs(10)).await;
    assert!(!talk.task.is_finished());
    assert!(matches!(talk.task.await.unwrap().reason, DisconnectReason::Idle));
}

#[tokio::test(start_paused = true)]
async fn a_held_peer_is_still_spoken_to_and_need_not_read() {
    let mut talk = Talk::start(1000, 4);
    let peer = talk.shake_hands().await;
    while !matches!(talk.hear().await, Message::Ping(_)) {}
    peer.hold();
    yield_now().await;
    // More than there is room for under way; a node that can't write may not read either.
    let hashes = vec![tipward_wire::BlockHash::from_bytes([1; 32]); 101];
    peer.ask(Want::HeadersAfter(hashes.clone())).unwrap();
    sleep(HOUR).await;
    assert!(!talk.task.is_finished());
    assert!(matches!(talk.hear().await, Message::GetHeaders(locator) if locator.hashes == hashes));
    peer.send(Message::Ping(5)).await.unwrap();
    assert_eq!(talk.hear().await, Message::Ping(5));
    // Once it is read from, it has to.
    peer.resume();
    let start = now();
    peer.ask(Want::HeadersAfter(hashes)).unwrap();
    assert!(matches!(talk.task.await.unwrap().reason, DisconnectReason::WriteTimedOut));
    assert_eq!((now() - start).as_secs(), LinkOptions::default().write_timeout.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_held_peer_can_be_ended_and_its_end_is_seen() {
    for place in 0..3 {
        let mut talk = Talk::start(1 << 16, 1);
        let peer = talk.shake_hands().await;
        for _ in 0..place {
            talk.say(&announcements(0..3)).await;
            sleep(Duration::from_secs(1)).await;
        }
        peer.hold();
        if place == 1 {
            advance(HOUR).await;
        }
        peer.disconnect(DisconnectReason::ClosedByUs);
        assert!(matches!(talk.task.await.unwrap().reason, DisconnectReason::ClosedByUs));
    }
    let mut talk = Talk::start(1 << 16, 4);
    let peer = talk.shake_hands().await;
    peer.hold();
    talk.say(&announcements(0..1)).await;
    sleep(HOUR).await;
    let start = now();
    drop(talk.stream);
    talk.task.await.unwrap();
    assert!(now() - start <= Duration::from_secs(2));
}

/// Both ends of a TCP connection.
async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (ours.unwrap(), theirs.unwrap().0)
}

#[tokio::test]
async fn over_tcp_a_held_block_goes_on_where_it_stopped() {
    let options = LinkOptions { part_size: 1 << 16, merkle_root: false, ..LinkOptions::default() };
    let (stream, theirs) = tcp().await;
    let mut talk = Talk::over(stream, theirs, 64, options);
    let peer = talk.shake_hands().await;
    peer.ask(Want::Blocks(vec![Network::BTC.genesis().hash()])).unwrap();
    while !matches!(talk.hear().await, Message::GetData(_)) {}
    let block = block(60_000).freeze();
    let mut frame = BytesMut::new();
    talk.codec.encode(&Message::Block(block.clone()), &mut frame);
    let stream = talk.stream;
    let sent = tokio::spawn(async move {
        let mut stream = stream;
        stream.write_all(&frame).await.unwrap();
        stream
    });
    let (mut bytes, mut parts) = (BytesMut::new(), 0);
    loop {
        match talk.events.recv().await {
            Some(PeerEvent::Reply { reply: Reply::Part(part), .. }) => {
                assert_eq!(part.offset, bytes.len() as u64);
                bytes.extend_from_slice(&part.bytes);
                parts += 1;
                if parts % 7 == 3 {
                    peer.hold();
                    // What was read before still comes.
                    while let Ok(event) = timeout(Duration::from_millis(20), talk.events.recv()).await {
                        let Some(PeerEvent::Reply { reply: Reply::Part(part), .. }) = event else { continue };
                        bytes.extend_from_slice(&part.bytes);
                        parts += 1;
                    }
                    let received = peer.figures().received;
                    sleep(Duration::from_millis(30)).await;
                    assert!(talk.events.try_recv().is_err() && peer.figures().received == received);
                    peer.resume();
                }
            }
            Some(PeerEvent::Reply { reply: Reply::BlockEnd(_), .. }) => break,
            Some(PeerEvent::Reply { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(bytes == block, "{} bytes of {}", bytes.len(), block.len());
    sent.await.unwrap();
}

#[tokio::test]
async fn over_tcp_a_held_peer_that_resets_is_noticed() {
    let (stream, theirs) = tcp().await;
    let mut talk = Talk::over(stream, theirs, 4, LinkOptions::default());
    let peer = talk.shake_hands().await;
    peer.hold();
    talk.say(&announcements(0..100)).await;
    talk.stream.set_zero_linger().unwrap();
    drop(talk.stream);
    // Nothing else would tell: it is not read, and nothing is to be sent.
    let ended = talk.task.await.unwrap();
    assert!(ended.reason.is_hanging_up(), "{}", ended.reason);
}
