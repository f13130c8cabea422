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
/// How many questions a peer may have open, so that it need not wait for the next one.
pub(super) const MAX_OPEN: usize = 2;
/// How many blocks a peer is asked for at first; more, or fewer, when its speed is known.
const FIRST_QUOTA: u32 = 16;
/// How long a peer should take to answer one question: long enough to hide the way there and back, short enough that
/// others can take over.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// So many questions may wait for their end to be told. Of a peer that does not tell, the oldest are forgotten then.
const MAX_ASKED: usize = 8;
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
    /// What it was asked, oldest first, until it tells the end, or answers a later question. Peers answer in order.
    asked: VecDeque<Request>,
    /// It tells when it has said all that it says to a question.
    tells_ends: bool,
    /// We read nothing from it.
    pub(super) is_held: bool,
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
    /// The shortest time from a question, asked while idle, to the first block of its answer.
    latency: Option<Duration>,
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

/// A question: blocks from `start` on, before `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) purpose: Purpose,
    pub(super) start: u64,
    /// Above the last block that came; everything below it came or was passed over.
    pub(super) next: u64,
    pub(super) end: u64,
    /// When it became the oldest open question.
    since: Instant,
    /// It was so when it was asked: the way there and back is part of its time.
    was_first: bool,
    /// It was taken back, or the answer is taken as given: what may come yet is taken, and nobody waits for it.
    is_void: bool,
    /// The peer said that it does not have some of it.
    pub(super) is_denied: bool,
}

impl Request {
    pub(super) fn missing(&self) -> Range<u64> {
        self.next..self.end
    }

    pub(super) fn is_untouched(&self) -> bool {
        self.next == self.start
    }

    fn is_open(&self) -> bool {
        !self.is_void && self.next < self.end
    }
}

/// What a block that was asked for tells about the questions before it.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// What of the question it answers.
    pub(super) purpose: Option<Purpose>,
    /// Heights of shares that the peer has passed over.
    pub(super) skipped: Vec<Range<u64>>,
    /// It was the last block of a poll: there may be more.
    pub(super) has_more: bool,
}

/// Why a peer is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// Nothing comes from it.
    Silent,
    /// Something comes all the time and never becomes a block.
    Endless,
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
            asked: VecDeque::new(),
            tells_ends: false,
            is_held: false,
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
            latency: None,
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

    /// What it has yet to bring.
    pub(super) fn open(&self) -> impl DoubleEndedIterator<Item = &Request> {
        self.asked.iter().filter(|request| request.is_open())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.open().next().is_none()
    }

    pub(super) fn is_asked(&self, purpose: Purpose) -> bool {
        self.open().any(|request| request.purpose == purpose)
    }

    pub(super) fn is_asked_for(&self, height: u64) -> bool {
        self.open().any(|request| request.missing().contains(&height))
    }

    /// Whether it can take one more question.
    pub(super) fn may_be_asked(&self, now: Instant) -> bool {
        let is_full = self.tells_ends && self.asked.len() >= MAX_ASKED;
        !self.is_held && !is_full && self.rests_until <= now && self.open().count() < MAX_OPEN
    }

    /// Blocks asked for that have not come.
    pub(super) fn load(&self) -> u64 {
        self.open().map(|request| request.end - request.next).sum()
    }

    pub(super) fn ask(&mut self, purpose: Purpose, heights: &Range<u64>, now: Instant) {
        let was_first = self.is_idle();
        if was_first {
            self.alive = now;
        }
        while self.asked.len() >= MAX_ASKED && self.asked.front().is_some_and(|oldest| !oldest.is_open()) {
            self.asked.pop_front();
        }
        let Range { start, end } = *heights;
        let (is_void, is_denied) = (false, false);
        let request = Request { purpose, start, next: start, end, since: now, was_first, is_void, is_denied };
        self.asked.push_back(request);
    }

    /// A block at this height came. `None` if none was asked for there.
    pub(super) fn answered(&mut self, height: u64, now: Instant) -> Option<Answer> {
        let mut answer = Answer::default();
        // Where ends are not told it can't be known whether what was taken back will still be answered.
        let may_be = |request: &Request| self.tells_ends || !request.is_void;
        let is_it = |request: &Request| request.missing().contains(&height) && may_be(request);
        let at = if self.tells_ends { 1 } else { self.asked.len() };
        let Some(at) = self.asked.iter().take(at).position(is_it) else {
            // Out of its turn.
            let was_asked_for = |request: &Request| (request.start..request.end).contains(&height);
            return self.asked.iter().any(was_asked_for).then_some(answer);
        };
        // An answer to a later question: those before it have all the answer that they will get. Unless it is one to them.
        let is_clear = !self.asked.iter().take(at).any(|request| request.missing().contains(&height));
        let at = if is_clear {
            for request in self.asked.drain(..at).collect::<Vec<_>>() {
                request.passes_over(request.end, &mut answer);
            }
            0
        } else {
            at
        };
        let request = self.asked.get_mut(at)?;
        if request.was_first && request.is_untouched() {
            let took = now.saturating_duration_since(request.since);
            self.latency = Some(self.latency.map_or(took, |latency| latency.min(took)));
        }
        request.passes_over(height, &mut answer);
        request.next = height + 1;
        self.brought = now;
        answer.purpose = Some(request.purpose);
        if request.next == request.end {
            answer.has_more = request.purpose == Purpose::Poll;
            let request = request.clone();
            self.learn(&request, now);
        }
        Some(answer)
    }

    /// The peer says that it does not have a block, whose height may be known.
    pub(super) fn denies(&mut self, height: Option<u64>) {
        let oldest = self.asked.iter_mut().find(|request| request.next < request.end);
        let is_it = |request: &&mut Request| height.is_none_or(|height| request.missing().contains(&height));
        if let Some(request) = oldest.filter(is_it) {
            request.is_denied = true;
        }
    }

    /// The peer has said all that it says to its oldest question: that, unless nobody waits for it any more.
    pub(super) fn ends(&mut self, now: Instant) -> Option<Request> {
        self.tells_ends = true;
        let request = self.asked.pop_front()?;
        if request.next < request.end {
            self.learn(&request, now);
        }
        (!request.is_void).then_some(request)
    }

    /// Takes all questions back.
    pub(super) fn give_up(&mut self) {
        self.asked.iter_mut().for_each(|request| request.is_void = true);
    }

    /// Takes the oldest question back: what was asked after it has its time from now on.
    pub(super) fn give_up_oldest(&mut self, now: Instant) {
        if let Some(request) = self.asked.iter_mut().find(|request| request.is_open()) {
            request.is_void = true;
        }
        self.restart(now);
    }

    /// The time of what it is asked counts from now on.
    pub(super) fn restart(&mut self, now: Instant) {
        self.alive = now;
        if let Some(request) = self.asked.iter_mut().find(|request| request.is_open()) {
            request.since = now;
        }
    }

    /// Learns from how long a question took that is answered.
    fn learn(&mut self, request: &Request, now: Instant) {
        let brought = u32::try_from(request.next - request.start).unwrap_or(u32::MAX);
        if brought > 0 {
            let took = now.saturating_duration_since(request.since);
            let pace = took / brought;
            self.pace = Some(self.pace.map_or(pace, |old| (old + pace) / 2));
            // The way there and back is the same for many blocks: whoever is far away would be asked for ever fewer.
            let way = self.latency.filter(|_| request.was_first).unwrap_or_default();
            let fitting =
                ANSWER_TIME.as_nanos() * u128::from(brought) / took.saturating_sub(way).as_nanos().max(1);
            let most = self.most.min(self.quota.saturating_mul(2));
            self.quota = u32::try_from(fitting).unwrap_or(u32::MAX).clamp(1, most);
        }
        if let Some(next) = self.asked.iter_mut().find(|request| request.is_open()) {
            next.since = now;
        }
    }

    /// When it is known that nothing comes, if nothing does, and why. Our own back-pressure is not held against it.
    pub(super) fn late_at(&self) -> Option<(Instant, Late)> {
        let oldest = self.open().next().filter(|_| !self.is_held)?;
        // Bytes that never become a block must not hold anybody up for ever.
        let endless = oldest.since.max(self.brought) + MAX_PATIENCE;
        let silent = self.alive + self.patience;
        Some(if silent <= endless { (silent, Late::Silent) } else { (endless, Late::Endless) })
    }
}

impl Request {
    /// What is missing below `end` did not come in its turn.
    fn passes_over(&self, end: u64, answer: &mut Answer) {
        if self.next < end && self.purpose == Purpose::Share && !self.is_void {
            answer.skipped.push(self.next..end);
        }
    }
}

/// `base`, doubled so many times, up to [`MAX_PATIENCE`].
pub(super) fn back_off(base: Duration, times: u32) -> Duration {
    base.saturating_mul(1 << times.min(16)).min(MAX_PATIENCE)
}
