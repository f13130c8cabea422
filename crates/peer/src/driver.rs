//! Moves bytes and time between one socket and one [`Connection`].

use std::{collections::VecDeque, sync::Arc, time::Instant};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{mpsc, watch},
    time::{Duration, sleep_until},
};

use crate::{
    Connection, DisconnectReason, LinkEvent, PeerAddress, PeerEvent, PeerId, PeerInfo, Reply, Unsupported,
    Want,
};

/// How many questions may wait for one peer's task.
const WANTS: usize = 16;
/// While more than this waits to be written, nothing is read that could add to it.
const OUTPUT_LIMIT: usize = 1 << 20;
/// The room made for one read, at least and at most.
const READ: (usize, usize) = (64 << 10, 4 << 20);

/// A handle to a connected peer. Clones are handles to the same peer.
#[derive(Debug, Clone)]
pub struct Peer {
    id: PeerId,
    address: PeerAddress,
    info: Arc<PeerInfo>,
    wants: mpsc::Sender<Want>,
    kill: Kill,
}

/// Ends a connection, or the attempt at one, from outside.
pub(crate) type Kill = Arc<watch::Sender<Option<DisconnectReason>>>;

impl Peer {
    /// The connection's number.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// Where the peer is.
    #[must_use]
    pub fn address(&self) -> &PeerAddress {
        &self.address
    }

    /// What the peer told about itself.
    #[must_use]
    pub fn info(&self) -> &PeerInfo {
        &self.info
    }

    /// Asks the peer something. The answer comes as an event; so does its loss.
    ///
    /// # Errors
    /// [`Unsupported`] if the connection has ended, or its task has 16 questions to send already.
    pub fn ask(&self, want: Want) -> Result<(), Unsupported> {
        self.wants.try_send(want).map_err(|_| Unsupported)
    }

    /// Ends the connection; [`PeerEvent::Disconnected`] follows. The first reason given stands.
    pub fn disconnect(&self, reason: DisconnectReason) {
        end(&self.kill, reason);
    }
}

pub(crate) fn end(kill: &Kill, reason: DisconnectReason) {
    kill.send_if_modified(|current| {
        let first = current.is_none();
        if first {
            *current = Some(reason);
        }
        first
    });
}

/// Waits for the end from outside.
pub(crate) async fn ended(kill: &mut watch::Receiver<Option<DisconnectReason>>) -> DisconnectReason {
    match kill.wait_for(Option::is_some).await {
        Ok(reason) => reason.clone().unwrap_or(DisconnectReason::Shutdown),
        Err(_) => DisconnectReason::Shutdown,
    }
}

/// One connection's task, from the first byte to the end.
pub(crate) struct Driver {
    pub(crate) id: PeerId,
    pub(crate) address: PeerAddress,
    pub(crate) link: Box<dyn Connection>,
    pub(crate) write_timeout: Duration,
    pub(crate) events: mpsc::Sender<PeerEvent>,
    pub(crate) kill: Kill,
    /// Told when both sides have shaken hands.
    pub(crate) on_ready: mpsc::Sender<usize>,
    pub(crate) entry: usize,
}

/// How a connection went.
pub(crate) struct Ended {
    pub(crate) reason: DisconnectReason,
    pub(crate) was_ready: bool,
}

impl Driver {
    /// Runs until the connection ends. Of the events only [`PeerEvent::Connected`] and [`PeerEvent::Reply`] are sent.
    pub(crate) async fn run(mut self, stream: impl AsyncRead + AsyncWrite) -> Ended {
        let mut was_ready = false;
        let reason = match self.drive(stream, &mut was_ready).await {
            Ok(()) => DisconnectReason::Shutdown,
            Err(reason) => reason,
        };
        Ended { reason, was_ready }
    }

    async fn drive(
        &mut self,
        stream: impl AsyncRead + AsyncWrite,
        was_ready: &mut bool,
    ) -> Result<(), DisconnectReason> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut reader = std::pin::pin!(&mut reader);
        let (wants, mut inbox) = mpsc::channel(WANTS);
        let mut wants = Some(wants);
        let mut killed = self.kill.subscribe();
        let mut input = BytesMut::new();
        let mut pending = VecDeque::new();
        let mut written = Instant::now();
        loop {
            while let Some(event) = self.link.poll() {
                let event = self.translate(event, &mut wants, was_ready).await;
                pending.extend(event);
            }
            let flowing = pending.is_empty();
            let unsent = self.link.output().len();
            if unsent == 0 {
                written = Instant::now();
            }
            let deadline = if flowing { self.link.deadline() } else { Instant::now() + self.write_timeout };
            let deadline = if unsent > 0 { deadline.min(written + self.write_timeout) } else { deadline };
            make_room(&mut input, self.link.wanted());
            tokio::select! {
                biased;
                // The end comes first, or a busy peer could not be stopped.
                reason = ended(&mut killed) => return Err(reason),
                // What was read goes up before more is read: this is the back-pressure on the socket.
                permit = self.events.reserve(), if !flowing => {
                    let Ok(permit) = permit else { return Ok(()) };
                    if let Some(event) = pending.pop_front() {
                        permit.send(event);
                    }
                    if pending.is_empty() {
                        self.link.resumed(Instant::now());
                    }
                }
                // Writes before reads, so that answers can't pile up.
                sent = writer.write(&self.link.output()[..]), if unsent > 0 => {
                    self.link.output().advance(sent?);
                    written = Instant::now();
                }
                Some(want) = inbox.recv(), if flowing && unsent < OUTPUT_LIMIT => {
                    if self.link.ask(want.clone()).is_err() {
                        pending.push_back(PeerEvent::Reply { peer: self.id, reply: Reply::Unsupported(want) });
                    }
                }
                read = reader.read_buf(&mut input), if flowing && unsent < OUTPUT_LIMIT => {
                    if read? == 0 {
                        return Err(self.link.closed(&input));
                    }
                    self.link.receive(Instant::now(), &mut input)?;
                }
                () = sleep_until(deadline.into()) => {
                    let now = Instant::now();
                    if unsent > 0 && now >= written + self.write_timeout {
                        return Err(DisconnectReason::WriteTimedOut);
                    }
                    if flowing {
                        self.link.timeout(now)?;
                    }
                }
            }
        }
    }

    async fn translate(
        &mut self,
        event: LinkEvent,
        wants: &mut Option<mpsc::Sender<Want>>,
        was_ready: &mut bool,
    ) -> Option<PeerEvent> {
        match event {
            LinkEvent::Reply(reply) => Some(PeerEvent::Reply { peer: self.id, reply }),
            LinkEvent::Ready(info) => {
                *was_ready = true;
                // The manager takes these at once or has gone.
                self.on_ready.send(self.entry).await.ok();
                let (id, address, kill) = (self.id, self.address.clone(), self.kill.clone());
                let peer = Peer { id, address, info: Arc::new(info), wants: wants.take()?, kill };
                Some(PeerEvent::Connected(peer))
            }
        }
    }
}

fn make_room(input: &mut BytesMut, wanted: usize) {
    let wanted = wanted.clamp(READ.0, READ.1);
    if input.capacity() - input.len() < wanted {
        input.reserve(wanted);
    }
}
