//! What the scheduler wants is done, and judged.

use std::time::Instant;

use tipward_sync::{
    Chain, Event as Told, Output,
    peer::{PeerId, Want},
};

use crate::{events::Event, pipe::READ_BUFFER, sink::Call, world::World};

impl World {
    pub(crate) fn act(&mut self, output: Output) {
        match output {
            Output::Ask(peer, want) => self.ask(peer, want),
            Output::Drop(peer, fault) => {
                let nature = &self.hosts[self.host(peer)].nature;
                assert!(!nature.is_honest(), "an honest peer is dropped: {fault}; {nature:?}");
                self.report.dropped += 1;
                self.close(peer);
            }
            Output::Penalise(peer, fault) => {
                let host = self.host(peer);
                self.hosts[host].is_penalised = true;
                let nature = &self.hosts[host].nature;
                assert!(!nature.is_honest(), "an honest peer is penalised: {fault}; {nature:?}");
                self.report.penalised += 1;
            }
            Output::Hold(peer) => {
                let (host, allowance) = (self.host(peer), self.random.u64(..=READ_BUFFER));
                self.report.held += 1;
                self.hosts[host].pipe.hold(self.now, allowance);
                self.advance(host);
            }
            Output::Resume(peer) => {
                let host = self.host(peer);
                assert!(self.hosts[host].pipe.is_held(), "{peer} is resumed and was not held");
                self.hosts[host].pipe.resume(self.now);
                self.advance(host);
            }
            Output::Apply(block) => {
                self.oracle.apply(&block, &self.tree);
                self.sink.push(Call::Apply(block));
            }
            Output::ApplyPart(id, part) => {
                self.oracle.apply_part(id, &part, &self.tree);
                self.sink.push(Call::Part(part));
            }
            Output::Abort(id) => {
                self.oracle.abort(id);
                self.sink.push(Call::Abort);
            }
            Output::Skip(to) => panic!("nothing is skipped without filters: {to}"),
            Output::Rollback(to) => {
                self.oracle.rollback(to, &self.tree);
                self.sink.push(Call::Rollback(to));
            }
            Output::Event(Told::Synced { tip }) => {
                let top = self.tree.tip().height.saturating_sub(self.config.options.stay_behind);
                assert_eq!(self.oracle.next_height(), top + 1, "synced and not at the tip");
                self.oracle.synced = Some(tip);
                self.report.synced_at = self.now.duration_since(self.scene.start);
            }
            Output::Event(_) => {}
            Output::Headers(count) => self.oracle.headers += count as u64,
            Output::Stopped => self.is_stopped = true,
            Output::Failed(reason) => panic!("the sync failed: {reason}"),
        }
    }

    pub(crate) fn host(&self, peer: PeerId) -> usize {
        *self.by_id.get(&peer).expect("a peer that is connected")
    }

    pub(crate) fn ask(&mut self, peer: PeerId, want: Want) {
        self.oracle.ask(peer, &want);
        let host = self.host(peer);
        if let Want::Blocks(blocks) = &want {
            self.report.asked += blocks.len() as u64;
        }
        let delay = self.hosts[host].nature.header_delay;
        if !delay.is_zero() && matches!(want, Want::HeadersAfter(_)) {
            return self.later(self.now + delay, Event::Ponder(host, peer, want));
        }
        self.put(host, peer, want, self.now);
    }

    pub(crate) fn put(&mut self, host: usize, peer: PeerId, want: Want, at: Instant) {
        let ready_at = at + self.hosts[host].round_trip(self.random.f64());
        if let Some(refusal) = self.hosts[host].ask(want, ready_at) {
            self.report.refused += 1;
            self.later(self.now, Event::Say(peer, refusal));
        }
        self.advance(host);
    }

    /// Keeps the peer's line busy.
    pub(crate) fn advance(&mut self, host: usize) {
        if let Some((at, epoch)) = self.hosts[host].advance(&self.scene) {
            self.later(at, Event::Arrive(host, epoch));
        }
    }

    pub(crate) fn close(&mut self, peer: PeerId) {
        let host = self.host(peer);
        self.by_id.remove(&peer);
        self.hosts[host].close(self.now);
        self.oracle.gone(peer);
    }
}
