//! Defects found in comparable libraries, each a test that it is none here. The far side is the test itself, the network is
//! within the process and the time stands still, unless it is about sockets.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tipward_peer::{
    Client, Encrypt, LinkOptions, Manager, ManagerOptions, Memory, MemoryListener, Peer, PeerAddress,
    PeerEvent, Stream,
    bitcoin::Bitcoin,
    wire::{
        Dialect, Incoming,
        bitcoin::{Codec, Command, Message, Network, NetworkAddress, Services, VarStr, Version},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Handle,
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

mod blocks;
mod client;
mod handler;
mod inbound;
mod manager;
mod operational;
mod timeouts;

const NETWORK: &Network = Network::BTC_REGTEST;
/// Longer than anything that works takes, in the tests' own time.
const SOON: Duration = Duration::from_millis(100);

/// The far side of a connection.
struct Far<S = Box<dyn Stream>> {
    stream: S,
    codec: Codec,
    input: BytesMut,
}

impl Far {
    async fn accept(listener: &mut MemoryListener) -> Self {
        Self::new(listener.accept().await)
    }
}

impl<S: Stream> Far<S> {
    fn new(stream: S) -> Self {
        Self { stream, codec: Codec::new(NETWORK), input: BytesMut::new() }
    }

    fn bytes(&self, messages: &[Message]) -> BytesMut {
        let mut bytes = BytesMut::new();
        messages.iter().for_each(|message| self.codec.encode(message, &mut bytes));
        bytes
    }

    async fn say(&mut self, messages: &[Message]) {
        let bytes = self.bytes(messages);
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The next message, or `None` at the end of the stream.
    async fn hear(&mut self) -> Option<Message> {
        loop {
            if let Some(Incoming::Message(message)) = self.codec.decode(&mut self.input).unwrap() {
                return Some(message);
            }
            if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    async fn hear_until(&mut self, is_it: impl Fn(&Message) -> bool) -> Message {
        loop {
            let message = self.hear().await.expect("the connection is open");
            if is_it(&message) {
                return message;
            }
        }
    }

    /// Shakes hands and returns what the other side said of itself.
    async fn shake_hands(&mut self) -> Version {
        let Some(Message::Version(version)) = self.hear().await else { panic!("no version") };
        self.say(&[Message::Version(greeting()), Message::Verack]).await;
        self.hear_until(|message| matches!(message, Message::Verack)).await;
        self.codec.handshake_done();
        version
    }

    /// Whether the other side has closed, once everything is read.
    async fn is_closed(&mut self) -> bool {
        timeout(SOON, async { while self.hear().await.is_some() {} }).await.is_ok()
    }

    /// Reads for ever and answers pings.
    async fn live(mut self) {
        while let Some(message) = self.hear().await {
            if let Message::Ping(nonce) = message {
                self.say(&[Message::Pong(nonce)]).await;
            }
        }
    }
}

fn greeting() -> Version {
    Version {
        protocol: 70016,
        services: Services::NETWORK | Services::WITNESS,
        time: 0,
        receiver: NetworkAddress::UNSPECIFIED,
        sender: NetworkAddress::UNSPECIFIED,
        nonce: 99,
        user_agent: VarStr::default(),
        start_height: 110,
        relay: true,
        association_id: None,
    }
}

fn address(n: u8) -> PeerAddress {
    PeerAddress { host: format!("10.{n}.0.1"), port: 8333 }
}

/// A message that has no neutral words.
fn other(n: u32, size: usize) -> Message {
    let mut payload = n.to_le_bytes().to_vec();
    payload.resize(size.max(4), 0);
    Message::Other { command: Command::new("whatever").unwrap(), payload: payload.into() }
}

fn number(message: &Message) -> Option<u32> {
    let Message::Other { payload, .. } = message else { return None };
    Some(u32::from_le_bytes(payload[..4].try_into().unwrap()))
}

/// A frame of a parsed command whose payload is cut.
fn malformed<S: Stream>(far: &Far<S>) -> Bytes {
    let mut bytes = BytesMut::new();
    let command = Command::new("inv").unwrap();
    far.codec.encode(&Message::Other { command, payload: Bytes::from_static(&[5, 1]) }, &mut bytes);
    bytes.freeze()
}

fn in_clear() -> LinkOptions {
    let mut options = LinkOptions::default();
    options.encrypt = Encrypt::Off;
    options
}

/// A client, and its far side after the handshake.
async fn connected(options: LinkOptions, buffer: usize) -> (Client<Message>, Far) {
    let memory = Memory::new(buffer);
    let mut listener = memory.listen(address(1)).unwrap();
    let connecting = Client::connect_through(Bitcoin::new(NETWORK), Arc::new(memory), address(1), options);
    let far = async {
        let mut far = Far::accept(&mut listener).await;
        far.shake_hands().await;
        far
    };
    let (client, far) = tokio::join!(connecting, far);
    (client.unwrap(), far)
}

/// A manager's options with so many addresses in a network in memory, where somebody listens.
fn pool(peers: u8, buffer: usize) -> (ManagerOptions, Vec<MemoryListener>) {
    let memory = Memory::new(buffer);
    let mut options = ManagerOptions::default();
    options.link = in_clear();
    options.seed = Some(1);
    options.addresses = (1..=peers).map(address).collect();
    let listeners = (1..=peers).map(|n| memory.listen(address(n)).unwrap()).collect();
    options.dialer = Arc::new(memory);
    (options, listeners)
}

async fn manage(options: ManagerOptions, places: usize) -> (Manager, mpsc::Receiver<PeerEvent>) {
    let (events, inbox) = mpsc::channel(places);
    (Manager::spawn(Arc::new(Bitcoin::new(NETWORK)), options, events).await.unwrap(), inbox)
}

/// The next event that says something of it.
async fn await_event<T>(inbox: &mut mpsc::Receiver<PeerEvent>, find: impl Fn(PeerEvent) -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = find(inbox.recv().await.expect("the manager runs")) {
                return found;
            }
        }
    };
    timeout(Duration::from_secs(3600), found).await.expect("the event comes")
}

async fn await_peer(inbox: &mut mpsc::Receiver<PeerEvent>) -> Peer {
    await_event(inbox, |event| if let PeerEvent::Connected(peer) = event { Some(peer) } else { None }).await
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Waits in the tests' time until only so many tasks are left, and returns how long that took.
async fn await_tasks(left: usize) -> Duration {
    let start = Instant::now();
    while tasks() > left {
        assert!(start.elapsed() < Duration::from_secs(60), "{} tasks are left", tasks());
        sleep(Duration::from_millis(1)).await;
    }
    start.elapsed()
}
