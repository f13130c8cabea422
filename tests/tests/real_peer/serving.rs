//! A `bitcoind` that connects to us and syncs from us.

use std::sync::{Arc, Mutex};

use serde_json::json;
use tipward_chain::sync::peer::{
    Context, Direction, Discovery, HandlerResult, Manager, ManagerOptions, Peer, PeerEvent, PeerHandler,
    PeerState, async_trait,
    wire::{
        BlockHash,
        bitcoin::{InventoryKind, MAX_HEADERS, Message, Network, Services},
    },
};
use tipward_simnet::{ChainSpec, SimChain};
use tipward_tests::{Bitcoind, patiently};
use tokio::sync::mpsc;

use super::regtest;

/// Serves a chain to all who ask.
struct Serve {
    chain: Mutex<SimChain>,
    connected: mpsc::UnboundedSender<Peer>,
}

impl Serve {
    fn chain(&self) -> SimChain {
        self.chain.lock().unwrap().clone()
    }
}

#[async_trait]
impl PeerHandler<Message> for Serve {
    async fn connected(&self, context: &Context) -> HandlerResult {
        self.connected.send(context.peer.clone())?;
        Ok(())
    }

    async fn message(&self, context: &Context, message: Message) -> HandlerResult {
        let chain = self.chain();
        match message {
            Message::GetHeaders(locator) => {
                let known = locator.hashes.iter().find_map(|&hash| chain.position(hash));
                let after = chain.blocks().iter().skip(known.unwrap_or(0) + 1).take(MAX_HEADERS);
                context.peer.send(Message::Headers(after.map(|block| block.header).collect())).await?;
            }
            Message::GetData(entries) => {
                for entry in entries {
                    assert_eq!(entry.kind, InventoryKind::WitnessBlock);
                    let position = chain.position(BlockHash::from_bytes(entry.hash)).unwrap();
                    context.peer.send(Message::Block(chain.blocks()[position].raw.clone())).await?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_syncs_from_us() {
    let Some(bitcoind) = Bitcoind::start(&[]) else { return };
    let mut chain = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(150, 3));
    let (sender, mut connected) = mpsc::unbounded_channel();
    let handler = Arc::new(Serve { chain: Mutex::new(chain.clone()), connected: sender });
    let mut options = ManagerOptions::default();
    options.listen = vec!["127.0.0.1:0".parse().unwrap()];
    options.pool.discovery = Discovery::Off;
    options.link.services = (Services::NETWORK | Services::WITNESS).0;
    options.local.set_height(150);
    let (events, mut inbox) = mpsc::channel(64);
    let manager = Manager::spawn_with_handler(regtest(), options, handler.clone(), events).await.unwrap();
    let ours = manager.listening()[0].to_string();

    for (v2, transport) in [(true, "v2"), (false, "v1")] {
        let _ = bitcoind.rpc("addnode", &json!([ours, "onetry", v2]));
        let peer = patiently("a connection to us", connected.recv()).await.unwrap();
        assert_eq!((peer.direction(), peer.is_encrypted()), (Direction::Inbound, v2));
        bitcoind.wait_for("our chain", |node| node.hash(node.height()) == chain.tip().hash.to_string()).await;
        let theirs = bitcoind.peers().remove(0);
        assert_eq!(theirs["transport_protocol_type"], transport);
        assert_eq!((&theirs["inbound"], &theirs["addr"]), (&json!(false), &json!(ours)));
        let views = manager.peers().await.unwrap();
        assert!(
            matches!(&views[..], [view] if view.id == peer.id() && view.direction == Direction::Inbound
            && matches!(view.state, PeerState::Ready { encrypted, .. } if encrypted == v2)),
            "{views:?}"
        );

        // A block that we announce.
        chain.extend(ChainSpec::new(1, 4));
        *handler.chain.lock().unwrap() = chain.clone();
        peer.send(Message::Headers(vec![chain.tip().header])).await.unwrap();
        bitcoind.wait_for("the next block", |node| node.height() == chain.height()).await;
        let tip = chain.tip();
        assert_eq!(bitcoind.block(&tip.hash.to_string()), hex(&tip.raw));
        bitcoind.disconnect_all();
        bitcoind.wait_for("the end", |node| node.peers().is_empty()).await;
    }
    manager.shutdown().await;
    while let Ok(event) = inbox.try_recv() {
        assert!(!matches!(event, PeerEvent::HandlerFailed(_)), "{event:?}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
