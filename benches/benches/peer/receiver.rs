//! The process that is measured: what is timed runs from the question to the last byte, or message, at the user's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::BytesMut;
use tipward_chain::sync::peer::{
    Announced, Checksum, Client, Context, Encrypt, HandlerResult, LinkOptions, Manager, ManagerOptions,
    PeerAddress, PeerHandler, Received, Want, async_trait,
    bitcoin::Bitcoin,
    wire::{
        BlockEnd, BlockHash, BlockPart, Verdict,
        bitcoin::{Message, Network},
    },
};
use tokio::{io::AsyncReadExt, net::TcpStream, sync::mpsc};

use crate::Row;

/// How much a plain loop reads at once, at most.
const READ: usize = 1 << 20;

/// Reads so many bytes and does nothing with them; returns the seconds.
pub(crate) async fn plain(port: u16, size: usize) -> f64 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the sender listens");
    let mut buffer = BytesMut::with_capacity(READ);
    let (start, mut received) = (Instant::now(), 0);
    while received < size {
        buffer.clear();
        received += stream.read_buf(&mut buffer).await.expect("the sender sends");
    }
    start.elapsed().as_secs_f64()
}

/// Receives the block; returns the seconds.
pub(crate) async fn block(port: u16, block: BlockHash, row: Row) -> f64 {
    let mut link = LinkOptions::default();
    link.encrypt = Encrypt::Off;
    link.checksum = row.checksum;
    link.merkle_root = row.merkle_root;
    let want = Want::Blocks(vec![block]);
    let expected = Expected {
        checksum: match row.frame {
            "framed" if row.checksum != Checksum::Off => Verdict::Verified,
            _ => Verdict::NotChecked,
        },
        merkle_root: if row.merkle_root { Verdict::Verified } else { Verdict::NotChecked },
    };
    let (start, finish, received, end) = if row.through_client {
        through_client(port, link, want).await
    } else {
        through_handler(port, link, want, u64::MAX).await
    };
    let end = end.expect("a block");
    assert_eq!((end.block, end.size), (block, received));
    assert_eq!((end.checksum, end.merkle_root), (expected.checksum, expected.merkle_root));
    finish.duration_since(start).as_secs_f64()
}

struct Expected {
    checksum: Verdict,
    merkle_root: Verdict,
}

/// Receives so many announcements; returns the seconds.
pub(crate) async fn messages(port: u16, count: u64, through_client: bool) -> f64 {
    let mut link = LinkOptions::default();
    link.encrypt = Encrypt::Off;
    link.relay_transactions = true;
    if !through_client {
        let (start, finish, received, _) = through_handler(port, link, Want::Addresses, count).await;
        assert_eq!(received, count);
        return finish.duration_since(start).as_secs_f64();
    }
    let mut client = connect(port, link).await;
    let (start, mut received) = (Instant::now(), 0);
    client.ask(Want::Addresses).expect("a question");
    while received < count {
        if let Received::Message(Message::Inv(entries)) = client.receive().await.expect("a message") {
            received += entries.len() as u64;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    client.close().await;
    seconds
}

type Measured = (Instant, Instant, u64, Option<BlockEnd>);

async fn connect(port: u16, link: LinkOptions) -> Client<Message> {
    Client::connect(Bitcoin::new(Network::BSV), address(port), link).await.expect("the sender shakes hands")
}

async fn through_client(port: u16, link: LinkOptions, want: Want) -> Measured {
    let mut client = connect(port, link).await;
    let (start, mut received) = (Instant::now(), 0);
    client.ask(want).expect("a question");
    loop {
        match client.receive().await.expect("a block") {
            Received::Part(part) => received += part.bytes.len() as u64,
            Received::BlockEnd(end) => {
                let finish = Instant::now();
                client.close().await;
                return (start, finish, received, Some(end));
            }
            _ => {}
        }
    }
}

async fn through_handler(port: u16, link: LinkOptions, want: Want, messages: u64) -> Measured {
    let (done, mut is_done) = mpsc::unbounded_channel();
    let handler = Counter { want, messages, received: AtomicU64::new(0), done };
    let mut options = ManagerOptions::default();
    options.addresses = vec![address(port)];
    options.link = link;
    let (events, _inbox) = mpsc::channel(16);
    let manager = Manager::spawn_with_handler(Bitcoin::new(Network::BSV), options, Arc::new(handler), events)
        .await
        .expect("a manager");
    let mut next = async || is_done.recv().await.expect("the handler lives");
    let (start, (finish, received, end)) = (next().await.0, next().await);
    manager.shutdown().await;
    (start, finish, received, end)
}

/// Asks one question and counts what comes.
struct Counter {
    want: Want,
    messages: u64,
    received: AtomicU64,
    done: mpsc::UnboundedSender<(Instant, u64, Option<BlockEnd>)>,
}

impl Counter {
    fn count(&self, more: u64) -> u64 {
        self.received.fetch_add(more, Ordering::Relaxed) + more
    }

    fn tell(&self, end: Option<BlockEnd>) {
        self.done.send((Instant::now(), self.count(0), end)).ok();
    }
}

#[async_trait]
impl PeerHandler<Message> for Counter {
    async fn connected(&self, context: &Context) -> HandlerResult {
        self.tell(None);
        Ok(context.peer.ask(self.want.clone())?)
    }

    async fn block_part(&self, _: &Context, part: BlockPart) -> HandlerResult {
        self.count(part.bytes.len() as u64);
        Ok(())
    }

    async fn block(&self, _: &Context, end: BlockEnd) -> HandlerResult {
        self.tell(Some(end));
        Ok(())
    }

    async fn inv(&self, _: &Context, objects: Announced) -> HandlerResult {
        if let Announced::Transactions(ids) = objects
            && self.count(ids.len() as u64) == self.messages
        {
            self.tell(None);
        }
        Ok(())
    }
}

pub(crate) fn address(port: u16) -> PeerAddress {
    PeerAddress { host: "127.0.0.1".to_owned(), port }
}
