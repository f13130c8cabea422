//! One connection as a machine: bytes and time in, bytes and events out.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use tipward_wire::Dialect;

use crate::{DisconnectReason, Outbox, PeerInfo, Reply, Session, SessionEvent, Unsupported, Want};

/// How often the progress of an arriving block is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Time-outs of a connection, and what its codec may take.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LinkOptions {
    /// How long the handshake may take; 30 s.
    pub handshake_timeout: Duration,
    /// How often to ping; 120 s.
    pub ping_interval: Duration,
    /// How long a peer may be silent, pings included; 20 min.
    pub idle_timeout: Duration,
    /// How long a peer may leave unread what we send; 60 s.
    pub write_timeout: Duration,
    /// The largest block accepted, in bytes; `None` for the network's own limit (4,000,000 on BTC, 8 GiB on BSV).
    pub max_block_size: Option<u64>,
    /// The target size of a block's parts, in bytes; 4 MiB. Smaller blocks come whole.
    pub part_size: usize,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(30),
            ping_interval: Duration::from_secs(120),
            idle_timeout: Duration::from_secs(20 * 60),
            write_timeout: Duration::from_secs(60),
            max_block_size: None,
            part_size: 4 << 20,
        }
    }
}

/// The moment so much later; a duration too long to count means never.
pub(crate) fn after(now: Instant, duration: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    now.checked_add(duration).unwrap_or_else(|| now + NEVER)
}

/// What a connection tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// Both sides have shaken hands; comes once and first.
    Ready(PeerInfo),
    /// An answer or an announcement.
    Reply(Reply),
}

/// A connection without the type of its dialect.
///
/// Call order: after every other call, take [`poll`](Self::poll) until `None`, send what is in
/// [`output`](Self::output), and come back at [`deadline`](Self::deadline). After an error nothing may be called.
pub trait Connection: Send {
    /// Takes what it can from the front of `input`.
    ///
    /// # Errors
    /// The peer broke the protocol.
    fn receive(&mut self, now: Instant, input: &mut BytesMut) -> Result<(), DisconnectReason>;

    /// The peer closed its side; `rest` is unread input. The reason tells whether that was in the middle of a message.
    fn closed(&self, rest: &[u8]) -> DisconnectReason;

    /// Asks the peer something.
    ///
    /// # Errors
    /// [`Unsupported`] if the dialect has no words for it, or before the handshake is done.
    fn ask(&mut self, want: Want) -> Result<(), Unsupported>;

    /// The next event.
    fn poll(&mut self) -> Option<LinkEvent>;

    /// Bytes to be sent; the caller takes from the front what it has sent.
    fn output(&mut self) -> &mut BytesMut;

    /// When [`timeout`](Self::timeout) is due.
    fn deadline(&self) -> Instant;

    /// Acts on the time.
    ///
    /// # Errors
    /// A time-out has passed.
    fn timeout(&mut self, now: Instant) -> Result<(), DisconnectReason>;

    /// We did not read for a while, which must not be held against the peer.
    fn resumed(&mut self, now: Instant);

    /// How many bytes of room the next read should have.
    fn wanted(&self) -> usize;
}

/// The machine of a connection in a given dialect.
pub struct Link<S: Session> {
    session: S,
    dialect: S::Dialect,
    options: LinkOptions,
    ready: bool,
    handshake_deadline: Instant,
    last_received: Instant,
    last_ping: Instant,
    progress_told: Instant,
    pings: u64,
    output: BytesMut,
    outbox: Outbox<<S::Dialect as Dialect>::Message>,
    events: VecDeque<LinkEvent>,
}

impl<S: Session> Link<S> {
    /// A connection that was opened just now. `seed` is where the nonces of pings start.
    #[must_use]
    pub fn new(session: S, dialect: S::Dialect, options: LinkOptions, seed: u64, now: Instant) -> Self {
        let mut link = Self {
            session,
            dialect,
            ready: false,
            handshake_deadline: after(now, options.handshake_timeout),
            options,
            last_received: now,
            last_ping: now,
            progress_told: now,
            pings: seed,
            output: BytesMut::new(),
            outbox: Outbox::default(),
            events: VecDeque::new(),
        };
        link.session.start(&mut link.outbox);
        link.flush();
        link
    }

    /// Encodes what the session wants sent, queues what it wants told.
    fn flush(&mut self) {
        for message in self.outbox.messages.drain(..) {
            self.dialect.encode(&message, &mut self.output);
        }
        for event in self.outbox.events.drain(..) {
            self.events.push_back(match event {
                SessionEvent::Ready(info) => {
                    self.ready = true;
                    self.dialect.handshake_done();
                    LinkEvent::Ready(info)
                }
                SessionEvent::Reply(reply) => LinkEvent::Reply(reply),
            });
        }
    }
}

impl<S: Session> Connection for Link<S> {
    fn receive(&mut self, now: Instant, input: &mut BytesMut) -> Result<(), DisconnectReason> {
        self.last_received = now;
        while let Some(incoming) = self.dialect.decode(input)? {
            self.session.receive(incoming, &mut self.outbox)?;
            self.flush();
        }
        if let Some(received) = self.dialect.block_progress()
            && self.ready
            && now >= self.progress_told + PROGRESS_INTERVAL
        {
            self.progress_told = now;
            self.events.push_back(LinkEvent::Reply(Reply::Progress { received }));
        }
        Ok(())
    }

    fn closed(&self, rest: &[u8]) -> DisconnectReason {
        if rest.is_empty() && self.dialect.is_between_frames() {
            DisconnectReason::Closed
        } else {
            DisconnectReason::Truncated
        }
    }

    fn ask(&mut self, want: Want) -> Result<(), Unsupported> {
        if !self.ready {
            return Err(Unsupported);
        }
        self.session.ask(want, &mut self.outbox)?;
        self.flush();
        Ok(())
    }

    fn poll(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    fn deadline(&self) -> Instant {
        if self.ready {
            after(self.last_ping, self.options.ping_interval)
                .min(after(self.last_received, self.options.idle_timeout))
        } else {
            self.handshake_deadline
        }
    }

    fn timeout(&mut self, now: Instant) -> Result<(), DisconnectReason> {
        if !self.ready {
            return if now >= self.handshake_deadline {
                Err(DisconnectReason::HandshakeTimedOut)
            } else {
                Ok(())
            };
        }
        if now >= after(self.last_received, self.options.idle_timeout) {
            return Err(DisconnectReason::Idle);
        }
        if now >= after(self.last_ping, self.options.ping_interval) {
            self.last_ping = now;
            self.pings = self.pings.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            self.session.ping(self.pings, &mut self.outbox);
            self.flush();
        }
        Ok(())
    }

    fn resumed(&mut self, now: Instant) {
        self.last_received = now;
    }

    fn wanted(&self) -> usize {
        self.dialect.wanted()
    }
}
