//! What the pool does by itself: dials, looks at its peers, replaces the worst.

use std::{collections::BTreeMap, time::Instant};

use super::{
    Direction, ENOUGH_ADDRESSES, FAILED_FILLS, Member, Pool, PoolOutput, RESOLVE_INTERVAL, Refusal, State,
    choice::Chooser,
};
use crate::{
    BookEntry, NetworkGroup, PeerAddress, PeerId, Want, broadcast::BroadcastOutput, connectivity::Output,
    link::after, requests::RequestOutput,
};

impl Pool {
    /// What is to be done next.
    pub fn poll(&mut self, now: Instant) -> Option<PoolOutput> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        while let Some(output) = self.connectivity.poll() {
            // Pings are the connections' own.
            if let Output::Changed(change) = output {
                return Some(PoolOutput::Changed(change));
            }
        }
        let primary = self.connectivity.master().copied();
        if primary != self.primary {
            self.primary = primary;
            return Some(PoolOutput::Primary(primary));
        }
        self.poll_requests(now)
            .or_else(|| self.poll_broadcast())
            .or_else(|| self.poll_dial(now))
            .or_else(|| self.poll_turns(now))
    }

    fn poll_requests(&mut self, now: Instant) -> Option<PoolOutput> {
        loop {
            let mut chooser =
                Chooser::new(&self.members, &mut self.random, self.options.choice, self.round, now);
            let output = self.requests.poll(now, &mut |want, tried| chooser.choose(want, tried))?;
            match output {
                RequestOutput::Ask { peer, want } => {
                    self.used(peer, now);
                    return Some(PoolOutput::Ask { id: peer, want });
                }
                RequestOutput::Done { id, peer, answer } => {
                    return Some(PoolOutput::Answered(id, Ok((peer, answer))));
                }
                RequestOutput::Failed { id, reason } => return Some(PoolOutput::Answered(id, Err(reason))),
                RequestOutput::TimedOut { peer } => self.timed_out(peer),
            }
        }
    }

    fn used(&mut self, peer: PeerId, now: Instant) {
        self.round = peer.0;
        if let Some(ready) = self.members.get_mut(&peer).and_then(Member::ready_mut) {
            ready.last_used = Some(now);
            ready.asked += 1;
        }
    }

    fn timed_out(&mut self, peer: PeerId) {
        let max = self.options.max_time_outs;
        let Some(ready) = self.members.get_mut(&peer).and_then(Member::ready_mut) else { return };
        ready.time_outs += 1;
        ready.asked = ready.asked.saturating_sub(1);
        let time_outs = ready.time_outs;
        if time_outs > max {
            self.disconnect(peer, Refusal::TimeOuts(time_outs).into());
        }
    }

    fn poll_broadcast(&mut self) -> Option<PoolOutput> {
        Some(match self.broadcast.poll()? {
            BroadcastOutput::Offer { peer, id, bytes } => {
                PoolOutput::Ask { id: peer, want: Want::Offer { id, bytes } }
            }
            BroadcastOutput::Done { submission, outcome, .. } => PoolOutput::Broadcast(submission, outcome),
        })
    }

    fn poll_dial(&mut self, now: Instant) -> Option<PoolOutput> {
        if self.count(Direction::Outbound) >= self.options.max_peers {
            return None;
        }
        let unix = self.unix(now);
        if let Some(address) = self.preferred.take()
            && !self.is_banned(&address, now)
            && !self.is_in_use(&address)
            && self.has_room_in_network(&address, None)
        {
            return Some(self.dial(address, false, now));
        }
        let Self { members, scores, options, discovers, .. } = self;
        let filter = |entry: &BookEntry, group: NetworkGroup| {
            let address = &entry.address;
            let is_in_use =
                members.values().any(|m| m.direction == Direction::Outbound && m.address == *address);
            let has_room = count_network(members, &group, None) < options.per_network_group;
            !is_in_use
                && (entry.is_given() || (*discovers && has_room))
                && scores.get(&address.host, now) < super::MAX_POINTS
        };
        if let Some(address) = self.book.next(unix, filter) {
            return Some(self.dial(address, false, now));
        }
        // Several connections to one address, once there is one that works.
        let extra = self.members.values().find(|member| {
            member.ready().is_some()
                && member.direction == Direction::Outbound
                && self.connections_to(&member.address) < self.options.connections_per_host
        });
        let address = extra.map(|member| member.address.clone())?;
        Some(self.dial(address, true, now))
    }

    fn dial(&mut self, address: PeerAddress, is_extra: bool, now: Instant) -> PoolOutput {
        let unix = self.unix(now);
        let entry = self.book.get(&address);
        let first = entry.is_some_and(|entry| entry.first_tried.is_none());
        let transport = entry.map(|entry| entry.transport).unwrap_or_default();
        if !is_extra {
            self.book.tried(&address, unix);
        }
        let group = address.network_group();
        let (direction, state) = (Direction::Outbound, State::Dialing { first });
        let id =
            self.insert(Member { address: address.clone(), group, direction, remote: None, is_extra, state });
        PoolOutput::Dial { id, address, transport }
    }

    fn poll_turns(&mut self, now: Instant) -> Option<PoolOutput> {
        if self.wants_addresses() && now >= self.next_resolve {
            self.next_resolve = after(now, RESOLVE_INTERVAL);
            return Some(PoolOutput::Resolve);
        }
        let is_dialing_first =
            self.members.values().any(|member| matches!(member.state, State::Dialing { first: true }));
        let is_settled = self.was_settled
            || self.ready(Direction::Outbound) >= self.options.max_peers
            || !(self.has_untried() || is_dialing_first);
        if is_settled && !self.was_settled {
            self.was_settled = true;
            return Some(PoolOutput::Settled);
        }
        let is_exhausted = self.members.is_empty() && self.is_hopeless(now);
        if is_exhausted != self.was_exhausted {
            self.was_exhausted = is_exhausted;
            if is_exhausted {
                return Some(PoolOutput::Exhausted);
            }
        }
        None
    }

    /// What a book holds from earlier runs is not dialled where only given addresses are to be.
    fn may_dial(&self, entry: &BookEntry) -> bool {
        self.discovers || entry.is_given()
    }

    /// Whether an address that may be dialled was never tried.
    fn has_untried(&self) -> bool {
        if self.discovers {
            return self.book.has_untried();
        }
        self.book.entries().any(|entry| entry.is_given() && entry.first_tried.is_none())
    }

    /// Whether every address is banned, or was tried and never worked.
    fn is_hopeless(&self, now: Instant) -> bool {
        let unix = self.unix(now);
        self.book
            .entries()
            .filter(|entry| self.may_dial(entry))
            .all(|entry| entry.is_banned(unix) || (entry.first_tried.is_some() && !entry.has_worked()))
    }

    /// Whether there is room for connections and no address that was not tried yet: time to look for more.
    fn wants_addresses(&self) -> bool {
        self.discovers && self.count(Direction::Outbound) < self.options.max_peers && !self.book.has_untried()
    }

    /// When [`timeout`](Self::timeout) or [`poll`](Self::poll) has something to do next.
    #[must_use]
    pub fn deadline(&self, now: Instant) -> Instant {
        let has_room = self.count(Direction::Outbound) < self.options.max_peers;
        let unix = self.unix(now);
        let dial = has_room
            .then(|| self.book.deadline(unix))
            .flatten()
            .map(|due| after(now, due.since(unix)).max(now));
        let resolve = self.wants_addresses().then_some(self.next_resolve);
        [
            dial,
            resolve,
            self.requests.deadline(),
            self.broadcast.deadline(),
            Some(self.connectivity.deadline()),
        ]
        .into_iter()
        .flatten()
        .fold(self.next_check, Instant::min)
    }

    /// Acts on the time.
    pub fn timeout(&mut self, now: Instant) {
        self.requests.timeout(now);
        self.broadcast.timeout(now);
        self.connectivity.timeout(now);
        if now < self.next_check {
            return;
        }
        self.next_check = after(now, self.options.check_interval);
        self.refill(now);
        self.ask_for_addresses(now);
        if let Some(id) = self.heights.behind(self.options.not_advancing, now) {
            self.disconnect(id, Refusal::NotAdvancing(self.options.not_advancing).into());
        }
        let is_bad =
            |member: &Member| member.ready().is_some_and(|ready| ready.errors > self.options.max_errors);
        let bad: Vec<(PeerId, u32)> = self
            .members
            .iter()
            .filter(|(_, member)| is_bad(member))
            .filter_map(|(id, member)| Some((*id, member.ready()?.errors)))
            .collect();
        for (id, errors) in bad {
            self.disconnect(id, Refusal::Errors(errors).into());
        }
        self.replace_the_worst(now);
    }

    /// With too few peers for some rounds, addresses that worked once are dialled again before their time.
    fn refill(&mut self, now: Instant) {
        let is_low = self.ready(Direction::Outbound) < self.options.min_peers.min(self.options.max_peers);
        if !is_low {
            self.failed_fills = 0;
            return;
        }
        self.failed_fills = self.failed_fills.saturating_add(1);
        if self.failed_fills > FAILED_FILLS && !self.book.has_untried() {
            self.failed_fills = 0;
            let unix = self.unix(now);
            self.book.recycle(unix);
        }
    }

    fn ask_for_addresses(&mut self, now: Instant) {
        if !self.discovers || now < self.next_addresses || self.book.len() >= ENOUGH_ADDRESSES {
            return;
        }
        let fresh = self.members.iter_mut().find_map(|(id, member)| {
            let is_outbound = member.direction == Direction::Outbound;
            let ready = member.ready_mut().filter(|ready| is_outbound && !ready.was_asked_for_addresses)?;
            ready.was_asked_for_addresses = true;
            Some(*id)
        });
        if let Some(id) = fresh {
            self.next_addresses = after(now, self.options.address_interval);
            self.outputs.push_back(PoolOutput::Ask { id, want: Want::Addresses });
        }
    }

    /// If the pool is full and an address waits that was measured to be twice as fast as the slowest peer, they change places.
    fn replace_the_worst(&mut self, now: Instant) {
        if self.ready(Direction::Outbound) < self.options.max_peers || self.preferred.is_some() {
            return;
        }
        let unix = self.unix(now);
        let worst = self
            .members
            .iter()
            .filter(|(_, member)| member.direction == Direction::Outbound)
            .filter_map(|(id, member)| {
                let ready = member.ready()?;
                let is_settled = now.saturating_duration_since(ready.since) >= self.options.replace_after;
                is_settled.then_some((ready.figures?.speed?, *id))
            })
            .min_by(|a, b| a.0.total_cmp(&b.0));
        let Some((speed, id)) = worst else { return };
        let better = self
            .book
            .recently_worked(16, unix)
            .into_iter()
            .filter(|entry| self.may_dial(entry) && !entry.is_banned(unix) && !self.is_in_use(&entry.address))
            .filter(|entry| self.has_room_in_network(&entry.address, Some(id)))
            .filter(|entry| entry.speed.is_some_and(|other| other as f64 > 2.0 * speed))
            .max_by_key(|entry| entry.speed);
        if let Some(address) = better.map(|entry| entry.address.clone()) {
            self.preferred = Some(address);
            self.disconnect(id, Refusal::Replaced.into());
        }
    }

    /// Whether an inbound peer may come: if there are too many, the youngest of the network that most are of makes room.
    pub(super) fn make_room_for_inbound(&mut self, address: &PeerAddress) -> bool {
        if self.count(Direction::Inbound) < self.options.max_inbound {
            return true;
        }
        let inbound = || self.members.iter().filter(|(_, member)| member.direction == Direction::Inbound);
        let size = |group: &NetworkGroup| inbound().filter(|(_, member)| member.group == *group).count();
        let largest = inbound().map(|(id, member)| (size(&member.group), *id)).max();
        let Some((most, youngest)) = largest else { return false };
        if most <= 1 || size(&address.network_group()) + 1 >= most {
            return false;
        }
        self.disconnect(youngest, Refusal::Replaced.into());
        true
    }

    pub(super) fn count(&self, direction: Direction) -> usize {
        self.members.values().filter(|member| member.direction == direction).count()
    }

    pub(super) fn ready(&self, direction: Direction) -> usize {
        self.members
            .values()
            .filter(|member| member.direction == direction && member.ready().is_some())
            .count()
    }

    /// Whether the address may be connected to besides those of its network, one of which is about to leave. What the user
    /// gave is dialled whatever its network.
    fn has_room_in_network(&self, address: &PeerAddress, leaving: Option<PeerId>) -> bool {
        let there = count_network(&self.members, &address.network_group(), leaving);
        there < self.options.per_network_group || self.is_given(address)
    }

    fn is_given(&self, address: &PeerAddress) -> bool {
        self.book.get(address).is_some_and(BookEntry::is_given)
    }

    fn is_in_use(&self, address: &PeerAddress) -> bool {
        self.connections_to(address) > 0
    }

    fn connections_to(&self, address: &PeerAddress) -> usize {
        self.members
            .values()
            .filter(|member| member.direction == Direction::Outbound && member.address == *address)
            .count()
    }
}

/// How many connections we have opened into a network.
fn count_network(members: &BTreeMap<PeerId, Member>, group: &NetworkGroup, except: Option<PeerId>) -> usize {
    let is_there = |(id, member): &(&PeerId, &Member)| {
        member.direction == Direction::Outbound && member.group == *group && Some(**id) != except
    };
    members.iter().filter(is_there).count()
}
