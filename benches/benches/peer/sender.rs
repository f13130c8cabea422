//! The other process: a node that has one block, or many announcements.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread::{self, JoinHandle},
};

use bytes::{BufMut, Bytes, BytesMut};
use tipward_benches::{block, mixed};
use tipward_chain::sync::peer::wire::{
    Dialect, Incoming,
    bitcoin::{
        Block, Codec, Inventory, InventoryKind, MerkleBuilder, Message, Network, NetworkAddress, Services,
        Version,
    },
    sha256d,
};

/// Serves the block in a frame, in an extended frame, and as it is to whoever connects.
pub(crate) fn blocks() {
    let block = large_block();
    let hash = Block::new(block.clone()).expect("a block").hash();
    let mut frame = BytesMut::new();
    frame.put_slice(&Network::BSV.magic);
    frame.put_slice(b"block\0\0\0\0\0\0\0");
    frame.put_u32_le(u32::try_from(block.len()).expect("a block below 4 GiB"));
    frame.put_slice(&sha256d(&block)[..4]);
    let mut extended = BytesMut::new();
    extended.put_slice(&Network::BSV.magic);
    extended.put_slice(b"extmsg\0\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0block\0\0\0\0\0\0\0");
    extended.put_u64_le(block.len() as u64);
    let (framed, served) = serve(vec![frame.freeze(), block.clone()]);
    let (extended, _) = serve(vec![extended.freeze(), block.clone()]);
    let (plain, _) = listen(move |mut stream| {
        stream.write_all(&block).ok();
    });
    println!("{hash} {framed} {extended} {plain}");
    served.join().ok();
}

/// Announces so many transactions to whoever asks for addresses, one in each message.
pub(crate) fn messages(count: u64) {
    let codec = Codec::new(Network::BSV);
    let mut output = BytesMut::new();
    for n in 0..count {
        let mut hash = [7; 32];
        hash[..8].copy_from_slice(&n.to_le_bytes());
        codec.encode(&Message::Inv(vec![Inventory { kind: InventoryKind::Tx, hash }]), &mut output);
    }
    let (port, served) = serve(vec![output.freeze()]);
    println!("{port}");
    served.join().ok();
}

/// The bench's mixed block with the merkle root of its transactions.
fn large_block() -> Bytes {
    let one = block();
    let txids: Vec<_> = Block::new(one.bytes.clone())
        .expect("a block")
        .transactions()
        .map(|transaction| transaction.txid())
        .collect();
    let large = mixed();
    let mut merkle = MerkleBuilder::new();
    txids.iter().cycle().take(usize::try_from(large.transactions).expect("a count")).for_each(|txid| {
        merkle.push(*txid);
    });
    let (root, mutated) = merkle.finish();
    assert!(!mutated, "the transactions repeat in a way that has a root of two lists");
    let mut bytes = large.bytes.try_into_mut().expect("nobody else holds it");
    bytes[36..68].copy_from_slice(&root);
    bytes.freeze()
}

/// Shakes hands with whoever connects, and answers the first question with these bytes.
fn serve(answer: Vec<Bytes>) -> (u16, JoinHandle<()>) {
    listen(move |stream| {
        converse(stream, &answer).ok();
    })
}

fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let serve = Arc::new(serve);
    let thread = thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    (port, thread)
}

fn converse(mut stream: TcpStream, answer: &[Bytes]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut codec = Codec::new(Network::BSV);
    let (mut input, mut output, mut read) = (BytesMut::new(), BytesMut::new(), [0; 4096]);
    loop {
        while let Ok(Some(Incoming::Message(message))) = codec.decode(&mut input) {
            match message {
                Message::Version(_) => {
                    codec.encode(&version(), &mut output);
                    codec.encode(&Message::Verack, &mut output);
                }
                Message::Verack => codec.handshake_done(),
                Message::Ping(nonce) => codec.encode(&Message::Pong(nonce), &mut output),
                Message::GetData(_) | Message::GetAddr => {
                    for bytes in answer {
                        stream.write_all(bytes)?;
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

fn version() -> Message {
    Message::Version(Version {
        protocol: 70016,
        services: Services::NETWORK,
        time: 0,
        receiver: NetworkAddress::UNSPECIFIED,
        sender: NetworkAddress::UNSPECIFIED,
        nonce: 7,
        user_agent: "/bench/".into(),
        start_height: 0,
        relay: true,
        association_id: None,
    })
}
