//! Lists of blocks: whom to ask, what to make of the answers, and of none.

use std::time::Instant;

use tipward_peer::{PeerId, Want, wire::BlockHash};

use super::{
    Fault, InventoryFlow, Mode,
    line::REQUEST_EXPIRY,
    peer::{Answer, InventoryPeer, Next, Question},
    requests::{Announced, Reason},
};
use crate::{Chain, scheduler::flow::FlowOutput};

impl InventoryFlow {
    /// A peer tells that it has these blocks.
    pub(super) fn announced(&mut self, now: Instant, id: PeerId, blocks: &[BlockHash], chain: &dyn Chain) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        // Tells that a cut was reached and there is more; what is asked or will be already brings that.
        if blocks.iter().all(|hash| *hash == BlockHash::ZERO) {
            if peer.question.is_none() && peer.next == Next::Nothing && !blocks.is_empty() {
                peer.next = Next::FromTip;
            }
            return;
        }
        let question = peer.question.take();
        let is_led = self.mode != Mode::Following;
        if question.is_none() && (is_led || self.options.stop_at < u64::MAX) {
            // It is asked what it has when we are through. How high what it announces by itself may be nobody knows.
            let is_new = blocks.last().is_some_and(|hash| chain.fork_point(*hash).is_none());
            if is_new && peer.next == Next::Nothing {
                peer.next = Next::FromTip;
            }
            return;
        }
        // What a list brings may be counted from where it was asked from. But this one may be an announcement that has crossed the
        // question: who is asked again says the same again if it is not.
        let is_counted = question.is_some() && self.options.stop_at < u64::MAX;
        let is_shown = blocks.iter().any(|hash| chain.fork_point(*hash).is_some());
        if is_counted && !is_shown && peer.doubted != blocks.first().copied() {
            (peer.doubted, peer.last_question, peer.next) = (blocks.first().copied(), None, Next::FromTip);
            return;
        }
        let most = question.map_or(u64::MAX, |question| self.options.stop_at.saturating_sub(question.height));
        let (below_stop, above) =
            blocks.split_at(blocks.len().min(usize::try_from(most).unwrap_or(usize::MAX)));
        let leads = self.mode == Mode::Syncing(id) && question.is_some();
        let told = self.note(id, below_stop, leads, chain);
        // Also where no more blocks are wanted.
        if let Some(&shown) = blocks.iter().rev().find(|hash| chain.fork_point(**hash).is_some()) {
            self.shows(id, shown, chain);
        }
        let tip = self.tip.hash;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Some(question) = question {
            peer.alive = now;
            peer.poll_at = Some(now + self.options.poll_interval);
            peer.answer = match told.open {
                // What leads to an orphan is not all that the peer has.
                _ if question.stop != BlockHash::ZERO => Answer::Pending,
                0 => Answer::NoNews,
                _ => Answer::News(tip),
            };
        }
        let stop = question.map_or(BlockHash::ZERO, |question| question.stop);
        let is_cut = blocks.len() >= self.options.batch || !above.is_empty() || told.is_refused;
        let has_more = is_cut || blocks.contains(&BlockHash::ZERO);
        peer.reach = question
            .filter(|question| question.stop == BlockHash::ZERO && !has_more)
            .map(|question| question.height.saturating_add(blocks.len() as u64));
        match told.last {
            Some(block) if is_cut => peer.next = Next::After { block, stop },
            _ if told.is_refused => {
                peer.next = Next::FromTip;
                peer.rest(now);
            }
            _ if blocks.contains(&BlockHash::ZERO) => peer.next = Next::FromTip,
            _ => {}
        }
        let may_lead = peer.leads_from <= now && peer.serves_above(self.tip.height);
        if is_cut && told.open > 0 && may_lead && self.mode == Mode::Following {
            self.begin_sync(now, id);
        }
    }

    /// Wants what is new of a list.
    fn note(&mut self, id: PeerId, blocks: &[BlockHash], leads: bool, chain: &dyn Chain) -> Told {
        let mut told = Told::default();
        if leads {
            self.requests.begin_list();
        }
        for &hash in blocks.iter().filter(|hash| **hash != BlockHash::ZERO && !self.rejected.contains(**hash))
        {
            if chain.fork_point(hash).is_some() {
                // Nothing is wanted of it.
            } else if self.pool.contains(hash) {
                told.open += 1;
            } else {
                match self.requests.announce(hash, id, Reason::Listed) {
                    Announced::Taken => {
                        told.open += 1;
                        if leads {
                            self.requests.list(hash);
                        }
                    }
                    Announced::Refused => {
                        told.is_refused = true;
                        break;
                    }
                }
            }
            told.last = Some(hash);
        }
        told
    }

    /// The peer has this block, which is in the tree.
    pub(super) fn shows(&mut self, id: PeerId, hash: BlockHash, chain: &dyn Chain) {
        let (Some(peer), Some(point)) = (self.peers.get_mut(&id), chain.fork_point(hash)) else { return };
        let before = peer.shown.and_then(|shown| chain.fork_point(shown));
        if peer.shown != Some(hash) && before.is_none_or(|before| before.height <= point.height) {
            peer.shown = Some(hash);
            self.outputs.push_back(FlowOutput::Shows(id, hash));
        }
    }

    /// Whether the peer claims more than is known.
    pub(super) fn is_ahead(&self, peer: &InventoryPeer) -> bool {
        peer.claimed.min(self.options.stop_at) > self.tip.height
    }

    /// Keeps the sync peer, or takes another, or leaves sync mode.
    pub(super) fn choose_sync_peer(&mut self, now: Instant, chain: &dyn Chain) {
        if self.is_stopped() {
            self.mode = Mode::Following;
            return;
        }
        if let Mode::Syncing(id) = self.mode
            && !self.is_still_of_use(now, id, chain)
        {
            self.mode = Mode::Following;
        }
        if self.mode != Mode::Following {
            return;
        }
        let ahead = |peer: &InventoryPeer| self.is_ahead(peer);
        let equal = |peer: &InventoryPeer| peer.claimed == self.tip.height;
        let mut candidates = self.candidates(now, ahead);
        if candidates.is_empty() && self.peers.values().all(|peer| peer.poll_at.is_none()) {
            candidates = self.candidates(now, equal);
        }
        if let Some(id) = self.random.choice(candidates) {
            self.begin_sync(now, id);
        }
    }

    fn begin_sync(&mut self, now: Instant, id: PeerId) {
        self.mode = Mode::Syncing(id);
        self.grown = Some(now);
        if let Some(peer) = self.peers.get_mut(&id)
            && !matches!(peer.next, Next::After { .. })
        {
            peer.next = Next::FromTip;
        }
    }

    /// When the sync peer has to give way because nothing that comes is of use.
    pub(super) fn turn_ends(&self) -> Option<Instant> {
        self.grown.filter(|_| self.mode != Mode::Following).map(|grown| grown + REQUEST_EXPIRY)
    }

    /// A sync peer that brings what leads nowhere goes on with that, and others are asked for lists.
    fn take_turns(&mut self, now: Instant) {
        if self.turn_ends().is_some_and(|at| at <= now)
            && let Mode::Syncing(id) = self.mode
            && let Some(peer) = self.peers.get_mut(&id)
        {
            peer.leads_from = now + 2 * REQUEST_EXPIRY;
            self.mode = Mode::Following;
        }
    }

    fn candidates(&self, now: Instant, is_wanted: impl Fn(&InventoryPeer) -> bool) -> Vec<PeerId> {
        let is_fresh = |peer: &InventoryPeer| peer.last_question.is_none_or(|last| self.is_fresh(now, last));
        let is_candidate = |peer: &InventoryPeer| {
            peer.can_be_asked(now)
                && peer.leads_from <= now
                && peer.serves_above(self.tip.height)
                && peer.question.is_none()
                && is_wanted(peer)
                && is_fresh(peer)
        };
        self.peers.iter().filter(|(_, peer)| is_candidate(peer)).map(|(&id, _)| id).collect()
    }

    /// Whether the sync peer has more for us, as far as known. Who has brought all that it listed and claims still more is
    /// asked for that; who then has nothing new loses its claim.
    fn is_still_of_use(&mut self, now: Instant, id: PeerId, chain: &dyn Chain) -> bool {
        let tip = self.tip.hash;
        let Some(peer) = self.peers.get(&id).filter(|peer| peer.can_be_asked(now)) else { return false };
        if peer.question.is_some() || peer.next != Next::Nothing || self.requests.is_busy(id) {
            return true;
        }
        if !self.is_ahead(peer) {
            return false;
        }
        match peer.answer {
            Answer::Pending => self.ask_on(id),
            Answer::News(before) if before != tip => self.ask_on(id),
            // What it listed does not come, or comes from others: what becomes of the requests tells whose fault that is.
            Answer::News(_) => false,
            Answer::NoNews => {
                self.disbelieve(now, id, chain);
                false
            }
        }
    }

    fn ask_on(&mut self, id: PeerId) -> bool {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.next = Next::FromTip;
        }
        true
    }

    /// Whether a question like this may be answered differently now.
    fn is_fresh(&self, now: Instant, last: Question) -> bool {
        last.tip != self.tip.hash || last.asked + self.options.stall_timeout <= now
    }

    /// The peer was asked for what it claims and has not shown it.
    fn disbelieve(&mut self, now: Instant, id: PeerId, chain: &dyn Chain) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let point = peer.shown.and_then(|shown| chain.fork_point(shown));
        let (claimed, shown) = (peer.claimed, point.map_or(0, |point| point.height));
        peer.claimed = shown;
        self.outputs.push_back(FlowOutput::Disbelieve(id));
        // The height of what it has on a side branch is not known to us, but that it can't be more than the list is long: it may
        // have told the truth.
        let is_lie = peer.reach.is_some_and(|reach| reach < claimed);
        if !is_lie && peer.shown != point.map(|point| point.hash) {
            return;
        }
        peer.strike(now);
        let fault = Fault::HeightNotShown { claimed, shown };
        if peer.strikes >= self.options.max_strikes {
            self.drop_peer(now, id, fault);
        } else {
            self.outputs.push_back(FlowOutput::Penalise(id, fault));
        }
    }

    /// Asks the sync peer for lists, or everybody. Where no more blocks are wanted, everybody once: who has those that are known is
    /// shown by that.
    pub(super) fn ask_lists(&mut self, now: Instant, chain: &dyn Chain) {
        let due = |(&id, peer): (&PeerId, &InventoryPeer)| {
            let is_turn = match self.mode {
                Mode::Syncing(sync_peer) => sync_peer == id,
                Mode::Following => true,
            };
            let is_due = if self.is_stopped() {
                peer.poll_at.is_none()
            } else {
                peer.next != Next::Nothing || self.poll_due(id, peer).is_some_and(|at| at <= now)
            };
            (is_turn && is_due && peer.question.is_none() && peer.can_be_asked(now)).then_some(id)
        };
        let due: Vec<PeerId> = self.peers.iter().filter_map(due).collect();
        due.into_iter().for_each(|id| self.ask_list(now, id, chain));
    }

    fn ask_list(&mut self, now: Instant, id: PeerId, chain: &dyn Chain) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let (from, stop) = match peer.next {
            Next::To(orphan) if self.pool.contains(orphan) => (self.tip.hash, orphan),
            // It comes yet.
            Next::After { block, .. }
                if chain.fork_point(block).is_none()
                    && (self.requests.contains(block) || self.pool.contains(block)) =>
            {
                return;
            }
            Next::After { block, stop } if chain.fork_point(block).is_some() => (block, stop),
            Next::Nothing | Next::FromTip | Next::To(_) | Next::After { .. } => {
                (self.tip.hash, BlockHash::ZERO)
            }
        };
        let mut locator = chain.locator(from);
        if locator.len() > 1 {
            locator.remove(0); // A block below.
        }
        let Some(&after) = locator.first() else { return };
        let height = chain.find(after).map_or(0, |found| found.height);
        let question = Question { after, height, stop, tip: self.tip.hash, asked: now };
        let last = peer.last_question.filter(|last| (last.after, last.stop) == (after, stop));
        if let Some(last) = last.filter(|last| !self.is_fresh(now, *last)) {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.next = Next::Nothing;
                peer.poll_at = Some(last.asked + self.options.stall_timeout);
            }
            return;
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.question = Some(question);
        peer.last_question = Some(question);
        peer.next = Next::Nothing;
        self.outputs.push_back(FlowOutput::Ask(id, Want::BlocksAfter { locator, stop }));
    }

    /// When the answer to a question for a list is late: to a sync peer's, when another is taken instead.
    pub(super) fn answer_due(&self, id: PeerId, peer: &InventoryPeer) -> Option<Instant> {
        let since = peer.waits_since()?;
        let late = since + self.options.list_timeout;
        let replaced = since + peer.patience;
        let is_replaceable = self.mode == Mode::Syncing(id) && Some(replaced) > self.checked;
        Some(if is_replaceable { late.min(replaced) } else { late })
    }

    /// When the peer is asked although nothing tells that it has more; at once if it never was.
    pub(super) fn poll_due(&self, id: PeerId, peer: &InventoryPeer) -> Option<Instant> {
        let is_turn = match self.mode {
            Mode::Syncing(sync_peer) => sync_peer == id,
            Mode::Following => true,
        };
        (is_turn && peer.question.is_none()).then(|| peer.poll_at.unwrap_or(peer.rests_until))
    }

    /// Acts on questions that were not answered in time.
    pub(super) fn expire_lists(&mut self, now: Instant, chain: &dyn Chain) {
        self.take_turns(now);
        let is_open = |(&id, peer): (&PeerId, &InventoryPeer)| peer.question.map(|_| id);
        let open: Vec<PeerId> = self.peers.iter().filter_map(is_open).collect();
        for id in open {
            let Some(peer) = self.peers.get(&id) else { continue };
            let (Some(question), Some(since)) = (peer.question, peer.waits_since()) else { continue };
            if since + self.options.list_timeout <= now {
                self.unanswered(now, id, question, chain);
            } else if since + peer.patience <= now && self.mode == Mode::Syncing(id) {
                self.replace(now, id);
            }
        }
    }

    /// The sync peer is slow to answer: another takes its place, if there is one that claims as much.
    fn replace(&mut self, now: Instant, id: PeerId) {
        let is_better = |peer: &InventoryPeer| self.is_ahead(peer);
        if self.candidates(now, is_better).is_empty() {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.rest(now);
        }
        self.mode = Mode::Following;
    }

    /// A peer that has nothing to tell says nothing; one that claims more has not shown it.
    fn unanswered(&mut self, now: Instant, id: PeerId, question: Question, chain: &dyn Chain) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.question = None;
        peer.poll_at = Some(now + self.options.poll_interval);
        if question.stop != BlockHash::ZERO {
            peer.answer = Answer::Pending;
            return; // The way to an orphan is found by its parents, if at all.
        }
        peer.answer = Answer::NoNews;
        if peer.claimed > self.tip.height {
            // It may only have been slow.
            peer.poll_at = Some(now + peer.patience);
            self.disbelieve(now, id, chain);
        } else if peer.shown.is_none() {
            self.outputs.push_back(FlowOutput::ShowsNothing(id));
        }
    }
}

/// What a list has told.
#[derive(Debug, Default)]
struct Told {
    /// How many blocks are not in the tree, and wanted or orphans.
    open: usize,
    /// The last that is in the tree, or wanted, or an orphan.
    last: Option<BlockHash>,
    /// What follows the last could not be noted.
    is_refused: bool,
}
