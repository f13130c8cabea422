//! One address: what is known of it, where it stands, and how much it is worth.

use std::{cmp::Reverse, time::Duration};

use super::{BookOptions, UnixTime};
use crate::{NetworkGroup, PeerAddress};

/// How long an address that worked is worth more than any newcomer.
pub(super) const RECENT: Duration = Duration::from_secs(30 * 24 * 3600);
/// A connection that lived this long shows that its address works, and clears its failures.
pub(super) const STABLE: Duration = Duration::from_secs(60);
/// After so many failures in a row a given address no longer comes before all others.
const GIVEN_FIRST: u32 = 3;
/// No pause is longer, whatever the options say.
const MAX_PAUSE: Duration = Duration::from_secs(365 * 24 * 3600);
/// The longest text a ban keeps as its reason, in bytes.
const MAX_REASON: usize = 200;

/// Where an address comes from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The user gave it. It is never replaced.
    Given,
    /// A DNS seed.
    Dns,
    /// Another peer told of it.
    Peer(#[serde(with = "super::json::text")] PeerAddress),
    /// Another book, or the user of an earlier run.
    Book,
}

/// The transport a peer is known to speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Not known: try the best.
    #[default]
    Unknown,
    /// Plain messages only.
    V1,
    /// Encrypted (BIP 324).
    V2,
}

/// Why a dial or a connection ended, as far as it says something about the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The name does not resolve, or nothing answered.
    Unreachable,
    /// Something answered, and the handshake failed.
    Handshake,
    /// The connection ended without anybody's fault. No failure if it had lived for a minute.
    Closed,
    /// The peer was silent, slow, or sent what it must not.
    Poor,
    /// We ended it for reasons of our own. No failure.
    Local,
}

/// An address that is left alone for a while.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ban {
    /// When it began.
    pub since: UnixTime,
    /// When it ends.
    pub until: UnixTime,
    /// Why; at most 200 bytes, no control characters.
    pub reason: String,
}

impl Ban {
    pub(super) fn new(reason: &str, since: UnixTime, until: UnixTime) -> Self {
        let mut kept = String::new();
        for c in reason.chars().filter(|c| !c.is_control()) {
            if kept.len() + c.len_utf8() > MAX_REASON {
                break;
            }
            kept.push(c);
        }
        Self { since, until, reason: kept }
    }
}

/// What a book knows of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BookEntry {
    /// The address, normalised.
    pub address: PeerAddress,
    /// Who told of it first.
    pub source: Source,
    /// The services it offers, as bits: claimed by others until it worked, then its own word.
    pub services: u64,
    /// When somebody last saw it; of what peers say, two hours less.
    pub last_seen: UnixTime,
    /// When it was first dialled.
    pub first_tried: Option<UnixTime>,
    /// When it was last dialled.
    pub last_tried: Option<UnixTime>,
    /// When it last worked: its last handshake, or the end of its last connection that lived for a minute.
    pub last_success: Option<UnixTime>,
    /// Dials since the last handshake.
    pub attempts: u32,
    /// Failures in a row; a handshake alone does not clear them, a connection that lives for a minute does.
    pub failures: u32,
    /// Handshakes in all.
    pub connections: u32,
    /// What went wrong last.
    pub last_failure: Option<Failure>,
    /// Whether it is left alone. A ban that has ended may still be shown until the address is looked at again.
    pub ban: Option<Ban>,
    /// The measured speed, in bytes per second.
    pub speed: Option<u64>,
    /// The measured round trip.
    pub latency: Option<Duration>,
    /// The transport it is known to speak.
    pub transport: Transport,
}

impl BookEntry {
    pub(super) fn new(address: PeerAddress, source: Source, services: u64, last_seen: UnixTime) -> Self {
        Self {
            address,
            source,
            services,
            last_seen,
            first_tried: None,
            last_tried: None,
            last_success: None,
            attempts: 0,
            failures: 0,
            connections: 0,
            last_failure: None,
            ban: None,
            speed: None,
            latency: None,
            transport: Transport::Unknown,
        }
    }

    /// Whether a handshake with it was ever finished.
    #[must_use]
    pub fn has_worked(&self) -> bool {
        self.last_success.is_some()
    }

    /// Whether it worked within the last 30 days.
    #[must_use]
    pub fn worked_recently(&self, now: UnixTime) -> bool {
        self.last_success.is_some_and(|at| now.since(at) <= RECENT)
    }

    /// Whether it is to be left alone.
    #[must_use]
    pub fn is_banned(&self, now: UnixTime) -> bool {
        self.ban.as_ref().is_some_and(|ban| ban.until > now)
    }

    /// Whether the user gave it.
    #[must_use]
    pub fn is_given(&self) -> bool {
        matches!(self.source, Source::Given)
    }

    /// The pause after the failures so far, without jitter.
    pub(super) fn pause(&self, options: &BookOptions, now: UnixTime) -> Duration {
        let limit = if self.is_given() || self.worked_recently(now) {
            options.max_back_off
        } else {
            options.max_back_off_unproven
        };
        let doublings = self.failures.saturating_sub(1).min(31);
        options.min_back_off.saturating_mul(1 << doublings).min(limit).min(MAX_PAUSE)
    }
}

/// An entry and where it stands.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) entry: BookEntry,
    pub(super) state: State,
    pub(super) group: NetworkGroup,
    /// The group of the peer that told of it.
    pub(super) source_group: Option<NetworkGroup>,
    /// Its place among those that are due.
    pub(super) lot: u64,
}

/// Where an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// To be dialled from `due` on.
    Idle { due: UnixTime },
    /// The same, and before all others.
    Recycled { due: UnixTime },
    /// Being dialled; if nobody tells how that ended, to be dialled again from `lease` on.
    Dialed { lease: UnixTime },
    /// In use.
    Connected,
}

/// The order of choice; see [`Book::next`](super::Book::next).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    First,
    Worked,
    New,
    Failed,
}

/// What is replaced first is the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) tier: Tier,
    pub(super) failures: Reverse<u32>,
    pub(super) at: UnixTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    Failed,
    New,
    Worked,
    Banned,
}

impl Slot {
    pub(super) fn new(entry: BookEntry, due: UnixTime) -> Self {
        let source_group = match &entry.source {
            Source::Peer(peer) => Some(peer.network_group()),
            Source::Given | Source::Dns | Source::Book => None,
        };
        let group = entry.address.network_group();
        Self { entry, state: State::Idle { due }, group, source_group, lot: 0 }
    }

    pub(super) fn class(&self) -> Class {
        let entry = &self.entry;
        match self.state {
            State::Recycled { .. } => Class::First,
            _ if entry.is_given() && entry.failures < GIVEN_FIRST => Class::First,
            _ if entry.is_given() || entry.has_worked() => Class::Worked,
            _ if entry.failures == 0 => Class::New,
            _ => Class::Failed,
        }
    }

    /// When it may be dialled; `None` while it is in use.
    pub(super) fn due(&self) -> Option<UnixTime> {
        let due = match self.state {
            State::Idle { due } | State::Recycled { due } | State::Dialed { lease: due } => due,
            State::Connected => return None,
        };
        Some(self.entry.ban.as_ref().map_or(due, |ban| ban.until.max(due)))
    }

    /// What it is worth; `None` if it must not be replaced.
    pub(super) fn rank(&self) -> Option<Rank> {
        let entry = &self.entry;
        match self.state {
            State::Dialed { .. } | State::Connected => return None,
            State::Idle { .. } | State::Recycled { .. } if entry.is_given() => return None,
            State::Idle { .. } | State::Recycled { .. } => {}
        }
        Some(match (&entry.ban, entry.last_success) {
            (Some(ban), _) => Rank { tier: Tier::Banned, failures: Reverse(0), at: ban.until },
            (None, Some(at)) => Rank { tier: Tier::Worked, failures: Reverse(0), at },
            (None, None) if entry.failures == 0 => {
                Rank { tier: Tier::New, failures: Reverse(0), at: entry.last_seen }
            }
            (None, None) => {
                Rank { tier: Tier::Failed, failures: Reverse(entry.failures), at: entry.last_seen }
            }
        })
    }

    /// Takes back what a clock that ran ahead has written.
    pub(super) fn rewind(&mut self, options: &BookOptions, now: UnixTime) {
        let entry = &mut self.entry;
        entry.last_seen = entry.last_seen.min(now);
        for time in [&mut entry.first_tried, &mut entry.last_tried, &mut entry.last_success] {
            *time = time.map(|time| time.min(now));
        }
        if let Some(ban) = entry.ban.as_mut().filter(|ban| ban.since > now) {
            ban.until = now.after(ban.until.since(ban.since));
            ban.since = now;
        }
        let latest = now.after(entry.pause(options, now));
        match &mut self.state {
            State::Idle { due } | State::Recycled { due } => *due = (*due).min(latest),
            State::Dialed { lease } => *lease = (*lease).min(now.after(super::DIAL_LEASE)),
            State::Connected => {}
        }
    }
}
