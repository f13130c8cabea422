//! One connection.

use tipward_peer::{CallError, ConnectError, DisconnectReason, Received, Want, wire::BlockHash};
use tokio::net::{TcpListener, TcpStream};

use super::*;

#[tokio::test(start_paused = true)]
async fn close_leaves_no_task_and_no_socket() {
    let before = tasks();
    let (client, mut far) = connected(in_clear(), 1 << 16).await;
    assert!(tasks() > before);
    client.close().await;
    assert_eq!(tasks(), before);
    assert!(far.is_closed().await);

    let (client, mut far) = connected(in_clear(), 1 << 16).await;
    drop(client);
    assert!(far.is_closed().await);
    assert!(await_tasks(before).await < SOON);
}

#[tokio::test(start_paused = true)]
async fn close_from_another_task_while_everything_is_full_leaves_no_task() {
    let before = tasks();
    let (client, mut far) = connected(in_clear(), 1 << 16).await;
    // Nobody takes these, and the far side does not read.
    far.say(&(0..200).map(|n| other(n, 100)).collect::<Vec<_>>()).await;
    let peer = client.peer().clone();
    let sending = tokio::spawn(async move { peer.send(other(0, 1 << 20)).await });
    sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    tokio::spawn(client.close()).await.unwrap();
    assert!(start.elapsed() <= LinkOptions::default().close_timeout);
    sending.await.unwrap().unwrap_err();
    assert_eq!(tasks(), before);
}

#[tokio::test(start_paused = true)]
async fn a_client_given_up_while_it_connects_leaves_nothing() {
    let before = tasks();
    // Nobody accepts, and the places to wait at are taken.
    let memory = Memory::default();
    let mut listener = memory.listen(address(1)).unwrap();
    let connect = || {
        let dialer = Arc::new(memory.clone());
        Client::connect_through(Bitcoin::new(NETWORK), dialer, address(1), in_clear())
    };
    for _ in 0..20 {
        timeout(Duration::from_millis(1), connect()).await.unwrap_err();
    }
    assert!(await_tasks(before).await < Duration::from_secs(2), "dials and handshakes end at once");
    // What was accepted before is closed.
    let mut far = Far::accept(&mut listener).await;
    assert!(far.is_closed().await);
}

#[tokio::test(start_paused = true)]
async fn a_failed_handshake_leaves_nothing() {
    let before = tasks();
    let memory = Memory::default();
    let mut listener = memory.listen(address(1)).unwrap();
    for n in 0..3 {
        let dialer = Arc::new(memory.clone());
        let connecting = Client::connect_through(Bitcoin::new(NETWORK), dialer, address(1), in_clear());
        let far = async {
            let mut far = Far::accept(&mut listener).await;
            match n {
                0 => return far, // Says nothing and stays.
                1 => far.say(&[Message::Ping(1)]).await,
                _ => far.stream.write_all(&[0; 100]).await.unwrap(),
            }
            far
        };
        let (failed, mut far) = tokio::join!(connecting, far);
        let reason = failed.unwrap_err();
        assert!(matches!(reason, ConnectError::Handshake(_)), "{reason}");
        assert!(far.is_closed().await);
        assert_eq!(tasks(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_inside_a_frame_loses_nothing() {
    let (mut client, mut far) = connected(in_clear(), 1 << 16).await;
    let bytes = far.bytes(&(0..20).map(|n| other(n, 20)).collect::<Vec<_>>());
    let slowly = async {
        for byte in bytes {
            far.stream.write_all(&[byte]).await.unwrap();
            sleep(Duration::from_millis(700)).await;
        }
    };
    let reading = async {
        let mut heard = Vec::new();
        while heard.len() < 20 {
            // Given up and begun again, in the middle of frames too.
            match timeout(Duration::from_millis(300), client.receive()).await {
                Ok(Ok(Received::Message(message))) => heard.extend(number(&message)),
                Ok(other) => panic!("{other:?}"),
                Err(_) => {}
            }
        }
        heard
    };
    let ((), heard) = tokio::join!(slowly, reading);
    assert_eq!(heard, (0..20).collect::<Vec<_>>());
}

/// A client over TCP, its far side, and the port there.
async fn over_tcp() -> (Client<Message>, Far<TcpStream>, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = PeerAddress { host: "127.0.0.1".to_owned(), port };
    let connecting = Client::connect(Bitcoin::new(NETWORK), address, in_clear());
    let far = async {
        let mut far = Far::new(listener.accept().await.unwrap().0);
        far.shake_hands().await;
        far
    };
    let (client, far) = tokio::join!(connecting, far);
    (client.unwrap(), far, port)
}

/// How many sockets of this system are connected to the port, or were and are not closed.
#[cfg(target_os = "linux")]
fn sockets_to(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let is_open = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[2].ends_with(&format!(":{port:04X}")) && ["01", "08"].contains(&fields[3])
    };
    table.lines().skip(1).filter(is_open).count()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn no_socket_is_left_after_close_or_drop() {
    let (client, far, port) = over_tcp().await;
    assert_eq!(sockets_to(port), 1);
    client.close().await;
    assert_eq!(sockets_to(port), 0);
    drop(far);
    let (client, mut far, port) = over_tcp().await;
    drop(client);
    while far.hear().await.is_some() {}
    assert_eq!(sockets_to(port), 0);
}

#[tokio::test]
async fn a_fin_or_rst_ends_the_connection_within_a_second() {
    for reset in [false, true] {
        let (mut client, far, _) = over_tcp().await;
        let peer = client.peer().clone();
        if reset {
            far.stream.set_zero_linger().unwrap();
        }
        drop(far);
        let reason = timeout(Duration::from_secs(1), async {
            loop {
                if let Err(reason) = client.receive().await {
                    return reason;
                }
            }
        });
        let reason = reason.await.unwrap();
        assert!(
            matches!(reason, DisconnectReason::Io(_))
                || (!reset && matches!(reason, DisconnectReason::Closed)),
            "{reason}"
        );
        peer.send(other(0, 4)).await.unwrap_err();
        assert!(matches!(client.receive().await, Err(again) if again.to_string() == reason.to_string()));
    }
}

#[tokio::test(start_paused = true)]
async fn nonces_are_random() {
    let mut nonces = Vec::new();
    for _ in 0..5 {
        let memory = Memory::default();
        let mut listener = memory.listen(address(1)).unwrap();
        let connecting =
            Client::connect_through(Bitcoin::new(NETWORK), Arc::new(memory), address(1), in_clear());
        let far = async { Far::accept(&mut listener).await.shake_hands().await.nonce };
        let (_, nonce) = tokio::join!(connecting, far);
        nonces.push(nonce);
    }
    nonces.sort_unstable();
    nonces.dedup();
    assert_eq!(nonces.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn write_queues_are_bounded_and_push_back() {
    let mut options = in_clear();
    options.max_unsent = 10_000;
    let (mut client, far) = connected(options, 64).await;
    let peer = client.peer().clone();
    let locator = || Want::HeadersAfter(vec![BlockHash::from_bytes([7; 32]); 100]);
    let mut taken = 0;
    for _ in 0..1000 {
        taken += usize::from(peer.ask(locator()).is_ok());
        sleep(Duration::from_millis(1)).await;
    }
    // Three kilobytes each: four until too much is unsent, and 16 that wait.
    assert!((16..25).contains(&taken), "{taken} were taken");
    let start = Instant::now();
    let mut send = std::pin::pin!(peer.send(other(0, 1000)));
    timeout(Duration::from_secs(50), &mut send).await.expect_err("it waits");
    send.await.unwrap_err();
    assert!(start.elapsed() < LinkOptions::default().write_timeout);
    assert!(matches!(client.receive().await, Err(DisconnectReason::WriteTimedOut)));
    drop(far);
}

#[tokio::test(start_paused = true)]
async fn a_message_of_another_dialect_is_not_sent_and_hangs_nobody() {
    let (client, mut far) = connected(in_clear(), 1 << 16).await;
    timeout(SOON, client.peer().send("no message")).await.unwrap().unwrap();
    let failed = timeout(SOON, client.peer().request("no message")).await.unwrap();
    assert_eq!(failed, Err(CallError::Disconnected));
    client.send(other(7, 4)).await.unwrap();
    assert_eq!(number(&far.hear_until(|message| number(message).is_some()).await), Some(7));
}
