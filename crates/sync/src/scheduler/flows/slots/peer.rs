//! What the slot-range flow knows of a peer.

use std::time::{Duration, Instant};

use tipward_peer::{PeerInfo, wire::BlockHash};

/// The longest that a peer rests.
pub(super) const MAX_REST: Duration = Duration::from_secs(64);
/// So many times its patience may pass between two blocks, although bytes come all the time.
const TRICKLE: u32 = 8;

#[derive(Debug)]
pub(super) struct SlotPeer {
    /// The slot of its tip, as it says.
    pub(super) claimed: u64,
    /// The last block of the tree that it has shown.
    pub(super) shown: Option<BlockHash>,
    /// The highest slot of what it has shown.
    pub(super) shown_slot: u64,
    /// The highest slot of a block that it has sent.
    pub(super) highest: u64,
    /// Tips up to this slot have brought nothing new: they are not asked for again.
    pub(super) ended: Option<u64>,
    /// It is asked whatever it claims: it is new, it told of an unknown block, or it was not asked for long.
    pub(super) has_news: bool,
    /// It brought a block in this round that the tree took.
    pub(super) was_useful: bool,
    /// It was asked in this round.
    pub(super) was_asked: bool,
    /// What it tells of unasked does not count before.
    pub(super) deaf_until: Instant,
    pub(super) standing: Standing,
    pub(super) open: Option<Open>,
    /// Questions that are closed for us and whose end it may still tell.
    pub(super) owed: usize,
    /// When something came last, or it was asked.
    pub(super) alive: Instant,
    /// When a block came last, or it was asked.
    pub(super) brought: Instant,
    /// We read nothing from it: it can't be late.
    pub(super) is_held: bool,
    pub(super) patience: Duration,
    pub(super) rests_until: Instant,
    /// Failures since it last brought something.
    pub(super) strikes: u32,
    /// How often nobody had what its blocks build on, since one of them was new.
    pub(super) unlinked: u32,
    /// Rounds in a row in which it brought nothing new.
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
    /// It was asked, or another with the same tip was.
    Heard,
    /// It has sent blocks, none of which builds on the tree.
    Strange,
}

/// A question that a peer has yet to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Open {
    /// Blocks from this slot on; so many came, of so many.
    Slots { start: u64, count: u32, came: u32 },
    /// Ancestors of a block; so many came.
    Ancestors { came: u32 },
    /// One block by its hash.
    Block(BlockHash),
    /// The past of the trusted block; so many came.
    Past { came: u32 },
}

impl SlotPeer {
    pub(super) fn new(info: &PeerInfo, patience: Duration, now: Instant) -> Self {
        Self {
            claimed: info.claimed_height,
            shown: None,
            shown_slot: 0,
            highest: 0,
            ended: None,
            has_news: true,
            was_useful: false,
            was_asked: false,
            deaf_until: now,
            standing: Standing::Fresh,
            open: None,
            owed: 0,
            alive: now,
            brought: now,
            is_held: false,
            patience,
            rests_until: now,
            strikes: 0,
            unlinked: 0,
            fruitless: 0,
            poll_at: now,
            knows_ancestors: true,
        }
    }

    pub(super) fn is_free(&self, now: Instant) -> bool {
        self.open.is_none() && self.rests_until <= now
    }

    /// Whether it claims a tip after `slot` of which it is not known that it brings nothing.
    pub(super) fn is_ahead(&self, slot: u64) -> bool {
        self.claimed > slot && self.ended.is_none_or(|ended| self.claimed > ended)
    }

    /// Whether it has to be asked in the next round, which is from `slot` on.
    pub(super) fn is_wanted(&self, slot: u64, now: Instant) -> bool {
        self.rests_until <= now && (self.is_ahead(slot) || self.has_news && self.deaf_until <= now)
    }

    pub(super) fn ask(&mut self, open: Open, now: Instant) {
        self.open = Some(open);
        (self.alive, self.brought) = (now, now);
    }

    /// Nothing is read from it any more, or again: its time starts anew then.
    pub(super) fn hold(&mut self, is_held: bool, now: Instant) {
        self.is_held = is_held;
        (self.alive, self.brought) = (now, now);
    }

    /// Gives up what it was asked.
    pub(super) fn give_up(&mut self) {
        if !matches!(self.open.take(), None | Some(Open::Block(_))) {
            self.owed += 1;
        }
    }

    /// Its tip has brought nothing new.
    pub(super) fn end_tip(&mut self, now: Instant, slot: u64, pause: Duration) {
        let pause = pause.saturating_mul(1 << self.fruitless.min(16)).min(MAX_REST);
        self.fruitless += 1;
        if self.claimed > slot {
            self.ended = Some(self.claimed);
            self.rests_until = self.rests_until.max(now + pause);
        } else {
            self.deaf_until = now + pause;
        }
    }

    /// When it is known that nothing comes, if nothing does.
    pub(super) fn late_at(&self) -> Option<Instant> {
        self.open.as_ref().filter(|_| !self.is_held)?;
        Some((self.alive + self.patience).min(self.brought + self.patience * TRICKLE))
    }
}
