//! What to make of headers, announcements and claims.

use std::time::Instant;

use tipward_peer::{
    PeerId,
    wire::{BlockHash, Header},
};

use super::{
    HeadersFlow, Phase,
    peers::{Question, State, is_best},
    race::Race,
};
use crate::{
    BlockId, Chain, RefusedHeaders,
    scheduler::{Fault, flow::FlowOutput},
};

/// An announcement has at most so many headers (Bitcoin Core, `MAX_BLOCKS_TO_ANNOUNCE`); more that do not link are none. Of
/// announced hashes the last so many are looked at.
const MAX_ANNOUNCED: usize = 8;
/// After so many announcements in a row whose block it does not show when asked, a peer is not asked because of more.
const MAX_HOLLOW: u32 = 3;
/// A peer that gives so many full answers in a row which it gave before is dropped.
const MAX_REPEATS: u32 = 3;
/// A peer that gives so many full answers in a row without anything new is not waited for: 200,000 headers on Bitcoin.
const MAX_BARREN: u32 = 100;
/// A peer may claim so many blocks more than it shows: it may have changed to a branch of fewer blocks since.
const HEIGHT_SLACK: u64 = 16;

impl HeadersFlow {
    /// Headers came, asked for or not.
    pub(super) fn headers(
        &mut self,
        now: Instant,
        id: PeerId,
        headers: &[Header],
        more: bool,
        chain: &mut dyn Chain,
    ) {
        if self.peers.get_mut(id).is_none() {
            return;
        }
        let Some(end) = headers.last() else {
            // Nobody says unasked that there is nothing.
            if let Some(question) = self.peers.close_question(id, headers) {
                self.came_to_end(now, id, Some(question.top), chain);
            }
            return;
        };
        let accepted = match chain.accept_from(id, headers) {
            Ok(accepted) => accepted,
            Err(RefusedHeaders::UnknownParent { .. }) => {
                return self.unlinked(id, headers.len(), end.hash, chain);
            }
            Err(RefusedHeaders::Invalid(reason) | RefusedHeaders::TooDeep(reason)) => {
                return self.drop_peer(id, Fault::InvalidHeaders(reason));
            }
            Err(RefusedHeaders::Store(reason)) => return self.outputs.push_back(FlowOutput::Failed(reason)),
        };
        let (is_new, last) = (accepted.added > 0, accepted.last.and_then(|last| chain.find(last)));
        if is_new || accepted.update.is_some() {
            self.outputs.push_back(FlowOutput::Accepted(accepted));
        }
        let is_news = last.is_some_and(|last| self.shows(id, last, chain));
        // Cut short where a limit was reached: more is not wanted.
        let is_whole = last.is_some_and(|last| last.hash == end.hash);
        // A chain that had to show its work first has to be asked for again, from below.
        let is_asked_again = || last.is_some_and(|last| chain.locator(last.hash).first() != Some(&last.hash));
        let has_more = is_whole && !self.is_at_stop(chain) && (more || is_asked_again());
        if self.repeats(id, last.filter(|_| has_more && !is_new)) {
            return self.drop_peer(id, Fault::RepeatedHeaders);
        }
        let Some(question) = self.peers.close_question(id, headers) else {
            return self.unasked(now, id, has_more && is_new, is_news);
        };
        if let Some(peer) = self.peers.get_mut(id) {
            peer.at = last.filter(|_| has_more);
        }
        self.answered(now, id, &question, is_new, has_more, chain);
        if !has_more {
            self.came_to_end(now, id, (is_whole && !more).then_some(0), chain);
        }
    }

    /// A question was answered by headers.
    fn answered(
        &mut self,
        now: Instant,
        id: PeerId,
        question: &Question,
        is_new: bool,
        has_more: bool,
        chain: &dyn Chain,
    ) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.strikes = 0;
        peer.barren = if is_new || !has_more { 0 } else { peer.barren + 1 };
        if peer.barren > MAX_BARREN {
            self.peers.heard(id);
            self.leave_race(id);
        }
        if is_new && has_more {
            self.peers.has_more(id);
            if matches!(self.phase, Phase::Following) {
                // A better chain, or one that may become better.
                let mut race = Race::new(self.stall_timeout);
                race.enter(id, now);
                self.phase = Phase::Leading(race);
            }
        }
        let (is_its_turn, compares) = match &mut self.phase {
            Phase::Leading(race) if race.contains(id) => {
                (true, is_new && race.won(id, now, now.saturating_duration_since(question.asked)))
            }
            // It is asked for the rest when the leader is done.
            Phase::Leading(_) => (false, false),
            Phase::Following => (true, false),
        };
        if has_more && is_its_turn {
            self.ask(now, id, chain);
            if compares {
                self.enter_another(now, chain);
            }
        }
    }

    /// The peer has shown its last header; or all that is wanted, then `known` is `None`. If its answer was empty, it has
    /// no more than `known` blocks.
    fn came_to_end(&mut self, now: Instant, id: PeerId, known: Option<u64>, chain: &dyn Chain) {
        let again = self.next_asking(now);
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.strikes = 0;
        peer.at = None;
        let announced = peer.announced.take();
        if peer.shown.is_none() {
            self.outputs.push_back(FlowOutput::ShowsNothing(id));
        }
        if let Some(known) = known {
            let claimed = peer.claimed;
            let boast = peer.forget_claim_above(known);
            let is_hollow = announced.is_some_and(|hash| chain.fork_point(hash).is_none());
            peer.hollow = if boast > 0 || is_hollow { peer.hollow + 1 } else { 0 };
            if boast > 0 {
                self.outputs.push_back(FlowOutput::Disbelieve(id));
            }
            if boast > HEIGHT_SLACK {
                peer.hollow = MAX_HOLLOW;
                if !peer.is_penalised {
                    peer.is_penalised = true;
                    let shown = peer.shown.map_or(0, |shown| shown.height);
                    self.outputs
                        .push_back(FlowOutput::Penalise(id, Fault::HeightNotShown { claimed, shown }));
                }
            }
        }
        self.peers.heard(id);
        self.peers.set_state(id, State::Answered { again });
        match &mut self.phase {
            Phase::Leading(race) if race.ends_with(id) => self.follow(),
            Phase::Leading(race) => race.leave(id),
            Phase::Following => {}
        }
    }

    /// Headers that link, and that nobody asked this peer for.
    fn unasked(&mut self, now: Instant, id: PeerId, has_more: bool, is_news: bool) {
        let again = self.next_asking(now);
        let Some(peer) = self.peers.get_mut(id) else { return };
        if !matches!(peer.state, State::Answered { .. }) {
            return; // It is asked or going to be.
        }
        if has_more {
            self.peers.has_more(id);
            self.peers.set_state(id, State::Fresh);
        } else if is_news {
            self.peers.set_state(id, State::Answered { again });
        }
    }

    /// The peer has a header, which is in the tree. False if that was known before.
    fn shows(&mut self, id: PeerId, last: BlockId, chain: &dyn Chain) -> bool {
        let Some(peer) = self.peers.get_mut(id) else { return false };
        let is_known = peer.shown.is_some_and(|shown| {
            // An ancestor of what it has shown is no news either.
            let reach = chain.fork_point(shown.hash).map_or(0, |point| point.height);
            shown.hash == last.hash || (is_best(last.hash, chain) && last.height <= reach)
        });
        if !is_known {
            peer.shown = Some(last);
            peer.claimed = peer.claimed.max(last.height);
            self.outputs.push_back(FlowOutput::Shows(id, last.hash));
        }
        !is_known
    }

    /// Counts full answers in a row that brought the peer no further, and says whether there are too many.
    fn repeats(&mut self, id: PeerId, last: Option<BlockId>) -> bool {
        let Some(peer) = self.peers.get_mut(id) else { return false };
        let is_repeated = last.is_some_and(|last| peer.at.is_some_and(|at| at.hash == last.hash));
        peer.repeats = if is_repeated { peer.repeats + 1 } else { 0 };
        peer.repeats >= MAX_REPEATS
    }

    /// Headers whose first parent is not known: an announcement far ahead of us, or no chain of ours.
    fn unlinked(&mut self, id: PeerId, count: usize, last: BlockHash, chain: &dyn Chain) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        // Who is not asked because of a claim can't show what it announces.
        let is_tiresome = peer.hollow >= MAX_HOLLOW && !peer.is_penalised;
        if count > MAX_ANNOUNCED || is_tiresome {
            return self.drop_peer(id, Fault::UnlinkedHeaders);
        }
        if let State::Asked(question) = &mut peer.state {
            question.has_unlinked = true;
        }
        self.tells_of(id, last, chain);
    }

    /// A peer tells that it has these blocks.
    pub(super) fn announced(&mut self, now: Instant, id: PeerId, blocks: &[BlockHash], chain: &dyn Chain) {
        let recent = &blocks[blocks.len().saturating_sub(MAX_ANNOUNCED)..];
        let is_known = |hash: BlockHash| chain.fork_point(hash).is_some();
        if let Some(&known) = recent.iter().rev().find(|&&hash| is_known(hash)) {
            let is_news = chain.find(known).is_some_and(|known| self.shows(id, known, chain));
            self.unasked(now, id, false, is_news);
        }
        if let Some(&unknown) = recent.iter().rev().find(|&&hash| !is_known(hash)) {
            self.tells_of(id, unknown, chain);
        }
    }

    /// A peer that was at its end tells of an unknown block: it is asked. If it is asked already, or going to be, that will
    /// do.
    fn tells_of(&mut self, id: PeerId, unknown: BlockHash, chain: &dyn Chain) {
        let is_at_stop = self.is_at_stop(chain);
        let Some(peer) = self.peers.get_mut(id) else { return };
        if matches!(peer.state, State::Answered { .. }) && peer.hollow < MAX_HOLLOW && !is_at_stop {
            peer.announced = Some(unknown);
            self.peers.set_state(id, State::Fresh);
        }
    }

    /// A peer claims another height. If it is more than is known, it is asked to show that, unless that was in vain before.
    pub(super) fn height(&mut self, id: PeerId, height: u64, chain: &dyn Chain) {
        let (tip, is_at_stop) = (chain.tip().height, self.is_at_stop(chain));
        let Some(peer) = self.peers.get_mut(id) else { return };
        let shown = peer.shown.map_or(0, |shown| shown.height);
        let is_above = height > tip.max(shown);
        if is_above && peer.hollow >= MAX_HOLLOW {
            return;
        }
        peer.claimed = height.max(shown);
        if is_above && matches!(peer.state, State::Answered { .. }) && !is_at_stop {
            self.peers.set_state(id, State::Fresh);
        }
    }
}
