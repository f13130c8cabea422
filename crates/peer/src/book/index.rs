//! Who is due and who is replaced, without looking at every entry.
//!
//! Entries that are due lie in a random order, so that a choice is as cheap as a look-up. Each entry stands on several
//! shelves (all, its network, who told of it), each with a limit and an order of worth: whoever fills one shelf replaces
//! what stands there, not what others put into the book.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    UnixTime,
    entry::{Class, RECENT, Rank, Slot, Source, Tier},
};
use crate::NetworkGroup;

/// Part of the book that one source may fill, and one source group: of addresses that never worked.
const SOURCE_SHARE: usize = 32;
const SOURCE_GROUP_SHARE: usize = 16;
/// Part that addresses of one network group may fill.
const GROUP_SHARE: usize = 32;
/// Part that DNS seeds may fill, and other books.
const TRUSTED_SHARE: usize = 4;

const CLASSES: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Index {
    queues: [Queue; CLASSES],
    shelves: BTreeMap<Shelf, Stock>,
    untried: usize,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeSet<(UnixTime, u64)>,
    /// By lot.
    ready: BTreeSet<(u64, u64)>,
}

/// A bounded part of the book.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shelf {
    Source(String),
    SourceGroup(NetworkGroup),
    Dns,
    Book,
    Group(NetworkGroup),
    All,
}

#[derive(Debug, Default)]
struct Stock {
    count: usize,
    ranked: BTreeSet<(Rank, u64)>,
}

impl Shelf {
    /// The shelves an entry stands on, narrow ones first. One that worked no longer counts against who told of it.
    pub(super) fn of(slot: &Slot) -> Vec<Self> {
        let mut shelves = Vec::with_capacity(4);
        let source = &slot.entry.source;
        if !slot.entry.has_worked() {
            match source {
                Source::Peer(peer) => shelves.push(Self::Source(peer.host.clone())),
                Source::Dns => shelves.push(Self::Dns),
                Source::Book => shelves.push(Self::Book),
                Source::Given => {}
            }
            shelves.extend(slot.source_group.clone().map(Self::SourceGroup));
        }
        if !slot.entry.is_given() {
            shelves.push(Self::Group(slot.group.clone()));
        }
        shelves.push(Self::All);
        shelves
    }

    /// The most entries on it.
    pub(super) fn limit(&self, max_entries: usize) -> usize {
        let part = match self {
            Self::Source(_) => SOURCE_SHARE,
            Self::SourceGroup(_) => SOURCE_GROUP_SHARE,
            Self::Group(_) => GROUP_SHARE,
            Self::Dns | Self::Book => TRUSTED_SHARE,
            Self::All => 1,
        };
        (max_entries / part).max(1)
    }
}

impl Index {
    pub(super) fn insert(&mut self, id: u64, slot: &Slot) {
        self.untried += usize::from(is_untried(slot));
        if let Some(due) = slot.due() {
            self.queue(slot.class()).waiting.insert((due, id));
        }
        let rank = slot.rank();
        for shelf in Shelf::of(slot) {
            let stock = self.shelves.entry(shelf).or_default();
            stock.count += 1;
            stock.ranked.extend(rank.map(|rank| (rank, id)));
        }
    }

    pub(super) fn remove(&mut self, id: u64, slot: &Slot) {
        self.untried -= usize::from(is_untried(slot));
        let queue = self.queue(slot.class());
        queue.ready.remove(&(slot.lot, id));
        if let Some(due) = slot.due() {
            queue.waiting.remove(&(due, id));
        }
        let rank = slot.rank();
        for shelf in Shelf::of(slot) {
            let Some(stock) = self.shelves.get_mut(&shelf) else { continue };
            if let Some(rank) = rank {
                stock.ranked.remove(&(rank, id));
            }
            stock.count -= 1;
            if stock.count == 0 {
                self.shelves.remove(&shelf);
            }
        }
    }

    fn queue(&mut self, class: Class) -> &mut Queue {
        &mut self.queues[class as usize]
    }

    /// One that is due and not among the ready yet.
    pub(super) fn first_due(&self, now: UnixTime) -> Option<u64> {
        let due = |queue: &Queue| queue.waiting.first().copied().filter(|(due, _)| *due <= now);
        self.queues.iter().find_map(due).map(|(_, id)| id)
    }

    /// Puts one that is due among the ready.
    pub(super) fn make_ready(&mut self, id: u64, slot: &Slot) {
        let queue = self.queue(slot.class());
        if slot.due().is_some_and(|due| queue.waiting.remove(&(due, id))) {
            queue.ready.insert((slot.lot, id));
        }
    }

    /// Those of a class that are ready, from a random place on.
    pub(super) fn ready(&self, class: Class, from: u64) -> impl Iterator<Item = u64> {
        let ready = &self.queues[class as usize].ready;
        ready.range((from, 0)..).chain(ready.range(..(from, 0))).map(|(_, id)| *id)
    }

    /// When the next one comes due that is not ready yet.
    pub(super) fn next_due(&self) -> Option<UnixTime> {
        self.queues.iter().filter_map(|queue| queue.waiting.first()).map(|(due, _)| *due).min()
    }

    /// How many were never tried and are not banned.
    pub(super) fn untried(&self) -> usize {
        self.untried
    }

    pub(super) fn is_full(&self, shelf: &Shelf, max_entries: usize) -> bool {
        self.shelves.get(shelf).is_some_and(|stock| stock.count >= shelf.limit(max_entries))
    }

    /// Whom a newcomer replaces on a shelf: one that failed, an untried one seen less lately, one that worked long ago, at
    /// last one that is banned. What the user gave replaces anything.
    pub(super) fn victim(&self, shelf: &Shelf, newcomer: &Slot, now: UnixTime) -> Option<u64> {
        let ranked = &self.shelves.get(shelf)?.ranked;
        let &(worst, id) = ranked.first()?;
        let is_worse = match worst.tier {
            _ if newcomer.entry.is_given() => true,
            Tier::Failed | Tier::Banned => true,
            Tier::New => worst.at < newcomer.entry.last_seen,
            Tier::Worked if now.since(worst.at) > RECENT => true,
            Tier::Worked => {
                let least = Rank { tier: Tier::Banned, failures: Reverse(u32::MAX), at: UnixTime::default() };
                return ranked.range((least, 0)..).next().map(|(_, id)| *id);
            }
        };
        is_worse.then_some(id)
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> impl Iterator<Item = (&Shelf, usize)> {
        self.shelves.iter().map(|(shelf, stock)| (shelf, stock.count))
    }
}

fn is_untried(slot: &Slot) -> bool {
    let entry = &slot.entry;
    entry.last_tried.is_none() && entry.last_success.is_none() && entry.ban.is_none()
}
