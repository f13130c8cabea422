//! The process that serves: simulated nodes with small blocks, or nodes whose large blocks share one body.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use bytes::{BufMut, Bytes, BytesMut};
use tipward_benches::transaction;
use tipward_chain::sync::peer::wire::{
    BlockHash, Dialect, Incoming, Txid,
    bitcoin::{
        BlockHeader, Codec, MAX_HEADERS, MerkleBuilder, Message, Network, NetworkAddress, Services, Version,
        encode_compact_size,
    },
    sha256d,
};
use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode};

use crate::NODES;

/// The network of the small blocks: with witnesses, and with simulated nodes.
pub(crate) const SMALL: &Network = Network::BTC_REGTEST;
/// The network of the large blocks.
pub(crate) const LARGE: &Network = Network::BSV_REGTEST;
/// How large they are.
const LARGE_BLOCK: usize = 32 << 20;

/// Serves a chain of blocks of 270 bytes to 1 KB.
pub(crate) fn small(blocks: u32) {
    let mut spec = ChainSpec::new(blocks, 1);
    (spec.max_transactions, spec.max_data) = (2, 250);
    let chain = SimChain::generate(SMALL, spec);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            let node = SimNode::spawn(chain.clone(), Behaviour::Honest, "127.0.0.1:0").await;
            nodes.push(node.expect("a free port"));
        }
        drop(chain);
        tell(nodes.iter().map(|node| node.address().port()));
        std::future::pending::<()>().await;
    });
}

/// Serves a chain of blocks of 32 MiB.
pub(crate) fn large(mib: u32) {
    let chain = Arc::new(Large::generate((mib as usize * (1 << 20) / LARGE_BLOCK).max(1)));
    let listeners: Vec<TcpListener> =
        (0..NODES).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    tell(listeners.iter().map(|listener| listener.local_addr().expect("it is bound").port()));
    let threads: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let chain = chain.clone();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let chain = chain.clone();
                    thread::spawn(move || serve(stream, &chain).ok());
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().ok();
    }
}

fn tell(ports: impl Iterator<Item = u16>) {
    let ports: Vec<String> = ports.map(|port| port.to_string()).collect();
    println!("{}", ports.join(" "));
}

/// A chain whose blocks differ in their headers only, so that it fits into memory.
struct Large {
    /// Without genesis.
    headers: Vec<BlockHeader>,
    hashes: Vec<BlockHash>,
    /// The start of each block's checksum.
    checksums: Vec<[u8; 4]>,
    /// The transactions and their count.
    body: Bytes,
}

impl Large {
    fn generate(count: usize) -> Self {
        let (body, merkle_root) = body();
        let mut whole = BytesMut::zeroed(BlockHeader::SIZE);
        whole.put_slice(&body);
        let mut chain = Self { headers: Vec::new(), hashes: Vec::new(), checksums: Vec::new(), body };
        let (mut parent, mut time) = (LARGE.genesis_hash(), LARGE.genesis().time);
        for _ in 0..count {
            time += 600;
            let mut header =
                BlockHeader { parent, time, merkle_root, nonce: 0, version: 1, ..LARGE.genesis() };
            while !header.meets_target(header.bits) {
                header.nonce += 1;
            }
            parent = header.hash();
            whole[..BlockHeader::SIZE].copy_from_slice(&header.to_bytes());
            let checksum = sha256d(&whole);
            chain.headers.push(header);
            chain.hashes.push(parent);
            chain.checksums.push([checksum[0], checksum[1], checksum[2], checksum[3]]);
        }
        chain
    }

    fn headers_after(&self, locator: &[BlockHash]) -> Vec<BlockHeader> {
        let known = locator.iter().find_map(|hash| self.hashes.iter().position(|own| own == hash));
        let from = known.map_or(0, |position| position + 1);
        self.headers[from..].iter().take(MAX_HEADERS).copied().collect()
    }

    fn send(&self, hash: BlockHash, stream: &mut TcpStream) -> std::io::Result<()> {
        let Some(at) = self.hashes.iter().position(|own| *own == hash) else { return Ok(()) };
        let mut start = BytesMut::new();
        start.put_slice(&LARGE.magic);
        start.put_slice(b"block\0\0\0\0\0\0\0");
        start.put_u32_le((BlockHeader::SIZE + self.body.len()) as u32);
        start.put_slice(&self.checksums[at]);
        start.put_slice(&self.headers[at].to_bytes());
        stream.write_all(&start)?;
        stream.write_all(&self.body)
    }
}

/// Transactions of 200 to 700 bytes with their count before them, and their merkle root.
fn body() -> (Bytes, [u8; 32]) {
    let mut random = fastrand::Rng::with_seed(1);
    let (mut transactions, mut merkle, mut count) = (BytesMut::new(), MerkleBuilder::new(), 0_u32);
    while transactions.len() < LARGE_BLOCK - 1000 {
        let mut one = BytesMut::new();
        if count == 0 {
            // A coinbase spends nothing.
            transaction(&[50], &[25], &mut one);
            one[5..37].fill(0);
            one[37..41].fill(0xff);
        } else {
            transaction(&vec![107; random.usize(1..=3)], &vec![25; random.usize(1..=6)], &mut one);
            // No two spend the same.
            one[5..9].copy_from_slice(&count.to_le_bytes());
        }
        merkle.push(Txid::from_bytes(sha256d(&one)));
        transactions.put_slice(&one);
        count += 1;
    }
    let mut body = BytesMut::new();
    encode_compact_size(u64::from(count), &mut body);
    body.put_slice(&transactions);
    (body.freeze(), merkle.finish().0)
}

/// Shakes hands, and answers questions for headers and blocks.
fn serve(mut stream: TcpStream, chain: &Large) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut codec = Codec::new(LARGE);
    let (mut input, mut output, mut read) = (BytesMut::new(), BytesMut::new(), [0; 4096]);
    loop {
        while let Ok(Some(Incoming::Message(message))) = codec.decode(&mut input) {
            match message {
                Message::Version(_) => {
                    codec.encode(&version(chain.headers.len()), &mut output);
                    codec.encode(&Message::Verack, &mut output);
                }
                Message::Verack => codec.handshake_done(),
                Message::Ping(nonce) => codec.encode(&Message::Pong(nonce), &mut output),
                Message::GetHeaders(locator) => {
                    codec.encode(&Message::Headers(chain.headers_after(&locator.hashes)), &mut output);
                }
                Message::GetData(entries) => {
                    for entry in entries {
                        chain.send(BlockHash::from_bytes(entry.hash), &mut stream)?;
                    }
                }
                _ => {}
            }
        }
        stream.write_all(&output)?;
        output.clear();
        match stream.read(&mut read)? {
            0 => return Ok(()),
            length => input.put_slice(&read[..length]),
        }
    }
}

fn version(height: usize) -> Message {
    Message::Version(Version {
        protocol: 70016,
        services: Services::NETWORK,
        time: 0,
        receiver: NetworkAddress::UNSPECIFIED,
        sender: NetworkAddress::UNSPECIFIED,
        nonce: fastrand::u64(..),
        user_agent: "/bench/".into(),
        start_height: height as i32,
        relay: true,
        association_id: None,
    })
}
