//! The peer layer alone against real nodes on regtest.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bcoin;
mod broadcast;
mod client;
mod encryption;
mod pool;
mod serving;

use bytes::Bytes;
use hex_conservative::decode_to_vec;
use tipward_chain::sync::peer::{
    Client, DisconnectReason, LinkOptions, Peer, PeerAddress, Received,
    bitcoin::Bitcoin,
    wire::bitcoin::{Locator, Message, Network},
    wire::{BlockHash, Txid, bitcoin::Transaction},
};
use tokio::sync::mpsc;

/// Makes a `bitcoind` announce and take transactions at once instead of after random times.
const HURRY: &str = "-whitelist=noban@127.0.0.0/8";

fn regtest() -> Bitcoin {
    Bitcoin::new(Network::BTC_REGTEST)
}

/// What connections are told of transactions.
fn relaying() -> LinkOptions {
    let mut options = LinkOptions::default();
    options.relay_transactions = true;
    options
}

async fn connect(node: impl Into<PeerAddress>, options: LinkOptions) -> Client<Message> {
    Client::connect(regtest(), node.into(), options).await.unwrap()
}

/// A connection that somebody listens to, so that requests can be answered.
struct Listened {
    peer: Peer,
    received: mpsc::UnboundedReceiver<Received<Message>>,
    end: tokio::task::JoinHandle<DisconnectReason>,
}

fn listen(mut client: Client<Message>) -> Listened {
    let peer = client.peer().clone();
    let (sender, received) = mpsc::unbounded_channel();
    let end = tokio::spawn(async move {
        loop {
            match client.receive().await {
                Ok(message) => sender.send(message).ok(),
                Err(reason) => return reason,
            };
        }
    });
    Listened { peer, received, end }
}

impl Listened {
    async fn next<T>(&mut self, what: &str, mut pick: impl FnMut(Received<Message>) -> Option<T>) -> T {
        tipward_tests::patiently(what, async {
            loop {
                let message = self.received.recv().await.unwrap_or_else(|| panic!("it ended before {what}"));
                if let Some(picked) = pick(message) {
                    return picked;
                }
            }
        })
        .await
    }
}

fn bytes(hex: &str) -> Bytes {
    decode_to_vec(hex).unwrap().into()
}

fn txid(hex: &str) -> Txid {
    Transaction::new(bytes(hex)).unwrap().txid()
}

fn after(hash: BlockHash) -> Message {
    Message::GetHeaders(Locator { protocol: 70016, hashes: vec![hash], stop: BlockHash::ZERO })
}
