//! What the range flow knows of a peer.

use std::{
    collections::VecDeque,
    ops::Range,
    time::{Duration, Instant},
};

use tipward_peer::{PeerInfo, wire::BlockHash};

use crate::BlockId;

/// The longest that a peer may bring nothing, and that it rests after that.
pub(super) const MAX_PATIENCE: Duration = Duration::from_secs(64);
/// How many blocks a peer is asked for at first; more, or fewer, when its speed is known.
const FIRST_QUOTA: u32 = 16;
/// How long a peer should take to answer one question: long enough to hide the way there and back, short enough that
/// others can take over.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// So many ranges that did not come in time are taken if they come later.
const MAX_LATE: usize = 8;
/// A peer that could not show what it claims so often is not taken by its word any more: nobody waits for what it has not
/// shown.
const MAX_DOUBTS: u32 = 3;
/// What it could not show is forgiven after so long without another time.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct RangePeer {
    /// The height that it claims: a hint.
    pub(super) claimed: u64,
    /// It serves only so many blocks behind its tip.
    pub(super) recent_only: Option<u64>,
    pub(super) trust: Trust,
    /// How often it could not show what it claims, lately.
    pub(super) doubts: u32,
    /// When it could not last.
    pub(super) doubted: Option<Instant>,
    pub(super) branch: Branch,
    /// The last block of the tree that it has shown on its branch.
    pub(super) shown: Option<BlockId>,
    /// It told of a block that is not in the tree.
    pub(super) announced: Option<BlockHash>,
    /// What it was asked and has not answered, oldest first. Peers answer in order.
    pub(super) open: VecDeque<Request>,
    /// What it was asked and has not brought in time, or passed over: it may come yet.
    pub(super) late: VecDeque<Range<u64>>,
    /// Questions that are closed for us, and whose end it may still tell.
    pub(super) owed: usize,
    /// When something came last, or it was asked while idle.
    pub(super) alive: Instant,
    /// When a block came last that it was asked for.
    pub(super) brought: Instant,
    /// How long it may bring nothing; doubles with every failure.
    pub(super) patience: Duration,
    /// Not to be asked before.
    pub(super) rests_until: Instant,
    /// Failures since it last brought what was asked for.
    pub(super) strikes: u32,
    /// Blocks asked for in search of its branch since it last brought anything new.
    pub(super) probes: u32,
    /// When to ask it next whether it has more than it claims.
    pub(super) poll_at: Instant,
    /// How many blocks to ask for at once.
    pub(super) quota: u32,
    /// How many blocks it has sent at once at most although asked for more.
    pub(super) most: u32,
    /// How long it takes for a block, on average; `None` before the first.
    pub(super) pace: Option<Duration>,
}

/// Whether what a peer claims counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    Believed,
    /// It could not show what it claims. It is asked now and then, and nobody waits for it.
    Doubted,
}

/// Where a peer's chain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Branch {
    /// Not known yet, taken for ours.
    Fresh,
    /// As far as known it is our best chain.
    Best,
    /// A block of it did not link: looking for where it left the tree.
    Search(Search),
    /// It left the tree above [`RangePeer::shown`]; asked for what follows, until that is the best chain and not below
    /// `high`.
    Climb { high: u64 },
}

/// A search for the last block that a peer's chain shares with the tree: down in doubling steps, then by halves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Search {
    /// A height at which they agree, once found.
    pub(super) low: Option<u64>,
    /// The lowest height at which they do not.
    pub(super) high: u64,
    pub(super) step: u64,
}

impl Search {
    pub(super) fn below(high: u64) -> Self {
        Self { low: None, high, step: 1 }
    }

    /// The height to look at next, not below `floor`; `None` if there is none left.
    pub(super) fn probe(&self, floor: u64) -> Option<u64> {
        let height = match self.low {
            Some(low) => low + (self.high.saturating_sub(low)) / 2,
            None => self.high.saturating_sub(self.step).max(floor),
        };
        (self.low.is_none_or(|low| low < height) && height < self.high).then_some(height)
    }
}

/// What a question is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A share of what is missing above the tip.
    Share,
    /// What follows on the peer's own branch.
    Climb,
    /// One block that tells where the peer's chain is.
    Probe,
    /// Whether there is more than the peer claims; silence is an answer.
    Poll,
}

/// A question that a peer has yet to answer: blocks from `start` on, before `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) purpose: Purpose,
    pub(super) start: u64,
    /// Above the last block that came; everything below it came or was passed over.
    pub(super) next: u64,
    pub(super) end: u64,
    /// When it became the oldest question.
    pub(super) since: Instant,
}

impl Request {
    pub(super) fn missing(&self) -> Range<u64> {
        self.next..self.end
    }

    pub(super) fn is_untouched(&self) -> bool {
        self.next == self.start
    }
}

/// What a block that was asked for tells about the questions before it.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Heights of shares that the peer has passed over.
    pub(super) skipped: Vec<Range<u64>>,
    /// The question was open.
    pub(super) is_in_time: bool,
    /// It was the last block of a poll: there may be more.
    pub(super) has_more: bool,
}

impl RangePeer {
    pub(super) fn new(info: &PeerInfo, batch: u32, patience: Duration, now: Instant) -> Self {
        Self {
            claimed: info.claimed_height,
            recent_only: info.recent_only,
            trust: Trust::Believed,
            doubts: 0,
            doubted: None,
            branch: Branch::Fresh,
            shown: None,
            announced: None,
            open: VecDeque::new(),
            late: VecDeque::new(),
            owed: 0,
            alive: now,
            brought: now,
            patience,
            rests_until: now,
            strikes: 0,
            probes: 0,
            poll_at: now,
            quota: FIRST_QUOTA.min(batch),
            most: batch,
            pace: None,
        }
    }

    pub(super) fn shown_height(&self) -> u64 {
        self.shown.map_or(0, |shown| shown.height)
    }

    /// How high the peer is taken to be.
    pub(super) fn reach(&self) -> u64 {
        match self.trust {
            Trust::Believed => self.claimed.max(self.shown_height()),
            Trust::Doubted => self.shown_height(),
        }
    }

    /// Whether the peer takes part in the work above our tip, as far as known.
    pub(super) fn is_on_our_chain(&self) -> bool {
        matches!(self.branch, Branch::Fresh | Branch::Best)
    }

    pub(super) fn serves(&self, height: u64) -> bool {
        let low = self.recent_only.map_or(0, |recent| self.reach().saturating_sub(recent));
        self.is_on_our_chain() && (low..=self.reach()).contains(&height)
    }

    /// The peer says how high it is.
    pub(super) fn claims(&mut self, height: u64) {
        self.claimed = height;
        if self.doubts >= MAX_DOUBTS && height > self.shown_height() {
            self.trust = Trust::Doubted;
        }
    }

    /// The peer could not show what it claims.
    pub(super) fn doubt(&mut self, now: Instant) {
        let is_long_ago = self.doubted.is_some_and(|at| now > at + FORGIVEN_AFTER);
        self.doubts = if is_long_ago { 1 } else { self.doubts + 1 };
        self.doubted = Some(now);
        self.trust = Trust::Doubted;
    }

    /// The peer has shown a block that is higher than before.
    pub(super) fn has_shown(&mut self, height: u64) {
        if self.doubts < MAX_DOUBTS || height >= self.claimed {
            self.trust = Trust::Believed;
        }
    }

    pub(super) fn is_asked(&self, purpose: Purpose) -> bool {
        self.open.iter().any(|request| request.purpose == purpose)
    }

    /// Blocks asked for that have not come.
    pub(super) fn load(&self) -> u64 {
        self.open.iter().map(|request| request.end - request.next).sum()
    }

    pub(super) fn ask(&mut self, purpose: Purpose, heights: &Range<u64>, now: Instant) {
        if self.open.is_empty() {
            self.alive = now;
        }
        let Range { start, end } = *heights;
        self.open.push_back(Request { purpose, start, next: start, end, since: now });
    }

    /// A block at this height came. `None` if none was asked for there.
    pub(super) fn answered(&mut self, height: u64, now: Instant) -> Option<Answer> {
        let mut answer = Answer::default();
        let Some(at) = self.open.iter().position(|request| request.missing().contains(&height)) else {
            return self.late.iter().any(|heights| heights.contains(&height)).then_some(answer);
        };
        // An answer to a later question: those before it have all the answer that they will get.
        for request in self.open.drain(..at).collect::<Vec<_>>() {
            self.passed_over(&request, request.end, &mut answer);
        }
        let request = self.open.front()?.clone();
        self.passed_over(&request, height, &mut answer);
        let request = self.open.front_mut()?;
        if at > 0 {
            request.since = self.alive;
        }
        request.next = height + 1;
        self.brought = now;
        answer.is_in_time = true;
        self.owed = 0;
        if request.next == request.end {
            answer.has_more = request.purpose == Purpose::Poll;
            self.close(now);
            self.owed = 1;
        }
        Some(answer)
    }

    /// What is missing of a question below `end` did not come in its turn.
    fn passed_over(&mut self, request: &Request, end: u64, answer: &mut Answer) {
        if request.next < end {
            self.is_late(request.next..end);
            if request.purpose == Purpose::Share {
                answer.skipped.push(request.next..end);
            }
        }
    }

    fn is_late(&mut self, heights: Range<u64>) {
        self.late.push_back(heights);
        if self.late.len() > MAX_LATE {
            self.late.pop_front();
        }
    }

    /// Closes all questions: nothing came in time.
    pub(super) fn give_up(&mut self) {
        self.owed += self.open.len();
        for request in std::mem::take(&mut self.open) {
            self.is_late(request.missing());
        }
    }

    /// Closes the oldest question, and learns from how long it took.
    pub(super) fn close(&mut self, now: Instant) -> Option<Request> {
        let request = self.open.pop_front()?;
        let brought = u32::try_from(request.next - request.start).unwrap_or(u32::MAX);
        if brought > 0 {
            let pace = now.saturating_duration_since(request.since) / brought;
            let pace = self.pace.map_or(pace, |old| (old + pace) / 2);
            self.pace = Some(pace);
            let fitting = ANSWER_TIME.as_nanos() / pace.as_nanos().max(1);
            self.quota = u32::try_from(fitting).unwrap_or(u32::MAX).clamp(1, self.most);
        }
        if let Some(next) = self.open.front_mut() {
            next.since = now;
        }
        Some(request)
    }

    /// When it is known that nothing comes, if nothing does.
    pub(super) fn late_at(&self) -> Option<Instant> {
        let oldest = self.open.front()?;
        // Bytes that never become a block must not hold anybody up for ever.
        let hard = oldest.since.max(self.brought) + MAX_PATIENCE;
        Some(hard.min(self.alive + self.patience))
    }
}

/// `base`, doubled so many times, up to [`MAX_PATIENCE`].
pub(super) fn back_off(base: Duration, times: u32) -> Duration {
    base.saturating_mul(1 << times.min(16)).min(MAX_PATIENCE)
}
