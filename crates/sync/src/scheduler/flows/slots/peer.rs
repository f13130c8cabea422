//! What the slot-range flow knows of a peer.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tipward_peer::{PeerInfo, wire::BlockHash};

use crate::Chain;

/// The longest that a peer rests, and that it may send bytes which never become a block.
pub(super) const MAX_REST: Duration = Duration::from_secs(64);
/// After so many times its patience without a block a peer is not waited for any more, although bytes come all the time.
const TRICKLE: u32 = 8;
/// So many questions may wait for their end to be told.
const MAX_ASKED: usize = 8;

#[derive(Debug)]
pub(super) struct SlotPeer {
    /// The slot of its tip, as it says.
    pub(super) claimed: u64,
    /// The last block of the tree that it has shown, and its slot.
    pub(super) shown: Option<BlockHash>,
    pub(super) shown_slot: u64,
    /// The highest slot of a block that it has sent.
    pub(super) highest: u64,
    /// A block in this slot, which it has sent, builds on nothing that is known: its chain is another.
    pub(super) strayed: Option<(u64, BlockHash)>,
    /// The slot of the last block that it has sent, asked for slots, which is in the tree.
    pub(super) linked: u64,
    /// So many blocks that it has sent in answers build on nothing that is known, since one of its blocks was new.
    pub(super) strays: usize,
    /// It has shown its tip, or that it can't.
    pub(super) has_told: bool,
    /// Tips up to this slot are known, or can't be: they are not asked for again.
    pub(super) ended: Option<u64>,
    /// It is asked whatever it claims: it told of an unknown block, or it was not asked for long.
    pub(super) has_news: bool,
    /// It told of an unknown block.
    pub(super) has_announced: bool,
    /// Since its last question it brought a block that was new.
    pub(super) was_useful: bool,
    /// What it tells of unasked does not count before.
    pub(super) deaf_until: Instant,
    pub(super) standing: Standing,
    /// What it was asked, oldest first, until it tells the end. Peers answer in order. One at most is waited for.
    asked: VecDeque<Question>,
    /// When something came last, or it was asked.
    pub(super) alive: Instant,
    /// When a block came last, or it was asked.
    brought: Instant,
    /// We read nothing from it: it can't be late.
    pub(super) is_held: bool,
    pub(super) patience: Duration,
    pub(super) rests_until: Instant,
    /// Failures since it last brought something.
    pub(super) strikes: u32,
    /// How often it did not have what its own blocks build on, since one of them was new.
    pub(super) unlinked: u32,
    /// Questions in a row to which it brought nothing new.
    pub(super) fruitless: u32,
    pub(super) poll_at: Instant,
    /// It answers questions for ancestors.
    pub(super) knows_ancestors: bool,
}

/// What is known of a peer's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It was not heard yet.
    Fresh,
    /// It has answered.
    Heard,
    /// What it has sent builds on nothing in the tree.
    Strange,
}

/// A question that a peer was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) what: What,
    /// It was taken back: what may come yet is taken, and nobody waits for it.
    is_void: bool,
    /// The peer said that it does not have some of it.
    pub(super) is_denied: bool,
    /// Blocks that came.
    pub(super) came: u32,
    /// The slot that the peer claimed then.
    pub(super) claimed: u64,
    /// The highest slot of a block that it had sent before.
    pub(super) highest: u64,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// What follows our tip: one peer at a time brings that.
    Lead { start: u64, count: u32 },
    /// Blocks from a slot on that only this peer is asked for.
    Look { start: u64, count: u32 },
    /// Ancestors of a block.
    Ancestors(BlockHash),
    /// One block by its hash.
    Block(BlockHash),
    /// The past of the trusted block.
    Past,
}

/// What a block was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Never,
    ForSlots,
    ForAncestors,
    ForPast,
}

/// Why a peer is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// Nothing comes from it.
    Silent,
    /// Something comes all the time and never becomes a block.
    Endless,
}

impl What {
    /// From which slot on, and how many blocks.
    pub(super) fn slots(self) -> Option<(u64, u32)> {
        match self {
            Self::Lead { start, count } | Self::Look { start, count } => Some((start, count)),
            Self::Ancestors(_) | Self::Block(_) | Self::Past => None,
        }
    }

    fn fits(self, hash: BlockHash, slot: u64) -> bool {
        match self {
            Self::Lead { start, .. } | Self::Look { start, .. } => slot >= start,
            Self::Ancestors(_) | Self::Past => true,
            Self::Block(wanted) => wanted == hash,
        }
    }

    fn is_block(self) -> bool {
        matches!(self, Self::Block(_))
    }
}

impl SlotPeer {
    pub(super) fn new(info: &PeerInfo, patience: Duration, now: Instant) -> Self {
        Self {
            claimed: info.claimed_height,
            shown: None,
            shown_slot: 0,
            highest: 0,
            strayed: None,
            linked: 0,
            strays: 0,
            has_told: false,
            ended: None,
            has_news: false,
            has_announced: false,
            was_useful: false,
            deaf_until: now,
            standing: Standing::Fresh,
            asked: VecDeque::new(),
            alive: now,
            brought: now,
            is_held: false,
            patience,
            rests_until: now,
            strikes: 0,
            unlinked: 0,
            fruitless: 0,
            poll_at: now + MAX_REST,
            knows_ancestors: true,
        }
    }

    /// The question that is waited for.
    pub(super) fn open(&self) -> Option<&Question> {
        self.asked.iter().find(|question| !question.is_void)
    }

    /// Whether it can be asked something now.
    pub(super) fn is_free(&self, now: Instant) -> bool {
        self.open().is_none() && !self.is_held && self.rests_until <= now && self.asked.len() < MAX_ASKED
    }

    /// Whether it is asked something that it is expected to bring before long.
    pub(super) fn is_busy(&self, now: Option<Instant>) -> bool {
        self.open().is_some() && !self.is_held && !self.is_slow(now)
    }

    /// Whether a block has been long in coming. Not its fault, if bytes come.
    pub(super) fn is_slow(&self, now: Option<Instant>) -> bool {
        self.open().is_some() && now.is_some_and(|now| self.slow_at() <= now)
    }

    fn slow_at(&self) -> Instant {
        self.brought + self.patience * TRICKLE
    }

    /// Whether it claims a tip after `slot` that is not known.
    pub(super) fn is_ahead(&self, slot: u64) -> bool {
        self.claimed > slot && self.ended.is_none_or(|ended| self.claimed > ended)
    }

    /// Whether it has sent a block that builds on nothing, and still does.
    pub(super) fn strays(&self, chain: &dyn Chain) -> bool {
        self.strayed.is_some_and(|(_, hash)| chain.find(hash).is_none())
    }

    /// The peer says where its tip is. If it is lower than before, its chain is another.
    pub(super) fn claims(&mut self, slot: u64) {
        self.has_told &= slot <= self.highest && slot >= self.claimed;
        self.claimed = slot;
    }

    pub(super) fn ask(&mut self, what: What, now: Instant) {
        self.asked.push_back(Question {
            what,
            is_void: false,
            is_denied: false,
            came: 0,
            claimed: self.claimed,
            highest: self.highest,
        });
        (self.alive, self.brought) = (now, now);
    }

    /// A block came, perhaps one that was asked for.
    pub(super) fn answered(&mut self, hash: BlockHash, slot: u64, now: Instant, patience: Duration) -> Asked {
        let single = self.asked.iter().position(|question| question.what == What::Block(hash));
        let asked = if let Some(at) = single {
            self.asked.remove(at);
            Asked::ForAncestors
        } else {
            let oldest = self.asked.iter().position(|question| !question.what.is_block());
            let fits = |(_, question): &(usize, &Question)| question.what.fits(hash, slot);
            let Some((at, question)) = self.asked.iter().enumerate().find(fits) else { return Asked::Never };
            let asked = match question.what {
                What::Lead { .. } | What::Look { .. } => Asked::ForSlots,
                What::Ancestors(_) | What::Block(_) => Asked::ForAncestors,
                What::Past => Asked::ForPast,
            };
            if let Some(question) = self.asked.get_mut(at).filter(|_| oldest == Some(at)) {
                question.came += 1;
            }
            asked
        };
        self.brought = now;
        self.strikes = 0;
        self.patience = patience;
        asked
    }

    /// The peer does not have some of what it was asked for. That ends a question for one block.
    pub(super) fn denies(&mut self, blocks: &[BlockHash]) {
        self.asked.retain(|question| !matches!(question.what, What::Block(hash) if blocks.contains(&hash)));
        if let Some(question) = self.asked.front_mut() {
            question.is_denied = true;
        }
    }

    /// The peer has said all that it says to its oldest question: that, unless nobody waits for it any more.
    pub(super) fn ends(&mut self) -> Option<Question> {
        let oldest = self.asked.iter().position(|question| !question.what.is_block())?;
        self.asked.remove(oldest).filter(|question| !question.is_void)
    }

    /// The peer can't be asked what it is asked.
    pub(super) fn refuses(&mut self) {
        if let Some(at) = self.asked.iter().position(|question| !question.is_void) {
            self.asked.remove(at);
        }
    }

    /// Nothing is read from it any more, or again: its time starts anew then.
    pub(super) fn hold(&mut self, is_held: bool, now: Instant) {
        self.is_held = is_held;
        (self.alive, self.brought) = (now, now);
    }

    /// Gives up what it was asked. Nobody tells the end of a question for one block.
    pub(super) fn give_up(&mut self) {
        self.asked.retain(|question| !question.what.is_block());
        self.asked.iter_mut().for_each(|question| question.is_void = true);
    }

    /// It is left alone for a while.
    pub(super) fn rest(&mut self, now: Instant) {
        self.rests_until = now + self.patience;
        self.patience = (self.patience * 2).min(MAX_REST);
    }

    /// A block of the tree came from it, as an answer to somebody else's question.
    pub(super) fn passes(&mut self, slot: u64, now: Instant) {
        self.alive = now;
        if let Some(question) = self.asked.front_mut().filter(|question| question.what.slots().is_some()) {
            question.came += 1;
            self.highest = self.highest.max(slot);
        }
    }

    /// It has brought nothing new.
    pub(super) fn was_in_vain(&mut self, now: Instant, pause: Duration) {
        let pause = pause.saturating_mul(1 << self.fruitless.min(16)).min(MAX_REST);
        self.fruitless += 1;
        self.deaf_until = now + pause;
    }

    /// When it is known that nothing comes, if nothing does, and why.
    pub(super) fn late_at(&self) -> Option<(Instant, Late)> {
        self.open().filter(|_| !self.is_held)?;
        let (silent, endless) = (self.alive + self.patience, self.brought + MAX_REST);
        Some(if silent <= endless { (silent, Late::Silent) } else { (endless, Late::Endless) })
    }

    /// When others are to take over.
    pub(super) fn hands_over_at(&self) -> Option<Instant> {
        self.open().filter(|_| !self.is_held).map(|_| self.slow_at())
    }
}
