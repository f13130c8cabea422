//! Connections of the simulation: from the dial to the end, and the bytes in between.

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use tipward_peer::{
    ConnectError, Direction, DisconnectReason, LinkEvent, PeerAddress, PeerId, Penalty, Protocol, Reply,
    Start, Want, wire::bitcoin::Message,
};

use crate::{
    character::Character,
    far::{Act, Far, Surroundings},
    line::{Line, Open, State},
    world::{Dialed, Event, World},
};

/// How many events of one connection may wait: the bound, and what one message more makes.
const MAX_EVENTS: usize = 256 + 8;
/// How far the far ends' clocks tick.
const TICK: Duration = Duration::from_secs(90);

impl World {
    pub(crate) fn dial(&mut self, id: PeerId, address: PeerAddress) {
        self.look_at_dial(&address);
        let host = self.host_at(&address);
        let (outcome, delay) = match host.map(|host| &self.hosts[host]) {
            _ if self.is_away => self.failing(),
            None => self.failing(),
            Some(host) if host.character == Character::Refusing => (Dialed::Refused, 2 * host.latency),
            Some(host) if host.character == Character::BlackHole => {
                (Dialed::TimedOut, self.link_options.connect_timeout)
            }
            Some(host) if !host.is_up => (Dialed::Refused, 2 * host.latency),
            Some(host) => (Dialed::Open, 2 * host.latency),
        };
        self.lines.insert(id, Line::new(address, host, self.now));
        self.after(delay, Event::Dialed(id, outcome));
    }

    fn failing(&mut self) -> (Dialed, Duration) {
        if self.random.bool() {
            (Dialed::Refused, Duration::from_millis(self.random.u64(..200)))
        } else {
            (Dialed::TimedOut, self.link_options.connect_timeout)
        }
    }

    pub(crate) fn dialed(&mut self, id: PeerId, outcome: Dialed) {
        let seed = self.random.u64(..);
        let Some(line) = self.lines.get_mut(&id).filter(|line| line.ending.is_none()) else { return };
        let outcome = if self.is_away { Dialed::Refused } else { outcome };
        let character = line.host.map(|host| self.hosts[host].character);
        match (outcome, character) {
            (Dialed::Open, Some(character)) => {
                let start = Start { direction: Direction::Outbound, encrypted: false, seed, now: self.now };
                let link = self.protocol.connect(&self.local, &self.link_options, start);
                let mut far = Far::new(character);
                let acts = far.opened();
                let open = Open::new(link, far, character == Character::Deaf);
                line.state = State::Open(Box::new(open));
                self.tell(id);
                self.follow(id, acts);
                self.after(TICK / 4, Event::Tick(id));
            }
            (Dialed::TimedOut, _) => self.failed(id, &ConnectError::TimedOut),
            (Dialed::Refused | Dialed::Open, _) => {
                let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
                self.failed(id, &ConnectError::Io(refused.into()));
            }
        }
    }

    /// Bytes have come in.
    pub(crate) fn receive(&mut self, id: PeerId, bytes: &Bytes) {
        let Some(open) = self.lines.get_mut(&id).and_then(Line::open) else { return };
        open.link.figures().received += bytes.len() as u64;
        open.input.extend_from_slice(bytes);
        self.decode(id);
    }

    fn decode(&mut self, id: PeerId) {
        loop {
            let Some(open) = self.lines.get_mut(&id).and_then(Line::open) else { return };
            if open.link.output().len() > self.link_options.max_unsent {
                return;
            }
            match open.link.receive(self.now, &mut open.input) {
                Ok(backlog) => open.backlog = backlog,
                Err(reason) => return self.ended_by_them(id, reason),
            }
            let has_more = open.backlog;
            self.tell(id);
            if !has_more {
                return;
            }
        }
    }

    pub(crate) fn closed(&mut self, id: PeerId) {
        let Some(open) = self.lines.get_mut(&id).and_then(Line::open) else { return };
        let reason = open.link.closed(&open.input);
        self.ended_by_them(id, reason);
    }

    pub(crate) fn reset(&mut self, id: PeerId) {
        self.ended_by_them(id, io::Error::from(io::ErrorKind::ConnectionReset).into());
    }

    /// Passes on what a connection has to tell and to send.
    pub(crate) fn tell(&mut self, id: PeerId) {
        self.translate(id);
        let Some(line) = self.lines.get_mut(&id) else { return };
        let latency = line.host.map_or(Duration::ZERO, |host| self.hosts[host].latency);
        let Some(open) = line.open() else { return };
        let bytes = open.send(&self.link_options, self.now);
        if bytes.has_remaining() {
            let at = Line::arrival(&mut line.to_them, self.now, latency);
            self.at(at, Event::ToThem(id, bytes.freeze()));
        }
    }

    fn translate(&mut self, id: PeerId) {
        for count in 0.. {
            assert!(count <= MAX_EVENTS, "{id} has too much to tell");
            let Some(open) = self.lines.get_mut(&id).and_then(Line::open) else { return };
            let Some(event) = open.link.poll() else { return };
            let micros = self.now.duration_since(self.start).as_micros();
            match event {
                LinkEvent::Ready(info) => {
                    self.trace.note((micros, "ready", id, info.claimed_height));
                    match self.pool.admit(id, &info, false, self.now) {
                        Ok(()) => self.admitted(id),
                        Err(refusal) => return self.end(id, refusal.into()),
                    }
                }
                LinkEvent::Reply(reply) => {
                    self.trace.note((micros, id, reply_name(&reply)));
                    if self.covers(&reply) {
                        self.pool.reply(id, &reply, self.now);
                    }
                }
                LinkEvent::Misbehaved(points, what) => {
                    self.trace.note((micros, "misbehaved", id, points));
                    self.pool.misbehaved(id, points, &what, self.now);
                }
                LinkEvent::Message(_) | LinkEvent::Piece(_) | LinkEvent::Answer(..) => {
                    panic!("nobody asked for that")
                }
            }
        }
    }

    /// The user asks every new peer what it has.
    fn admitted(&mut self, id: PeerId) {
        self.watch.figures.ready += 1;
        let locator = vec![self.ledger.hash(self.traffic.known), self.ledger.hash(0)];
        if let Some(line) = self.lines.get_mut(&id) {
            let is_stale = line.host.is_some_and(|host| self.hosts[host].character == Character::Stale);
            self.watch.figures.stale_seen += u64::from(is_stale);
            if let Some(open) = line.open() {
                open.admitted = true;
                open.link.ask(Want::HeadersAfter(locator), self.now).expect("it is ready");
            }
        }
    }

    /// What the manager hears of.
    fn covers(&self, reply: &Reply) -> bool {
        match reply {
            Reply::Addresses(_) | Reply::Rejected(_) => true,
            Reply::Announced(_) | Reply::Headers { .. } | Reply::NewTip(_) => true,
            Reply::Progress { .. } => false,
            _ => self.interest > 0,
        }
    }

    pub(crate) fn ask(&mut self, id: PeerId, want: Want) {
        let line = self.lines.get_mut(&id).filter(|line| line.is_ready());
        let Some(open) = line.and_then(Line::open) else { return self.pool.refused(id, &want) };
        if open.link.ask(want.clone(), self.now).is_err() {
            let reply = Reply::Unsupported(want);
            if self.covers(&reply) {
                self.pool.reply(id, &reply, self.now);
            }
        }
        self.tell(id);
    }

    /// We end a connection: it takes a moment.
    pub(crate) fn end(&mut self, id: PeerId, reason: DisconnectReason) {
        let delay = Duration::from_millis(self.random.u64(..1000));
        let Some(line) = self.lines.get_mut(&id).filter(|line| line.ending.is_none()) else { return };
        line.ending = Some(reason);
        self.after(delay, Event::Gone(id));
    }

    /// What we end has ended.
    pub(crate) fn gone(&mut self, id: PeerId) {
        if let Some(reason) = self.lines.get_mut(&id).and_then(|line| line.ending.take()) {
            self.joined(id, reason);
        }
    }

    /// The far end has ended it, or a time-out. What came before is told before.
    pub(crate) fn ended_by_them(&mut self, id: PeerId, reason: DisconnectReason) {
        self.translate(id);
        // Unless the pool has just parted with it.
        if self.lines.get_mut(&id).and_then(Line::open).is_some() {
            self.joined(id, reason);
        }
    }

    #[allow(clippy::needless_pass_by_value, reason = "as the task that it mirrors, which gets it whole")]
    fn joined(&mut self, id: PeerId, reason: DisconnectReason) {
        let Some(mut line) = self.lines.remove(&id) else { return };
        let micros = self.now.duration_since(self.start).as_micros();
        self.trace.note((micros, "ended", id, reason.to_string()));
        match &mut line.state {
            State::Open(open) if open.admitted => {
                self.pool.sample(id, *open.link.figures(), self.now);
                self.pool.ended(id, &reason, false, self.now);
            }
            State::Open(_) | State::Dialing => {
                let reason = ConnectError::Handshake(reason.clone());
                self.pool.dial_failed(id, &reason, self.now);
            }
        }
        self.act();
        self.judge(&line, &reason);
    }

    fn failed(&mut self, id: PeerId, reason: &ConnectError) {
        let micros = self.now.duration_since(self.start).as_micros();
        self.trace.note((micros, "failed", id, reason.to_string()));
        self.lines.remove(&id);
        self.pool.dial_failed(id, reason, self.now);
    }

    /// The far end says something.
    pub(crate) fn say(&mut self, id: PeerId, message: &Message, at: Instant) {
        let far = self.lines.get_mut(&id).and_then(Line::open).and_then(|open| open.far.as_ref());
        if let Some(bytes) = far.map(|far| far.encode(message)) {
            self.deliver(id, &bytes, at);
        }
    }

    /// Bytes of the far end leave at that time: in one piece, in two, or trickling.
    pub(crate) fn deliver(&mut self, id: PeerId, bytes: &Bytes, at: Instant) {
        let latency = self.latency(id);
        let jitter = Duration::from_micros(self.random.u64(..3000));
        let is_slow = latency > Duration::from_secs(1);
        let (cut, pause) = if is_slow {
            (1000, Duration::from_millis(200))
        } else if self.random.u8(..4) == 0 {
            (self.random.usize(1..=bytes.len()), Duration::from_millis(1))
        } else {
            (bytes.len(), Duration::ZERO)
        };
        let mut at = at;
        for chunk in bytes.chunks(cut.max(bytes.len() / 16)) {
            let Some(line) = self.lines.get_mut(&id) else { return };
            let arrival = Line::arrival(&mut line.to_us, at, latency + jitter);
            self.at(arrival, Event::ToUs(id, bytes.slice_ref(chunk)));
            at += pause;
        }
    }

    /// Bytes of ours have reached the far end.
    pub(crate) fn reach(&mut self, id: PeerId, bytes: &Bytes) {
        let acts = self.with_far(id, |far, around| far.receive(bytes, around));
        match acts {
            Some(acts) => self.follow(id, acts),
            None => self.hit_nobody(id),
        }
    }

    /// Who is back knows nothing of the connections from before.
    fn hit_nobody(&mut self, id: PeerId) {
        let latency = self.latency(id);
        let host = self.lines.get(&id).and_then(|line| line.host);
        let is_half_open = |host: usize| self.hosts[host].character == Character::HalfOpen;
        if host.is_some_and(|host| self.hosts[host].is_up && !is_half_open(host)) {
            self.after(latency, Event::Reset(id));
        }
    }

    pub(crate) fn tick(&mut self, id: PeerId) {
        if let Some(acts) = self.with_far(id, Far::tick) {
            self.follow(id, acts);
            self.after(TICK, Event::Tick(id));
        }
    }

    fn with_far(
        &mut self,
        id: PeerId,
        what: impl FnOnce(&mut Far, &mut Surroundings<'_>) -> Vec<Act>,
    ) -> Option<Vec<Act>> {
        let unix = self.pool.unix(self.now).as_secs();
        let line = self.lines.get_mut(&id)?;
        let host = line.host?;
        let far = line.open()?.far.as_mut()?;
        let mut around = Surroundings {
            ledger: &self.ledger,
            foreign: &self.foreign,
            tip: self.hosts[host].tip,
            hosts: &self.addresses,
            random: &mut self.random,
            unix,
        };
        Some(what(far, &mut around))
    }

    /// The far end is gone, whether we hear of it or not.
    pub(crate) fn vanish(&mut self, id: PeerId) {
        if let Some(Line { state: State::Open(open), .. }) = self.lines.get_mut(&id) {
            open.far = None;
        }
    }

    pub(crate) fn latency(&self, id: PeerId) -> Duration {
        let host = self.lines.get(&id).and_then(|line| line.host);
        host.map_or(Duration::from_millis(50), |host| self.hosts[host].latency)
    }

    /// Why it ended must fit what the far end is like.
    fn judge(&mut self, line: &Line, reason: &DisconnectReason) {
        let Some(character) = line.host.map(|host| self.hosts[host].character) else { return };
        // An end from elsewhere may come before it breaks the protocol.
        let is_told = matches!(&line.state, State::Open(open) if open.far.is_some());
        if reason.to_string().starts_with("has not advanced") {
            self.watch.figures.replaced += 1;
            self.watch.figures.honest_replaced += u64::from(is_told && character.serves());
        }
        let is_ours = matches!(reason, DisconnectReason::Refused { penalty, .. } if *penalty != Penalty::Ban);
        if is_told && !is_ours && character.must_be_banned() {
            let until = self.watch.bans.get(&line.address);
            let is_banned = until.is_some_and(|until| *until > self.now);
            assert!(
                is_banned,
                "{} is {character:?}, was ended as '{reason}', and is not banned",
                line.address
            );
        }
    }
}

fn reply_name(reply: &Reply) -> &'static str {
    match reply {
        Reply::Headers { .. } => "headers",
        Reply::Announced(_) => "announced",
        Reply::AnnouncedTransactions(_) => "transactions",
        Reply::Transaction { .. } => "transaction",
        Reply::Part(_) => "part",
        Reply::BlockEnd(_) => "end",
        Reply::BlockAborted { .. } => "aborted",
        Reply::Progress { .. } => "progress",
        Reply::Missing(_) => "missing",
        Reply::MissingTransactions(_) => "missing transactions",
        Reply::Fetched(_) => "fetched",
        Reply::Rejected(_) => "rejected",
        Reply::Addresses(_) => "addresses",
        Reply::Unsupported(_) => "unsupported",
        _ => "other",
    }
}
