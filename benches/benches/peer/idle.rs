//! Connections over which nothing is said.

use std::{sync::Arc, time::Duration};

use tipward_chain::sync::peer::{
    Client, Discovery, Encrypt, LinkOptions, Manager, ManagerOptions, Needs, PeerHandler, PeerState,
    bitcoin::Bitcoin,
    wire::bitcoin::{Message, Network, Services},
};
use tokio::{net::TcpListener, sync::mpsc, time::sleep};

use crate::{on_one_core, receiver::address, status};

/// How long a process does nothing to show what that costs.
const WATCHED: Duration = Duration::from_secs(10);

/// Shakes hands with whoever connects, encrypted or not, and says no more.
pub(crate) fn keep() {
    on_one_core(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        println!("{}", listener.local_addr().expect("it is bound").port());
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async {
                let mut link = LinkOptions::default();
                link.needs = Needs::Nothing;
                link.services = (Services::NETWORK | Services::WITNESS).0;
                let protocol = Bitcoin::new(Network::BTC_REGTEST);
                if let Ok(mut client) = Client::accept(protocol, Box::new(stream), address(1), link).await {
                    while client.receive().await.is_ok() {}
                }
            });
        }
    });
}

/// Opens so many connections and tells what one costs.
pub(crate) fn measure(port: u16, row: &str, count: usize) {
    let mut link = LinkOptions::default();
    link.encrypt = if row.ends_with("encrypted") { Encrypt::Require } else { Encrypt::Off };
    on_one_core(async {
        // One connection, come and gone: what is there once for all is not a connection's.
        connect(port, &link).await.close().await;
        let empty = status("VmRSS:");
        if row.starts_with("clients") {
            let mut clients = Vec::new();
            for _ in 0..count {
                clients.push(connect(port, &link).await);
            }
            watch(empty, count).await;
            for client in &clients {
                client.send(Message::Ping(1)).await.expect("the connection still stands");
            }
        } else {
            let manager = manage(port, link, count).await;
            watch(empty, count).await;
            assert_eq!(ready(&manager).await, count);
            manager.shutdown().await;
        }
    });
}

async fn connect(port: u16, link: &LinkOptions) -> Client<Message> {
    let protocol = Bitcoin::new(Network::BTC_REGTEST);
    Client::connect(protocol, address(port), link.clone()).await.expect("the other process shakes hands")
}

async fn manage(port: u16, link: LinkOptions, count: usize) -> Manager {
    let mut options = ManagerOptions::default();
    options.addresses = vec![address(port)];
    options.link = link;
    (options.pool.max_peers, options.pool.connections_per_host) = (count, count);
    options.pool.discovery = Discovery::Off;
    let (events, _inbox) = mpsc::channel(16);
    let protocol = Bitcoin::new(Network::BTC_REGTEST);
    let manager =
        Manager::spawn_with_handler(protocol, options, Arc::new(Silent), events).await.expect("a manager");
    while ready(&manager).await < count {
        sleep(Duration::from_millis(100)).await;
    }
    manager
}

/// How many connections have shaken hands and stand.
async fn ready(manager: &Manager) -> usize {
    let peers = manager.peers().await.expect("it lives");
    peers.iter().filter(|peer| matches!(peer.state, PeerState::Ready { .. })).count()
}

struct Silent;

impl PeerHandler<Message> for Silent {}

/// Tells of memory and processor time once the handshakes are over.
async fn watch(empty: u64, count: usize) {
    sleep(Duration::from_secs(2)).await;
    let each = (status("VmRSS:") - empty) as f64 / count as f64;
    let before = processor_time();
    sleep(WATCHED).await;
    let used = processor_time() - before;
    println!("{each:.1} KiB each, {used} ms of processor time in {} s", WATCHED.as_secs());
}

/// Of this process, user and system, in milliseconds; counted in ticks of 10.
fn processor_time() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("this is Linux");
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.map(|ticks| ticks.parse::<u64>().expect("a number") * 10).sum()
}
