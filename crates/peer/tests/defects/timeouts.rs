//! Every wait has an end, and an option that says when.

use async_trait::async_trait;
use tipward_peer::{CallError, ConnectError, Dialed, Dialer, DisconnectReason};

use super::*;

const SECONDS: Duration = Duration::from_secs(7);

/// A network that answers nothing.
#[derive(Debug)]
struct Silence;

#[async_trait]
impl Dialer for Silence {
    async fn dial(&self, _: &PeerAddress) -> std::io::Result<Dialed> {
        std::future::pending().await
    }

    async fn resolve(&self, _: &str, _: u16) -> std::io::Result<Vec<PeerAddress>> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn connecting_times_out() {
    let mut changed = in_clear();
    changed.connect_timeout = SECONDS;
    for options in [in_clear(), changed] {
        let (limit, start) = (options.connect_timeout, Instant::now());
        let failed =
            Client::connect_through(Bitcoin::new(NETWORK), Arc::new(Silence), address(1), options).await;
        assert!(matches!(failed.unwrap_err(), ConnectError::TimedOut));
        assert_eq!(start.elapsed(), limit);
        assert_eq!(tasks(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_handshake_times_out() {
    let mut changed = in_clear();
    changed.handshake_timeout = SECONDS;
    for options in [in_clear(), changed] {
        let memory = Memory::default();
        let _listener = memory.listen(address(1)).unwrap();
        let (limit, start) = (options.handshake_timeout, Instant::now());
        let failed =
            Client::connect_through(Bitcoin::new(NETWORK), Arc::new(memory), address(1), options).await;
        let reason = failed.unwrap_err();
        assert!(matches!(reason, ConnectError::Handshake(DisconnectReason::HandshakeTimedOut)), "{reason}");
        assert_eq!(start.elapsed(), limit);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_times_out_alone() {
    let mut changed = in_clear();
    changed.request_timeout = SECONDS;
    for options in [in_clear(), changed] {
        let limit = options.request_timeout;
        let (client, far) = connected(options, 1 << 16).await;
        tokio::spawn(far.live());
        let start = Instant::now();
        assert_eq!(client.request(Message::GetAddr).await, Err(CallError::TimedOut));
        assert_eq!(start.elapsed(), limit);
        let start = Instant::now();
        let within = client.peer().request_within(Message::GetAddr, Duration::from_secs(3));
        assert_eq!(within.await, Err(CallError::TimedOut));
        assert_eq!(start.elapsed(), Duration::from_secs(3));
        client.send(other(0, 4)).await.expect("the connection lives");
    }
}

/// How long the connection lives from the handshake on, and why it ends.
async fn end_of(mut client: Client<Message>) -> (Duration, DisconnectReason) {
    let start = Instant::now();
    loop {
        if let Err(reason) = client.receive().await {
            return (start.elapsed(), reason);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn silence_times_out() {
    let mut changed = in_clear();
    changed.idle_timeout = SECONDS;
    for options in [in_clear(), changed] {
        let limit = options.idle_timeout;
        let (client, mut far) = connected(options, 1 << 16).await;
        let reading = async { while far.hear().await.is_some() {} };
        let ((lived, reason), ()) = tokio::join!(end_of(client), reading);
        assert!(matches!(reason, DisconnectReason::Idle), "{reason}");
        assert_eq!(lived, limit);
    }
}

#[tokio::test(start_paused = true)]
async fn a_ping_that_stays_unanswered_times_out() {
    let mut changed = in_clear();
    (changed.idle_timeout, changed.ping_interval) = (SECONDS, Duration::from_secs(2));
    for options in [in_clear(), changed] {
        let limit = options.idle_timeout;
        let (client, mut far) = connected(options, 1 << 20).await;
        // It talks all the time, and never answers.
        let talking = tokio::spawn(async move {
            loop {
                let bytes = far.bytes(&[other(0, 4)]);
                if far.stream.write_all(&bytes).await.is_err() {
                    return;
                }
                sleep(Duration::from_secs(1)).await;
            }
        });
        let (lived, reason) = end_of(client).await;
        assert!(matches!(reason, DisconnectReason::Unresponsive), "{reason}");
        assert_eq!(lived, limit);
        talking.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn writing_times_out() {
    let mut changed = in_clear();
    changed.write_timeout = SECONDS;
    for options in [in_clear(), changed] {
        let limit = options.write_timeout;
        let (client, _far) = connected(options, 256).await;
        let peer = client.peer().clone();
        let sending = async { peer.send(other(0, 10_000)).await.unwrap_err() };
        let ((lived, reason), _) = tokio::join!(end_of(client), sending);
        assert!(matches!(reason, DisconnectReason::WriteTimedOut), "{reason}");
        assert_eq!(lived, limit);
    }
}

#[tokio::test(start_paused = true)]
async fn absolute_write_time_out() {
    // A little at a time is slow, and no reason to part: it is progress that counts.
    let (client, mut far) = connected(in_clear(), 256).await;
    let slowly = tokio::spawn(async move {
        loop {
            sleep(Duration::from_secs(50)).await;
            let mut some = [0; 256];
            assert!(far.stream.read(&mut some).await.unwrap() > 0, "the connection lives");
        }
    });
    let start = Instant::now();
    client.send(other(0, 5000)).await.unwrap();
    assert!(start.elapsed() > 10 * LinkOptions::default().write_timeout);
    slowly.abort();
}

#[tokio::test(start_paused = true)]
async fn closing_times_out() {
    let mut changed = in_clear();
    changed.close_timeout = SECONDS;
    for options in [in_clear(), changed] {
        let limit = options.close_timeout;
        let (client, _far) = connected(options, 256).await;
        let peer = client.peer().clone();
        let sending = tokio::spawn(async move { peer.send(other(0, 10_000)).await });
        sleep(SOON).await;
        let start = Instant::now();
        client.close().await;
        assert_eq!(start.elapsed(), limit);
        sending.await.unwrap().unwrap_err();
    }
}
