//! Everything that a wallet sends is looked at: nothing tells what it looks for, and its own payment is all that it says of itself.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use bdk_wallet::bitcoin::{Txid, hashes::Hash as _};
use tipward_simnet::Behaviour;

use crate::{
    Wallet, finish, lines,
    simulated::{Server, pay, script, trunk},
};

const SOMEBODY: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
/// Of a frame: magic, command, length, checksum.
const FRAME_HEADER: usize = 24;

/// A relay that keeps what the client sends, a connection's in one piece.
struct Listening {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Listening {
    fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let all = heard.clone();
        // It ends with the process.
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(target).unwrap());
                let (from, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || copy(from, to, |_| {}));
                let number = {
                    let mut all = all.lock().unwrap();
                    all.push(Vec::new());
                    all.len() - 1
                };
                let all = all.clone();
                thread::spawn(move || {
                    copy(client, server, |bytes| all.lock().unwrap()[number].extend(bytes));
                });
            }
        });
        Self { address, heard }
    }

    /// The messages in clear text: their commands and payloads. The beginning of an encrypted handshake, which a simulated node
    /// does not answer, is none.
    fn messages(&self) -> Vec<(String, Vec<u8>)> {
        let mut messages = Vec::new();
        for mut bytes in self.heard.lock().unwrap().iter().map(Vec::as_slice) {
            while bytes.len() >= FRAME_HEADER && bytes.starts_with(&[0xfa, 0xbf, 0xb5, 0xda]) {
                let length = u32::from_le_bytes(bytes[16..20].try_into().unwrap()) as usize;
                let command = String::from_utf8(bytes[4..16].to_vec()).unwrap();
                let end = (FRAME_HEADER + length).min(bytes.len());
                messages.push((command.trim_end_matches('\0').to_owned(), bytes[FRAME_HEADER..end].to_vec()));
                bytes = &bytes[end..];
            }
        }
        messages
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, note: impl Fn(&[u8])) {
    let mut buffer = [0; 1 << 16];
    while let Ok(count) = from.read(&mut buffer) {
        note(&buffer[..count]);
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    to.shutdown(std::net::Shutdown::Both).ok();
}

#[test]
fn with_whole_blocks_nothing_is_told() {
    look("blocks");
}

fn look(mode: &'static str) {
    let mut chain = trunk();
    let server = Server::start(chain.clone(), Behaviour::Honest);
    let relay = Listening::start(server.address());
    let wallet = Wallet::create("btc-regtest", &[relay.address], mode);
    let addresses: Vec<String> = (0..3).map(|_| wallet.address(&["--new"])).collect();
    for address in &addresses {
        pay(&mut chain, &[script(address)]);
    }
    server.node.set_chain(chain.clone());
    wallet.sync();
    server.node.set_chain(chain.fork(106, tipward_simnet::ChainSpec::new(5, 9)));
    wallet.sync();
    let known = wallet.answer(&["history"]);
    assert_eq!(known.len(), 3);
    let secret = wallet.secret();
    let arguments = ["send", SOMEBODY, "2000sat", "--secret", secret.to_str().unwrap()];
    let sent = lines(&finish(wallet.connecting(&arguments)));
    let sent = txid(sent[0]["txid"].as_str().unwrap());

    // What must not be told: the hash in each script, each address as text, each txid in both orders.
    let mut secrets: Vec<Vec<u8>> =
        addresses.iter().map(|one| script(one).as_bytes()[2..].to_vec()).collect();
    secrets.extend(addresses.iter().map(|address| address.clone().into_bytes()));
    for id in known.iter().map(|entry| txid(entry["txid"].as_str().unwrap())).chain([sent]) {
        secrets.push(id.to_byte_array().to_vec());
        secrets.push(id.to_byte_array().into_iter().rev().collect());
    }
    let tells = |payload: &[u8]| {
        secrets.iter().any(|secret| payload.windows(secret.len()).any(|window| window == secret))
    };
    let messages = relay.messages();
    for command in ["version", "getheaders", "getdata", "inv", "tx"] {
        assert!(messages.iter().any(|(name, _)| name == command), "no {command}");
    }
    for (command, payload) in &messages {
        match command.as_str() {
            // One entry: the kind and the id of the payment.
            "inv" => assert_eq!(payload[..], [&[1, 1, 0, 0, 0][..], &sent.to_byte_array()].concat()),
            "tx" => assert!(tells(payload), "the search finds nothing"),
            "filterload" | "filteradd" | "mempool" => panic!("{command} was sent"),
            _ => assert!(!tells(payload), "{command} tells too much"),
        }
    }
}

fn txid(text: &str) -> Txid {
    text.parse().unwrap()
}
