//! What a connection has to tell, in order, to the user and to the manager.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tipward_wire::{BlockEnd, BlockHash, DownloadId, Verdict, WireError};
use tokio::sync::{mpsc, oneshot};

use super::hasher::Hasher;
use crate::{
    AnyMessage, DisconnectReason, Peer, PeerEvent, PeerId, Reply,
    wire::{BlockAborted, BlockError, Piece},
};

/// While so much waits to be told, no command is taken that could add to it.
const MAX_PENDING: usize = 2048;

/// What the manager hears from connections.
#[derive(Debug)]
pub(crate) enum Notice {
    /// A peer is ready; may it stay?
    Ready(Peer, oneshot::Sender<Admission>),
    /// Something that the manager may have asked for, or that it always wants to know.
    Reply(PeerId, Reply),
    /// A peer did something that it must not, so many points bad.
    Misbehaved(PeerId, u32, String),
}

/// Whether a peer may stay.
pub(crate) type Admission = Result<(), DisconnectReason>;

/// Whether the manager waits for answers: counts its open requests and broadcasts.
#[derive(Debug, Default)]
pub(crate) struct Interest(AtomicUsize);

impl Interest {
    pub(crate) fn set(&self, open: usize) {
        self.0.store(open, Ordering::Release);
    }

    fn covers(&self, reply: &Reply) -> bool {
        match reply {
            Reply::Addresses(_) | Reply::Rejected(_) => true,
            Reply::Announced(_) | Reply::Headers { .. } | Reply::NewTip(_) => true,
            Reply::Progress { .. } => false,
            _ => self.0.load(Ordering::Acquire) > 0,
        }
    }
}

#[derive(Debug)]
pub(super) enum Pending {
    /// The peer is ready and the manager is to be asked about it.
    Connected(Peer),
    /// The manager was asked.
    Asked(Peer, oneshot::Receiver<Admission>),
    Event(Box<PeerEvent>),
    Notice(Box<Notice>),
    /// Bytes of a block that the hasher has not seen yet.
    Hash(bytes::Bytes),
    /// The end of a block, once its checksum is compared.
    Verify(BlockEnd, [u8; 4]),
    /// To be told with the peer's number.
    Reply(Reply),
    Message(AnyMessage),
    Piece(Piece),
}

/// The way up from one connection.
pub(super) struct Upward {
    events: mpsc::Sender<PeerEvent>,
    manager: Option<(mpsc::Sender<Notice>, Arc<Interest>)>,
    id: PeerId,
    pending: VecDeque<Pending>,
    on_thread: bool,
    hasher: Option<Hasher>,
    /// The block whose parts were passed on, until its end is passed on too.
    download: Option<(BlockHash, DownloadId)>,
    connected: bool,
    /// A part of a block was passed on since this was last asked.
    told_part: bool,
}

impl Upward {
    pub(super) fn new(
        events: mpsc::Sender<PeerEvent>,
        manager: Option<(mpsc::Sender<Notice>, Arc<Interest>)>,
        id: PeerId,
        on_thread: bool,
    ) -> Self {
        Self {
            events,
            manager,
            id,
            pending: VecDeque::new(),
            on_thread,
            hasher: None,
            download: None,
            connected: false,
            told_part: false,
        }
    }

    /// Whether the user was told of the peer.
    pub(super) fn was_connected(&self) -> bool {
        self.connected
    }

    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether more may be read.
    pub(super) fn flows(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether commands may be taken.
    pub(super) fn has_room(&self) -> bool {
        self.pending.len() < MAX_PENDING
    }

    /// Whether a part of a block was passed on since the last call.
    pub(super) fn take_told_part(&mut self) -> bool {
        std::mem::take(&mut self.told_part)
    }

    pub(super) fn push(&mut self, pending: Pending) {
        self.pending.push_back(pending);
    }

    /// Queues what a peer did for the manager.
    pub(super) fn misbehaved(&mut self, points: u32, what: String) {
        if self.manager.is_some() {
            let notice = Notice::Misbehaved(self.id, points, what);
            self.pending.push_back(Pending::Notice(Box::new(notice)));
        }
    }

    /// Queues a reply for who it is for.
    pub(super) fn reply(&mut self, reply: Reply) {
        if let Reply::BlockEnd(end) = &reply
            && let Verdict::Deferred(expected) = end.checksum
        {
            // Nobody hears of the end before it is known to be one.
            self.pending.push_back(Pending::Verify(*end, expected));
            return;
        }
        self.pending.extend(self.notice(&reply));
        if let Reply::Part(part) = &reply
            && self.on_thread
        {
            self.pending.push_back(Pending::Hash(part.bytes.clone()));
        }
        self.pending.push_back(Pending::Reply(reply));
    }

    /// A reply as the manager hears it, if it does.
    fn notice(&self, reply: &Reply) -> Option<Pending> {
        self.manager.as_ref().filter(|(_, interest)| interest.covers(reply))?;
        Some(Pending::Notice(Box::new(Notice::Reply(self.id, reply.clone()))))
    }

    /// The connection has ended: a checksum that was not compared never will be.
    pub(super) fn give_up_checksum(&mut self) {
        self.hasher = None;
        self.pending.retain(|pending| !matches!(pending, Pending::Hash(_)));
        for pending in &mut self.pending {
            if let Pending::Verify(end, _) = pending {
                let (block, download) = (end.block, end.download);
                *pending = Pending::Reply(Reply::BlockAborted { block, download });
            }
        }
    }

    /// The block whose parts were passed on without an end.
    pub(super) fn take_download(&mut self) -> Option<(BlockHash, DownloadId)> {
        self.download.take()
    }

    /// Passes on what can be without waiting.
    pub(super) fn hurry(&mut self) {
        while let Some(Pending::Reply(_) | Pending::Message(_) | Pending::Piece(_)) = self.pending.front() {
            let Ok(permit) = self.events.try_reserve() else { return };
            if let Some(event) = self.pending.pop_front().and_then(|pending| event(self.id, pending)) {
                self.download = download(self.download, &event);
                self.told_part |= is_part(&event);
                permit.send(event);
            }
        }
    }

    /// Passes on the first of what is pending. May be dropped while it waits.
    ///
    /// # Errors
    /// Nobody listens any more, or the peer is to go.
    pub(super) async fn advance(&mut self) -> Result<(), DisconnectReason> {
        match self.pending.front_mut() {
            None => std::future::pending().await,
            Some(Pending::Connected(peer)) => {
                let peer = peer.clone();
                if let Some((manager, _)) = &self.manager {
                    let permit = manager.reserve().await.map_err(|_| DisconnectReason::Shutdown)?;
                    let (verdict, asked) = oneshot::channel();
                    permit.send(Notice::Ready(peer.clone(), verdict));
                    self.pending[0] = Pending::Asked(peer, asked);
                } else {
                    self.pending[0] = Pending::Event(Box::new(PeerEvent::Connected(peer)));
                }
            }
            Some(Pending::Asked(peer, asked)) => {
                asked.await.unwrap_or(Err(DisconnectReason::Shutdown))?;
                let event = PeerEvent::Connected(peer.clone());
                self.pending[0] = Pending::Event(Box::new(event));
            }
            Some(Pending::Notice(_)) => {
                if let Some((manager, _)) = &self.manager {
                    let permit = manager.reserve().await.map_err(|_| DisconnectReason::Shutdown)?;
                    if let Some(Pending::Notice(notice)) = self.pending.pop_front() {
                        permit.send(*notice);
                    }
                }
            }
            Some(Pending::Hash(_)) => {
                let permit = self.hasher.get_or_insert_with(Hasher::start).reserve().await;
                if let (Some(permit), Some(Pending::Hash(bytes))) = (permit, self.pending.pop_front()) {
                    permit.send(bytes);
                }
            }
            Some(Pending::Verify(..)) => {
                let found = match &mut self.hasher {
                    Some(hasher) => hasher.finish().await,
                    None => None,
                };
                self.hasher = None;
                let Some(Pending::Verify(end, expected)) = self.pending.pop_front() else { return Ok(()) };
                self.verified(end, expected, found)?;
            }
            Some(Pending::Event(_) | Pending::Reply(_) | Pending::Message(_) | Pending::Piece(_)) => {
                let permit = self.events.reserve().await.map_err(|_| DisconnectReason::Shutdown)?;
                if let Some(event) = self.pending.pop_front().and_then(|pending| event(self.id, pending)) {
                    self.connected |= matches!(event, PeerEvent::Connected(_));
                    self.download = download(self.download, &event);
                    self.told_part |= is_part(&event);
                    permit.send(event);
                }
            }
        }
        Ok(())
    }

    fn verified(
        &mut self,
        mut end: BlockEnd,
        expected: [u8; 4],
        found: Option<[u8; 32]>,
    ) -> Result<(), DisconnectReason> {
        let found = found.map(|hash| [hash[0], hash[1], hash[2], hash[3]]).unwrap_or_default();
        if found != expected {
            let reason = BlockError::Checksum { found, expected };
            let aborted = BlockAborted { download: end.download, block: Some(end.block), reason };
            return Err(WireError::from(aborted).into());
        }
        end.checksum = Verdict::Verified;
        let reply = Reply::BlockEnd(end);
        let notice = self.notice(&reply);
        self.pending.push_front(Pending::Reply(reply));
        if let Some(notice) = notice {
            self.pending.push_front(notice);
        }
        Ok(())
    }
}

/// The download that is open once the event is passed on.
fn download(open: Option<(BlockHash, DownloadId)>, event: &PeerEvent) -> Option<(BlockHash, DownloadId)> {
    match event {
        PeerEvent::Reply { reply: Reply::Part(part), .. } => Some((part.block, part.download)),
        PeerEvent::Reply { reply: Reply::BlockEnd(_) | Reply::BlockAborted { .. }, .. } => None,
        _ => open,
    }
}

fn is_part(event: &PeerEvent) -> bool {
    matches!(event, PeerEvent::Reply { reply: Reply::Part(_), .. })
}

fn event(peer: PeerId, pending: Pending) -> Option<PeerEvent> {
    match pending {
        Pending::Event(event) => Some(*event),
        Pending::Reply(reply) => Some(PeerEvent::Reply { peer, reply }),
        Pending::Message(message) => Some(PeerEvent::Message { peer, message }),
        Pending::Piece(piece) => Some(PeerEvent::Piece { peer, piece }),
        Pending::Connected(_)
        | Pending::Asked(..)
        | Pending::Notice(_)
        | Pending::Hash(_)
        | Pending::Verify(..) => None,
    }
}
