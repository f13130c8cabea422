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
    Want, link::after,
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
        // The first reason stands, but a shutdown must reach those who are waiting to tell of an end.
        let is_news = match current {
            None => true,
            Some(DisconnectReason::Shutdown) => false,
            Some(_) => matches!(reason, DisconnectReason::Shutdown),
        };
        if is_news {
            *current = Some(reason);
        }
        is_news
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
        // Since when the peer has taken nothing of what waits for it.
        let mut unread_since: Option<Instant> = None;
        loop {
            while let Some(event) = self.link.poll() {
                pending.extend(self.translate(event, &mut wants));
            }
            let flowing = pending.is_empty();
            let unsent = self.link.output().len();
            unread_since = (unsent > 0).then(|| unread_since.unwrap_or_else(now));
            let unread = unread_since.map(|since| after(since, self.write_timeout));
            // While we do not read, the peer's silence is ours.
            let deadline = flowing.then(|| self.link.deadline()).into_iter().chain(unread).min();
            make_room(&mut input, self.link.wanted());
            tokio::select! {
                biased;
                // The end comes first, or a busy peer could not be stopped.
                reason = ended(&mut killed) => return Err(reason),
                // What was read goes up before more is read: this is the back-pressure on the socket.
                permit = self.events.reserve(), if !flowing => {
                    let (Ok(permit), Some(event)) = (permit, pending.pop_front()) else { return Ok(()) };
                    let is_connected = matches!(event, PeerEvent::Connected(_));
                    permit.send(event);
                    if is_connected {
                        *was_ready = true;
                        // There is a place for each connection there may be, so this does not wait.
                        self.on_ready.try_send(self.entry).ok();
                    }
                    if pending.is_empty() {
                        self.link.resumed(now());
                    }
                }
                // Time before what the peer brings, or a busy peer would never time out. It is due seldom.
                () = sleep_until(deadline.unwrap_or_else(now).into()), if deadline.is_some() => {
                    if unread.is_some_and(|at| at <= now()) {
                        return Err(DisconnectReason::WriteTimedOut);
                    }
                    if flowing {
                        self.link.timeout(now())?;
                    }
                }
                // Writes before reads, so that answers can't pile up.
                sent = writer.write(&self.link.output()[..]), if unsent > 0 => {
                    self.link.output().advance(sent?);
                    unread_since = None;
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
                    self.link.receive(now(), &mut input)?;
                }
            }
        }
    }

    fn translate(&self, event: LinkEvent, wants: &mut Option<mpsc::Sender<Want>>) -> Option<PeerEvent> {
        match event {
            LinkEvent::Reply(reply) => Some(PeerEvent::Reply { peer: self.id, reply }),
            LinkEvent::Ready(info) => {
                let (id, address, kill) = (self.id, self.address.clone(), self.kill.clone());
                let peer = Peer { id, address, info: Arc::new(info), wants: wants.take()?, kill };
                Some(PeerEvent::Connected(peer))
            }
        }
    }
}

/// The runtime's clock, which tests can move.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn make_room(input: &mut BytesMut, wanted: usize) {
    let wanted = wanted.clamp(READ.0, READ.1);
    if input.capacity() - input.len() < wanted {
        input.reserve(wanted);
    }
}

#[cfg(test)]
mod tests;
