//! What happens in the network by itself: blocks, transactions, questions, nodes and cables that go away.

use std::time::{Duration, Instant};

use tipward_peer::{
    BroadcastPolicy, PeerId, RequestPolicy, Want,
    wire::{Txid, bitcoin::Transaction},
};

use crate::{
    character::Character,
    ledger::transaction,
    line::{Line, State},
    world::{Event, World},
};

/// The mean time between blocks.
const BLOCK_INTERVAL: Duration = Duration::from_secs(600);
/// Within this time every node that keeps up has a new block.
const PROPAGATION: Duration = Duration::from_secs(15);
/// The mean time between the departures of nodes, of all together.
const FLAP_INTERVAL: Duration = Duration::from_secs(20);
/// The mean time between questions, and between broadcasts.
const ASK_INTERVAL: Duration = Duration::from_secs(45);
const OFFER_INTERVAL: Duration = Duration::from_secs(180);

/// Where the traffic stands.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// Nothing new happens from then on.
    pub(crate) until: Instant,
    /// The height of the latest block that the user knows.
    pub(crate) known: usize,
    /// How many times in a row there was nothing that happened.
    pub(crate) spins: u32,
    offered: Vec<Transaction>,
}

impl Default for Traffic {
    fn default() -> Self {
        Self { until: Instant::now(), known: 0, spins: 0, offered: Vec::new() }
    }
}

impl World {
    pub(crate) fn begin_traffic(&mut self) {
        self.later(BLOCK_INTERVAL, Event::Mine);
        self.later(FLAP_INTERVAL, Event::Flap);
        self.later(ASK_INTERVAL, Event::Ask);
        self.later(OFFER_INTERVAL, Event::Offer);
        // In half of the seeds everything goes away once, in some twice.
        for _ in 0..self.random.u8(..4) / 2 + self.random.u8(..2) {
            let at = Duration::from_secs(self.random.u64(1200..6000));
            let length = Duration::from_secs(self.random.u64(60..1200));
            self.after(at, Event::Outage(length));
        }
    }

    /// Happens after a random time of this mean.
    fn later(&mut self, mean: Duration, event: Event) {
        let factor = -(1.0 - self.random.f64()).ln();
        self.after(mean.mul_f64(factor.clamp(0.01, 5.0)), event);
    }

    pub(crate) fn happen(&mut self, event: Event) {
        let is_over = self.now >= self.traffic.until;
        match event {
            Event::Dialed(id, outcome) => self.dialed(id, outcome),
            // What is under way when the network goes is lost.
            Event::ToUs(..) | Event::ToThem(..) | Event::Closed(_) | Event::Reset(_) if self.is_away => {}
            Event::ToUs(id, bytes) => self.receive(id, &bytes),
            Event::ToThem(id, bytes) => self.reach(id, &bytes),
            Event::Closed(id) => self.closed(id),
            Event::Reset(id) => self.reset(id),
            Event::Gone(id) => self.gone(id),
            Event::Tick(id) => self.tick(id),
            Event::Resolved => self.resolved(),
            Event::Learn(host, height) => self.learn(host, height),
            Event::Spread(id) => self.spread(id),
            Event::Back(host) => self.back(host),
            Event::Return => self.is_away = false,
            Event::Mine | Event::Flap | Event::Outage(_) | Event::Ask | Event::Offer if is_over => {}
            Event::Mine => self.mine(),
            Event::Flap => self.flap(),
            Event::Outage(length) => self.outage(length),
            Event::Ask => self.ask_anybody(),
            Event::Offer => self.offer(),
        }
    }

    fn mine(&mut self) {
        self.ledger.mine(self.random.u64(..1 << 40) << 8);
        let height = self.ledger.height();
        for host in 0..self.hosts.len() {
            if self.hosts[host].character.serves() && self.hosts[host].is_up {
                let delay = PROPAGATION.mul_f64(self.random.f64());
                self.after(delay, Event::Learn(host, height));
            }
        }
        self.later(BLOCK_INTERVAL, Event::Mine);
    }

    fn learn(&mut self, host: usize, height: usize) {
        if !self.hosts[host].is_up || self.hosts[host].tip >= height {
            return;
        }
        let news = self.hosts[host].tip + 1..=height;
        self.hosts[host].tip = height;
        for id in self.lines_of(host) {
            let far = self.lines.get_mut(&id).and_then(Line::open).and_then(|open| open.far.as_ref());
            if let Some(message) = far.and_then(|far| far.learned(&self.ledger, news.clone())) {
                self.say(id, &message, self.now);
            }
        }
    }

    fn lines_of(&self, host: usize) -> Vec<PeerId> {
        self.lines.iter().filter(|(_, line)| line.host == Some(host)).map(|(id, _)| *id).collect()
    }

    /// A node has got a transaction from us; the others have it soon.
    pub(crate) fn taken(&mut self, id: Txid) {
        if let Some(transaction) = self.traffic.offered.iter().find(|offered| offered.txid() == id).cloned()
            && !self.ledger.transactions.contains_key(&id)
        {
            self.ledger.transactions.insert(id, transaction);
            let delay = Duration::from_millis(self.random.u64(500..5000));
            self.after(delay, Event::Spread(id));
        }
    }

    fn spread(&mut self, transaction: Txid) {
        let ids: Vec<PeerId> = self.lines.keys().copied().collect();
        for id in ids {
            let Some(line) = self.lines.get_mut(&id) else { continue };
            let serves = line.host.is_some_and(|host| self.hosts[host].character.serves());
            let far = line.open().and_then(|open| open.far.as_ref()).filter(|_| serves);
            if let Some(message) = far.and_then(|far| far.relayed(transaction)) {
                self.say(id, &message, self.now);
            }
        }
    }

    /// Some node restarts, or its line is cut; those that flap do so most of the time.
    fn flap(&mut self) {
        self.later(FLAP_INTERVAL, Event::Flap);
        let host = self.random.usize(..self.hosts.len());
        let flaps = self.hosts[host].character == Character::Flapping;
        if !self.hosts[host].is_up || (!flaps && self.random.u8(..4) > 0) {
            return;
        }
        self.hosts[host].is_up = false;
        self.trace.note(("flap", host));
        let manner = self.random.u8(..3);
        for id in self.lines_of(host) {
            match manner {
                0 => self.after(Duration::from_millis(20), Event::Closed(id)),
                1 => self.after(Duration::from_millis(20), Event::Reset(id)),
                // Nobody says so.
                _ => {}
            }
            self.vanish(id);
        }
        let pause = Duration::from_secs(self.random.u64(5..400));
        self.after(pause, Event::Back(host));
    }

    fn back(&mut self, host: usize) {
        self.hosts[host].is_up = true;
        if self.hosts[host].character.serves() {
            self.hosts[host].tip = self.ledger.height();
        }
    }

    /// Everything is gone: some connections at once, others without a word.
    fn outage(&mut self, length: Duration) {
        if self.is_away {
            return;
        }
        self.trace.note(("outage", length));
        let ids: Vec<PeerId> = self.lines.keys().copied().collect();
        for id in ids {
            let is_open = matches!(self.lines.get(&id), Some(Line { state: State::Open(_), .. }));
            self.vanish(id);
            if is_open && self.random.bool() {
                self.reset(id);
            }
        }
        self.is_away = true;
        self.after(length, Event::Return);
    }

    fn ask_anybody(&mut self) {
        self.later(ASK_INTERVAL, Event::Ask);
        self.traffic.known = self.ledger.height();
        let height = self.random.usize(..=self.traffic.known);
        let want = match self.random.u8(..5) {
            0 | 1 => Want::HeadersAfter(vec![self.ledger.hash(height), self.ledger.hash(0)]),
            2 => Want::Blocks(vec![self.ledger.hash(height)]),
            3 => Want::Addresses,
            _ => {
                let coinbase = Txid::from_bytes(self.ledger.header(height).merkle_root);
                Want::Transactions(vec![coinbase, transaction(self.random.u64(..)).txid()])
            }
        };
        let mut policy = RequestPolicy::of(&want);
        policy.fail_fast = self.random.u8(..4) == 0;
        let until = self.now + policy.total_timeout;
        // Too many questions while everybody is away are refused.
        if let Ok(id) = self.pool.request(want, policy, self.now) {
            self.watch.asked(id, until);
        }
    }

    fn offer(&mut self) {
        self.later(OFFER_INTERVAL, Event::Offer);
        let transaction = transaction((1 << 60) + self.random.u64(..1 << 50));
        let (id, bytes) = (transaction.txid(), transaction.as_bytes().clone());
        self.traffic.offered.push(transaction);
        let mut policy = BroadcastPolicy::default();
        policy.peers = self.random.usize(1..6);
        let until = self.now + policy.timeout;
        if let Ok(id) = self.pool.broadcast(id, bytes, policy, self.now) {
            self.watch.offered(id, until);
        }
    }
}
