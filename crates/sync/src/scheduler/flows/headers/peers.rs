//! What the flow knows of its peers. Whose turn it is, is found without looking at all of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tipward_peer::{
    PeerId,
    wire::{BlockHash, Header},
};

use crate::{BlockId, Chain};

/// The peers, by what is next for them.
#[derive(Debug, Default)]
pub(super) struct Peers {
    all: BTreeMap<PeerId, HeaderPeer>,
    /// Those in [`State::Fresh`].
    fresh: BTreeSet<PeerId>,
    /// [`State::timer`] of all.
    timers: BTreeSet<(Instant, PeerId)>,
    /// Those that have not come to their end, and have not failed to.
    unheard: BTreeSet<PeerId>,
}

#[derive(Debug)]
pub(super) struct HeaderPeer {
    /// Changed by [`Peers::set_state`] only.
    pub(super) state: State,
    /// The height that it claims: a hint.
    pub(super) claimed: u64,
    /// It was penalised for its claim, which happens once.
    pub(super) is_penalised: bool,
    /// The last header that it has shown and that is in the tree. On a branch beside the best the height may be too low.
    pub(super) shown: Option<BlockId>,
    /// Where its last full answer ended, until it has come to its end.
    pub(super) at: Option<BlockId>,
    /// When bytes of a block came from it.
    pub(super) progress: Option<Instant>,
    /// Nothing is read from it.
    pub(super) is_held: bool,
    /// Unanswered questions in a row.
    pub(super) strikes: u32,
    /// The block that it announced, and that made it be asked.
    pub(super) announced: Option<BlockHash>,
    /// Answers in a row that did not show what the peer had announced or claimed.
    pub(super) hollow: u32,
    /// Full answers in a row that ended where the one before did.
    pub(super) repeats: u32,
    /// Full answers in a row with nothing that is not in the tree.
    pub(super) barren: u32,
}

/// Where a peer is with its headers.
#[derive(Debug)]
pub(super) enum State {
    /// To be asked when its turn comes.
    Fresh,
    /// Asked.
    Asked(Question),
    /// Has shown its last header; to be asked again at.
    Answered { again: Instant },
    /// Did not answer; not to be asked before, but the answer may still come.
    Resting { until: Instant, unanswered: Question },
}

impl State {
    fn timer(&self) -> Option<Instant> {
        match self {
            Self::Fresh => None,
            Self::Asked(question) => Some(question.deadline),
            Self::Answered { again: at } | Self::Resting { until: at, .. } => Some(*at),
        }
    }
}

/// A question for headers.
#[derive(Debug, Clone)]
pub(super) struct Question {
    /// Highest first.
    pub(super) locator: Vec<BlockHash>,
    /// The height of its first block: who has nothing to answer with, is not higher.
    pub(super) top: u64,
    pub(super) asked: Instant,
    /// Headers have come since that link to nothing known: an announcement, or all that the peer has for an answer.
    pub(super) has_unlinked: bool,
    /// When the answer is late.
    pub(super) deadline: Instant,
}

impl Question {
    /// What a peer that has shown this much, if it did, has on top of it and of the best chain.
    pub(super) fn new(shown: Option<BlockId>, now: Instant, timeout: Duration, chain: &dyn Chain) -> Self {
        let tip = chain.tip();
        // From below our tip, so that a peer which has the same tip answers with it, and shows that it has it.
        let top = tip.height.saturating_sub(1);
        let mut locator = chain.locator(chain.best_at(top).unwrap_or(tip.hash));
        if let Some(shown) = shown.filter(|shown| shown.height <= top || !is_best(shown.hash, chain)) {
            if is_best(shown.hash, chain) {
                // It need not repeat what lies below, wherever its chain leaves ours.
                locator.retain(|&hash| chain.fork_point(hash).is_some_and(|at| at.height > shown.height));
            } else {
                locator.clear();
            }
            locator.extend(chain.locator(shown.hash));
        }
        Self { locator, top, asked: now, has_unlinked: false, deadline: now + timeout }
    }

    /// Whether these headers follow the highest block of the locator that their sender has.
    fn is_answered_by(&self, headers: &[Header]) -> bool {
        let Some(first) = headers.first() else { return true };
        let Some(at) = self.locator.iter().position(|&hash| hash == first.parent) else { return false };
        let higher = at.checked_sub(1).map(|above| self.locator[above]);
        higher.is_none_or(|higher| headers.iter().all(|header| header.hash != higher))
    }
}

pub(super) fn is_best(hash: BlockHash, chain: &dyn Chain) -> bool {
    chain.fork_point(hash).is_some_and(|point| point.hash == hash)
}

impl HeaderPeer {
    /// Forgets a claim that is above this and above what was shown, and says by how much it is.
    pub(super) fn forget_claim_above(&mut self, known: u64) -> u64 {
        let known = self.shown.map_or(known, |shown| known.max(shown.height));
        let boast = self.claimed.saturating_sub(known);
        self.claimed -= boast;
        boast
    }
}

impl Peers {
    pub(super) fn insert(&mut self, id: PeerId, claimed: u64) {
        let peer = HeaderPeer {
            state: State::Fresh,
            claimed,
            is_penalised: false,
            shown: None,
            at: None,
            progress: None,
            is_held: false,
            strikes: 0,
            announced: None,
            hollow: 0,
            repeats: 0,
            barren: 0,
        };
        self.all.insert(id, peer);
        self.fresh.insert(id);
        self.unheard.insert(id);
    }

    pub(super) fn remove(&mut self, id: PeerId) {
        self.set_state(id, State::Fresh);
        self.fresh.remove(&id);
        self.unheard.remove(&id);
        self.all.remove(&id);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn get_mut(&mut self, id: PeerId) -> Option<&mut HeaderPeer> {
        self.all.get_mut(&id)
    }

    pub(super) fn set_state(&mut self, id: PeerId, state: State) {
        let Some(peer) = self.all.get_mut(&id) else { return };
        if let Some(at) = peer.state.timer() {
            self.timers.remove(&(at, id));
        }
        if let Some(at) = state.timer() {
            self.timers.insert((at, id));
        }
        if matches!(state, State::Fresh) {
            self.fresh.insert(id);
        } else {
            self.fresh.remove(&id);
        }
        peer.state = state;
    }

    /// The open question that these headers answer, or one that was given up. It is open no more.
    pub(super) fn close_question(&mut self, id: PeerId, headers: &[Header]) -> Option<Question> {
        let question = match &self.all.get(&id)?.state {
            State::Asked(question) | State::Resting { unanswered: question, .. } => question,
            State::Fresh | State::Answered { .. } => return None,
        };
        let question = question.is_answered_by(headers).then(|| question.clone())?;
        self.set_state(id, State::Fresh);
        Some(question)
    }

    /// A branch is not in the tree any more. Those who have shown it have this block for certain, and are asked what else.
    pub(super) fn rejected(&mut self, parent: BlockId, chain: &dyn Chain) {
        let is_lost = |at: Option<BlockId>| at.is_some_and(|at| chain.find(at.hash).is_none());
        let mut again = Vec::new();
        for (&id, peer) in &mut self.all {
            if is_lost(peer.at) {
                peer.at = None;
            }
            if is_lost(peer.shown) {
                (peer.shown, peer.claimed) = (Some(parent), parent.height);
                again.extend(matches!(peer.state, State::Answered { .. }).then_some(id));
            }
        }
        again.into_iter().for_each(|id| self.set_state(id, State::Fresh));
    }

    pub(super) fn hold(&mut self, id: PeerId) {
        if let Some(peer) = self.all.get_mut(&id) {
            peer.is_held = true;
        }
    }

    /// The time to answer starts anew.
    pub(super) fn release(&mut self, id: PeerId, now: Instant) {
        if let Some(peer) = self.all.get_mut(&id) {
            peer.is_held = false;
        }
        self.progress(id, now);
    }

    pub(super) fn progress(&mut self, id: PeerId, now: Instant) {
        if let Some(peer) = self.all.get_mut(&id) {
            peer.progress = Some(now);
        }
    }

    /// A peer whose timer has run out, in the order of the timers. Its timer is not told again.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<PeerId> {
        let &(_, id) = self.timers.first().filter(|(at, _)| *at <= now)?;
        self.timers.pop_first();
        Some(id)
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|&(at, _)| at)
    }

    pub(super) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    pub(super) fn first_fresh(&self) -> Option<PeerId> {
        self.fresh.first().copied()
    }

    /// Those that may be asked: who claims to be higher than this, and the others.
    pub(super) fn fresh_by_claim(&self, height: u64) -> (Vec<PeerId>, Vec<PeerId>) {
        self.fresh.iter().partition(|id| self.all.get(id).is_some_and(|peer| peer.claimed > height))
    }

    pub(super) fn has_fresh_above(&self, height: u64) -> bool {
        self.fresh.iter().any(|id| self.all.get(id).is_some_and(|peer| peer.claimed > height))
    }

    pub(super) fn any_answered(&self) -> bool {
        self.all.values().any(|peer| matches!(peer.state, State::Answered { .. }))
    }

    /// The peer has come to its end, or failed to.
    pub(super) fn heard(&mut self, id: PeerId) {
        self.unheard.remove(&id);
    }

    /// The peer has more, which it has yet to show.
    pub(super) fn has_more(&mut self, id: PeerId) {
        if self.all.contains_key(&id) {
            self.unheard.insert(id);
        }
    }

    /// Whether there are peers and all were heard.
    pub(super) fn all_heard(&self) -> bool {
        self.unheard.is_empty() && !self.all.is_empty()
    }
}
