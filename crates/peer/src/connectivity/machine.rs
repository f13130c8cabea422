//! The table of members: who is in it, how they are, and what is to be said and told. A machine without I/O.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    Change, Force, InvalidTimings, MemberInfo, Message, Status, Timings, TimingsChange,
    departed::{Departed, Departure},
    election::elect,
};
use crate::link::after;

/// How a table of members behaves.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ConnectivityOptions {
    /// Intervals and limits; those of a local network.
    pub timings: Timings,
    /// The most members, the local one not counted, and the most of those that went and are remembered; 1024. Further
    /// members are not let in until one is removed.
    pub max_members: usize,
}

impl Default for ConnectivityOptions {
    fn default() -> Self {
        Self { timings: Timings::lan(), max_members: 1024 }
    }
}

/// What a [`Connectivity`] wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output<Id> {
    /// To be sent to all others.
    Send(Message<Id>),
    /// The table has changed.
    Changed(Change<Id>),
}

/// The members, the local one included, as this member sees them.
///
/// Call order: after every other call, take [`poll`](Self::poll) until `None`, and come back at
/// [`deadline`](Self::deadline). What is done and undone between two polls is not told.
///
/// Seniority: a member that hears of one that has been running for longer moves its
/// [`connected_since`](MemberInfo::connected_since) behind the other's. So a clock that is slow makes nobody master, and
/// still everybody compares the same numbers. A program that has just started takes itself for the master until it has
/// heard of the others; those hear of its status one check later than of its hello, when it has found its place.
///
/// Members are trusted to tell the truth about themselves; a lie can make its teller master, but not harm the table.
#[derive(Debug)]
pub struct Connectivity<Id> {
    timings: Timings,
    max_members: usize,
    local: MemberInfo<Id>,
    others: BTreeMap<Id, Other<Id>>,
    departed: Departed<Id>,
    /// What the changes told so far add up to.
    told: BTreeMap<Id, Status>,
    /// Whether the table may differ from that.
    is_changed: bool,
    unsent: Unsent,
    /// When the machine was started, and what our clock showed.
    started: Instant,
    unix_ms: u64,
    /// The latest time that was given.
    now: Instant,
    sent: Option<Instant>,
    checked: Instant,
}

#[derive(Debug)]
struct Other<Id> {
    info: MemberInfo<Id>,
    heard: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unsent {
    Nothing,
    Hello,
    Status,
    Both,
}

impl<Id: Ord + Clone> Connectivity<Id> {
    /// A table with the local member in it. Of `local`, what the machine knows better is overwritten: times, status and
    /// mastery. `unix_ms` is our clock at `now`, in ms since the Unix epoch; it is not asked again, so a step of it does
    /// no harm.
    ///
    /// # Errors
    /// The timings break a rule.
    pub fn new(
        mut local: MemberInfo<Id>,
        options: ConnectivityOptions,
        unix_ms: u64,
        now: Instant,
    ) -> Result<Self, InvalidTimings> {
        let ConnectivityOptions { timings, max_members } = options;
        timings.validate()?;
        local.cut();
        (local.connected_since, local.force, local.status) = (unix_ms, Force::None, Status::Healthy);
        Ok(Self {
            timings,
            max_members,
            local,
            others: BTreeMap::new(),
            departed: Departed::new(max_members),
            told: BTreeMap::new(),
            is_changed: false,
            unsent: Unsent::Hello,
            started: now,
            unix_ms,
            now,
            sent: None,
            checked: now,
        })
    }

    /// Takes a message of another member. Our own are ignored.
    pub fn receive(&mut self, message: Message<Id>, now: Instant) {
        match message {
            Message::Hello { id } => self.hello(&id, now),
            Message::Status(info) => self.status(*info, now),
            Message::Bye { id, timestamp } => self.bye(&id, timestamp, now),
        }
    }

    /// Anything was received from a member, which makes it healthy and lets it in unless it said bye or was removed.
    pub fn heard(&mut self, id: &Id, now: Instant) {
        self.tick(now);
        if self.departure(id).is_none() {
            self.admit(id, None);
        }
    }

    /// A member has started. Our status becomes due at once; the member is let in by its own status.
    pub fn hello(&mut self, id: &Id, now: Instant) {
        self.tick(now);
        if *id == self.local.id {
            return;
        }
        if self.others.contains_key(id) {
            self.admit(id, None);
        }
        self.status_is_due();
    }

    /// A member tells about itself; it is let in or replaced, unless it said bye since.
    pub fn status(&mut self, mut info: MemberInfo<Id>, now: Instant) {
        self.tick(now);
        if info.id == self.local.id
            || self.departure(&info.id).is_some_and(|gone| info.timestamp <= gone.timestamp)
        {
            return;
        }
        info.cut();
        info.status = Status::Healthy;
        let is_older = info.up_time > self.up_time();
        if is_older && self.local.connected_since <= info.connected_since {
            self.local.connected_since = info.connected_since.saturating_add(1);
            if self.sent.is_some() {
                self.status_is_due();
            }
        }
        let id = info.id.clone();
        self.admit(&id, Some(info));
    }

    /// A member goes and is removed at once. `timestamp` is its clock, in ms since the Unix epoch; what it said until
    /// then counts no more, even if it arrives later. Has no effect if the member has told something later already.
    pub fn bye(&mut self, id: &Id, timestamp: u64, now: Instant) {
        self.tick(now);
        let said = self.others.get(id).map_or(0, |other| other.info.timestamp);
        let voided = self.departure(id).map_or(0, |gone| gone.timestamp);
        if *id != self.local.id && timestamp >= said {
            self.forget(id, timestamp.max(voided));
        }
    }

    /// A member is here, by knowledge of our own such as a connection. If it was removed no longer ago than
    /// [`Timings::remove`], it keeps its seniority. Answers whether it is in the table; `false` if that is full.
    pub fn insert(&mut self, id: &Id, now: Instant) -> bool {
        self.tick(now);
        self.admit(id, None)
    }

    /// A member is gone, by knowledge of our own such as a connection's end. The local member can't go.
    pub fn remove(&mut self, id: &Id, now: Instant) {
        self.tick(now);
        if let Some(other) = self.others.get(id) {
            self.forget(id, other.info.timestamp);
        }
    }

    /// Forces the local member to be master, or not to be; `None` returns to election. The others learn at once.
    pub fn force_master(&mut self, force: Option<bool>, now: Instant) {
        self.tick(now);
        self.local.force = match force {
            None => Force::None,
            Some(false) => Force::NotMaster,
            Some(true) => Force::Master { at: self.latest_force() },
        };
        self.status_is_due();
    }

    /// Forces another member to be master or not, for members that do not tell themselves, such as peers of a chain. What it
    /// tells later stands instead. Of one that is not in the table nothing is noted.
    pub fn force_member(&mut self, id: &Id, force: Option<bool>, now: Instant) {
        self.tick(now);
        let at = self.latest_force();
        if let Some(other) = self.others.get_mut(id) {
            other.info.force = match force {
                None => Force::None,
                Some(false) => Force::NotMaster,
                Some(true) => Force::Master { at },
            };
        }
    }

    /// A time for a force that comes after all that are known.
    fn latest_force(&self) -> u64 {
        let known = self.others.values().filter_map(|other| match other.info.force {
            Force::Master { at } => Some(at.saturating_add(1)),
            Force::None | Force::NotMaster => None,
        });
        known.fold(self.timestamp(), u64::max)
    }

    /// Changes the given fields. Silence is judged by the new timings at once, and running timers follow.
    ///
    /// # Errors
    /// The result would break a rule; nothing is changed.
    pub fn set_timings(&mut self, change: TimingsChange, now: Instant) -> Result<(), InvalidTimings> {
        self.tick(now);
        self.timings = self.timings.with(change)?;
        self.check();
        Ok(())
    }

    /// What to do next.
    pub fn poll(&mut self) -> Option<Output<Id>> {
        self.poll_change().map(Output::Changed).or_else(|| self.poll_send().map(Output::Send))
    }

    /// When [`timeout`](Self::timeout) is due.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.next_check().min(self.next_send())
    }

    /// Acts on the time.
    pub fn timeout(&mut self, now: Instant) {
        self.tick(now);
        let due = self.next_check();
        if due <= self.now {
            self.check();
            // Checks keep to their grid unless one was missed.
            if self.now < after(due, self.timings.check) {
                self.checked = due;
            }
        }
        if self.next_send() <= self.now {
            self.sent = Some(self.now);
            self.status_is_due();
        }
    }

    /// The master as this member sees it; `None` if every member was forced not to be, or is dead.
    #[must_use]
    pub fn master(&self) -> Option<&Id> {
        let others = self.others.values().map(|other| &other.info);
        elect(others.chain([&self.local])).map(|master| &master.id)
    }

    /// All members, sorted by id.
    #[must_use]
    pub fn members(&self) -> Vec<MemberInfo<Id>> {
        let others = self.others.values().map(|other| other.info.clone());
        let mut members: Vec<_> = others.chain([self.local()]).collect();
        members.sort_by(|a, b| a.id.cmp(&b.id));
        members
    }

    /// The local member as it tells about itself now.
    #[must_use]
    pub fn local(&self) -> MemberInfo<Id> {
        let is_master = self.master() == Some(&self.local.id);
        let (timestamp, up_time) = (self.timestamp(), self.up_time());
        MemberInfo { is_master, timestamp, up_time, ..self.local.clone() }
    }

    /// How a member is; `None` if it is not in the table.
    #[must_use]
    pub fn status_of(&self, id: &Id) -> Option<Status> {
        if *id == self.local.id { Some(Status::Healthy) } else { Some(self.others.get(id)?.info.status) }
    }

    /// The timings in force.
    #[must_use]
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// The message to end with. Nothing may be sent after it.
    pub fn leave(&mut self, now: Instant) -> Message<Id> {
        self.tick(now);
        self.unsent = Unsent::Nothing;
        Message::Bye { id: self.local.id.clone(), timestamp: self.timestamp() }
    }

    /// What became different since the last call.
    pub(crate) fn poll_change(&mut self) -> Option<Change<Id>> {
        if !std::mem::take(&mut self.is_changed) {
            return None;
        }
        let (told, others) = (&self.told, &self.others);
        let is_news = |id: &Id, status| *told.get(id).unwrap_or(&Status::Healthy) != status;
        let statuses = || others.iter().map(|(id, other)| (id, other.info.status));
        let change = Change {
            added: others.keys().filter(|id| !told.contains_key(id)).cloned().collect(),
            removed: told.keys().filter(|id| !others.contains_key(id)).cloned().collect(),
            status: statuses().filter(|(id, s)| is_news(id, *s)).map(|(id, s)| (id.clone(), s)).collect(),
        };
        self.told = statuses().map(|(id, status)| (id.clone(), status)).collect();
        let is_empty = change.added.is_empty() && change.removed.is_empty() && change.status.is_empty();
        (!is_empty).then_some(change)
    }

    /// The next message to send. Several statuses that became due since the last call are one.
    pub(crate) fn poll_send(&mut self) -> Option<Message<Id>> {
        let (rest, is_hello) = match self.unsent {
            Unsent::Nothing => return None,
            Unsent::Hello => (Unsent::Nothing, true),
            Unsent::Both => (Unsent::Status, true),
            Unsent::Status => (Unsent::Nothing, false),
        };
        self.unsent = rest;
        Some(if is_hello {
            Message::Hello { id: self.local.id.clone() }
        } else {
            Message::Status(Box::new(self.local()))
        })
    }

    fn status_is_due(&mut self) {
        self.unsent = match self.unsent {
            Unsent::Nothing | Unsent::Status => Unsent::Status,
            Unsent::Hello | Unsent::Both => Unsent::Both,
        };
    }

    fn tick(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn up_time(&self) -> Duration {
        self.now.saturating_duration_since(self.started)
    }

    fn timestamp(&self) -> u64 {
        self.unix_ms.saturating_add(u64::try_from(self.up_time().as_millis()).unwrap_or(u64::MAX))
    }

    fn next_check(&self) -> Instant {
        after(self.checked, self.timings.check)
    }

    fn next_send(&self) -> Instant {
        match self.sent {
            // The answers to our hello come first, so that our first status tells our seniority.
            None => after(self.started, self.timings.check.min(self.timings.send_alive)),
            Some(at) => after(at, self.timings.send_alive),
        }
    }

    /// Judges everybody's silence.
    fn check(&mut self) {
        let (now, timings) = (self.now, self.timings);
        self.checked = now;
        self.others.retain(|_, other| {
            let status = timings.status(now.saturating_duration_since(other.heard));
            self.is_changed |= status != Some(other.info.status);
            other.info.status = status.unwrap_or(Status::Dead);
            status.is_some()
        });
        self.departed.expire(now, timings.remove);
    }

    /// Something was heard of a member: it is healthy, and in the table if there is room.
    fn admit(&mut self, id: &Id, info: Option<MemberInfo<Id>>) -> bool {
        if *id == self.local.id {
            return true;
        }
        if let Some(other) = self.others.get_mut(id) {
            other.heard = self.now;
            self.is_changed |= other.info.status != Status::Healthy;
            match info {
                Some(info) => other.info = info,
                None => other.info.status = Status::Healthy,
            }
            return true;
        }
        if self.others.len() >= self.max_members {
            tracing::debug!(members = self.others.len(), "no room for another member");
            return false;
        }
        let kept = self.departure(id).and_then(|departure| departure.connected_since);
        let connected_since = kept.unwrap_or_else(|| self.timestamp());
        let info = info.unwrap_or_else(|| MemberInfo { connected_since, ..MemberInfo::new(id.clone()) });
        self.departed.remove(id);
        self.is_changed = true;
        self.others.insert(id.clone(), Other { info, heard: self.now });
        true
    }

    /// How a member went, if it did no longer ago than silence would have removed it.
    fn departure(&self, id: &Id) -> Option<Departure> {
        self.departed.get(id, self.now, self.timings.remove)
    }

    /// Removes a member and remembers that it went.
    fn forget(&mut self, id: &Id, timestamp: u64) {
        let before = self.departure(id).and_then(|departure| departure.connected_since);
        let other = self.others.remove(id);
        self.is_changed |= other.is_some();
        let connected_since = other.map(|other| other.info.connected_since).or(before);
        self.departed.insert(id, Departure { at: self.now, timestamp, connected_since });
    }
}

#[cfg(test)]
mod tests;
