//! Connections that others open, and encryption between two of our own.

use tipward_peer::{ConnectError, Direction, DisconnectReason, Needs, PeerState, Violation};
use tokio::net::TcpStream;

use super::*;

fn listening(encrypt: Encrypt) -> ManagerOptions {
    let mut options = ManagerOptions::default();
    options.listen = vec!["127.0.0.1:0".parse().unwrap()];
    options.pool.discovery = tipward_peer::Discovery::Off;
    options.link.encrypt = encrypt;
    options
}

fn dialling(manager: &Manager, encrypt: Encrypt) -> ManagerOptions {
    let mut options = ManagerOptions::default();
    options.addresses = vec![manager.listening()[0].into()];
    (options.link.encrypt, options.link.needs) = (encrypt, Needs::Nothing);
    options
}

fn outcome(event: PeerEvent) -> Option<Result<Peer, ConnectError>> {
    match event {
        PeerEvent::Connected(peer) => Some(Ok(peer)),
        PeerEvent::ConnectFailed { reason, .. } => Some(Err(reason)),
        _ => None,
    }
}

#[tokio::test]
async fn two_of_our_own_encrypt_if_both_may_and_not_if_one_must_not() {
    use Encrypt::{Off, Prefer, Require};
    for (ours, theirs, expected) in [
        (Prefer, Prefer, Some(true)),
        (Require, Require, Some(true)),
        (Require, Prefer, Some(true)),
        (Prefer, Require, Some(true)),
        (Prefer, Off, Some(false)),
        (Off, Prefer, Some(false)),
        (Off, Require, None),
        (Require, Off, None),
    ] {
        let (listener, mut inbound) = manage(listening(theirs), 64).await;
        let (dialler, mut outbound) = manage(dialling(&listener, ours), 64).await;
        let outcome = await_event(&mut outbound, outcome).await;
        assert_eq!(
            outcome.as_ref().ok().map(Peer::is_encrypted),
            expected,
            "{ours:?} {theirs:?} {outcome:?}"
        );
        if expected.is_some() {
            let peer = await_peer(&mut inbound).await;
            assert_eq!((Some(peer.is_encrypted()), peer.direction()), (expected, Direction::Inbound));
        }
        dialler.shutdown().await;
        listener.shutdown().await;
    }
}

#[tokio::test]
async fn who_dials_itself_is_refused() {
    let mut options = listening(Encrypt::Off);
    options.link.needs = Needs::Nothing;
    let (manager, mut inbox) = manage(options, 64).await;
    manager.add(manager.listening()[0].into()).await.unwrap();
    let mut reasons = Vec::new();
    while reasons.len() < 2 {
        reasons.push(await_event(&mut inbox, outcome).await.expect_err("refused"));
    }
    let is_own = |reason: &ConnectError| {
        matches!(reason, ConnectError::Handshake(DisconnectReason::Violation(Violation::OwnNonce)))
    };
    assert!(reasons.iter().any(is_own), "{reasons:?}");
    assert!(manager.peers().await.unwrap().is_empty());
    manager.shutdown().await;
}

/// Dials the manager, shakes hands.
async fn visit(manager: &Manager) -> Far<TcpStream> {
    let mut far = Far::new(TcpStream::connect(manager.listening()[0]).await.unwrap());
    far.say(&[Message::Version(greeting())]).await;
    if let Some(Message::Version(_)) = far.hear().await {
        far.say(&[Message::Verack]).await;
    }
    far
}

#[tokio::test]
async fn inbound_peers_are_bounded_and_gone_within_a_second() {
    let mut options = listening(Encrypt::Prefer);
    options.pool.max_inbound = 2;
    let (manager, mut inbox) = manage(options, 64).await;
    let first = visit(&manager).await;
    let peer = await_peer(&mut inbox).await;
    let mut second = visit(&manager).await;
    await_peer(&mut inbox).await;
    let mut third = Far::new(TcpStream::connect(manager.listening()[0]).await.unwrap());
    assert!(third.hear().await.is_none(), "closed at once");
    first.stream.set_zero_linger().unwrap();
    drop(first);
    let gone = await_event(&mut inbox, |event| match event {
        PeerEvent::Disconnected { peer, .. } => Some(peer),
        _ => None,
    });
    assert_eq!(timeout(Duration::from_secs(1), gone).await.unwrap(), peer.id());
    let _fourth = visit(&manager).await;
    await_peer(&mut inbox).await;
    let peers = manager.peers().await.unwrap();
    assert!(peers.len() == 2 && peers.iter().all(|peer| matches!(peer.state, PeerState::Ready { .. })));
    let at = manager.listening()[0];
    manager.shutdown().await;
    while second.hear().await.is_some() {}
    TcpStream::connect(at).await.unwrap_err();
}
