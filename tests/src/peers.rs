//! A pool of ours whose events are waited for.

use std::{collections::VecDeque, fmt, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use tipward_chain::sync::peer::{
    Discovery, Manager, ManagerOptions, Peer, PeerEvent, bitcoin::Bitcoin, wire::bitcoin::Network,
};
use tokio::{sync::mpsc, time::timeout};

/// How long anything may take; no more than a bound on tests that fail.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How many events a test that fails tells of.
const SEEN: usize = 30;

/// Waits for what comes in a moment.
///
/// # Panics
/// It does not come.
pub async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// A manager on regtest without a handler, and its events.
#[derive(Debug)]
pub struct Peers {
    /// The manager.
    pub manager: Manager,
    events: mpsc::Receiver<PeerEvent>,
    /// The latest events taken, in words.
    seen: VecDeque<String>,
}

impl Peers {
    /// Connects to these nodes and to no others, with options that are as the caller leaves them. What is lost is dialled
    /// again within a second.
    ///
    /// # Panics
    /// The manager does not start.
    pub async fn start(nodes: &[SocketAddr], choose: impl FnOnce(&mut ManagerOptions)) -> Self {
        let mut options = ManagerOptions::default();
        options.addresses = nodes.iter().map(|&node| node.into()).collect();
        options.pool.discovery = Discovery::Off;
        options.pool.book.min_back_off = Duration::from_millis(200);
        options.pool.book.max_back_off = Duration::from_secs(1);
        options.pool.book.max_back_off_unproven = Duration::from_secs(1);
        choose(&mut options);
        let (sender, events) = mpsc::channel(4096);
        let protocol = Arc::new(Bitcoin::new(Network::BTC_REGTEST));
        let manager = Manager::spawn(protocol, options, sender).await.expect("the manager starts");
        Self { manager, events, seen: VecDeque::new() }
    }

    /// The next event of a kind; others before it are dropped.
    ///
    /// # Panics
    /// There is none; tells those that there were.
    pub async fn next<T>(&mut self, what: &str, mut pick: impl FnMut(PeerEvent) -> Option<T>) -> T {
        let next = async {
            while let Some(event) = self.events.recv().await {
                self.seen.push_back(brief(&event));
                if self.seen.len() > SEEN {
                    self.seen.pop_front();
                }
                if let Some(picked) = pick(event) {
                    return picked;
                }
            }
            panic!("the events ended before {what}: {:#?}", self.seen);
        };
        match timeout(PATIENCE, next).await {
            Ok(picked) => picked,
            Err(_) => panic!("waited in vain for {what}: {:#?}", self.seen),
        }
    }

    /// The next peer that is ready.
    pub async fn connected(&mut self) -> Peer {
        let ready = |event| if let PeerEvent::Connected(peer) = event { Some(peer) } else { None };
        self.next("a connection", ready).await
    }

    /// What has come and was not taken.
    pub fn rest(&mut self) -> Vec<PeerEvent> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }
}

/// An event in few words: parts of blocks are long.
fn brief(event: &impl fmt::Debug) -> String {
    format!("{event:?}").chars().take(300).collect()
}
