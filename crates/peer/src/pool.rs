//! Which addresses to dial and when: a machine without I/O.
//!
//! An address that fails is dialled again after a pause that doubles up to a limit, with jitter so that nodes which went
//! away together are not dialled together; none is given up for ever. One that broke the protocol is left alone for a day.

use std::time::{Duration, Instant};

use crate::{PeerAddress, Penalty, link::after};

/// The most addresses a pool keeps; a further one replaces the one that failed most and never worked, or is refused.
const MAX_ADDRESSES: usize = 1024;
/// A connection that lived this long clears the failures of its address.
const STABLE: Duration = Duration::from_secs(60);

/// How a pool behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PoolOptions {
    /// The most connections at a time, dials included; 8.
    pub max_peers: usize,
    /// The pause after the first failure; 1 s.
    pub min_back_off: Duration,
    /// The longest pause; 60 s.
    pub max_back_off: Duration,
    /// How long an address is left alone that broke the protocol; 24 h.
    pub ban: Duration,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            max_peers: 8,
            min_back_off: Duration::from_secs(1),
            max_back_off: Duration::from_secs(60),
            ban: Duration::from_secs(24 * 3600),
        }
    }
}

/// Something to dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dial {
    /// Names the address in the pool's other calls.
    pub entry: usize,
    /// Where to dial.
    pub address: PeerAddress,
}

/// The addresses and what became of them.
#[derive(Debug)]
pub struct Pool {
    options: PoolOptions,
    random: fastrand::Rng,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    address: PeerAddress,
    state: State,
    failures: u32,
    history: History,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting { until: Instant },
    Dialing,
    Connected { since: Instant },
    Banned { until: Instant },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum History {
    NeverTried,
    NeverWorked,
    Worked,
}

impl Pool {
    /// A pool without addresses. `seed` makes the jitter.
    #[must_use]
    pub fn new(options: PoolOptions, seed: u64) -> Self {
        Self { options, random: fastrand::Rng::with_seed(seed), entries: Vec::new() }
    }

    /// Adds an address unless it is known or the pool is full of better ones.
    pub fn add(&mut self, address: PeerAddress, now: Instant) {
        if self.entries.iter().any(|entry| entry.address == address) {
            return;
        }
        let state = State::Waiting { until: now };
        let entry = Entry { address, state, failures: 0, history: History::NeverTried };
        if self.entries.len() < MAX_ADDRESSES {
            return self.entries.push(entry);
        }
        let is_idle = |entry: &&mut Entry| {
            matches!(entry.state, State::Waiting { .. }) && entry.history == History::NeverWorked
        };
        if let Some(worst) = self.entries.iter_mut().filter(is_idle).max_by_key(|entry| entry.failures) {
            *worst = entry;
        }
    }

    /// The next address to dial, which counts as being dialled from now on. Those that failed least come first.
    pub fn poll(&mut self, now: Instant) -> Option<Dial> {
        if self.is_full() {
            return None;
        }
        let due = |entry: &Entry| match entry.state {
            State::Waiting { until } | State::Banned { until } => until <= now,
            State::Dialing | State::Connected { .. } => false,
        };
        let (index, entry) = self
            .entries
            .iter_mut()
            .enumerate()
            .filter(|(_, entry)| due(entry))
            .min_by_key(|(_, e)| e.failures)?;
        entry.state = State::Dialing;
        Some(Dial { entry: index, address: entry.address.clone() })
    }

    /// The dial led to a connection, handshake included.
    pub fn connected(&mut self, entry: usize, now: Instant) {
        if let Some(entry) = self.entries.get_mut(entry) {
            entry.state = State::Connected { since: now };
            entry.history = History::Worked;
        }
    }

    /// The dial or the connection ended.
    pub fn ended(&mut self, entry: usize, penalty: Penalty, now: Instant) {
        let Some(entry) = self.entries.get_mut(entry) else { return };
        if entry.history == History::NeverTried {
            entry.history = History::NeverWorked;
        }
        let was_stable = matches!(entry.state, State::Connected { since } if now >= since + STABLE);
        entry.failures =
            if was_stable && penalty == Penalty::None { 1 } else { entry.failures.saturating_add(1) };
        entry.state = if penalty == Penalty::Ban {
            State::Banned { until: after(now, self.options.ban) }
        } else {
            let doubled = self.options.min_back_off.saturating_mul(2_u32.pow((entry.failures - 1).min(16)));
            let pause = doubled.min(self.options.max_back_off).mul_f64(1.0 - 0.5 * self.random.f64());
            State::Waiting { until: after(now, pause) }
        };
    }

    /// When [`poll`](Self::poll) has something next; `None` if only an end can bring that about.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.is_full() {
            return None;
        }
        self.entries
            .iter()
            .filter_map(|entry| match entry.state {
                State::Waiting { until } | State::Banned { until } => Some(until),
                State::Dialing | State::Connected { .. } => None,
            })
            .min()
    }

    /// Whether there is room for connections and no address that was not tried yet: time to look for more.
    #[must_use]
    pub fn wants_addresses(&self) -> bool {
        !self.is_full() && self.entries.iter().all(|entry| entry.history != History::NeverTried)
    }

    fn is_full(&self) -> bool {
        let busy = |entry: &&Entry| matches!(entry.state, State::Dialing | State::Connected { .. });
        self.entries.iter().filter(busy).count() >= self.options.max_peers
    }

    /// Whether no more connections are to be expected at once: every address was tried, or there are as many connections
    /// as there may be.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let count =
            |state: fn(&State) -> bool| self.entries.iter().filter(|entry| state(&entry.state)).count();
        let untried = self.entries.iter().any(|entry| entry.history == History::NeverTried);
        let connected = count(|state| matches!(state, State::Connected { .. }));
        !untried || connected >= self.options.max_peers
    }

    /// Whether there is no hope but time: no address is connected or being dialled, and each has either never worked or
    /// broken the protocol.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.entries.iter().all(|entry| match entry.state {
            State::Dialing | State::Connected { .. } => false,
            State::Banned { .. } => true,
            State::Waiting { .. } => entry.history == History::NeverWorked,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str) -> PeerAddress {
        PeerAddress { host: host.to_owned(), port: 1 }
    }

    fn pool(hosts: &[&str], now: Instant) -> Pool {
        let mut pool = Pool::new(PoolOptions::default(), 1);
        hosts.iter().for_each(|host| pool.add(address(host), now));
        pool
    }

    #[test]
    fn pauses_double_to_the_limit_and_never_end() {
        let mut now = Instant::now();
        let mut pool = pool(&["a"], now);
        let mut pauses = Vec::new();
        for _ in 0..40 {
            let dial = pool.poll(now).unwrap();
            assert_eq!(pool.poll(now), None, "dialled once at a time");
            pool.ended(dial.entry, Penalty::BackOff, now);
            let next = pool.deadline().unwrap();
            pauses.push((next - now).as_secs_f64());
            assert_eq!(pool.poll(next - Duration::from_millis(1)), None);
            now = next;
        }
        for (n, pause) in pauses.iter().enumerate() {
            let expected = 2_f64.powi(n as i32).min(60.0);
            assert!((0.5 * expected..=expected).contains(pause), "pause {n}: {pause}");
        }
    }

    #[test]
    fn no_more_connections_than_asked() {
        let now = Instant::now();
        let hosts: Vec<String> = (0..20).map(|n| format!("host{n}")).collect();
        let mut pool = Pool::new(PoolOptions::default(), 1);
        hosts.iter().for_each(|host| pool.add(address(host), now));
        pool.add(address("host3"), now);
        assert_eq!(pool.entries.len(), 20, "an address is kept once");
        let dials: Vec<Dial> = std::iter::from_fn(|| pool.poll(now)).collect();
        assert_eq!(dials.len(), 8);
        assert!(!pool.is_settled());
        dials.iter().for_each(|dial| pool.connected(dial.entry, now));
        assert!(pool.is_settled());
        assert_eq!(pool.deadline(), None, "only an end makes room");
        assert!(!pool.wants_addresses());
        pool.ended(dials[0].entry, Penalty::None, now);
        assert_eq!(pool.poll(now).unwrap().address, address("host8"), "the untried come first");
    }

    #[test]
    fn a_full_pool_makes_room_for_the_untried() {
        let now = Instant::now();
        let mut pool = Pool::new(PoolOptions::default(), 1);
        (0..MAX_ADDRESSES).for_each(|n| pool.add(address(&format!("host{n}")), now));
        pool.add(address("late"), now);
        assert!(pool.entries.iter().all(|entry| entry.address.host != "late"), "nobody has failed");
        let dial = pool.poll(now).unwrap();
        pool.ended(dial.entry, Penalty::BackOff, now);
        pool.add(address("late"), now);
        assert_eq!((pool.entries.len(), &*pool.entries[dial.entry].address.host), (MAX_ADDRESSES, "late"));
    }

    #[test]
    fn a_ban_may_be_for_ever() {
        let now = Instant::now();
        let mut pool = Pool::new(PoolOptions { ban: Duration::MAX, ..PoolOptions::default() }, 1);
        pool.add(address("a"), now);
        let dial = pool.poll(now).unwrap();
        pool.ended(dial.entry, Penalty::Ban, now);
        assert!(pool.deadline().unwrap() > now + Duration::from_secs(1 << 30));
    }

    #[test]
    fn who_broke_the_protocol_is_left_alone_for_a_day() {
        let now = Instant::now();
        let mut pool = pool(&["a"], now);
        let dial = pool.poll(now).unwrap();
        pool.connected(dial.entry, now);
        pool.ended(dial.entry, Penalty::Ban, now);
        assert!(pool.is_exhausted());
        assert_eq!(pool.poll(now + Duration::from_secs(23 * 3600)), None);
        assert_eq!(pool.poll(now + Duration::from_secs(24 * 3600)), Some(dial));
    }

    #[test]
    fn an_address_that_worked_keeps_hope() {
        let now = Instant::now();
        let mut pool = pool(&["a"], now);
        let dial = pool.poll(now).unwrap();
        assert!(!pool.is_exhausted() && !pool.is_settled());
        pool.ended(dial.entry, Penalty::BackOff, now);
        assert!(pool.is_exhausted() && pool.is_settled());
        let now = pool.deadline().unwrap();
        let dial = pool.poll(now).unwrap();
        pool.connected(dial.entry, now);
        pool.ended(dial.entry, Penalty::None, now + STABLE);
        assert!(!pool.is_exhausted());
        assert!(pool.deadline().unwrap() <= now + STABLE + Duration::from_secs(1), "back-off starts over");
    }
}
