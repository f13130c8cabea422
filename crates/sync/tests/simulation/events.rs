//! What happens in a run, each thing at its time.

use std::{
    cmp::Ordering,
    sync::atomic,
    time::{Duration, Instant},
};

use tipward_sync::{
    Chain, Input, Scheduler,
    peer::{PeerId, PeerInfo, Reply, Want},
};

use crate::{
    chain::View,
    config::Happening,
    nature::{Behaviour, Start},
    peers::{Host, Outcome},
    sink::{Call, Made},
    world::World,
};

/// What happens, each at its time.
#[derive(Debug)]
pub(crate) enum Event {
    Join(usize),
    /// Likewise, after its connection was lost.
    Return(usize),
    Leave(usize, PeerId),
    /// What has this number on a peer's line has come.
    Arrive(usize, u64),
    /// A question that was thought about long enough.
    Ponder(usize, PeerId, Want),
    /// The session says something by itself.
    Say(PeerId, Reply),
    Learn(usize, View),
    /// A call of the sink is done.
    Sink(u64),
    Do(Happening),
}

/// The first of these comes first.
#[derive(Debug)]
pub(crate) struct Due(pub(crate) Instant, pub(crate) u64, pub(crate) Event);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

impl World {
    pub(crate) fn happen(&mut self, at: Instant, event: Event) {
        match event {
            Event::Join(host) => {
                self.to_come -= 1;
                self.join(host);
            }
            Event::Return(host) => self.join(host),
            Event::Say(peer, reply) if self.by_id.contains_key(&peer) => {
                _ = self.step(Input::Reply(peer, reply));
            }
            Event::Leave(host, peer) if self.hosts[host].id == Some(peer) => {
                self.lost(host, peer);
            }
            Event::Arrive(host, epoch) if self.hosts[host].pipe.epoch() == epoch => self.arrive(host),
            Event::Ponder(host, peer, want) if self.hosts[host].id == Some(peer) => {
                self.put(host, peer, want, at);
            }
            Event::Learn(host, view) => {
                let ready_at = at + self.hosts[host].nature.latency;
                self.hosts[host].learn(view, ready_at, &self.scene.universe);
                self.to_come -= 1;
                self.advance(host);
            }
            Event::Sink(epoch) if self.sink.epoch() == epoch => self.sunk(),
            Event::Do(happening) => self.happening(at, happening),
            Event::Leave(..) | Event::Arrive(..) | Event::Ponder(..) | Event::Say(..) | Event::Sink(_) => {}
        }
    }

    fn join(&mut self, host: usize) {
        let peer = PeerId(self.next_id);
        self.next_id += 1;
        self.report.connected += 1;
        self.by_id.insert(peer, host);
        if let Some((life, _)) = self.hosts[host].nature.life {
            let at = self.now + life.mul_f64(-self.random.f64().max(1e-3).ln());
            self.later(at, Event::Leave(host, peer));
        }
        let mut info = PeerInfo::new("simulated", self.hosts[host].open(peer, &self.scene.universe));
        info.recent_only = self.hosts[host].nature.recent_only;
        self.step(Input::Connected(peer, info));
    }

    /// The connection ends, and is made again by and by if the peer is one of those.
    fn lost(&mut self, host: usize, peer: PeerId) {
        self.report.lost += 1;
        self.close(peer);
        if let Some((_, away)) = self.hosts[host].nature.life {
            let at = self.now + away.mul_f64(self.random.f64() + 0.1);
            self.later(at, Event::Return(host));
        }
        self.step(Input::Disconnected(peer));
    }

    fn arrive(&mut self, host: usize) {
        let Some(peer) = self.hosts[host].id else { return };
        let mut replies: Vec<Reply> = Vec::new();
        let outcome = self.hosts[host].arrive(&self.scene, &mut replies);
        if outcome == Outcome::Alive {
            self.advance(host);
        }
        for reply in replies {
            if self.hosts[host].id == Some(peer) {
                if let Reply::BlockEnd(end) = &reply {
                    self.report.bytes += end.size;
                }
                self.step(Input::Reply(peer, reply));
            }
        }
        if outcome == Outcome::Dead && self.hosts[host].id == Some(peer) {
            self.lost(host, peer);
        }
    }

    fn sunk(&mut self) {
        match self.sink.finish() {
            Some(Made::Failed) => return self.restart(),
            Some(Made::Done(Call::Apply(block))) => self.oracle.stored(block.id),
            Some(Made::Done(Call::Rollback(to))) => self.oracle.undone(to),
            Some(Made::Done(Call::Part(_) | Call::Abort)) | None => {}
        }
        if let Some(count) = self.sink.report() {
            self.step(Input::Delivered(count));
        } else if let Some(at) = self.sink.begin(self.now) {
            self.later(at, Event::Sink(self.sink.epoch()));
        }
    }

    fn happening(&mut self, at: Instant, happening: Happening) {
        self.to_come -= 1;
        match happening {
            Happening::Settled => _ = self.step(Input::Settled),
            Happening::View(number) => {
                let view = self.config.views[number];
                for host in 0..self.hosts.len() {
                    let nature = &self.config.hosts[host];
                    let follows = matches!(nature.first_view, Start::Network(first) if first < number)
                        || matches!(nature.first_view, Start::Branch(_));
                    if follows && number <= nature.last_view {
                        self.to_come += 1;
                        self.later(at + nature.learns_after, Event::Learn(host, view));
                    }
                }
            }
            Happening::Kill => self.restart(),
            Happening::Pause => {
                self.oracle.is_paused = true;
                self.step(Input::Pause);
            }
            Happening::Resume => {
                self.oracle.is_paused = false;
                self.step(Input::Resume);
            }
            Happening::Freeze(time) => self.now += time,
            Happening::LoseNext { silently } => self.lose_next(silently),
        }
    }

    /// The peer that was to bring the block that everything waits for is lost, and does not come back.
    fn lose_next(&mut self, silently: bool) {
        let universe = &self.scene.universe;
        let Some(hash) = self.tree.best_at(self.oracle.next_height()) else { return };
        let is_it = |host: &Host| host.id.is_some() && host.brings(hash, universe);
        let Some(host) = self.hosts.iter().position(is_it) else { return };
        self.report.lost_next += 1;
        self.report.lost_next_at = Some(host);
        let peer = self.hosts[host].id.expect("it is connected");
        if silently {
            self.hosts[host].nature.behaviour = Behaviour::Silent { after: 0 };
            self.hosts[host].pipe.close(self.now);
        } else {
            self.lost(host, peer);
        }
    }

    /// The program ends and starts again with the same tree.
    fn restart(&mut self) {
        self.report.restarts += 1;
        let cursor = self.oracle.restart();
        self.scheduler = Scheduler::new(self.config.options.clone(), cursor, self.config.seed);
        self.sink.restart();
        let alive = self.scene.alive.load(atomic::Ordering::Relaxed);
        assert_eq!(alive, 0, "bytes are kept after the end");
        for peer in self.by_id.keys().copied().collect::<Vec<_>>() {
            let host = self.host(peer);
            self.close(peer);
            self.to_come += 1;
            let at = self.now + Duration::from_millis(self.random.u64(10..1000));
            self.later(at, Event::Join(host));
        }
        self.to_come += 1;
        let at = self.now + Duration::from_millis(self.random.u64(..2000));
        self.later(at, Event::Do(Happening::Settled));
    }
}
