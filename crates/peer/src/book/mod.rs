//! The addresses of a network's nodes and what became of them: a machine without I/O.
//!
//! Nothing is given up for ever: an address that fails is dialled again after a pause that doubles up to a limit, with
//! jitter, so that nodes which went away together are not dialled together; a ban ends. The book is bounded, and so is the
//! share of it that one source, or one network, can fill (as in Bitcoin Core's `addrman`, whose buckets are shelves here).
//!
//! Time is [`UnixTime`], since a book outlives its process ([`BookFile`] keeps it). A clock that is set back harms nothing:
//! what lies in the future then is brought near.
//!
//! Call order: [`next`](Book::next), [`tried`](Book::tried), then [`failed`](Book::failed), or
//! [`succeeded`](Book::succeeded) and in the end [`ended`](Book::ended). Who has room for connections calls `next` until it
//! is `None`, and again at [`deadline`](Book::deadline).

mod entry;
mod index;
mod json;
mod marks;
#[cfg(test)]
mod properties;
mod store;
#[cfg(test)]
mod tests;
mod time;
mod views;

use std::{collections::BTreeMap, time::Duration};

use crate::{HostKind, NetworkGroup, PeerAddress};
use entry::{Class, Slot, State};
use index::{Index, Shelf};

pub use entry::{Ban, BookEntry, Failure, Source, Transport};
pub use json::BookProblem;
pub use store::{BookFile, BookFileError, Loaded};
pub use time::UnixTime;
pub use views::BookCounts;

/// How long a dial is believed to go on whose end nobody tells.
const DIAL_LEASE: Duration = Duration::from_secs(600);
/// A clock that goes back by more than this was wrong before.
const CLOCK_JUMP: Duration = Duration::from_secs(60);
/// What peers say about when they saw an address is taken to be so much older.
const GOSSIP_PENALTY: Duration = Duration::from_secs(2 * 3600);
/// How old an address is taken to be whose time is nonsense.
const NONSENSE_AGE: Duration = Duration::from_secs(5 * 24 * 3600);
/// How far in the future a peer's clock may be.
const MAX_SKEW: Duration = Duration::from_secs(600);
/// No node had seen another before this: 1973, as in Bitcoin Core.
const EARLIEST: UnixTime = UnixTime::from_secs(100_000_000);

/// How a book behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BookOptions {
    /// The most addresses; 16,384. One peer's word fills at most 1/32 of that, its network 1/16, DNS seeds 1/4;
    /// addresses of one network fill at most 1/32. What the user gives is bounded by the whole only.
    pub max_entries: usize,
    /// Whether peers may tell of private addresses and host names, as in a simulation; no.
    pub accept_private: bool,
    /// The pause after the first failure; 1 s.
    pub min_back_off: Duration,
    /// The longest pause for addresses that were given or worked within the last 30 days; 60 s.
    pub max_back_off: Duration,
    /// The longest pause for all others; 1 h.
    pub max_back_off_unproven: Duration,
}

impl Default for BookOptions {
    fn default() -> Self {
        Self {
            max_entries: 16_384,
            accept_private: false,
            min_back_off: Duration::from_secs(1),
            max_back_off: Duration::from_secs(60),
            max_back_off_unproven: Duration::from_secs(3600),
        }
    }
}

/// Addresses and their history. Every call that takes an address finds it in any way of writing it.
#[derive(Debug)]
pub struct Book {
    options: BookOptions,
    random: fastrand::Rng,
    slots: BTreeMap<u64, Slot>,
    ids: BTreeMap<PeerAddress, u64>,
    next_id: u64,
    index: Index,
    latest: UnixTime,
}

impl Book {
    /// An empty book. `random` makes its choices and the jitter.
    #[must_use]
    pub fn new(options: BookOptions, random: fastrand::Rng) -> Self {
        Self {
            options,
            random,
            slots: BTreeMap::new(),
            ids: BTreeMap::new(),
            next_id: 0,
            index: Index::default(),
            latest: UnixTime::default(),
        }
    }

    /// Adds an address and says whether it is new to the book. `services` are bits; `last_seen` is when `source` saw it.
    ///
    /// Refused are addresses that cannot be dialled (port 0, no host), and when there is no room and nothing worse to
    /// replace; from peers also private addresses and host names, unless the options allow them. A known address learns
    /// from a later `last_seen`; if the user gives it now, its pause ends, but not its ban.
    pub fn add(
        &mut self,
        address: PeerAddress,
        source: Source,
        services: u64,
        last_seen: UnixTime,
        now: UnixTime,
    ) -> bool {
        self.observe(now);
        let address = address.normalized();
        let source = match source {
            Source::Peer(peer) => Source::Peer(peer.normalized()),
            other => other,
        };
        if !self.is_admissible(&address, &source) {
            return false;
        }
        let last_seen = plausible(last_seen, &source, now);
        if let Some(&id) = self.ids.get(&address) {
            self.learn(id, source, services, last_seen, now);
            return false;
        }
        let entry = BookEntry::new(address, source, services, last_seen);
        self.admit(Slot::new(entry, now), now)
    }

    /// The next address to dial, of those that are due, not banned, not in use, and pass the filter.
    ///
    /// First come those the user gave (until they fail three times in a row) and those that were
    /// [recycled](Self::recycle). Then it is as likely one that worked as one that was never tried; one dial in eight goes to
    /// those that only failed, if any is due, and so do the dials for which there is nobody else. Within these the choice is
    /// random. The call changes nothing: mark the dial by [`tried`](Self::tried).
    pub fn next(
        &mut self,
        now: UnixTime,
        mut filter: impl FnMut(&BookEntry, NetworkGroup) -> bool,
    ) -> Option<PeerAddress> {
        self.observe(now);
        self.promote(now);
        let order = match self.random.u8(..8) {
            0 => [Class::First, Class::Failed, Class::New, Class::Worked],
            1..=3 => [Class::First, Class::New, Class::Worked, Class::Failed],
            _ => [Class::First, Class::Worked, Class::New, Class::Failed],
        };
        let from = self.random.u64(..);
        order.into_iter().flat_map(|class| self.index.ready(class, from)).find_map(|id| {
            let slot = self.slots.get(&id)?;
            filter(&slot.entry, slot.group.clone()).then(|| slot.entry.address.clone())
        })
    }

    /// When a further address comes due, not before `now`; those that are due but did not pass the filter of
    /// [`next`](Self::next) do not count. `None` if only another call can bring that about.
    #[must_use]
    pub fn deadline(&self, now: UnixTime) -> Option<UnixTime> {
        self.index.next_due().map(|due| due.max(now))
    }

    /// Lets addresses that were given or once worked be dialled before their pause ends, and before all others: the way out
    /// when nothing fresh is left. Says how many there are. None is dialled again within the shortest pause.
    pub fn recycle(&mut self, now: UnixTime) -> usize {
        self.observe(now);
        let is_waiting = |slot: &Slot| match slot.state {
            State::Idle { .. } => {
                !slot.entry.is_banned(now) && (slot.entry.is_given() || slot.entry.has_worked())
            }
            State::Recycled { .. } | State::Dialed { .. } | State::Connected => false,
        };
        let ids: Vec<u64> =
            self.slots.iter().filter(|(_, slot)| is_waiting(slot)).map(|(id, _)| *id).collect();
        let pause = self.options.min_back_off;
        for &id in &ids {
            self.edit(id, |slot| {
                let earliest = slot.entry.last_tried.map_or(now, |at| at.after(pause));
                slot.state = State::Recycled { due: earliest.max(now) };
            });
        }
        ids.len()
    }

    /// Whether an address is left that was never tried and is not banned: none means it is time to look for more.
    #[must_use]
    pub fn has_untried(&self) -> bool {
        self.index.untried() > 0
    }

    fn is_admissible(&self, address: &PeerAddress, source: &Source) -> bool {
        let is_public = || !matches!(address.kind(), HostKind::Name) && address.is_routable();
        let is_welcome = match source {
            Source::Given | Source::Dns | Source::Book => true,
            Source::Peer(_) => self.options.accept_private || is_public(),
        };
        is_welcome && address.is_well_formed()
    }

    /// What a further mention says of a known address.
    fn learn(&mut self, id: u64, source: Source, services: u64, last_seen: UnixTime, now: UnixTime) {
        self.edit(id, |slot| {
            let entry = &mut slot.entry;
            entry.last_seen = entry.last_seen.max(last_seen);
            if !entry.has_worked() {
                entry.services |= services;
            }
            if source == Source::Given {
                entry.source = source;
                slot.source_group = None;
                if let State::Idle { due } = &mut slot.state {
                    *due = (*due).min(now);
                }
            }
        });
    }

    /// Puts a new entry into the book if there is room or can be made.
    fn admit(&mut self, mut slot: Slot, now: UnixTime) -> bool {
        let max = self.options.max_entries;
        let full: Vec<Shelf> =
            Shelf::of(&slot).into_iter().filter(|shelf| self.index.is_full(shelf, max)).collect();
        let victims: Option<Vec<u64>> =
            full.iter().map(|shelf| self.index.victim(shelf, &slot, now)).collect();
        let Some(victims) = victims else { return false };
        for (shelf, victim) in full.iter().zip(victims) {
            // One that goes may make room on several shelves.
            if self.index.is_full(shelf, max) {
                self.forget(victim);
            }
        }
        let id = self.next_id;
        self.next_id += 1;
        slot.lot = self.random.u64(..);
        self.ids.insert(slot.entry.address.clone(), id);
        self.index.insert(id, &slot);
        self.slots.insert(id, slot);
        true
    }

    fn forget(&mut self, id: u64) {
        if let Some(slot) = self.slots.remove(&id) {
            self.index.remove(id, &slot);
            self.ids.remove(&slot.entry.address);
        }
    }

    /// Changes an entry; nothing else may, or the index goes wrong.
    fn edit(&mut self, id: u64, change: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.slots.get_mut(&id) {
            self.index.remove(id, slot);
            change(slot);
            slot.lot = self.random.u64(..);
            self.index.insert(id, slot);
        }
    }

    /// Makes ready what has come due.
    fn promote(&mut self, now: UnixTime) {
        while let Some(id) = self.index.first_due(now) {
            let Some(slot) = self.slots.get(&id) else { break };
            if slot.entry.ban.is_some() || matches!(slot.state, State::Dialed { .. }) {
                self.edit(id, |slot| {
                    slot.entry.ban = None;
                    if let State::Dialed { lease } = slot.state {
                        slot.state = State::Idle { due: lease };
                    }
                });
            }
            if let Some(slot) = self.slots.get(&id) {
                self.index.make_ready(id, slot);
            }
        }
    }

    /// Takes note of the time, and of a clock that was set back.
    fn observe(&mut self, now: UnixTime) {
        if now.after(CLOCK_JUMP) < self.latest {
            let options = self.options.clone();
            let ids: Vec<u64> = self.slots.keys().copied().collect();
            for id in ids {
                self.edit(id, |slot| slot.rewind(&options, now));
            }
            self.latest = now;
        }
        self.latest = self.latest.max(now);
    }

    fn id(&self, address: &PeerAddress) -> Option<u64> {
        self.ids.get(address).or_else(|| self.ids.get(&address.clone().normalized())).copied()
    }
}

/// When an address was seen, as far as its source can be believed.
fn plausible(last_seen: UnixTime, source: &Source, now: UnixTime) -> UnixTime {
    match source {
        Source::Given | Source::Dns | Source::Book => last_seen.min(now),
        Source::Peer(_) if last_seen < EARLIEST || last_seen > now.after(MAX_SKEW) => {
            now.before(NONSENSE_AGE)
        }
        Source::Peer(_) => last_seen.min(now).before(GOSSIP_PENALTY),
    }
}
