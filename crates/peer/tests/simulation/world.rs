//! A pool, its connections and the network that they lead to, in virtual time.
//!
//! What the pool wants is done as the manager's task does it, and the connections are driven as the driver does it; both
//! are short here, since nobody has to wait for anybody.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fastrand::Rng;
use tipward_peer::{
    Book, BroadcastOutcome, Choice, Discovery, Encrypt, LinkOptions, Local, PeerAddress, PeerId, Pool,
    PoolOptions, PoolOutput, UnixTime, bitcoin::Bitcoin, wire::Txid,
};

use crate::{
    character::Character,
    far::Act,
    ledger::{Ledger, network},
    line::{Line, State},
    trace::Trace,
    traffic::Traffic,
    watch::{Tally, Watch},
};

/// How many nodes there are.
const HOSTS: usize = 200;
/// How many of them are in a network of three, the others are alone in theirs.
const CROWDED: usize = 60;
/// How many addresses the seeds tell.
const SEEDS: usize = 12;
/// How many times the pool may be asked what to do at one moment without anything else having happened.
const MAX_SPINS: u32 = 100;
/// Our clock when a simulation begins.
const BEGIN: u64 = 1_800_000_000;
/// How long everything that was asked has to end.
const WIND_UP: Duration = Duration::from_secs(15 * 60);

/// What happens, each at its time.
#[derive(Debug)]
pub(crate) enum Event {
    /// A dial has come to something, or not.
    Dialed(PeerId, Dialed),
    ToUs(PeerId, Bytes),
    ToThem(PeerId, Bytes),
    /// The far end has closed, or reset.
    Closed(PeerId),
    Reset(PeerId),
    /// What we end has ended.
    Gone(PeerId),
    /// The far end looks at its clock.
    Tick(PeerId),
    Resolved,
    Mine,
    /// A node hears of a block.
    Learn(usize, usize),
    /// A transaction has reached everybody.
    Spread(Txid),
    /// A node goes away, and comes back.
    Flap,
    Back(usize),
    /// The whole network goes away, and comes back.
    Outage(Duration),
    Return,
    Ask,
    Offer,
}

#[derive(Debug, Clone, Copy, Hash)]
pub(crate) enum Dialed {
    Open,
    Refused,
    TimedOut,
}

/// A node.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) address: PeerAddress,
    pub(crate) character: Character,
    pub(crate) latency: Duration,
    pub(crate) tip: usize,
    pub(crate) is_up: bool,
}

pub(crate) struct World {
    seed: u64,
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    queue: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
    pub(crate) random: Rng,
    pub(crate) pool: Pool,
    pub(crate) options: PoolOptions,
    pub(crate) link_options: LinkOptions,
    pub(crate) protocol: Bitcoin,
    pub(crate) local: Local,
    pub(crate) lines: BTreeMap<PeerId, Line>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) addresses: Vec<PeerAddress>,
    by_address: BTreeMap<PeerAddress, usize>,
    given: BTreeSet<PeerAddress>,
    pub(crate) ledger: Ledger,
    pub(crate) foreign: Ledger,
    pub(crate) traffic: Traffic,
    pub(crate) is_away: bool,
    /// How much the pool waited for when it was asked last.
    pub(crate) interest: usize,
    next_sample: Instant,
    pub(crate) trace: Trace,
    pub(crate) watch: Watch,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {} after {:?}", self.seed, self.now.duration_since(self.start));
        }
    }
}

/// The choices that differ from seed to seed.
fn pool_options(random: &mut Rng) -> PoolOptions {
    let mut options = PoolOptions::default();
    options.max_peers = random.usize(4..=10);
    options.min_peers = random.usize(1..=options.max_peers);
    options.choice = if random.bool() { Choice::Weighted } else { Choice::RoundRobin };
    options.discovery = Discovery::On;
    // So that bans end within the hours of a run.
    options.ban = Duration::from_secs(45 * 60);
    options.book.max_entries = 2048;
    options
}

fn hosts(random: &mut Rng, tip: usize) -> Vec<Host> {
    (0..HOSTS)
        .map(|n| {
            let crowd = if n < CROWDED { n / 3 } else { n };
            let ip = Ipv4Addr::new(1 + (crowd / 100) as u8, (crowd % 100) as u8, (n % 200) as u8, 1);
            let character = Character::draw(random);
            let millis = if character == Character::Slow { 1000..2500 } else { 5..300 };
            Host {
                address: PeerAddress { host: ip.to_string(), port: 18444 },
                character,
                latency: Duration::from_micros(1000 * random.u64(millis) + random.u64(..1000)),
                tip,
                is_up: true,
            }
        })
        .collect()
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let now = Instant::now();
        let options = pool_options(&mut random);
        let book = Book::new(options.book.clone(), random.fork());
        let unix = UnixTime::from_secs(BEGIN);
        let pool = Pool::new(options.clone(), book, random.u64(..), unix, now);
        let ledger = Ledger::new();
        let hosts = hosts(&mut random, ledger.height());
        let addresses: Vec<PeerAddress> = hosts.iter().map(|host| host.address.clone()).collect();
        let mut link_options = LinkOptions::default();
        link_options.encrypt = Encrypt::Off;
        link_options.relay_transactions = true;
        let mut world = Self {
            seed,
            now,
            start: now,
            queue: BTreeMap::new(),
            next_event: 0,
            pool,
            next_sample: now,
            options,
            link_options,
            protocol: Bitcoin::new(network()),
            local: Local::default(),
            lines: BTreeMap::new(),
            by_address: addresses.iter().cloned().zip(0..).collect(),
            addresses,
            hosts,
            given: BTreeSet::new(),
            ledger,
            foreign: Ledger::foreign(),
            traffic: Traffic::default(),
            is_away: false,
            interest: 0,
            trace: Trace::default(),
            watch: Watch::default(),
            random,
        };
        // Some seeds know two nodes from the user.
        for _ in 0..world.random.usize(..3) {
            let address = world.addresses[world.random.usize(..HOSTS)].clone();
            world.given.insert(address.clone());
            world.pool.give(address, now);
        }
        world.begin_traffic();
        world
    }

    /// Runs for so long, and until everything asked has ended.
    pub(crate) fn run(mut self, duration: Duration) -> (Tally, (u64, u64)) {
        self.traffic.until = self.start + duration;
        let end = self.traffic.until + WIND_UP;
        while self.step(end) {}
        self.watch.finished(self.pool.open());
        (self.watch.figures, self.trace.finish())
    }

    pub(crate) fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(crate) fn at(&mut self, at: Instant, event: Event) {
        self.next_event += 1;
        self.queue.insert((at, self.next_event), event);
    }

    /// One turn of the manager's loop, after what happens next.
    fn step(&mut self, end: Instant) -> bool {
        let deadline = self.pool.deadline(self.now).min(self.next_sample);
        let lines = self.lines.values().filter_map(|line| line.deadline(&self.link_options));
        let deadline = lines.fold(deadline, Instant::min);
        let event = self.queue.first_key_value().map(|((at, _), _)| *at);
        let next = event.map_or(deadline, |at| at.min(deadline)).max(self.now);
        if next > end {
            return false;
        }
        let is_idle = next == self.now && event.is_none_or(|at| at > next);
        self.traffic.spins = if is_idle { self.traffic.spins + 1 } else { 0 };
        assert!(self.traffic.spins < MAX_SPINS, "nothing happens, and there is always something to do");
        self.now = next;
        if event.is_some_and(|at| at <= next)
            && let Some((_, event)) = self.queue.pop_first()
        {
            self.happen(event);
        }
        self.line_timeouts();
        self.sample();
        self.pool.timeout(self.now);
        self.act();
        self.look();
        true
    }

    fn line_timeouts(&mut self) {
        let is_due = |line: &Line| line.deadline(&self.link_options).is_some_and(|at| at <= self.now);
        let due: Vec<PeerId> =
            self.lines.iter().filter(|(_, line)| is_due(line)).map(|(id, _)| *id).collect();
        for id in due {
            let Some(open) = self.lines.get_mut(&id).and_then(Line::open) else { continue };
            match open.timeout(&self.link_options, self.now) {
                Ok(()) => self.tell(id),
                Err(reason) => self.ended_by_them(id, reason),
            }
        }
    }

    fn sample(&mut self) {
        if self.now < self.next_sample {
            return;
        }
        self.next_sample = self.now + self.options.check_interval.min(self.options.timings.check);
        for (id, line) in &mut self.lines {
            if let State::Open(open) = &mut line.state
                && open.admitted
            {
                self.pool.sample(*id, *open.link.figures(), self.now);
            }
        }
    }

    /// Carries out what the pool wants.
    pub(crate) fn act(&mut self) {
        while let Some(output) = self.pool.poll(self.now) {
            let millis = self.now.duration_since(self.start).as_micros();
            match output {
                PoolOutput::Dial { id, address, .. } => {
                    self.trace.note((millis, "dial", id, &address));
                    self.dial(id, address);
                }
                PoolOutput::Disconnect { id, reason } => {
                    self.trace.note((millis, "disconnect", id, reason.to_string()));
                    self.end(id, reason);
                }
                PoolOutput::Ask { id, want } => {
                    self.trace.note((millis, "ask", id, format!("{want:?}")));
                    self.ask(id, want);
                }
                PoolOutput::Resolve => {
                    self.trace.note((millis, "resolve"));
                    self.after(Duration::from_millis(80), Event::Resolved);
                }
                PoolOutput::Answered(id, result) => {
                    let peer = result.as_ref().ok().map(|(peer, _)| *peer);
                    self.trace.note((millis, "answered", id, peer));
                    self.watch.answered(id, result.is_ok(), self.now);
                }
                PoolOutput::Broadcast(id, outcome) => {
                    self.trace.note((millis, "broadcast", id, format!("{outcome:?}")));
                    let is_good = matches!(outcome, BroadcastOutcome::SeenBack { .. });
                    self.watch.decided(id, is_good, self.now);
                }
                PoolOutput::Banned { address, reason } => {
                    self.trace.note((millis, "banned", &address, &reason));
                    let character = self.host_at(&address).map(|host| self.hosts[host].character);
                    let until = self.now + self.options.ban;
                    self.watch.banned(&address, character, &reason, until);
                }
                other => self.trace.note((millis, format!("{other:?}"))),
            }
        }
        self.interest = self.pool.open();
    }

    pub(crate) fn resolved(&mut self) {
        if !self.is_away {
            // The same ones each time, as seeds do for a while.
            let mut random = Rng::with_seed(self.seed);
            let told = (0..SEEDS).map(|_| self.addresses[random.usize(..HOSTS)].clone()).collect();
            self.pool.resolved(told, self.now);
        }
    }

    pub(crate) fn host_at(&self, address: &PeerAddress) -> Option<usize> {
        self.by_address.get(address).copied()
    }

    /// What is promised of an address that is to be dialled.
    pub(crate) fn look_at_dial(&mut self, address: &PeerAddress) {
        self.watch.dialed(address, self.now);
        let group = address.network_group();
        let is_taken = self.lines.values().any(|line| line.address.network_group() == group);
        assert!(
            !is_taken || self.given.contains(address),
            "a second connection into the network of {address}"
        );
        assert!(self.lines.values().all(|line| line.address != *address), "two connections to {address}");
    }

    /// What is promised at any time.
    fn look(&mut self) {
        let target = self.options.max_peers;
        let ready = self.lines.values().filter(|line| line.is_ready()).count();
        self.watch.size(ready, target, self.is_away, self.now);
        assert!(self.lines.len() <= target, "{} connections and dials", self.lines.len());
        let addresses = self.pool.book().len();
        self.watch.figures.most_addresses = self.watch.figures.most_addresses.max(addresses);
        assert!(addresses <= self.options.book.max_entries, "{addresses} addresses");
    }

    pub(crate) fn follow(&mut self, id: PeerId, acts: Vec<Act>) {
        let mut at = self.now;
        for act in acts {
            match act {
                Act::Wait(delay) => at += delay,
                Act::Say(message) => self.say(id, &message, at),
                Act::Raw(bytes) => self.deliver(id, &bytes, at),
                Act::Close | Act::Reset => {
                    let (host, Some(line)) = (self.latency(id), self.lines.get_mut(&id)) else { return };
                    let at = Line::arrival(&mut line.to_us, at, host);
                    let end = if matches!(act, Act::Close) { Event::Closed(id) } else { Event::Reset(id) };
                    self.at(at, end);
                    return self.vanish(id);
                }
                Act::Vanish => return self.vanish(id),
                Act::Take(transaction) => self.taken(transaction),
            }
        }
    }
}
