//! Whom to connect to, whom to keep and whom to ask: a machine without I/O.
//!
//! It knows the [`Book`] of addresses and the connections, and is told of everything that happens to them. An address that
//! fails is dialled again after a pause that doubles up to a limit, with jitter; none is given up for ever. A peer that broke
//! the protocol is left alone for a day; smaller faults are points that fade, and that many add up to the same.
//!
//! Call order: after every other call take [`poll`](Pool::poll) until `None`, and come back at
//! [`deadline`](Pool::deadline).

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tipward_wire::{BlockHash, Txid};

use crate::{
    Book, BroadcastError, BroadcastId, BroadcastPolicy, ConnectError, Connectivity, ConnectivityOptions,
    Direction, DisconnectReason, Failure, Figures, MemberInfo, NetworkTime, PeerAddress, PeerId, PeerInfo,
    Penalty, Reply, RequestId, RequestPolicy, Source, SubmitError, Transport, UnixTime, Want,
    broadcast::Broadcast, link::after, requests::Requests,
};
use heights::Heights;
use member::{Member, Ready, State};
use scores::{MAX_POINTS, Scores};

pub use options::{Choice, Discovery, PoolOptions};
pub use output::PoolOutput;
pub use refusal::Refusal;
pub use view::{PeerState, PeerView};

mod checks;
mod choice;
mod heights;
mod member;
mod options;
mod output;
mod refusal;
mod scores;
mod view;

/// How often DNS seeds are asked again while there is room for peers and no address is left to try.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(60);
/// What an interval of zero means.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
/// How many addresses are enough.
const ENOUGH_ADDRESSES: usize = 1000;
/// How many times a round of dials may bring nobody before addresses that once worked are dialled again early.
const FAILED_FILLS: u32 = 2;
/// A peer that sends for so long and ends neither a message nor a block is in the middle of a large block.
const LONG_BLOCK: Duration = Duration::from_secs(60);
/// The number of the local member in the table of statuses.
const LOCAL: PeerId = PeerId(0);

/// The addresses, the connections, and what is asked of them.
#[derive(Debug)]
pub struct Pool {
    options: PoolOptions,
    random: fastrand::Rng,
    book: Book,
    /// Our two clocks when the pool began.
    started: (Instant, UnixTime),
    discovers: bool,
    members: BTreeMap<PeerId, Member>,
    next_id: u64,
    heights: Heights,
    scores: Scores,
    connectivity: Connectivity<PeerId>,
    time: NetworkTime<PeerId>,
    requests: Requests,
    broadcast: Broadcast,
    outputs: VecDeque<PoolOutput>,
    next_check: Instant,
    next_addresses: Instant,
    next_resolve: Instant,
    /// To be dialled before all others.
    preferred: Option<PeerAddress>,
    failed_fills: u32,
    round: u64,
    primary: Option<PeerId>,
    was_settled: bool,
    was_exhausted: bool,
}

impl Pool {
    /// A pool with the addresses of a book. `seed` makes its choices; `unix` is what our clock shows at `now`.
    #[must_use]
    pub fn new(options: PoolOptions, book: Book, seed: u64, unix: UnixTime, now: Instant) -> Self {
        let options =
            PoolOptions { check_interval: options.check_interval.max(SHORTEST_INTERVAL), ..options };
        let mut random = fastrand::Rng::with_seed(seed);
        let connectivity = table(&options, unix, now);
        Self {
            broadcast: Broadcast::new(random.u64(..)),
            random,
            book,
            started: (now, unix),
            discovers: options.discovery != Discovery::Off,
            members: BTreeMap::new(),
            next_id: 0,
            heights: Heights::default(),
            scores: Scores::default(),
            connectivity,
            time: NetworkTime::default(),
            requests: Requests::default(),
            outputs: VecDeque::new(),
            next_check: after(now, options.check_interval),
            next_addresses: now,
            next_resolve: now,
            preferred: None,
            failed_fills: 0,
            round: 0,
            primary: None,
            was_settled: false,
            was_exhausted: false,
            options,
        }
    }

    /// Adds an address that the user gives.
    pub fn give(&mut self, address: PeerAddress, now: Instant) {
        if self.options.discovery == Discovery::IfNoneGiven {
            self.discovers = false;
        }
        let unix = self.unix(now);
        self.book.add(address, Source::Given, 0, unix, unix);
    }

    /// Adds an address while the pool runs, as one that is given; whether others are looked for stays as it is.
    pub fn add(&mut self, address: PeerAddress, now: Instant) {
        let discovers = self.discovers;
        self.give(address, now);
        self.discovers = discovers;
    }

    /// What the DNS seeds say.
    pub fn resolved(&mut self, addresses: Vec<PeerAddress>, now: Instant) {
        let unix = self.unix(now);
        for address in addresses {
            self.book.add(address, Source::Dns, 0, unix, unix);
        }
    }

    /// The dial came to nothing.
    pub fn dial_failed(&mut self, id: PeerId, reason: &ConnectError, now: Instant) {
        let Some(member) = self.members.remove(&id) else { return };
        self.forget_because(id, &DisconnectReason::ClosedByUs, now);
        let failure = match (reason, reason.penalty()) {
            (ConnectError::Handshake(DisconnectReason::Shutdown | DisconnectReason::ClosedByUs), _) => {
                Failure::Local
            }
            (ConnectError::Handshake(_), Penalty::None) => Failure::Local,
            (ConnectError::Handshake(_), _) => Failure::Handshake,
            _ => Failure::Unreachable,
        };
        let unix = self.unix(now);
        if member.direction == Direction::Outbound && !member.is_extra {
            self.book.failed(&member.address, failure, unix);
        }
        if reason.penalty() == Penalty::Ban {
            self.ban(&member.address, &reason.to_string(), now);
        }
    }

    /// A peer asks to be let in that has opened a connection. `None` if there is no room for it.
    pub fn accept(&mut self, address: PeerAddress, now: Instant) -> Option<PeerId> {
        let address = address.normalized();
        if self.is_banned(&address, now) || !self.make_room_for_inbound(&address) {
            return None;
        }
        let group = address.network_group();
        let (direction, state) = (Direction::Inbound, State::Dialing { first: false });
        Some(self.insert(Member { address, group, direction, remote: None, is_extra: true, state }))
    }

    /// Where a connection that we opened really leads. Two names may lead to one node, to which there shall be no more
    /// connections than asked for.
    ///
    /// # Errors
    /// There are enough already; then [`dial_failed`](Self::dial_failed) follows.
    pub fn locate(&mut self, id: PeerId, remote: SocketAddr) -> Result<(), Refusal> {
        let there =
            self.members.iter().filter(|(other, member)| **other != id && member.remote == Some(remote));
        if there.count() >= self.options.connections_per_host {
            return Err(Refusal::Duplicate);
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.remote = Some(remote);
        }
        Ok(())
    }

    /// A peer has shaken hands. May it stay?
    ///
    /// # Errors
    /// Why not; then [`dial_failed`](Self::dial_failed) follows.
    pub fn admit(
        &mut self,
        id: PeerId,
        info: &PeerInfo,
        encrypted: bool,
        now: Instant,
    ) -> Result<(), Refusal> {
        let unix = self.unix(now);
        let Some(member) = self.members.get_mut(&id) else { return Err(Refusal::Full) };
        if matches!(member.state, State::Leaving(_)) {
            return Err(Refusal::Replaced);
        }
        member.state = State::Ready(Box::new(Ready::new(info.clone(), encrypted, now)));
        let (address, direction, is_extra) = (member.address.clone(), member.direction, member.is_extra);
        if direction == Direction::Outbound && !is_extra {
            let transport = if encrypted { Transport::V2 } else { Transport::Unknown };
            self.book.succeeded(&address, info.services, transport, unix);
            self.failed_fills = 0;
        }
        self.heights.join(id, &address.host, now);
        self.connectivity.insert(&id, now);
        if let Some(clock) = info.clock {
            self.time.sample(&id, clock.saturating_mul(1000), unix.as_millis(), Duration::ZERO);
        }
        self.requests.peer_ready(id);
        self.broadcast.peer_ready(id, &address.host);
        Ok(())
    }

    /// What was measured of a connection.
    pub fn sample(&mut self, id: PeerId, figures: Figures, now: Instant) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let address = member.address.clone();
        let Some(ready) = member.ready_mut() else { return };
        let before = ready.figures.replace(figures);
        let is_news = before.is_none_or(|before| before.received < figures.received);
        if before.is_none_or(|before| (before.messages, before.blocks) != (figures.messages, figures.blocks))
        {
            ready.spoke = now;
        }
        let is_in_one_block = now.saturating_duration_since(ready.spoke) >= LONG_BLOCK;
        if is_news {
            self.connectivity.heard(&id, figures.last_received.min(now));
        }
        if is_news && is_in_one_block {
            // Whatever else it has to say waits behind that block.
            self.heights.excuse(id, now);
        }
        let speed = figures.speed.map(|speed| speed as u64);
        self.book.measured(&address, speed, figures.min_ping);
    }

    /// We read nothing from a peer for reasons of our own: its silence is ours, and its news can't come.
    pub fn held(&mut self, id: PeerId, now: Instant) {
        if self.members.get(&id).is_some_and(|member| member.ready().is_some()) {
            self.connectivity.heard(&id, now);
            self.heights.excuse(id, now);
        }
    }

    /// A peer said something.
    pub fn reply(&mut self, id: PeerId, reply: &Reply, now: Instant) {
        let Some(member) = self.members.get(&id).filter(|member| member.ready().is_some()) else { return };
        match reply {
            Reply::Addresses(addresses) if self.discovers => {
                let source = Source::Peer(member.address.clone());
                let unix = self.unix(now);
                for known in addresses {
                    let seen = UnixTime::from_secs(known.last_seen);
                    self.book.add(known.address.clone(), source.clone(), known.services, seen, unix);
                }
            }
            Reply::NewTip(block) => self.heights.told_block(id, *block, now),
            // Answers are no news: that an old tip is told when asked for says nothing about those who were not asked.
            Reply::Announced(blocks) => {
                if let Some(last) = blocks.iter().rfind(|block| **block != BlockHash::ZERO) {
                    self.heights.has_block(id, *last, now);
                }
            }
            Reply::Headers { headers, .. } => {
                if let Some(last) = headers.last() {
                    self.heights.has_block(id, last.hash, now);
                }
            }
            _ => {}
        }
        self.broadcast.reply(id, reply, now);
        if self.requests.reply(id, reply, now)
            && let Some(ready) = self.members.get_mut(&id).and_then(Member::ready_mut)
        {
            ready.asked = ready.asked.saturating_sub(usize::from(is_final(reply)));
            let is_useless = matches!(reply, Reply::BlockAborted { .. });
            ready.errors += u32::from(is_useless);
        }
    }

    /// The peer is said to be at this height now.
    pub fn height(&mut self, id: PeerId, height: u64, now: Instant) {
        self.heights.told_height(id, height, now);
    }

    /// A peer did something that it must not. So many points (100 are too many) fade by half each hour.
    pub fn misbehaved(&mut self, id: PeerId, points: u32, what: &str, now: Instant) {
        let Some(member) = self.members.get(&id) else { return };
        let address = member.address.clone();
        if self.scores.add(&address.host, points, now) >= MAX_POINTS {
            self.disconnect(id, Refusal::Misbehaved(what.to_owned()).into());
        }
    }

    /// A connection ended. `fell_back` says that the peer does not know encryption.
    pub fn ended(&mut self, id: PeerId, reason: &DisconnectReason, fell_back: bool, now: Instant) {
        let Some(member) = self.members.remove(&id) else { return };
        self.forget_because(id, reason, now);
        let unix = self.unix(now);
        let lived = member.ready_since().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let failure = match reason {
            DisconnectReason::Shutdown | DisconnectReason::ClosedByUs | DisconnectReason::Handler(_) => {
                Failure::Local
            }
            DisconnectReason::Refused { penalty: Penalty::None, .. } => Failure::Local,
            _ if reason.penalty() == Penalty::None => Failure::Closed,
            _ => Failure::Poor,
        };
        if member.direction == Direction::Outbound && !member.is_extra {
            self.book.ended(&member.address, lived, failure, unix);
            if fell_back {
                self.book.set_transport(&member.address, Transport::V1);
            }
        }
        if reason.penalty() == Penalty::Ban {
            self.ban(&member.address, &reason.to_string(), now);
        }
    }

    /// Leaves an address alone for a while.
    pub fn ban(&mut self, address: &PeerAddress, reason: &str, now: Instant) {
        let unix = self.unix(now);
        self.book.ban(address, reason, unix.after(self.options.ban), unix);
        self.outputs.push_back(PoolOutput::Banned { address: address.clone(), reason: reason.to_owned() });
    }

    /// Leaves an address alone for a while, and ends its connections.
    pub fn ban_and_disconnect(&mut self, address: &PeerAddress, reason: &str, now: Instant) {
        let address = address.clone().normalized();
        self.ban(&address, reason, now);
        let there = self.members.iter().filter(|(_, member)| member.address == address);
        for id in there.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.disconnect(id, Refusal::Banned.into());
        }
    }

    /// Ends a ban.
    pub fn unban(&mut self, address: &PeerAddress) {
        self.book.unban(address);
        self.scores.forget(&address.host);
    }

    /// Asks somebody, and the next one until there is an answer.
    ///
    /// # Errors
    /// Too much is asked already, or this has no answer.
    pub fn request(
        &mut self,
        want: Want,
        policy: RequestPolicy,
        now: Instant,
    ) -> Result<RequestId, SubmitError> {
        self.requests.submit(want, policy, now)
    }

    /// Nobody waits for the answer any more.
    pub fn cancel(&mut self, id: RequestId) {
        self.requests.cancel(id);
    }

    /// A peer could not be asked what [`PoolOutput::Ask`] said.
    pub fn refused(&mut self, id: PeerId, want: &Want) {
        self.requests.refused(id, want);
    }

    /// Offers a transaction to several hosts and watches what becomes of it.
    ///
    /// # Errors
    /// Too many are on their way.
    pub fn broadcast(
        &mut self,
        id: Txid,
        bytes: Bytes,
        policy: BroadcastPolicy,
        now: Instant,
    ) -> Result<BroadcastId, BroadcastError> {
        self.broadcast.submit(id, bytes, policy, now)
    }

    /// How many requests and broadcasts wait for what peers say.
    #[must_use]
    pub fn open(&self) -> usize {
        self.requests.len() + self.broadcast.len()
    }

    /// How far the clocks of the peers are from ours: the median; `None` while too few have told.
    #[must_use]
    pub fn time(&self) -> &NetworkTime<PeerId> {
        &self.time
    }

    /// The addresses.
    #[must_use]
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// Our clock at that moment.
    #[must_use]
    pub fn unix(&self, now: Instant) -> UnixTime {
        self.started.1.after(now.saturating_duration_since(self.started.0))
    }

    fn is_banned(&self, address: &PeerAddress, now: Instant) -> bool {
        self.book.is_banned(address, self.unix(now)) || self.scores.get(&address.host, now) >= MAX_POINTS
    }

    fn insert(&mut self, member: Member) -> PeerId {
        self.next_id += 1;
        let id = PeerId(self.next_id);
        self.members.insert(id, member);
        id
    }

    fn disconnect(&mut self, id: PeerId, reason: DisconnectReason) {
        if let Some(member) = self.members.get_mut(&id)
            && !matches!(member.state, State::Leaving(_))
        {
            // Nothing is asked of it any more.
            self.requests.peer_lost(id, &reason);
            self.broadcast.peer_lost(id);
            member.leave();
            self.outputs.push_back(PoolOutput::Disconnect { id, reason });
        }
    }

    fn forget_because(&mut self, id: PeerId, reason: &DisconnectReason, now: Instant) {
        self.heights.leave(id);
        self.connectivity.remove(&id, now);
        self.time.remove(&id);
        self.requests.peer_lost(id, reason);
        self.broadcast.peer_lost(id);
    }
}

fn is_final(reply: &Reply) -> bool {
    !matches!(reply, Reply::Part(_) | Reply::Progress { .. })
}

fn table(options: &PoolOptions, unix: UnixTime, now: Instant) -> Connectivity<PeerId> {
    let max_members = options.max_peers.saturating_add(options.max_inbound).saturating_add(1);
    let table_options = ConnectivityOptions { timings: options.timings, max_members };
    let make = |options| Connectivity::new(MemberInfo::new(LOCAL), options, unix.as_millis(), now);
    let mut table = make(table_options).unwrap_or_else(|error| {
        tracing::warn!(%error, "using the default timings");
        make(ConnectivityOptions { timings: crate::Timings::chain(), ..table_options })
            .expect("the default timings are valid")
    });
    // The question is which peer leads, not whether we do.
    table.force_master(Some(false), now);
    table
}

#[cfg(test)]
mod tests;
