//! The whole layer over a network within the process.

use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use tipward_sync::{
    Block, BlockId, BlockSink, Event, Progress, Running, SinkError, SyncError, SyncParts, async_trait,
    peer::{
        Discovery, Encrypt, ManagerOptions, Memory, MemoryListener, PeerAddress, Stream,
        bitcoin::Bitcoin,
        wire::{
            Dialect, Incoming,
            bitcoin::{BlockHeader, Codec, Message, Network, NetworkAddress, Services, VarStr, Version},
        },
    },
    run,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use super::*;

const NETWORK: &Network = Network::BTC_REGTEST;

fn address() -> PeerAddress {
    PeerAddress { host: "10.1.0.1".to_owned(), port: 8333 }
}

/// Serves this chain to everybody who connects.
async fn serve(mut listener: MemoryListener, chain: Vec<SimBlock>) {
    let chain = Arc::new(chain);
    loop {
        let stream = listener.accept().await;
        tokio::spawn(serve_one(stream, Arc::clone(&chain)));
    }
}

async fn serve_one(mut stream: Box<dyn Stream>, chain: Arc<Vec<SimBlock>>) {
    let (mut codec, mut input) = (Codec::new(NETWORK), BytesMut::new());
    loop {
        let answers = match codec.decode(&mut input) {
            Ok(Some(Incoming::Message(message))) => answer(message, &mut codec, &chain),
            Ok(Some(_)) => Vec::new(),
            _ => {
                if stream.read_buf(&mut input).await.unwrap_or(0) == 0 {
                    return;
                }
                continue;
            }
        };
        let mut bytes = BytesMut::new();
        answers.iter().for_each(|message| codec.encode(message, &mut bytes));
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

fn answer(message: Message, codec: &mut Codec, chain: &[SimBlock]) -> Vec<Message> {
    match message {
        Message::Version(_) => {
            let version = Version {
                protocol: 70016,
                services: Services::NETWORK | Services::WITNESS,
                time: 0,
                receiver: NetworkAddress::UNSPECIFIED,
                sender: NetworkAddress::UNSPECIFIED,
                nonce: 99,
                user_agent: VarStr::default(),
                start_height: chain.len() as i32 - 1,
                relay: true,
                association_id: None,
            };
            vec![Message::Version(version), Message::Verack]
        }
        Message::Verack => {
            codec.handshake_done();
            Vec::new()
        }
        Message::Ping(nonce) => vec![Message::Pong(nonce)],
        Message::GetHeaders(locator) => {
            let at = |hash: &BlockHash| chain.iter().position(|block| block.hash == *hash);
            let from = locator.hashes.iter().find_map(at).unwrap_or(0) + 1;
            let header = |block: &SimBlock| BlockHeader::from_bytes(block.bytes[..80].try_into().unwrap());
            vec![Message::Headers(chain.iter().skip(from).take(2000).map(header).collect())]
        }
        Message::GetData(asked) => {
            let find = |hash: [u8; 32]| chain.iter().find(|block| *block.hash.as_bytes() == hash);
            asked
                .iter()
                .filter_map(|item| find(item.hash))
                .map(|block| Message::Block(block.bytes.clone()))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// What a sink has stored. It survives the sync.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<Vec<BlockId>>>);

impl Store {
    fn hashes(&self) -> Vec<BlockHash> {
        self.0.lock().unwrap().iter().map(|id| id.hash).collect()
    }
}

struct Sink {
    store: Store,
    fails_at: Option<u64>,
}

#[async_trait]
impl BlockSink for Sink {
    async fn cursor(&mut self) -> Result<Option<BlockId>, SinkError> {
        Ok(self.store.0.lock().unwrap().last().copied())
    }

    async fn apply(&mut self, block: Block) -> Result<(), SinkError> {
        if self.fails_at == Some(block.id.height) {
            return Err("the disk is full".into());
        }
        let mut blocks = self.store.0.lock().unwrap();
        assert_eq!(blocks.len() as u64, block.id.height, "in order, and each once");
        blocks.push(block.id);
        Ok(())
    }

    async fn rollback(&mut self, to: BlockId) -> Result<(), SinkError> {
        self.store.0.lock().unwrap().truncate(to.height as usize + 1);
        Ok(())
    }
}

fn parts(memory: Memory, store: &Store, fails_at: Option<u64>) -> SyncParts {
    let mut peers = ManagerOptions::default();
    peers.link.encrypt = Encrypt::Off;
    peers.pool.discovery = Discovery::Off;
    peers.seed = Some(1);
    peers.dialer = Arc::new(memory);
    SyncParts {
        protocol: Arc::new(Bitcoin::new(NETWORK)),
        peers,
        options: options(Strategy::HeadersFirst),
        give_up_without_peers: false,
        chain: Box::new(Tree::new()),
        sink: Box::new(Sink { store: store.clone(), fails_at }),
        filters: None,
    }
}

/// A sync of this chain from one peer.
async fn start(chain: &[SimBlock], store: &Store, fails_at: Option<u64>) -> Running {
    let memory = Memory::default();
    tokio::spawn(serve(memory.listen(address()).unwrap(), chain.to_vec()));
    let mut parts = parts(memory, store, fails_at);
    parts.peers.addresses = vec![address()];
    parts.options.stop_at = Some(chain.len() as u64 - 1);
    run(parts).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn undrained_event_channels_freeze_nothing() {
    let (chain, store) = (chain(3000), Store::default());
    let mut running = start(&chain, &store, None).await;
    // The first has all events from the start; neither is read before the end.
    let (mut first, second) = (running.events(), running.events());
    timeout(seconds(600), running.wait()).await.expect("it goes on").unwrap();
    assert_eq!(store.hashes(), hashes(&chain));
    drop(second);
    assert!(matches!(first.next().await, Some(Event::Missed(missed)) if missed > 1000));
    while first.next().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn a_block_that_the_sink_could_not_apply_comes_again() {
    let (chain, store) = (chain(300), Store::default());
    let mut running = start(&chain, &store, Some(120)).await;
    let error = timeout(seconds(600), running.wait()).await.expect("it ends").unwrap_err();
    assert!(matches!(&error, SyncError::Sink(reason) if reason.to_string() == "the disk is full"), "{error}");
    assert_eq!(running.control().progress().applied.map(|tip| tip.height), Some(119));
    assert_eq!(store.hashes(), hashes(&chain[..120]), "nothing after it either");
    // The sink checks that what comes next is what it could not take.
    let mut running = start(&chain, &store, None).await;
    timeout(seconds(600), running.wait()).await.expect("it ends").unwrap();
    assert_eq!(store.hashes(), hashes(&chain));
}

#[tokio::test(start_paused = true)]
async fn with_zero_peers_it_neither_panics_nor_spins() {
    let store = Store::default();
    let running = run(parts(Memory::default(), &store, None)).await.unwrap();
    let control = running.control();
    control.pause();
    sleep(seconds(3600)).await;
    control.resume();
    sleep(seconds(3600)).await;
    let Progress { synced, peers_seen, .. } = control.progress();
    assert!(!synced && peers_seen == 0);
    control.ban_peer(address(), "no reason").await.unwrap();
    running.shutdown().await.unwrap();
    assert!(control.add_peer(address()).await.is_err());
    control.pause();

    // One that nobody answers at: an error if that was asked for, else it tries on.
    let memory = Memory::default();
    let mut without = parts(memory.clone(), &store, None);
    without.peers.addresses = vec![address()];
    without.give_up_without_peers = true;
    let error = timeout(seconds(3600), run(without).await.unwrap().wait()).await.expect("it gives up");
    assert!(matches!(error, Err(SyncError::NoPeers { .. })), "{error:?}");
    let (chain, mut patient) = (chain(50), parts(memory.clone(), &store, None));
    patient.peers.addresses = vec![address()];
    patient.options.stop_at = Some(50);
    let mut running = run(patient).await.unwrap();
    sleep(seconds(3600)).await;
    tokio::spawn(serve(memory.listen(address()).unwrap(), chain.clone()));
    timeout(seconds(86_400), running.wait()).await.expect("the peer is found in the end").unwrap();
    assert_eq!(store.hashes(), hashes(&chain));
}
