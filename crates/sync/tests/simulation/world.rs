//! A scheduler, its peers, its sink and a clock.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::{Arc, atomic},
    time::{Duration, Instant},
};

use fastrand::Rng;
use tipward_sync::{Chain, Input, Scheduler, peer::PeerId};

use crate::{
    chain::Tree,
    config::{Config, Ends},
    events::{Due, Event},
    nature::{Nature, Start},
    oracle::Oracle,
    peers::Host,
    pipe::READ_BUFFER,
    report::Report,
    scene::Scene,
    sink::Sink,
    trace::{self, Trace},
};

/// How long it is watched that nothing more happens once everything is done: longer than peers are left unasked.
const LINGER: Duration = Duration::from_secs(150);
/// How many ticks in a row may want nothing before the time has come on by [`SPIN_TIME`].
const MAX_IDLE_TICKS: usize = 16;
const SPIN_TIME: Duration = Duration::from_secs(1);

pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) random: Rng,
    pub(crate) now: Instant,
    queue: BinaryHeap<Reverse<Due>>,
    sequence: u64,
    pub(crate) scheduler: Scheduler,
    pub(crate) tree: Tree,
    pub(crate) scene: Scene,
    pub(crate) hosts: Vec<Host>,
    pub(crate) by_id: BTreeMap<PeerId, usize>,
    pub(crate) next_id: u64,
    pub(crate) sink: Sink,
    pub(crate) oracle: Oracle,
    trace: Trace,
    pub(crate) report: Report,
    /// Things that are yet to happen by themselves.
    pub(crate) to_come: usize,
    /// Until when it is watched that nothing more happens.
    ends_at: Option<Instant>,
    pub(crate) is_stopped: bool,
    /// Ticks that wanted nothing, and since when.
    idle_ticks: (usize, Instant),
    /// Everything that is said is shown.
    is_told: bool,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let connected = |host: &&Host| host.id.is_some();
            for host in self.hosts.iter().filter(connected).filter(|_| self.is_told) {
                eprintln!("  {:?} {:?}: {:?}", host.id, host.view, host.nature);
            }
            eprintln!(
                "{} after {:?}: {} blocks applied of {}, synced {}, {} peers, {} things to come",
                self.config.name,
                self.now.duration_since(self.scene.start),
                self.oracle.stored_count(),
                self.config.target().height,
                self.oracle.synced.is_some(),
                self.by_id.len(),
                self.to_come,
            );
        }
    }
}

impl World {
    pub(crate) fn new(config: Config) -> Self {
        let start = Instant::now();
        let scene = Scene {
            universe: Arc::clone(&config.universe),
            headers: config.headers,
            list: config.list,
            start,
            alive: Arc::default(),
        };
        let host = |nature: &Nature| {
            let view = match nature.first_view {
                Start::Network(view) => config.views[view],
                Start::Branch(view) => view,
            };
            Host::new(nature.clone(), view, start)
        };
        let mut world = Self {
            random: Rng::with_seed(config.seed),
            now: start,
            queue: BinaryHeap::new(),
            sequence: 0,
            scheduler: Scheduler::new(config.options.clone(), None, config.seed),
            tree: Tree::new(Arc::clone(&config.universe)),
            hosts: config.hosts.iter().map(host).collect(),
            scene,
            by_id: BTreeMap::new(),
            next_id: 0,
            sink: Sink::new(config.sink.clone(), start),
            oracle: Oracle::new(Arc::clone(&config.universe), config.options.clone()),
            trace: Trace::default(),
            report: Report::default(),
            to_come: config.happenings.len() + config.hosts.len(),
            ends_at: None,
            is_stopped: false,
            idle_ticks: (0, start),
            is_told: std::env::var_os("TIPWARD_LOG").is_some(),
            config,
        };
        if world.is_told {
            let Config { options, sink, happenings, limit, .. } = &world.config;
            eprintln!("{options:?}\n{sink:?}\n{happenings:?}\nto be done in {limit:?}");
        }
        for (at, happening) in world.config.happenings.clone() {
            world.later(start + at, Event::Do(happening));
        }
        for host in 0..world.hosts.len() {
            world.later(start + world.config.hosts[host].joins_at, Event::Join(host));
        }
        world
    }

    pub(crate) fn later(&mut self, at: Instant, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse(Due(at, self.sequence, event)));
    }

    /// Runs until everything is applied and nothing more happens, or the scheduler has stopped.
    pub(crate) fn run(mut self) -> Report {
        while !self.is_stopped && self.ends_at.is_none_or(|end| self.now < end) {
            let event_at = self.queue.peek().map(|Reverse(due)| due.0);
            let deadline = self.scheduler.deadline();
            let next = event_at.into_iter().chain(deadline).chain(self.ends_at).min();
            let next = next.expect("the scheduler waits for nothing");
            self.now = self.now.max(next);
            let at = self.now.duration_since(self.scene.start);
            assert!(self.ends_at.is_some() || at <= self.config.limit, "not done after {at:?}");
            if event_at.is_some_and(|at| at <= self.now) {
                let Some(Reverse(Due(at, _, event))) = self.queue.pop() else { continue };
                self.happen(at, event);
            } else if deadline.is_some_and(|at| at <= self.now) {
                self.tick();
            }
            self.look();
        }
        self.conclude();
        self.report.trace = self.trace.finish();
        self.report.blocks = self.oracle.stored_count() as u64;
        self.report.rollbacks = self.oracle.rollbacks;
        self.report.streamed = self.oracle.streamed;
        self.report.aborted = self.oracle.aborted;
        std::mem::take(&mut self.report)
    }

    fn tick(&mut self) {
        self.report.ticks += 1;
        if self.step(Input::Tick) > 0 || self.now.duration_since(self.idle_ticks.1) > SPIN_TIME {
            self.idle_ticks = (0, self.now);
        } else {
            self.idle_ticks.0 += 1;
            self.report.idle_ticks += 1;
            let most = MAX_IDLE_TICKS + 4 * self.by_id.len();
            assert!(self.idle_ticks.0 <= most, "{most} ticks since {:?} did nothing", self.idle_ticks.1);
        }
    }

    /// Tells the scheduler, and does what it wants: how many things.
    pub(crate) fn step(&mut self, input: Input) -> usize {
        if !matches!(input, Input::Tick) {
            self.idle_ticks = (0, self.now);
        }
        self.report.inputs += 1;
        let at = self.now.duration_since(self.scene.start);
        if self.is_told {
            eprintln!("{at:?} <- {}", trace::input(&input));
        }
        self.scheduler.handle(self.now, input, &mut self.tree);
        let mut count = 0;
        while let Some(output) = self.scheduler.poll() {
            count += 1;
            if self.is_told {
                eprintln!("{at:?} -> {}", trace::output(&output));
            }
            self.trace.note(at, &output);
            self.act(output);
        }
        if let Some(at) = self.sink.begin(self.now) {
            self.later(at, Event::Sink(self.sink.epoch()));
        }
        count
    }

    /// What is promised at any time.
    fn look(&mut self) {
        let (alive, buffered) =
            (self.scene.alive.load(atomic::Ordering::Relaxed), self.scheduler.buffered_bytes());
        self.report.most_alive = self.report.most_alive.max(alive);
        assert!(alive <= buffered, "{alive} bytes are kept, and {buffered} are admitted");
        let budget = self.config.options.byte_budget;
        if buffered > budget {
            let slack = self.slack();
            assert!(
                buffered <= budget + slack,
                "{buffered} bytes are kept, the budget is {budget}, what may arrive {slack}"
            );
        }
        let is_quiet = self.sink.is_idle() && self.to_come == 0;
        let is_told = self.config.ends == Ends::WhenApplied || self.oracle.synced.is_some();
        if self.ends_at.is_none() && is_quiet && is_told && self.oracle.is_at(self.config.target()) {
            self.report.done_at = self.now.duration_since(self.scene.start);
            let linger = if self.config.ends == Ends::WhenQuiet { LINGER } else { Duration::ZERO };
            self.ends_at = Some(self.now + linger);
        }
    }

    /// What may come although there is no room: from every peer that was asked, the part with which a block tells its size,
    /// and what was read when reading stops.
    fn slack(&self) -> u64 {
        let largest = self.scene.universe.largest();
        let asked = self.hosts.iter().filter(|host| host.was_asked);
        asked.map(|host| host.nature.part_size.min(largest) + READ_BUFFER).sum()
    }

    /// What is promised at the end.
    fn conclude(&self) {
        assert_eq!(self.oracle.headers, self.tree.added, "headers told");
        if self.is_stopped {
            let options = &self.config.options;
            let top = self.tree.tip().height.saturating_sub(options.stay_behind);
            let height = options.stop_at.map_or(top, |stop| stop.min(top));
            assert!(
                options.stop_when_synced && self.oracle.synced.is_some() || options.stop_at == Some(height),
                "stopped without a reason"
            );
            assert_eq!(self.oracle.next_height(), height + 1, "stopped too early");
        } else {
            assert!(self.oracle.is_at(self.config.target()), "the blocks are not those of the best chain");
            let is_told = self.config.ends == Ends::WhenApplied || self.oracle.synced.is_some();
            assert!(is_told, "the end was not told");
            let universe = &self.scene.universe;
            let top = universe.top(*self.config.views.last().expect("the network has something"));
            // Who still sends a large block will be asked for the rest.
            let is_through = |host: &&Host| host.id.is_some() && !host.pipe.is_busy();
            for host in self.hosts.iter().filter(is_through) {
                let offence = host.offence(universe, top);
                assert_eq!(offence, None, "a peer gets away with it; {:?}", host.nature);
            }
        }
    }
}
