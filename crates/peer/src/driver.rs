//! Moves bytes and time between one socket and one [`Connection`].

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use bytes::{Buf, BytesMut};
use tipward_wire::{BlockHash, DownloadId};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::{mpsc, oneshot, watch},
    task::yield_now,
    time::{Duration, sleep_until, timeout},
};

use crate::{
    AnyMessage, CallError, Checksum, Connection, Direction, DisconnectReason, Figures, LinkEvent,
    LinkOptions, PeerAddress, PeerEvent, PeerId, Reply,
    hold::Hold,
    link::after,
    metrics,
    peer::{COMMANDS, Command, Kill, ended},
};
use handle::Handle;
use pace::{Pace, write};
use upward::{Pending, Upward};

mod handle;
mod hasher;
mod pace;
mod upward;

pub(crate) use upward::{Interest, Notice};

/// The room made for one read, at least and at most. An idle connection keeps the least.
const READ: (usize, usize) = (2 << 10, 4 << 20);
/// How often the messages received are counted for all to see.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// What a connection's task is started with.
pub(crate) struct Driver {
    pub(crate) id: PeerId,
    pub(crate) address: PeerAddress,
    pub(crate) direction: Direction,
    /// Where the connection leads, if that is known.
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) link: Box<dyn Connection>,
    pub(crate) options: LinkOptions,
    pub(crate) events: mpsc::Sender<PeerEvent>,
    pub(crate) kill: Kill,
    pub(crate) figures: Arc<Mutex<Figures>>,
    /// Who decides whether the peer may stay, and hears of what it tells.
    pub(crate) manager: Option<(mpsc::Sender<Notice>, Arc<Interest>)>,
}

/// How a connection went.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) reason: DisconnectReason,
    pub(crate) was_ready: bool,
    /// Whether the peer sent anything at all.
    pub(crate) has_heard: bool,
    /// The block whose parts were told and whose end was not.
    pub(crate) void: Option<(BlockHash, DownloadId)>,
}

impl Driver {
    /// Runs until the connection ends. Of the events only [`PeerEvent::Connected`], [`PeerEvent::Reply`] and the like are
    /// sent, not its end.
    pub(crate) async fn run(self, stream: impl AsyncRead + AsyncWrite + Send) -> Ended {
        let (reader, writer) = tokio::io::split(stream);
        let upward =
            Upward::new(self.events, self.manager, self.id, self.options.checksum == Checksum::Thread);
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let hold = Arc::new(Hold::default());
        let handle = Handle {
            id: self.id,
            address: self.address,
            direction: self.direction,
            remote: self.remote,
            request_timeout: self.options.request_timeout,
            commands,
            kill: self.kill.clone(),
            hold: hold.clone(),
            figures: self.figures.clone(),
        };
        let mut running = Running {
            link: self.link,
            options: self.options,
            upward,
            handle: Some(handle),
            inbox,
            hold,
            figures: self.figures,
            input: BytesMut::new(),
            read_size: READ.0,
            backlog: false,
            written: 0,
            unwritten: VecDeque::new(),
            calls: BTreeMap::new(),
            next_call: 0,
            counted: now(),
            told: Figures::new(now()),
        };
        let reason = running.run(reader, writer, &self.kill).await;
        running.count();
        let has_heard = running.link.figures().received > 0;
        let void = running.upward.take_download();
        Ended { reason, was_ready: running.upward.was_connected(), has_heard, void }
    }
}

struct Running {
    link: Box<dyn Connection>,
    options: LinkOptions,
    upward: Upward,
    /// Until the peer is ready.
    handle: Option<Handle>,
    inbox: mpsc::Receiver<Command>,
    hold: Arc<Hold>,
    figures: Arc<Mutex<Figures>>,
    input: BytesMut,
    /// The room for the next read.
    read_size: usize,
    /// There is input that was not decoded yet, because too much waited to be told or sent.
    backlog: bool,
    /// How many bytes were written in all.
    written: u64,
    /// Who waits for how many bytes to be written.
    unwritten: VecDeque<(u64, oneshot::Sender<()>)>,
    calls: BTreeMap<u64, oneshot::Sender<Result<AnyMessage, CallError>>>,
    next_call: u64,
    counted: Instant,
    /// What was counted so far.
    told: Figures,
}

impl Running {
    async fn run<S: AsyncRead + AsyncWrite>(
        &mut self,
        mut reader: ReadHalf<S>,
        mut writer: WriteHalf<S>,
        kill: &Kill,
    ) -> DisconnectReason {
        let mut killed = kill.subscribe();
        match self.converse(&mut reader, &mut writer, &mut killed).await {
            // What is to be sent still goes out, then the other side is told. What is to be told is given up.
            Err(End::Ours(reason)) => {
                let farewell = async {
                    writer.write_all(self.link.output()).await.ok();
                    writer.shutdown().await.ok();
                };
                timeout(self.options.close_timeout, farewell).await.ok();
                reason
            }
            // What came before the end is told before it. The socket does not wait for that.
            Err(End::Theirs(reason)) => {
                drop((reader, writer));
                self.translate();
                self.upward.give_up_checksum();
                let told = async { while !self.upward.is_idle() && self.upward.advance().await.is_ok() {} };
                tokio::select! {
                    biased;
                    () = told => {}
                    _ = ended(&mut killed) => {}
                }
                reason
            }
            Ok(()) => DisconnectReason::Shutdown,
        }
    }

    async fn converse<S: AsyncRead + AsyncWrite>(
        &mut self,
        reader: &mut ReadHalf<S>,
        writer: &mut WriteHalf<S>,
        killed: &mut watch::Receiver<Option<DisconnectReason>>,
    ) -> Result<(), End> {
        let mut pace = Pace::new(self.hold.clone());
        loop {
            self.translate();
            let flows = self.upward.flows();
            if let Some(since) = pace.look(flows) {
                self.link.resumed(since, now());
            }
            let unsent = self.link.output().len();
            let has_room = unsent <= self.options.max_unsent;
            if self.backlog && pace.reads() && has_room {
                self.receive()?;
                continue;
            }
            let unread = pace.write_deadline(unsent, self.options.write_timeout);
            // While we do not read, the peer's silence is ours.
            let deadline = pace.reads().then(|| self.link.deadline()).into_iter().chain(unread).min();
            if self.upward.take_told_part() {
                // Who takes the part may drop it now, and the next one comes into its memory: fresh pages cost as much as hashing.
                yield_now().await;
            }
            self.make_room();
            tokio::select! {
                biased;
                // The end comes first, or a busy peer could not be stopped.
                reason = ended(killed) => return Err(End::Ours(reason)),
                // What was read goes up before more is read: this is the back-pressure on the socket.
                told = self.upward.advance(), if !flows => told.map_err(End::Ours)?,
                // Time before what the peer brings, or a busy peer would never time out. It is due seldom.
                () = sleep_until(deadline.unwrap_or_else(now).into()), if deadline.is_some() => {
                    self.late(&pace, unread)?;
                }
                // Writes before reads, so that answers can't pile up.
                sent = write(writer, &self.link.output()[..]), if unsent > 0 || pace.is_held() => {
                    let sent = sent.map_err(|error| End::Theirs(error.into()))?;
                    self.sent(sent);
                    pace.wrote();
                }
                // Even while nobody takes what is told: who is to take it may be waiting to have something sent.
                Some(command) = self.inbox.recv(), if has_room && self.upward.has_room() => self.obey(command),
                () = pace.resumed(), if pace.is_held() => {}
                read = reader.read_buf(&mut self.input), if pace.reads() && has_room => {
                    match read.map_err(|error| End::Theirs(error.into()))? {
                        0 => return Err(End::Theirs(self.link.closed(&self.input))),
                        length => self.received(length),
                    }
                    // What came after we were told to hold waits.
                    self.backlog = true;
                    if !pace.has_turned() {
                        self.receive()?;
                    }
                }
            }
        }
    }

    /// A deadline has passed; that for the peer to take what is sent, or the connection's own.
    fn late(&mut self, pace: &Pace, unread: Option<Instant>) -> Result<(), End> {
        if pace.has_turned() {
            return Ok(()); // What was due stands still, or starts anew.
        }
        if unread.is_some_and(|at| at <= now()) {
            return Err(End::Theirs(DisconnectReason::WriteTimedOut));
        }
        if pace.reads() {
            self.link.timeout(now()).map_err(End::Theirs)?;
            self.publish();
        }
        Ok(())
    }

    fn received(&mut self, length: usize) {
        self.link.figures().received += length as u64;
        // A read that fills its room has more behind it; one that leaves most of it needs less.
        let full = self.input.capacity() == self.input.len();
        self.read_size = if full { self.read_size * 2 } else { (length * 2).min(self.read_size) };
        self.read_size = self.read_size.clamp(READ.0, 64 << 10);
    }

    fn receive(&mut self) -> Result<(), End> {
        let received = self.link.receive(now(), &mut self.input);
        self.publish();
        self.backlog = received.map_err(End::Theirs)?;
        Ok(())
    }

    fn sent(&mut self, length: usize) {
        self.link.output().advance(length);
        self.link.figures().sent += length as u64;
        self.written += length as u64;
        while self.unwritten.front().is_some_and(|(at, _)| *at <= self.written) {
            if let Some((_, written)) = self.unwritten.pop_front() {
                written.send(()).ok();
            }
        }
        if self.link.output().is_empty() {
            // Nothing is kept for a connection that has nothing to say.
            *self.link.output() = BytesMut::new();
        }
        self.publish();
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Ask(want) => {
                if self.link.ask(want.clone(), now()).is_err() {
                    self.upward.push(Pending::Reply(Reply::Unsupported(want)));
                }
            }
            Command::Send { message, written } => {
                self.link.send(message);
                let end = self.written + self.link.output().len() as u64;
                // A message of another dialect adds nothing to be written.
                if end == self.written {
                    written.send(()).ok();
                } else {
                    self.unwritten.push_back((end, written));
                }
            }
            Command::Call { request, timeout, answer } => {
                // Who asks no more needs no answer.
                self.calls.retain(|_, answer| !answer.is_closed());
                self.next_call += 1;
                match self.link.call(self.next_call, request, after(now(), timeout)) {
                    Ok(()) => {
                        self.calls.insert(self.next_call, answer);
                    }
                    Err(error) => {
                        answer.send(Err(error)).ok();
                    }
                }
            }
        }
    }

    /// Takes what the connection tells.
    fn translate(&mut self) {
        while let Some(event) = self.link.poll() {
            match event {
                LinkEvent::Reply(reply) => self.upward.reply(reply),
                LinkEvent::Message(message) => self.upward.push(Pending::Message(message)),
                LinkEvent::Piece(piece) => self.upward.push(Pending::Piece(piece)),
                LinkEvent::Misbehaved(points, what) => self.upward.misbehaved(points, what),
                LinkEvent::Answer(call, answer) => {
                    if let Some(waiting) = self.calls.remove(&call) {
                        waiting.send(answer).ok();
                    }
                }
                LinkEvent::Ready(info) => {
                    if let Some(handle) = self.handle.take() {
                        let peer = handle.peer(info, self.link.is_encrypted());
                        self.upward.push(Pending::Connected(peer));
                    }
                }
            }
        }
        self.upward.hurry();
    }

    /// An idle connection holds little; one that receives much reads much at a time.
    fn make_room(&mut self) {
        let wanted = self.link.wanted().max(self.read_size).min(READ.1);
        if self.input.is_empty() && self.input.capacity() > 4 * wanted {
            self.input = BytesMut::new();
        }
        if self.input.capacity() - self.input.len() < wanted {
            self.input.reserve(wanted);
        }
    }

    fn publish(&mut self) {
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner) = *self.link.figures();
        if now() >= self.counted + COUNT_INTERVAL {
            self.count();
        }
    }

    fn count(&mut self) {
        self.counted = now();
        let figures = *self.link.figures();
        metrics::messages(self.link.take_counts());
        metrics::bytes(figures.received - self.told.received, figures.sent - self.told.sent);
        if let Some(ping) = figures.ping.filter(|_| figures.ping != self.told.ping) {
            metrics::ping(ping);
        }
        self.told = figures;
    }
}

/// Who ended it.
enum End {
    Ours(DisconnectReason),
    Theirs(DisconnectReason),
}

impl From<DisconnectReason> for End {
    fn from(reason: DisconnectReason) -> Self {
        Self::Theirs(reason)
    }
}

/// The runtime's clock, which tests can move.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
