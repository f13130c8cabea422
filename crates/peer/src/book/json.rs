//! A book as text: JSON with a version and the name of the network.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Ban, Book, BookEntry, BookOptions, Failure, Source, Transport, UnixTime,
    entry::{Slot, State},
};
use crate::PeerAddress;

/// The version of the format.
const VERSION: u32 = 1;

/// Why a text is no book.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BookProblem {
    /// It is no JSON, or lacks something.
    #[error("damaged: {0}")]
    Damaged(#[source] serde_json::Error),
    /// It is not text.
    #[error("damaged: not UTF-8")]
    NotText,
    /// Another program, or another version of this one, wrote it.
    #[error("has format version {found}, this program knows {VERSION}")]
    Version {
        /// The version it has.
        found: u32,
    },
    /// It is longer than a full book can be.
    #[error("has {size} bytes, a book has at most {limit}")]
    TooLarge {
        /// Its length, in bytes.
        size: u64,
        /// The most it may have.
        limit: u64,
    },
    /// It is of another network.
    #[error("is of network '{found}', not '{expected}'")]
    OtherNetwork {
        /// The network it names.
        found: String,
        /// The network that was asked for.
        expected: String,
    },
}

#[derive(Deserialize)]
struct Head {
    version: u32,
    network: String,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    network: String,
    entries: Vec<Record>,
}

/// An entry as it is kept. What is not in the text has its default, so that fields can come and go.
#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(with = "text")]
    address: PeerAddress,
    source: Source,
    #[serde(default)]
    services: u64,
    #[serde(default)]
    last_seen: UnixTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_tried: Option<UnixTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_tried: Option<UnixTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_success: Option<UnixTime>,
    #[serde(default)]
    attempts: u32,
    #[serde(default)]
    failures: u32,
    #[serde(default)]
    connections: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_failure: Option<Failure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ban: Option<Ban>,
    /// Bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    speed: Option<u64>,
    /// Microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    latency: Option<u64>,
    #[serde(default)]
    transport: Transport,
}

impl Book {
    /// The book as text; `network` names the network that its nodes belong to.
    #[must_use]
    pub fn to_json(&self, network: &str) -> String {
        let entries = self.entries().map(Record::from).collect();
        let document = Document { version: VERSION, network: network.to_owned(), entries };
        serde_json::to_string(&document)
            .expect("records have text keys, and writing to a string does not fail")
    }

    /// Reads what [`to_json`](Self::to_json) has written.
    ///
    /// Pauses go on from the last dial; those of addresses that worked within 30 days are over. What the user had given is
    /// not given any more, unless it is again. Entries that the options do not allow are left out; history that lies in the
    /// future is brought back to `now`.
    ///
    /// # Errors
    /// The text is damaged, of another version, or of another network.
    pub fn from_json(
        text: &str,
        network: &str,
        options: BookOptions,
        random: fastrand::Rng,
        now: UnixTime,
    ) -> Result<Self, BookProblem> {
        let head: Head = serde_json::from_str(text).map_err(BookProblem::Damaged)?;
        if head.version != VERSION {
            return Err(BookProblem::Version { found: head.version });
        }
        if head.network != network {
            return Err(BookProblem::OtherNetwork { found: head.network, expected: network.to_owned() });
        }
        let document: Document = serde_json::from_str(text).map_err(BookProblem::Damaged)?;
        let mut book = Self::new(options, random);
        book.observe(now);
        for record in document.entries {
            book.restore(BookEntry::from(record), now);
        }
        Ok(book)
    }

    fn restore(&mut self, mut entry: BookEntry, now: UnixTime) {
        entry.address = entry.address.normalized();
        let is_known = self.ids.contains_key(&entry.address);
        if is_known || !self.is_admissible(&entry.address, &entry.source) {
            return;
        }
        let pause = match entry.last_tried {
            Some(_) if !entry.worked_recently(now) => entry.pause(&self.options, now),
            _ => Duration::ZERO,
        };
        let due = entry.last_tried.map_or(now, |at| at.after(pause));
        let mut slot = Slot::new(entry, due);
        slot.rewind(&self.options, now);
        debug_assert!(matches!(slot.state, State::Idle { .. }), "nothing is in use after a start");
        self.admit(slot, now);
    }
}

impl From<&BookEntry> for Record {
    fn from(entry: &BookEntry) -> Self {
        let entry = entry.clone();
        let source = match entry.source {
            Source::Given => Source::Book,
            other => other,
        };
        Self {
            address: entry.address,
            source,
            services: entry.services,
            last_seen: entry.last_seen,
            first_tried: entry.first_tried,
            last_tried: entry.last_tried,
            last_success: entry.last_success,
            attempts: entry.attempts,
            failures: entry.failures,
            connections: entry.connections,
            last_failure: entry.last_failure,
            ban: entry.ban,
            speed: entry.speed,
            latency: entry.latency.map(|latency| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)),
            transport: entry.transport,
        }
    }
}

impl From<Record> for BookEntry {
    fn from(record: Record) -> Self {
        let source = match record.source {
            Source::Given => Source::Book,
            Source::Peer(peer) => Source::Peer(peer.normalized()),
            other => other,
        };
        Self {
            source,
            first_tried: record.first_tried,
            last_tried: record.last_tried,
            last_success: record.last_success,
            attempts: record.attempts,
            failures: record.failures,
            connections: record.connections,
            last_failure: record.last_failure,
            ban: record.ban.map(|ban| Ban::new(&ban.reason, ban.since, ban.until)),
            speed: record.speed,
            latency: record.latency.map(Duration::from_micros),
            transport: record.transport,
            ..Self::new(record.address, Source::Book, record.services, record.last_seen)
        }
    }
}

/// An address as its text.
pub(super) mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::PeerAddress;

    pub(in crate::book) fn serialize<S: Serializer>(address: &PeerAddress, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(address)
    }

    pub(in crate::book) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PeerAddress, D::Error> {
        let text = String::deserialize(from)?;
        let (_, port) = text.rsplit_once(':').ok_or_else(|| D::Error::custom("an address has a port"))?;
        port.parse::<u16>().map_err(D::Error::custom)?;
        PeerAddress::parse(&text, 1).map_err(D::Error::custom)
    }
}
