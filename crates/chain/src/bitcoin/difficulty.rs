//! Which target a header must claim (Bitcoin Core, `GetNextWorkRequired`; BIP 94; for BSV its node's `pow.cpp`).

use tipward_sync::peer::wire::bitcoin::{CompactTarget, Difficulty, Network, Target, Work};

use crate::{Branch, HeaderError, HeaderNode};

/// A period between two targets, in blocks.
pub(super) const INTERVAL: u64 = 2016;
/// How many seconds a block should take.
const SPACING: u32 = 600;
/// How many seconds a period should take.
const TIMESPAN: u32 = 14 * 24 * 60 * 60;
/// After so many seconds a block is late.
const LATE: u32 = 2 * SPACING;
/// The emergency rule looks at so many blocks, and at whether they took so many seconds.
const EMERGENCY_BLOCKS: u64 = 6;
const EMERGENCY_SECONDS: u32 = 12 * 60 * 60;
/// The DAA looks at so many blocks.
const DAA_BLOCKS: u64 = 144;

/// The target of a header with this time, on top of a branch that ends with `parent`.
pub(super) fn required(
    network: &Network,
    branch: &dyn Branch,
    parent: &HeaderNode,
    time: u32,
) -> Result<CompactTarget, HeaderError> {
    let rule = Rule { limit: network.pow_limit, branch, parent, time };
    match network.difficulty {
        Difficulty::Fixed => Ok(CompactTarget(rule.parent.bits)),
        Difficulty::Retarget { easy_when_late, bip94 } => {
            if rule.ends_period() {
                rule.retarget(bip94)
            } else if easy_when_late {
                Ok(rule.easy_when_late())
            } else {
                Ok(CompactTarget(rule.parent.bits))
            }
        }
        Difficulty::Daa { height, easy_when_late } if rule.parent.id.height >= height => {
            if easy_when_late && rule.is_late() { Ok(network.pow_limit) } else { rule.daa() }
        }
        Difficulty::Daa { easy_when_late, .. } => {
            if rule.ends_period() {
                rule.retarget(false)
            } else if easy_when_late {
                Ok(rule.easy_when_late())
            } else {
                rule.emergency()
            }
        }
    }
}

/// From what height on headers are needed to check any that follows the one at `height`.
pub(super) fn past(network: &Network, height: u64) -> u64 {
    let median = height.saturating_sub(10);
    let period = height - height % INTERVAL;
    let daa = height.saturating_sub(DAA_BLOCKS + 2);
    match network.difficulty {
        Difficulty::Fixed => median,
        Difficulty::Retarget { .. } => median.min(period),
        Difficulty::Daa { height: from, .. } if height >= from => daa,
        // The DAA may begin before the period ends. The emergency rule needs less.
        Difficulty::Daa { .. } => daa.min(period),
    }
}

/// What all rules look at.
struct Rule<'a> {
    limit: CompactTarget,
    branch: &'a dyn Branch,
    parent: &'a HeaderNode,
    /// The time of the header that is to be checked.
    time: u32,
}

impl Rule<'_> {
    fn at(&self, height: u64) -> Result<HeaderNode, HeaderError> {
        self.branch.at(height).ok_or(HeaderError::NoPast { height })
    }

    /// Whether the parent is the last block of a period.
    fn ends_period(&self) -> bool {
        (self.parent.id.height + 1).is_multiple_of(INTERVAL)
    }

    fn is_late(&self) -> bool {
        self.time > self.parent.time.saturating_add(LATE)
    }

    /// A new target by the time that a period took: from its first block to its last, and not to the first of the next.
    fn retarget(&self, bip94: bool) -> Result<CompactTarget, HeaderError> {
        let first = self.at(self.parent.id.height + 1 - INTERVAL)?;
        let took = self.parent.time.saturating_sub(first.time).clamp(TIMESPAN / 4, TIMESPAN * 4);
        let old = if bip94 { first.bits } else { self.parent.bits };
        Ok(self.scaled(old, took, TIMESPAN))
    }

    /// The easiest target for a late block; for others that of the last block of the period that was not so easy.
    fn easy_when_late(&self) -> CompactTarget {
        if self.is_late() {
            return self.limit;
        }
        let is_real =
            |node: &HeaderNode| node.bits != self.limit.0 || node.id.height.is_multiple_of(INTERVAL);
        // Where the tree begins, it begins with a whole period.
        self.branch.back().find(is_real).map_or(self.limit, |node| CompactTarget(node.bits))
    }

    /// The parent's target, or an easier one after six blocks that took twelve hours.
    fn emergency(&self) -> Result<CompactTarget, HeaderError> {
        let &HeaderNode { id, bits, .. } = self.parent;
        if bits == self.limit.0 {
            return Ok(self.limit);
        }
        let median = |height: u64| {
            self.branch.median_time(height).ok_or(HeaderError::NoPast { height: height.saturating_sub(10) })
        };
        // Only targets other than the limit get here, and the first period of a chain has none.
        let before = median(id.height.saturating_sub(EMERGENCY_BLOCKS))?;
        if median(id.height)?.saturating_sub(before) < EMERGENCY_SECONDS {
            return Ok(CompactTarget(bits));
        }
        Ok(self.scaled(bits, 5, 4))
    }

    /// A new target by the work of the last 144 blocks, and the time that they took.
    fn daa(&self) -> Result<CompactTarget, HeaderError> {
        let height = self.parent.id.height;
        let last = self.suitable(height)?;
        let first = self.suitable(height.saturating_sub(DAA_BLOCKS))?;
        let took = last.time.saturating_sub(first.time).clamp(72 * SPACING, 288 * SPACING);
        let work = last.work.checked_sub(first.work).unwrap_or(Work::ZERO);
        Ok(self.limited(work.scaled(SPACING, took).to_target()))
    }

    /// Of the three blocks up to this height, the one with the middle time. Which one of equals, the exchanges decide.
    fn suitable(&self, height: u64) -> Result<HeaderNode, HeaderError> {
        let at = |back: u64| self.at(height.saturating_sub(back));
        let mut blocks = [at(2)?, at(1)?, at(0)?];
        for (one, other) in [(0, 2), (0, 1), (1, 2)] {
            if blocks[one].time > blocks[other].time {
                blocks.swap(one, other);
            }
        }
        Ok(blocks[1])
    }

    /// The bits of a header in the tree, which are a target, times `by / over`.
    fn scaled(&self, bits: u32, by: u32, over: u32) -> CompactTarget {
        let target = CompactTarget(bits).to_target();
        target.map_or(self.limit, |target| self.limited(target.scaled(by, over)))
    }

    fn limited(&self, target: Target) -> CompactTarget {
        self.limit.to_target().map_or(self.limit, |limit| target.min(limit).to_compact())
    }
}
