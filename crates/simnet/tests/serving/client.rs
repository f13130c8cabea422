//! A client that says what it is told to.

use std::io;

use bytes::BytesMut;
use tipward_simnet::{SimChain, SimNode, SimOptions};
use tipward_wire::{
    BlockEvent, Dialect, Incoming, WireError,
    bitcoin::{Codec, Message, Network, NetworkAddress, Services, Version},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A node on a free port.
pub(crate) async fn node(chain: &SimChain, options: impl Into<SimOptions>) -> SimNode {
    SimNode::spawn(chain.clone(), options, "127.0.0.1:0").await.unwrap()
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    codec: Codec,
    input: BytesMut,
    block: BytesMut,
}

impl Client {
    pub(crate) async fn connect(node: &SimNode) -> Self {
        let stream = TcpStream::connect(node.address()).await.unwrap();
        let codec = Codec::new(node.chain().network());
        Self { stream, codec, input: BytesMut::new(), block: BytesMut::new() }
    }

    /// Connects and shakes hands, saying `before` ahead of `verack`; the node's version.
    pub(crate) async fn ready(node: &SimNode, before: &[Message]) -> (Self, Version) {
        let mut client = Self::connect(node).await;
        client.send(&Message::Version(version())).await;
        let Message::Version(version) = client.next().await else { panic!("no version") };
        for message in before {
            client.send(message).await;
        }
        client.send(&Message::Verack).await;
        while client.next().await != Message::Verack {}
        client.codec.handshake_done();
        if node.chain().network().chain == Network::BSV.chain {
            assert!(matches!(client.next().await, Message::Protoconf(_)));
        }
        client.sync().await;
        (client, version)
    }

    pub(crate) async fn send(&mut self, message: &Message) {
        let mut frame = BytesMut::new();
        self.codec.encode(message, &mut frame);
        self.stream.write_all(&frame).await.unwrap();
    }

    /// Sends and waits for the answer.
    pub(crate) async fn ask(&mut self, message: &Message) -> Message {
        self.send(message).await;
        self.next().await
    }

    pub(crate) async fn next(&mut self) -> Message {
        self.try_next().await.unwrap()
    }

    /// The next message, a block as a whole.
    pub(crate) async fn try_next(&mut self) -> io::Result<Message> {
        loop {
            match self.codec.decode(&mut self.input).unwrap() {
                Some(Incoming::Message(message)) => return Ok(message),
                Some(Incoming::Block(BlockEvent::Part(part))) => self.block.extend_from_slice(&part.bytes),
                Some(Incoming::Block(BlockEvent::End(_))) => {
                    return Ok(Message::Block(std::mem::take(&mut self.block).freeze()));
                }
                Some(Incoming::Piece(_)) => {}
                None => {
                    if self.stream.read_buf(&mut self.input).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
    }

    /// As [`next`](Self::next), and `verack` ends the handshake.
    pub(crate) async fn next_unready(&mut self) -> Message {
        let message = self.next().await;
        if message == Message::Verack {
            self.codec.handshake_done();
        }
        message
    }

    /// How many bytes have come that are part of no message yet, but for the message's own start.
    pub(crate) fn buffered(&self) -> usize {
        self.input.len() + self.block.len()
    }

    /// What is wrong with what comes.
    pub(crate) async fn failure(&mut self) -> WireError {
        loop {
            match self.codec.decode(&mut self.input) {
                Ok(Some(_)) => {}
                Ok(None) => assert!(self.stream.read_buf(&mut self.input).await.unwrap() > 0, "closed"),
                Err(error) => return error,
            }
        }
    }

    /// The node has dealt with everything sent so far and said nothing: what comes next is the answer to a ping.
    pub(crate) async fn sync(&mut self) {
        assert_eq!(self.ask(&Message::Ping(99)).await, Message::Pong(99));
    }
}

pub(crate) fn version() -> Version {
    Version {
        protocol: 70016,
        services: Services::NONE,
        time: 0,
        receiver: NetworkAddress::UNSPECIFIED,
        sender: NetworkAddress::UNSPECIFIED,
        nonce: 1,
        user_agent: "/test/".into(),
        start_height: 0,
        relay: true,
        association_id: None,
    }
}
