//! Encrypted connections to a `bitcoind` that knows how, and to one that was told not to.

use tipward_chain::sync::peer::{
    Client, ConnectError, DisconnectReason, Encrypt, LinkOptions, wire::bitcoin::Message,
};
use tipward_tests::{Bitcoind, Peers};

use super::{connect, listen, regtest};

fn encrypted(encrypt: Encrypt) -> LinkOptions {
    let mut options = LinkOptions::default();
    options.encrypt = encrypt;
    options
}

/// What the node says of its only peer.
async fn transport(bitcoind: &Bitcoind) -> (String, usize) {
    bitcoind.wait_for("one peer", |node| node.peers().len() == 1).await;
    let peer = bitcoind.peers().remove(0);
    let session = peer["session_id"].as_str().unwrap().len();
    (peer["transport_protocol_type"].as_str().unwrap().to_owned(), session)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_is_v2_where_the_node_knows_it() {
    let Some(bitcoind) = Bitcoind::start(&[]) else { return };
    assert_eq!(LinkOptions::default().encrypt, Encrypt::Prefer);
    for (encrypt, is_encrypted, expected) in [
        (Encrypt::Prefer, true, ("v2".to_owned(), 64)),
        (Encrypt::Require, true, ("v2".to_owned(), 64)),
        (Encrypt::Off, false, ("v1".to_owned(), 0)),
    ] {
        let client = listen(connect(bitcoind.address(), encrypted(encrypt)).await);
        assert_eq!(client.peer.request(Message::Ping(7)).await.unwrap(), Message::Pong(7));
        assert_eq!(client.peer.is_encrypted(), is_encrypted, "{encrypt:?}");
        assert_eq!(transport(&bitcoind).await, expected, "{encrypt:?}");
        client.peer.disconnect(DisconnectReason::ClosedByUs);
        bitcoind.wait_for("the end", |node| node.peers().is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_encrypt_is_dialled_again_or_refused() {
    let Some(bitcoind) = Bitcoind::start(&["-v2transport=0"]) else { return };
    let client = connect(bitcoind.address(), encrypted(Encrypt::Prefer)).await;
    assert!(!client.peer().is_encrypted());
    assert_eq!(transport(&bitcoind).await, ("v1".to_owned(), 0));
    client.close().await;

    let refused = Client::connect(regtest(), bitcoind.address().into(), encrypted(Encrypt::Require)).await;
    let reason = refused.unwrap_err();
    assert!(matches!(reason, ConnectError::Handshake(DisconnectReason::NotEncrypted)), "{reason}");
    assert_eq!(reason.to_string(), "during the handshake: does not encrypt");

    // A manager learns it: the node numbers connections, and the second time there is only one.
    bitcoind.wait_for("silence", |node| node.peers().is_empty()).await;
    let mut peers = Peers::start(&[bitcoind.address()], |_| {}).await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        assert!(!peers.connected().await.is_encrypted());
        assert_eq!(transport(&bitcoind).await.0, "v1");
        ids.push(bitcoind.peers()[0]["id"].as_u64().unwrap());
        bitcoind.disconnect_all();
    }
    assert_eq!(ids[1] - ids[0], 1, "{ids:?}");
    peers.manager.shutdown().await;
}
