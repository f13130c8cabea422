//! Which addresses to dial and when: a machine without I/O.
//!
//! An address that fails is dialled again after a pause that doubles up to a limit, with jitter so that nodes which went
//! away together are not dialled together; none is given up for ever. One that broke the protocol is left alone for a day.

use std::time::{Duration, Instant};

use crate::{PeerAddress, Penalty};

/// The most addresses a pool keeps; more are refused.
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

    /// Adds an address unless it is known or the pool is full.
    pub fn add(&mut self, address: PeerAddress, now: Instant) {
        if self.entries.len() < MAX_ADDRESSES && self.entries.iter().all(|entry| entry.address != address) {
            let state = State::Waiting { until: now };
            self.entries.push(Entry { address, state, failures: 0, history: History::NeverTried });
        }
    }

    /// The next address to dial, which counts as being dialled from now on. Those that failed least come first.
    pub fn poll(&mut self, now: Instant) -> Option<Dial> {
        let busy = |entry: &&Entry| matches!(entry.state, State::Dialing | State::Connected { .. });
        if self.entries.iter().filter(busy).count() >= self.options.max_peers {
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
            State::Banned { until: now + self.options.ban }
        } else {
            let doubled = self.options.min_back_off * 2_u32.pow((entry.failures - 1).min(16));
            let pause = doubled.min(self.options.max_back_off);
            State::Waiting { until: now + pause.mul_f64(0.75 + 0.5 * self.random.f64()) }
        };
    }

    /// When [`poll`](Self::poll) has something next; `None` if only an end can bring that about.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.entries
            .iter()
            .filter_map(|entry| match entry.state {
                State::Waiting { until } | State::Banned { until } => Some(until),
                State::Dialing | State::Connected { .. } => None,
            })
            .min()
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
            assert!((0.75 * expected..=1.25 * expected).contains(pause), "pause {n}: {pause}");
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
        pool.ended(dials[0].entry, Penalty::None, now);
        assert_eq!(pool.poll(now).unwrap().address, address("host8"), "the untried come first");
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
        assert!(
            pool.deadline().unwrap() <= now + STABLE + Duration::from_millis(1250),
            "back-off starts over"
        );
    }
}
