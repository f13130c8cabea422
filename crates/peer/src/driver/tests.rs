//! Time-outs and order over an in-memory stream, with the clock in the test's hands.

use bytes::{BufMut, BytesMut};
use tipward_wire::{
    Dialect, Incoming,
    bitcoin::{Codec, Command, Message, Network, NetworkAddress, Services, VarStr, Version},
};
use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::{Encrypt, Local, Peer, Protocol, Start, Want, bitcoin::Bitcoin, peer::Kill};

mod hold;

/// A connection's task, and the test as its peer.
struct Talk<S = DuplexStream> {
    task: tokio::task::JoinHandle<Ended>,
    stream: S,
    codec: Codec,
    input: BytesMut,
    events: mpsc::Receiver<PeerEvent>,
}

impl Talk {
    /// `buffer` bytes may be under way in each direction, `places` events wait.
    fn start(buffer: usize, places: usize) -> Self {
        Self::with_options(buffer, places, LinkOptions::default())
    }

    fn with_options(buffer: usize, places: usize, options: LinkOptions) -> Self {
        let (stream, theirs) = duplex(buffer);
        Self::over(stream, theirs, places, options)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Talk<S> {
    /// The test has one end of the connection, the task the other.
    fn over(stream: S, theirs: S, places: usize, options: LinkOptions) -> Self {
        let (sender, events) = mpsc::channel(places);
        let kill: Kill = Arc::new(watch::channel(None).0);
        let options = LinkOptions { encrypt: Encrypt::Off, ..options };
        let start = Start { direction: Direction::Outbound, encrypted: false, seed: 1, now: now() };
        let link = Bitcoin::new(Network::BTC).connect(&Local::default(), &options, start);
        let address = PeerAddress { host: "peer".to_owned(), port: 1 };
        let driver = Driver {
            id: PeerId(1),
            address,
            direction: Direction::Outbound,
            remote: None,
            link,
            options,
            events: sender,
            kill,
            figures: Arc::new(Mutex::new(Figures::new(now()))),
            manager: None,
        };
        let (codec, input) = (Codec::new(Network::BTC), BytesMut::new());
        Self { task: tokio::spawn(driver.run(theirs)), stream, codec, input, events }
    }

    async fn say(&mut self, messages: &[Message]) {
        let mut bytes = BytesMut::new();
        messages.iter().for_each(|message| self.codec.encode(message, &mut bytes));
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn hear(&mut self) -> Message {
        loop {
            if let Some(Incoming::Message(message)) = self.codec.decode(&mut self.input).unwrap() {
                return message;
            }
            assert!(self.stream.read_buf(&mut self.input).await.unwrap() > 0, "closed");
        }
    }

    async fn shake_hands(&mut self) -> Peer {
        assert!(matches!(self.hear().await, Message::Version(_)));
        let version = Version {
            protocol: 70016,
            services: Services::NETWORK | Services::WITNESS,
            time: 0,
            receiver: NetworkAddress::UNSPECIFIED,
            sender: NetworkAddress::UNSPECIFIED,
            nonce: 99,
            user_agent: VarStr::default(),
            start_height: 0,
            relay: true,
            association_id: None,
        };
        self.say(&[Message::Version(version), Message::Verack]).await;
        self.codec.handshake_done();
        match self.events.recv().await {
            Some(PeerEvent::Connected(peer)) => peer,
            other => panic!("{other:?}"),
        }
    }
}

fn other() -> Message {
    Message::Other { command: Command::new("whatever").unwrap(), payload: vec![0; 500].into() }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_shakes_hands_times_out() {
    let start = now();
    let talk = Talk::start(1 << 16, 4);
    let ended = talk.task.await.unwrap();
    assert!(matches!(ended.reason, DisconnectReason::HandshakeTimedOut) && !ended.was_ready);
    assert_eq!(now() - start, LinkOptions::default().handshake_timeout);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_babbles_instead_of_shaking_hands_times_out_too() {
    let mut talk = Talk::start(1 << 16, 4);
    let babble = async {
        loop {
            let mut bytes = BytesMut::new();
            talk.codec.encode(&other(), &mut bytes);
            if talk.stream.write_all(&bytes).await.is_err() {
                break;
            }
            tokio::time::advance(Duration::from_millis(100)).await;
        }
    };
    babble.await;
    assert!(matches!(talk.task.await.unwrap().reason, DisconnectReason::HandshakeTimedOut));
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_pinged_and_given_up() {
    let mut talk = Talk::start(1 << 16, 4);
    let _peer = talk.shake_hands().await;
    let start = now();
    let ended = talk.task.await.unwrap();
    assert!(matches!(ended.reason, DisconnectReason::Idle) && ended.was_ready);
    assert_eq!((now() - start).as_secs(), LinkOptions::default().idle_timeout.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_given_up() {
    let mut talk = Talk::start(1000, 4);
    let peer = talk.shake_hands().await;
    assert!(matches!(talk.hear().await, Message::SendAddrV2));
    assert!(matches!(talk.hear().await, Message::Verack));
    let start = now();
    for n in 0..COMMANDS as u8 {
        peer.ask(Want::HeadersAfter(vec![tipward_wire::BlockHash::from_bytes([n; 32]); 101])).unwrap();
    }
    assert!(matches!(talk.task.await.unwrap().reason, DisconnectReason::WriteTimedOut));
    assert_eq!((now() - start).as_secs(), LinkOptions::default().write_timeout.as_secs());
}

#[tokio::test(start_paused = true)]
async fn our_own_slowness_is_not_the_peers() {
    let mut talk = Talk::start(1 << 16, 1);
    let _peer = talk.shake_hands().await;
    for _ in 0..3 {
        talk.say(&[Message::Headers(Vec::new())]).await;
    }
    // Nobody takes the events for an hour, in which the peer is not heard.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!talk.task.is_finished());
    for _ in 0..3 {
        assert!(matches!(talk.events.recv().await, Some(PeerEvent::Reply { .. })));
    }
    talk.say(&[Message::Ping(5)]).await;
    while talk.hear().await != Message::Pong(5) {}
}

#[tokio::test(start_paused = true)]
async fn a_connection_can_be_ended_while_nobody_takes_its_events() {
    let mut talk = Talk::start(1 << 16, 1);
    let peer = talk.shake_hands().await;
    for _ in 0..3 {
        talk.say(&[Message::Headers(Vec::new())]).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    peer.disconnect(DisconnectReason::Idle);
    peer.disconnect(DisconnectReason::WriteTimedOut);
    assert!(matches!(talk.task.await.unwrap().reason, DisconnectReason::Idle), "the first reason stands");
}

#[tokio::test(start_paused = true)]
async fn a_closed_stream_ends_the_connection_at_once() {
    let mut talk = Talk::start(1 << 16, 4);
    let _peer = talk.shake_hands().await;
    let start = now();
    drop(talk.stream);
    assert!(matches!(talk.task.await.unwrap().reason, DisconnectReason::Closed));
    assert!(now() - start < Duration::from_secs(1));
}

/// A block of many transactions of 60 bytes.
fn block(transactions: u16) -> BytesMut {
    let mut block = BytesMut::new();
    block.put_slice(&Network::BTC.genesis().to_bytes());
    block.put_u8(0xfd);
    block.put_u16_le(transactions);
    for n in 0..transactions {
        block.put_i32_le(1);
        block.put_u8(1);
        block.put_bytes(n as u8, 36);
        block.put_u8(0);
        block.put_u32_le(0);
        block.put_u8(1);
        block.put_u64_le(1);
        block.put_u8(0);
        block.put_u32_le(0);
    }
    block
}

#[tokio::test(start_paused = true)]
async fn the_parts_of_a_block_come_into_the_memory_of_those_before() {
    let options = LinkOptions { part_size: 128 << 10, merkle_root: false, ..LinkOptions::default() };
    let mut talk = Talk::with_options(4 << 20, 64, options);
    let peer = talk.shake_hands().await;
    let hash = Network::BTC.genesis().hash();
    peer.ask(Want::Blocks(vec![hash])).unwrap();
    while !matches!(talk.hear().await, Message::GetData(_)) {}
    talk.say(&[Message::Block(block(60_000).freeze())]).await;
    let (mut places, mut parts) = (std::collections::BTreeSet::new(), 0);
    while let Some(PeerEvent::Reply { reply: Reply::Part(part), .. }) = talk.events.recv().await {
        places.insert(part.bytes.as_ptr());
        parts += 1;
    }
    assert!(parts > 25 && places.len() < 5, "{parts} parts at {} places", places.len());
}
