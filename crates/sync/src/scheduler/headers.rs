//! Headers: whom to ask, and what to make of the answers.

use std::time::Instant;

use tipward_peer::{
    PeerId, Want,
    wire::{BlockHash, Header},
};

use super::{Fault, Output, Phase, Scheduler, peers::HeaderState};
use crate::{Chain, Event, RefusedHeaders};

/// An announcement by headers has at most so many (Bitcoin Core's limit); more that do not link are no announcement.
const MAX_ANNOUNCED: usize = 8;
/// After so many announcements in a row that do not link, a peer is dropped.
const MAX_UNLINKED: u32 = 3;
/// How many intervals to leave a peer alone that did not answer.
const FAILED_REST: u32 = 3;

impl Scheduler {
    /// Acts on requests for headers that were not answered in time.
    pub(super) fn check_headers(&mut self, now: Instant) {
        let late: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, peer)| matches!(peer.headers, HeaderState::Asked { deadline } if deadline <= now))
            .map(|(&id, _)| id)
            .collect();
        for id in late {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            if peer.is_sending(now) {
                // The answer waits behind blocks that flow.
                peer.headers = HeaderState::Asked { deadline: now + self.options.header_timeout };
                continue;
            }
            peer.headers = HeaderState::Failed { until: now + self.options.header_timeout * FAILED_REST };
            peer.silences += 1;
            if self.phase == Phase::Headers(Some(id)) {
                self.phase = Phase::Headers(None);
            }
            if peer.silences >= self.options.max_strikes {
                self.drop_peer(id, Fault::NoHeaders);
            }
        }
    }

    /// Asks one peer for headers, or all of them once one has no more.
    pub(super) fn ask_headers(&mut self, now: Instant, chain: &dyn Chain) {
        let may_be_asked = |state: HeaderState| match state {
            HeaderState::Fresh => true,
            HeaderState::Asked { .. } => false,
            HeaderState::Answered { again: at } | HeaderState::Failed { until: at } => at <= now,
        };
        match self.phase {
            Phase::Headers(Some(_)) => {}
            Phase::Headers(None) => {
                let candidates = self.peers.iter().filter(|(_, peer)| may_be_asked(peer.headers));
                // Claims are hints, but a peer that claims little has little to give.
                let best = candidates.max_by_key(|(id, peer)| (peer.claimed, std::cmp::Reverse(**id)));
                if let Some((&id, _)) = best {
                    self.phase = Phase::Headers(Some(id));
                    self.ask_headers_of(now, id, chain.locator(chain.tip().hash));
                }
            }
            Phase::Blocks => {
                let due: Vec<PeerId> = self
                    .peers
                    .iter()
                    .filter(|(_, peer)| may_be_asked(peer.headers))
                    .map(|(&id, _)| id)
                    .collect();
                for id in due {
                    self.ask_headers_of(now, id, locator_below_tip(chain));
                }
            }
        }
    }

    fn ask_headers_of(&mut self, now: Instant, id: PeerId, locator: Vec<BlockHash>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.headers = HeaderState::Asked { deadline: now + self.options.header_timeout };
        self.outputs.push_back(Output::Ask(id, Want::HeadersAfter(locator)));
    }

    pub(super) fn headers(
        &mut self,
        now: Instant,
        id: PeerId,
        headers: &[Header],
        more: bool,
        chain: &mut dyn Chain,
    ) {
        if headers.is_empty() {
            return self.answered(now, id);
        }
        let accepted = match chain.accept(headers) {
            Ok(accepted) => accepted,
            Err(RefusedHeaders::UnknownParent { .. }) => return self.unlinked(now, id, headers.len(), chain),
            Err(RefusedHeaders::Invalid(reason)) => return self.drop_peer(id, Fault::InvalidHeaders(reason)),
            Err(RefusedHeaders::Store(reason)) => {
                self.is_over = true;
                return self.outputs.push_back(Output::Failed(reason));
            }
        };
        if accepted.added > 0 {
            self.outputs.push_back(Output::Headers(accepted.added));
        }
        if let Some(update) = &accepted.update {
            let keep = update.keep;
            self.best_chain_changed(keep, chain);
        }
        let at_stop = self.options.stop_at.is_some_and(|stop| chain.tip().height >= stop);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.unlinked = 0;
        let repeated = accepted.added == 0 && peer.tip.is_some() && peer.tip == accepted.last;
        if let Some(last) = accepted.last {
            peer.tip = Some(last);
            peer.reach = chain.fork_point(last).map(|point| point.height);
            peer.claimed = peer.claimed.max(peer.reach.unwrap_or(0));
        }
        // Cut short where a limit was reached: more is not wanted.
        let is_whole = accepted.last == headers.last().map(|header| header.hash);
        match accepted.last.filter(|_| is_whole) {
            Some(_) if more && repeated => self.drop_peer(id, Fault::RepeatedHeaders),
            Some(last) if more && !at_stop => self.ask_headers_of(now, id, chain.locator(last)),
            _ => self.answered(now, id),
        }
    }

    /// The peer has shown its last header.
    fn answered(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.silences = 0;
        peer.headers = HeaderState::Answered { again: now + self.options.header_interval };
        if self.phase == Phase::Headers(Some(id)) {
            self.phase = Phase::Blocks;
        }
    }

    /// Headers whose first parent is not known: an announcement far ahead of us, or no chain of ours.
    fn unlinked(&mut self, now: Instant, id: PeerId, count: usize, chain: &dyn Chain) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.unlinked += 1;
        if count > MAX_ANNOUNCED || peer.unlinked >= MAX_UNLINKED {
            return self.drop_peer(id, Fault::UnlinkedHeaders);
        }
        self.ask_headers_of(now, id, chain.locator(chain.tip().hash));
    }

    pub(super) fn announced(&mut self, now: Instant, id: PeerId, blocks: &[BlockHash], chain: &dyn Chain) {
        let is_unknown = |hash: &BlockHash| chain.fork_point(*hash).is_none();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        // While headers come from one peer, its answer brings what others announce, or asking them afterwards does.
        if self.phase == Phase::Blocks && !peer.awaits_headers() && blocks.iter().any(is_unknown) {
            self.ask_headers_of(now, id, locator_below_tip(chain));
        }
    }

    /// The best chain is another from height `keep` on: tell, and measure anew what each peer has of it.
    fn best_chain_changed(&mut self, keep: u64, chain: &dyn Chain) {
        let tip = chain.tip();
        let old = self.header_tip.replace(tip);
        self.outputs.push_back(Output::Event(Event::Headers { tip }));
        if let Some(old_tip) = old.filter(|old| self.options.headers_only && keep <= old.height)
            && let Some(common) = chain.fork_point(old_tip.hash)
        {
            self.outputs.push_back(Output::Event(Event::Reorg { old_tip, common }));
        }
        for peer in self.peers.values_mut() {
            if let Some(point) = peer.tip.and_then(|tip| chain.fork_point(tip)) {
                peer.reach = Some(point.height);
            }
        }
        self.realign(chain);
    }
}

/// A locator from below our tip, so that a peer which has the same tip answers with it, and shows that it has it.
fn locator_below_tip(chain: &dyn Chain) -> Vec<BlockHash> {
    let tip = chain.tip();
    let below = tip.height.checked_sub(1).and_then(|height| chain.best_at(height)).unwrap_or(tip.hash);
    chain.locator(below)
}
