//! What a connection hears, and when it is to act on it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use tipward_wire::{
    Dialect, Incoming, WireError,
    bitcoin::{Codec, Message},
};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{Instant, sleep},
};

use super::ServeError;
use crate::node::Shared;

/// How many messages may wait to be answered; more are not read.
pub(super) const MAX_WAITING: usize = 1024;
/// How often a node that does not read looks whether it shall.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Something that came.
#[derive(Debug)]
pub(super) enum Heard {
    Message(Message),
    /// A transaction that does not parse.
    BadTransaction,
    /// Nothing follows.
    End(Result<(), ServeError>),
}

/// The reading half of a connection. It reads on while the other half writes, so that what comes is as old as it is.
pub(super) struct Ears<'a> {
    pub(super) stream: &'a TcpStream,
    pub(super) codec: Codec,
    pub(super) node: Arc<Shared>,
    pub(super) heard: mpsc::Sender<(Instant, Heard)>,
    /// Nothing is read while this is set.
    pub(super) deaf: &'a AtomicBool,
}

impl Ears<'_> {
    /// Passes on what comes, each with the time at which to answer it; never ends.
    pub(super) async fn listen(mut self) {
        let ended = self.pass_on().await;
        self.tell(Heard::End(ended)).await;
        std::future::pending::<()>().await;
    }

    async fn pass_on(&mut self) -> Result<(), ServeError> {
        let mut input = BytesMut::new();
        loop {
            while let Some(heard) = self.decode(&mut input)? {
                if matches!(heard, Heard::Message(Message::Verack)) {
                    self.codec.handshake_done();
                }
                self.tell(heard).await;
            }
            self.stream.readable().await?;
            while self.deaf.load(Ordering::Acquire) {
                sleep(LOOK_AGAIN).await;
            }
            input.reserve(4096);
            match self.stream.try_read_buf(&mut input) {
                Ok(0) => return Ok(()),
                Ok(read) => self.node.counters.bytes_received.add(read),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn tell(&self, heard: Heard) {
        let due = Instant::now() + self.node.options.latency;
        self.heard.send((due, heard)).await.ok(); // or the other half has ended, and this one is about to
    }

    /// The next message in the input. A transaction that does not parse is refused, as nodes of BSV do, and costs nothing
    /// else.
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Heard>, WireError> {
        loop {
            match self.codec.decode(input) {
                Ok(Some(Incoming::Message(message))) => return Ok(Some(Heard::Message(message))),
                // A block from a client is of no interest.
                Ok(Some(Incoming::Block(_) | Incoming::Piece(_))) => {}
                Ok(None) => return Ok(None),
                Err(WireError::Malformed { command, .. }) if command == "tx" => {
                    return Ok(Some(Heard::BadTransaction));
                }
                Err(error) => return Err(error),
            }
        }
    }
}
