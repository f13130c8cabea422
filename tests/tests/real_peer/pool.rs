//! A pool of `bitcoind`s that come and go.

use std::{collections::BTreeSet, sync::Arc};

use bytes::{Bytes, BytesMut};
use serde_json::json;
use tipward_chain::sync::peer::{
    Announced, Answer, Choice, Context, HandlerResult, Manager, ManagerOptions, PeerEvent, PeerHandler,
    RequestPolicy, Want, async_trait,
    wire::{BlockEnd, BlockHash, BlockPart, Header, Txid, bitcoin::Message},
};
use tipward_tests::{Bitcoind, Peers, patiently};
use tokio::sync::mpsc;

use super::{HURRY, bytes, regtest, relaying};

fn patient() -> RequestPolicy {
    let mut policy = RequestPolicy::default();
    policy.attempt_timeout = tipward_tests::PATIENCE;
    policy.total_timeout = tipward_tests::PATIENCE;
    policy
}

#[allow(clippy::needless_pass_by_value, reason = "what events are filtered with takes them")]
fn is_lost(event: PeerEvent) -> Option<()> {
    matches!(event, PeerEvent::Disconnected { .. }).then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_lost_is_found_again() {
    let Some(mut bitcoind) = Bitcoind::start(&[]) else { return };
    let address = bitcoind.wallet();
    bitcoind.mine(3, &address);
    let mut peers = Peers::start(&[bitcoind.address()], |_| {}).await;
    let first = peers.connected().await;
    assert!(first.is_encrypted());

    // It hangs up.
    bitcoind.disconnect_all();
    peers.next("the loss", is_lost).await;
    let second = peers.connected().await;
    assert!(second.id() > first.id());

    // It is stopped and started again; who asks meanwhile is answered then.
    bitcoind.stop();
    peers.next("the loss", is_lost).await;
    let handle = peers.manager.handle();
    let genesis: BlockHash = regtest_genesis();
    let asked =
        tokio::spawn(async move { handle.request(Want::HeadersAfter(vec![genesis]), patient()).await });
    bitcoind.start_again();
    let third = peers.connected().await;
    let (who, answer) = patiently("an answer", asked).await.unwrap().unwrap();
    assert_eq!(who, third.id());
    assert!(matches!(answer, Answer::Headers { headers, more: false } if headers.len() == 3));

    // We leave it alone, and come back.
    peers.manager.ban(bitcoind.address().into(), "a test").await.unwrap();
    let banned = |event| if let PeerEvent::Banned { reason, .. } = event { Some(reason) } else { None };
    assert_eq!(peers.next("the ban", banned).await, "a test");
    bitcoind.wait_for("our farewell", |node| node.peers().is_empty()).await;
    assert_eq!(peers.manager.book().await.unwrap().banned, 1);
    peers.manager.unban(bitcoind.address().into()).await.unwrap();
    peers.connected().await;
    peers.manager.shutdown().await;
    bitcoind.wait_for("our farewell", |node| node.peers().is_empty()).await;
}

fn regtest_genesis() -> BlockHash {
    tipward_chain::sync::peer::wire::bitcoin::Network::BTC_REGTEST.genesis_hash()
}

/// What was asked of a node that freezes and dies is asked of another.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_node_was_asked_another_answers() {
    let nodes: Vec<Bitcoind> = (0..3).map_while(|_| Bitcoind::start(&[])).collect();
    let Ok([mut first, mut second, third]) = <[Bitcoind; 3]>::try_from(nodes) else { return };
    let address = first.wallet();
    first.mine(6, &address);
    for height in 1..=6 {
        let block = first.block(&first.hash(height));
        for other in [&second, &third] {
            assert!(other.rpc("submitblock", &json!([block])).is_null());
        }
    }
    let blocks: Vec<BlockHash> = (1..=6).map(|height| first.hash(height).parse().unwrap()).collect();
    let expected: Vec<Bytes> = blocks.iter().map(|hash| bytes(&first.block(&hash.to_string()))).collect();
    let addresses = [first.address(), second.address(), third.address()];
    let mut peers = Peers::start(&addresses, |options| options.pool.choice = Choice::RoundRobin).await;
    let mut alive = None;
    for _ in 0..3 {
        let peer = peers.connected().await;
        if *peer.address() == third.address().into() {
            alive = Some(peer.id());
        }
    }

    first.freeze();
    second.freeze();
    let (sender, mut answers) = mpsc::unbounded_channel();
    for (at, &block) in blocks.iter().enumerate() {
        let (handle, sender) = (peers.manager.handle(), sender.clone());
        tokio::spawn(async move {
            sender.send((at, handle.request(Want::Blocks(vec![block]), patient()).await)).ok();
        });
    }
    let mut answered = BTreeSet::new();
    for count in 1..=6 {
        let (at, answer) = patiently("an answer", answers.recv()).await.unwrap();
        let (who, answer) = answer.unwrap();
        assert_eq!(Some(who), alive);
        assert!(
            matches!(answer, Answer::Block { hash, bytes, .. } if hash == blocks[at] && bytes == expected[at])
        );
        answered.insert(at);
        if count == 2 {
            // One after the other was asked, so two thirds wait for those who do not answer.
            assert!(answers.is_empty(), "a frozen node answered");
            first.kill();
            second.kill();
        }
    }
    assert_eq!(answered.len(), 6);
    peers.manager.shutdown().await;
}

/// The addresses that a node was told of.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_tells_addresses() {
    let Some(bitcoind) = Bitcoind::start(&["-whitelist=noban,addr@127.0.0.0/8"]) else { return };
    let known: BTreeSet<String> = (1..=100_u8)
        .map(|n| format!("{}.{}.5.6", 11 + n / 50, n))
        .filter(|host| {
            let added = bitcoind.rpc("addpeeraddress", &json!([host, 18444]));
            added["success"] == true
        })
        .map(|host| format!("{host}:18444"))
        .collect();
    assert!(known.len() > 50, "{} addresses were taken", known.len());
    let mut peers = Peers::start(&[bitcoind.address()], |_| {}).await;
    peers.connected().await;
    let (_, answer) = peers.manager.request(Want::Addresses, patient()).await.unwrap();
    let Answer::Addresses(addresses) = answer else { panic!("{answer:?}") };
    assert!(addresses.len() > 5, "{addresses:?}");
    for told in addresses {
        assert!(known.contains(&told.address.to_string()), "{told:?}");
        assert!(told.services & 9 == 9 && told.last_seen > 0, "{told:?}");
    }
    peers.manager.shutdown().await;
}

#[derive(Debug)]
enum Heard {
    Connected,
    Headers(Vec<Header>),
    Announced(Announced),
    Transaction(Txid, Bytes),
    Block(BlockHash, Bytes),
}

/// Tells what it hears, and asks for transactions that are announced.
struct Tells {
    heard: mpsc::UnboundedSender<Heard>,
    parts: std::sync::Mutex<BytesMut>,
}

#[async_trait]
impl PeerHandler<Message> for Tells {
    async fn connected(&self, context: &Context) -> HandlerResult {
        context.peer.ask(Want::HeadersAfter(vec![regtest_genesis()]))?;
        Ok(self.heard.send(Heard::Connected)?)
    }

    async fn headers(&self, context: &Context, headers: Vec<Header>, _more: bool) -> HandlerResult {
        context.peer.ask(Want::Blocks(headers.iter().map(|header| header.hash).collect()))?;
        Ok(self.heard.send(Heard::Headers(headers))?)
    }

    async fn inv(&self, context: &Context, objects: Announced) -> HandlerResult {
        if let Announced::Transactions(ids) = &objects {
            context.peer.ask(Want::Transactions(ids.clone()))?;
        }
        Ok(self.heard.send(Heard::Announced(objects))?)
    }

    async fn tx(&self, _context: &Context, id: Txid, bytes: Bytes) -> HandlerResult {
        Ok(self.heard.send(Heard::Transaction(id, bytes))?)
    }

    async fn block_part(&self, _context: &Context, part: BlockPart) -> HandlerResult {
        self.parts.lock().unwrap().extend_from_slice(&part.bytes);
        Ok(())
    }

    async fn block(&self, _context: &Context, end: BlockEnd) -> HandlerResult {
        let raw = self.parts.lock().unwrap().split().freeze();
        Ok(self.heard.send(Heard::Block(end.block, raw))?)
    }
}

/// A handler hears of headers, blocks and transactions, as the node has them and as it announces them.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_hears_what_the_node_tells() {
    let Some(bitcoind) = Bitcoind::start(&[HURRY]) else { return };
    let address = bitcoind.wallet();
    bitcoind.mine(105, &address);
    let (heard, mut told) = mpsc::unbounded_channel();
    let handler = Arc::new(Tells { heard, parts: Default::default() });
    let mut options = ManagerOptions::default();
    options.addresses = vec![bitcoind.address().into()];
    options.link = relaying();
    let (events, mut inbox) = mpsc::channel(64);
    let manager = Manager::spawn_with_handler(regtest(), options, handler, events).await.unwrap();

    let mut next = async || patiently("the node", told.recv()).await.unwrap();
    assert!(matches!(next().await, Heard::Connected));
    let Heard::Headers(headers) = next().await else { panic!("headers come first") };
    assert_eq!(headers.len(), 105);
    for height in 1..=105 {
        let Heard::Block(hash, raw) = next().await else { panic!("blocks come next") };
        assert_eq!(hash.to_string(), bitcoind.hash(height));
        assert!(raw == bytes(&bitcoind.block(&hash.to_string())), "the bytes at {height} differ");
    }

    let id = bitcoind.rpc("sendtoaddress", &json!([address, 1])).as_str().unwrap().to_owned();
    let (announced, (got, raw)) = (
        next().await,
        match next().await {
            Heard::Transaction(id, raw) => (id, raw),
            other => panic!("{other:?}"),
        },
    );
    assert!(matches!(announced, Heard::Announced(Announced::Transactions(ids)) if ids[0].to_string() == id));
    assert_eq!(got.to_string(), id);
    assert_eq!(raw, bytes(bitcoind.rpc("getrawtransaction", &json!([id])).as_str().unwrap()));

    bitcoind.mine(1, &address);
    let Heard::Headers(headers) = next().await else { panic!("a block is announced by its header") };
    assert_eq!(headers[0].hash.to_string(), bitcoind.hash(106));
    let Heard::Block(_, raw) = next().await else { panic!("the block comes") };
    assert!(raw == bytes(&bitcoind.block(&bitcoind.hash(106))), "with the transaction and its witness");
    manager.shutdown().await;
    while let Ok(event) = inbox.try_recv() {
        assert!(!matches!(event, PeerEvent::HandlerFailed(_)), "{event:?}");
    }
}
