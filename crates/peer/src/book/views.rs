//! What a book shows: entries, counts, and addresses to tell others.

use std::{cmp::Reverse, time::Duration};

use super::{Book, BookEntry, UnixTime};
use crate::{HostKind, PeerAddress};

/// The most addresses one answer to `getaddr` has, and the part of the known ones, in percent (as in Bitcoin Core).
const MAX_SAMPLE: usize = 1000;
const MAX_SAMPLE_PERCENT: usize = 23;
/// An address nobody saw for so long is not told to others.
const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Nor is one that failed so often and never worked, or did not for a week and failed so often.
const MAX_FIRST_FAILURES: u32 = 3;
const MAX_FAILURES: u32 = 10;
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// How many addresses a book has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BookCounts {
    /// In all.
    pub total: usize,
    /// Dialled at least once.
    pub tried: usize,
    /// That worked at least once.
    pub worked: usize,
    /// Left alone now.
    pub banned: usize,
    /// Of IPv4.
    pub ipv4: usize,
    /// Of IPv6.
    pub ipv6: usize,
    /// Of Tor.
    pub onion: usize,
    /// Of I2P.
    pub i2p: usize,
    /// Host names.
    pub names: usize,
}

impl Book {
    /// What is known of an address.
    #[must_use]
    pub fn get(&self, address: &PeerAddress) -> Option<&BookEntry> {
        self.id(address).and_then(|id| self.slots.get(&id)).map(|slot| &slot.entry)
    }

    /// Whether an address is to be left alone.
    #[must_use]
    pub fn is_banned(&self, address: &PeerAddress, now: UnixTime) -> bool {
        self.get(address).is_some_and(|entry| entry.is_banned(now))
    }

    /// How many addresses there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Everything, in the order of addresses.
    pub fn entries(&self) -> impl Iterator<Item = &BookEntry> {
        self.ids.values().filter_map(|id| self.slots.get(id)).map(|slot| &slot.entry)
    }

    /// At most `count` addresses that worked within the last 30 days and are not banned, the latest first.
    #[must_use]
    pub fn recently_worked(&self, count: usize, now: UnixTime) -> Vec<&BookEntry> {
        let mut found: Vec<&BookEntry> =
            self.entries().filter(|entry| entry.worked_recently(now) && !entry.is_banned(now)).collect();
        found.sort_by_key(|entry| Reverse(entry.last_success));
        found.truncate(count);
        found
    }

    /// Random addresses to tell a peer that asks, at most `count`, 1000, and 23 % of those that can be told: routable, no
    /// host names, not banned, seen within 30 days, and not known to fail. Looks at the whole book; an answer is to be kept
    /// for a while and given to everyone, or askers learn what changes.
    #[must_use]
    pub fn sample(&mut self, count: usize, now: UnixTime) -> Vec<&BookEntry> {
        let mut ids: Vec<u64> = self
            .ids
            .values()
            .filter(|id| self.slots.get(id).is_some_and(|slot| can_be_told(&slot.entry, now)))
            .copied()
            .collect();
        let share = (ids.len() * MAX_SAMPLE_PERCENT).div_ceil(100);
        let count = count.min(MAX_SAMPLE).min(share);
        for n in 0..count {
            let other = self.random.usize(n..ids.len());
            ids.swap(n, other);
        }
        ids.truncate(count);
        ids.iter().filter_map(|id| self.slots.get(id)).map(|slot| &slot.entry).collect()
    }

    /// Counts everything; for metrics, now and then.
    #[must_use]
    pub fn counts(&self, now: UnixTime) -> BookCounts {
        let mut counts = BookCounts::default();
        for entry in self.slots.values().map(|slot| &slot.entry) {
            counts.total += 1;
            counts.tried += usize::from(entry.first_tried.is_some());
            counts.worked += usize::from(entry.has_worked());
            counts.banned += usize::from(entry.is_banned(now));
            *match entry.address.kind() {
                HostKind::Ipv4(_) => &mut counts.ipv4,
                HostKind::Ipv6(_) => &mut counts.ipv6,
                HostKind::Onion => &mut counts.onion,
                HostKind::I2p => &mut counts.i2p,
                HostKind::Name => &mut counts.names,
            } += 1;
        }
        counts
    }
}

/// Bitcoin Core's `AddrInfo::IsTerrible`, and what is nobody else's business.
fn can_be_told(entry: &BookEntry, now: UnixTime) -> bool {
    let is_hopeless = if entry.has_worked() {
        entry.failures >= MAX_FAILURES && entry.last_success.is_some_and(|at| now.since(at) > WEEK)
    } else {
        entry.failures >= MAX_FIRST_FAILURES
    };
    !entry.is_banned(now)
        && entry.address.is_routable()
        && entry.address.kind() != HostKind::Name
        && now.since(entry.last_seen) <= MAX_AGE
        && !is_hopeless
}
