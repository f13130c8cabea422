//! One connection as a machine: bytes and time in, bytes and events out.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use tipward_wire::{Dialect, Incoming, WireError};

use crate::{
    AnyMessage, DisconnectReason, Outbox, Reply, Session, SessionEvent, Unsupported, Violation, Want,
};

use allowance::Allowance;
pub use calls::CallError;
use calls::Calls;
pub use connection::{Connection, LinkEvent};
pub use figures::Figures;
pub use options::{Checksum, Delivery, Encrypt, LinkOptions, Needs};

pub use cover::Cover;
use cover::Way;

mod allowance;
mod calls;
mod connection;
mod cover;
mod figures;
mod options;

/// How often the progress of an arriving block is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// While so many events wait to be taken, nothing more is decoded.
const MAX_EVENTS: usize = 256;
/// A peer that sends this much lives, even if what it sends keeps it from answering a ping.
const SIGN_OF_LIFE: u64 = 1 << 20;
/// What a message that does not parse costs a peer: twenty at once are one too many.
const MALFORMED_COST: u32 = 100;
/// How bad it is in the pool's eyes.
const MALFORMED_POINTS: u32 = 10;

/// The moment so much later; a duration too long to count means never.
pub(crate) fn after(now: Instant, duration: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    now.checked_add(duration).unwrap_or_else(|| now + NEVER)
}

/// The machine of a connection in a given dialect.
pub struct Link<S: Session> {
    session: S,
    dialect: S::Dialect,
    way: Way,
    options: LinkOptions,
    ready: bool,
    opened: Instant,
    last_ping: Instant,
    /// The ping that is not answered yet.
    unanswered: Option<Ping>,
    progress_told: Instant,
    nonce: u64,
    output: BytesMut,
    outbox: Outbox<<S::Dialect as Dialect>::Message>,
    events: VecDeque<LinkEvent>,
    calls: Calls<<S::Dialect as Dialect>::Message>,
    allowance: Allowance,
    figures: Figures,
    counts: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Clone, Copy)]
struct Ping {
    nonce: u64,
    sent: Instant,
    /// Since when we wait for the answer: moves on while we do not read ourselves, and while much else comes.
    since: Instant,
    received: u64,
}

impl<S: Session> Link<S> {
    /// A connection that was opened just now. `seed` is where the nonces of pings start.
    #[must_use]
    pub fn new(
        session: S,
        mut dialect: S::Dialect,
        cover: Cover,
        options: LinkOptions,
        seed: u64,
        now: Instant,
    ) -> Self {
        let mut link = Self {
            way: Way::new(cover, &mut dialect),
            session,
            dialect,
            ready: false,
            opened: now,
            options,
            last_ping: now,
            unanswered: None,
            progress_told: now,
            nonce: seed,
            output: BytesMut::new(),
            outbox: Outbox::default(),
            events: VecDeque::new(),
            calls: Calls::new(),
            allowance: Allowance::new(now),
            figures: Figures::new(now),
            counts: BTreeMap::new(),
        };
        link.session.start(&mut link.outbox);
        link.flush(now);
        link
    }

    fn is_congested(&self) -> bool {
        self.events.len() >= MAX_EVENTS || self.output.len() > self.options.max_unsent
    }

    /// Encodes what the session wants sent, queues what it wants told.
    fn flush(&mut self, now: Instant) {
        let mut is_new = false;
        for event in std::mem::take(&mut self.outbox.events) {
            match event {
                SessionEvent::Greeted => self.dialect.handshake_done(),
                SessionEvent::Ready(info) => {
                    self.ready = true;
                    is_new = true;
                    self.events.push_back(LinkEvent::Ready(info));
                }
                SessionEvent::Reply(reply) => self.tell(reply, now),
                SessionEvent::Pong(nonce) => {
                    if let Some(ping) = self.unanswered.take_if(|ping| ping.nonce == nonce) {
                        self.figures.answered_ping(now.saturating_duration_since(ping.sent));
                    }
                }
            }
        }
        if is_new {
            // The first round trip is known at once.
            self.ping(now);
        }
        for message in self.outbox.messages.drain(..) {
            self.way.encode(&self.dialect, &message, &mut self.output);
        }
        // An error shows at the next receive.
        self.way.seal(&mut self.output).ok();
    }

    fn tell(&mut self, reply: Reply, now: Instant) {
        match &reply {
            Reply::BlockEnd(end) => self.figures.got(end.size, now),
            Reply::Missing(blocks) => self.figures.missed(blocks.len()),
            _ => {}
        }
        let is_of_block = matches!(
            reply,
            Reply::Part(_) | Reply::BlockEnd(_) | Reply::Progress { .. } | Reply::Unsupported(_)
        );
        if is_of_block || self.options.delivery != Delivery::Raw {
            self.events.push_back(LinkEvent::Reply(reply));
        }
    }

    fn ping(&mut self, now: Instant) {
        self.last_ping = now;
        self.nonce = self.nonce.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // An older one that is unanswered keeps its time: the peer has that long, however often we ask.
        let since = self.unanswered.map_or(now, |ping| ping.since);
        let received = self.unanswered.map_or(self.figures.received, |ping| ping.received);
        self.unanswered = Some(Ping { nonce: self.nonce, sent: now, since, received });
        self.session.ping(self.nonce, &mut self.outbox);
    }

    fn take(
        &mut self,
        incoming: Incoming<<S::Dialect as Dialect>::Message>,
        now: Instant,
    ) -> Result<(), DisconnectReason> {
        let message = match incoming {
            Incoming::Message(message) => message,
            Incoming::Piece(piece) => {
                self.events.push_back(LinkEvent::Piece(piece));
                return Ok(());
            }
            block @ Incoming::Block(_) => {
                self.session.receive(block, &mut self.outbox)?;
                self.flush(now);
                return Ok(());
            }
        };
        self.figures.messages += 1;
        let name = S::name(&message);
        *self.counts.entry(name).or_default() += 1;
        let answers =
            if self.ready { self.calls.answered(|request| S::answers(request, &message)) } else { None };
        if answers.is_none() && !self.allowance.spend(self.session.cost(&message), now) {
            return Err(Violation::Flood { command: name.to_owned() }.into());
        }
        let is_raw = self.options.delivery == Delivery::Raw && self.ready;
        let copy = (answers.is_some() || is_raw).then(|| message.clone());
        self.session.receive(Incoming::Message(message), &mut self.outbox)?;
        let untranslated = self.outbox.untranslated.take();
        if let Some(id) = answers {
            // It goes to who asked, and to nobody else.
            self.outbox.events.retain(|event| !matches!(event, SessionEvent::Reply(_)));
            self.events.extend(copy.map(|copy| LinkEvent::Answer(id, Ok(AnyMessage::new(copy)))));
        } else if let Some(message) = copy {
            self.events.push_back(LinkEvent::Message(AnyMessage::new(message)));
        } else if let Some(message) = untranslated
            && self.options.delivery == Delivery::All
        {
            self.events.push_back(LinkEvent::Message(AnyMessage::new(message)));
        }
        self.flush(now);
        Ok(())
    }

    /// A message that does not parse leaves the stream readable. One alone may be a peer's bug, or ours.
    fn tolerate(&mut self, error: WireError, now: Instant) -> Result<(), DisconnectReason> {
        let is_passed = matches!(error, WireError::Malformed { .. } | WireError::Checksum { .. });
        if !is_passed || !self.ready || !self.allowance.spend(MALFORMED_COST, now) {
            return Err(error.into());
        }
        self.events.push_back(LinkEvent::Misbehaved(MALFORMED_POINTS, error.to_string()));
        *self.counts.entry("malformed").or_default() += 1;
        Ok(())
    }
}

impl<S: Session> Connection for Link<S> {
    fn receive(&mut self, now: Instant, input: &mut BytesMut) -> Result<bool, DisconnectReason> {
        self.figures.last_received = now;
        loop {
            if self.is_congested() {
                return Ok(true);
            }
            let decoded = self.way.decode(&mut self.dialect, input);
            self.way.seal(&mut self.output)?;
            match decoded {
                Ok(Some(incoming)) => self.take(incoming, now)?,
                Ok(None) => break,
                Err(DisconnectReason::Wire(error)) => self.tolerate(error, now)?,
                Err(reason) => return Err(reason),
            }
        }
        if let Some(received) = self.dialect.block_progress()
            && self.ready
            && now >= self.progress_told + PROGRESS_INTERVAL
        {
            self.progress_told = now;
            self.events.push_back(LinkEvent::Reply(Reply::Progress { received }));
        }
        Ok(false)
    }

    fn closed(&self, rest: &[u8]) -> DisconnectReason {
        if self.way.is_between_frames(&self.dialect, rest) {
            DisconnectReason::Closed
        } else {
            DisconnectReason::Truncated
        }
    }

    fn ask(&mut self, want: Want, now: Instant) -> Result<(), Unsupported> {
        if !self.ready {
            return Err(Unsupported);
        }
        let blocks = if let Want::Blocks(blocks) = &want { blocks.len() } else { 0 };
        self.session.ask(want, &mut self.outbox)?;
        if blocks > 0 {
            self.figures.asked(blocks, now);
        }
        self.flush(now);
        Ok(())
    }

    fn send(&mut self, message: AnyMessage) {
        if let Some(message) = message.take().filter(|_| self.ready) {
            self.session.send(message, &mut self.outbox);
            self.flush(self.figures.last_received);
        }
    }

    fn call(&mut self, id: u64, message: AnyMessage, deadline: Instant) -> Result<(), CallError> {
        let request: <S::Dialect as Dialect>::Message =
            message.take().filter(|_| self.ready).ok_or(CallError::Disconnected)?;
        self.calls.open(id, request.clone(), deadline)?;
        self.session.send(request, &mut self.outbox);
        self.flush(self.figures.last_received);
        Ok(())
    }

    fn poll(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    fn deadline(&self) -> Instant {
        if !self.ready {
            return after(self.opened, self.options.handshake_timeout);
        }
        let idle = after(self.figures.last_received, self.options.idle_timeout);
        let unanswered = self.unanswered.map(|ping| after(ping.since, self.options.idle_timeout));
        let ping = after(self.last_ping, self.options.ping_interval);
        [Some(idle), Some(ping), unanswered, self.calls.deadline()]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(idle)
    }

    fn timeout(&mut self, now: Instant) -> Result<(), DisconnectReason> {
        if !self.ready {
            return if now >= after(self.opened, self.options.handshake_timeout) {
                Err(self.session.overdue())
            } else {
                Ok(())
            };
        }
        while let Some(id) = self.calls.expired(now) {
            self.events.push_back(LinkEvent::Answer(id, Err(CallError::TimedOut)));
        }
        if now >= after(self.figures.last_received, self.options.idle_timeout) {
            return Err(DisconnectReason::Idle);
        }
        if let Some(ping) = &mut self.unanswered
            && now >= after(ping.since, self.options.idle_timeout)
        {
            if self.figures.received - ping.received < SIGN_OF_LIFE {
                return Err(DisconnectReason::Unresponsive);
            }
            (ping.since, ping.received) = (now, self.figures.received);
        }
        if now >= after(self.last_ping, self.options.ping_interval) {
            self.ping(now);
            self.flush(now);
        }
        Ok(())
    }

    fn resumed(&mut self, since: Instant, now: Instant) {
        self.figures.resumed(since, now);
        self.calls.postpone(now.saturating_duration_since(since));
        if let Some(ping) = &mut self.unanswered {
            ping.since = now;
        }
    }

    fn wanted(&self) -> usize {
        self.way.wanted(&self.dialect)
    }

    fn is_encrypted(&self) -> bool {
        self.way.is_encrypted()
    }

    fn figures(&mut self) -> &mut Figures {
        &mut self.figures
    }

    fn take_counts(&mut self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut self.counts)
    }
}
