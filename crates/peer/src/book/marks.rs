//! What becomes of an address: the marks that whoever dials sets. On addresses that the book does not know they do nothing.

use std::time::Duration;

use super::{
    Ban, Book, DIAL_LEASE, Failure, Transport, UnixTime,
    entry::{STABLE, State},
};
use crate::PeerAddress;

impl Book {
    /// The address is being dialled. It does not come up again until that ended, or for ten minutes if nobody tells.
    pub fn tried(&mut self, address: &PeerAddress, now: UnixTime) {
        self.mark(address, now, |book, id| {
            book.edit(id, |slot| {
                slot.entry.first_tried.get_or_insert(now);
                slot.entry.last_tried = Some(now);
                slot.entry.attempts = slot.entry.attempts.saturating_add(1);
                slot.state = State::Dialed { lease: now.after(DIAL_LEASE) };
            });
        });
    }

    /// The dial led to a connection, handshake included, with a peer that offers `services`. The address does not come up
    /// again until [`ended`](Self::ended).
    pub fn succeeded(&mut self, address: &PeerAddress, services: u64, transport: Transport, now: UnixTime) {
        self.mark(address, now, |book, id| {
            book.edit(id, |slot| {
                let entry = &mut slot.entry;
                entry.attempts = 0;
                entry.connections = entry.connections.saturating_add(1);
                entry.last_success = Some(now);
                entry.last_seen = now;
                entry.services = services;
                if transport != Transport::Unknown {
                    entry.transport = transport;
                }
                slot.state = State::Connected;
            });
        });
    }

    /// The dial came to nothing.
    pub fn failed(&mut self, address: &PeerAddress, failure: Failure, now: UnixTime) {
        self.end(address, Duration::ZERO, failure, now);
    }

    /// The connection, which lived so long since the handshake, ended.
    pub fn ended(&mut self, address: &PeerAddress, lived: Duration, failure: Failure, now: UnixTime) {
        self.end(address, lived, failure, now);
    }

    /// Leaves the address alone until then; of two bans the longer one holds. `reason` is kept up to 200 bytes.
    pub fn ban(&mut self, address: &PeerAddress, reason: &str, until: UnixTime, now: UnixTime) {
        self.mark(address, now, |book, id| {
            book.edit(id, |slot| {
                if slot.entry.ban.as_ref().is_none_or(|ban| ban.until < until) {
                    slot.entry.ban = Some(Ban::new(reason, now, until));
                }
            });
        });
    }

    /// Ends a ban; the pause that the address had goes on.
    pub fn unban(&mut self, address: &PeerAddress) {
        if let Some(id) = self.id(address) {
            self.edit(id, |slot| slot.entry.ban = None);
        }
    }

    /// What was measured of the peer: bytes per second, and the round trip. `None` leaves what is known.
    pub fn measured(&mut self, address: &PeerAddress, speed: Option<u64>, latency: Option<Duration>) {
        if let Some(id) = self.id(address)
            && let Some(slot) = self.slots.get_mut(&id)
        {
            // Neither is part of the index.
            slot.entry.speed = speed.or(slot.entry.speed);
            slot.entry.latency = latency.or(slot.entry.latency);
        }
    }

    /// What the peer was found to speak, such as [`Transport::V1`] after it hung up on an encrypted handshake.
    pub fn set_transport(&mut self, address: &PeerAddress, transport: Transport) {
        if let Some(id) = self.id(address)
            && let Some(slot) = self.slots.get_mut(&id)
        {
            slot.entry.transport = transport;
        }
    }

    fn mark(&mut self, address: &PeerAddress, now: UnixTime, change: impl FnOnce(&mut Self, u64)) {
        self.observe(now);
        if let Some(id) = self.id(address) {
            change(self, id);
        }
    }

    fn end(&mut self, address: &PeerAddress, lived: Duration, failure: Failure, now: UnixTime) {
        let jitter = 1.0 - 0.5 * self.random.f64();
        let options = self.options.clone();
        self.mark(address, now, |book, id| {
            book.edit(id, |slot| {
                let entry = &mut slot.entry;
                let was_stable = lived >= STABLE;
                if was_stable {
                    entry.last_seen = now;
                    entry.last_success = entry.last_success.max(Some(now));
                }
                match failure {
                    Failure::Closed | Failure::Local if was_stable => entry.failures = 0,
                    Failure::Local => {}
                    Failure::Unreachable | Failure::Handshake | Failure::Closed | Failure::Poor => {
                        entry.failures = entry.failures.saturating_add(1);
                    }
                }
                entry.last_failure = Some(failure);
                let pause = entry.pause(&options, now).mul_f64(jitter);
                slot.state = State::Idle { due: now.after(pause) };
            });
        });
    }
}
