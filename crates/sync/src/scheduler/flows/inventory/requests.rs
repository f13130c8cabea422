//! The blocks that are wanted: whom each is asked of, since when, how often it was.
//!
//! A wanted block stands in the line of one peer, is asked of one, or rests until it is tried again. Whoever announced it
//! comes first. Others may have it too, which is a hunch: they are asked for few of those at a time, and may be silent. A
//! block that nobody brings comes back after a pause that doubles; it is forgotten only when nobody who is connected says
//! that it exists and all of them were asked in vain.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tipward_peer::{PeerId, wire::BlockHash};

use super::line::{Asked, Line, MAX_HUNCHES};

/// How many blocks may be wanted. What is announced beyond that is refused.
pub(super) const MAX_REQUESTED: usize = 50_000;
/// The pause of a block that nobody brings, at first; it doubles.
const MIN_PAUSE: Duration = Duration::from_secs(2);
const MAX_PAUSE_DOUBLINGS: u32 = 5;
/// How many announcers of a block are remembered.
const MAX_SOURCES: usize = 8;
/// How many blocks may be wanted whose first announcer is gone.
const MAX_LEFT_BEHIND: usize = MAX_REQUESTED / 4;

/// All wanted blocks.
#[derive(Debug)]
pub(super) struct Requests {
    wanted: BTreeMap<BlockHash, Request>,
    lines: BTreeMap<PeerId, Line>,
    resting: BTreeSet<(Instant, BlockHash)>,
    /// How many blocks may be wanted because of one peer.
    share: usize,
    left_behind: usize,
    /// How many are asked for.
    asked: usize,
    /// How many came and wait for their parents.
    kept: usize,
    next: u64,
}

/// Why a block is wanted; the more urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// An orphan waits for it.
    Awaited,
    /// A peer announced it.
    Listed,
}

/// What became of an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Announced {
    Taken,
    Refused,
}

/// How a peer went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    ByItself,
    /// It was dropped: what it alone has told of is worth nothing.
    InDisgrace,
}

/// In this order blocks are asked for.
pub(super) type Rank = (Reason, u64);

#[derive(Debug)]
struct Request {
    place: Place,
    rank: Rank,
    /// How often it was asked for in vain.
    attempt: u32,
    /// Who announced it.
    sources: Vec<PeerId>,
    /// Who did not bring it since the last pause.
    tried: Vec<PeerId>,
    /// On whose account it is wanted; `None` if that peer is gone.
    by: Option<PeerId>,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Line(PeerId),
    Asked(PeerId, u64),
    Resting(Instant),
    /// It came, and waits for its parents.
    Kept,
    /// In between.
    Nowhere,
}

impl Requests {
    /// `batch` is how long a list is cut: a peer may have two lists' worth of blocks wanted.
    pub(super) fn new(batch: usize) -> Self {
        Self {
            wanted: BTreeMap::new(),
            lines: BTreeMap::new(),
            resting: BTreeSet::new(),
            share: batch.saturating_mul(2).min(MAX_REQUESTED / 4),
            left_behind: 0,
            asked: 0,
            kept: 0,
            next: 0,
        }
    }

    pub(super) fn connect(&mut self, peer: PeerId) {
        self.lines.entry(peer).or_default();
    }

    /// Returns what has to be passed on.
    pub(super) fn disconnect(
        &mut self,
        peer: PeerId,
        left: Left,
        is_awaited: impl Fn(BlockHash) -> bool,
    ) -> Vec<BlockHash> {
        let (mut homeless, mut void) = (Vec::new(), Vec::new());
        if !self.lines.contains_key(&peer) {
            return homeless;
        }
        for (&hash, request) in &mut self.wanted {
            request.sources.retain(|source| *source != peer);
            request.tried.retain(|tried| *tried != peer);
            if request.by == Some(peer) {
                request.by = None;
                self.left_behind += 1;
                let is_worthless = left == Left::InDisgrace || self.left_behind > MAX_LEFT_BEHIND;
                if is_worthless && request.sources.is_empty() && !is_awaited(hash) {
                    void.push(hash);
                }
            }
            if matches!(request.place, Place::Line(at) | Place::Asked(at, _) if at == peer) {
                homeless.push(hash);
            }
        }
        homeless.iter().for_each(|&hash| self.take_out(hash));
        void.iter().for_each(|&hash| self.done(hash));
        self.lines.remove(&peer);
        homeless.retain(|hash| self.wanted.contains_key(hash));
        homeless
    }

    /// A peer has this block, which is wanted. `is_usable` tells whether a peer can be asked.
    pub(super) fn announce(
        &mut self,
        hash: BlockHash,
        peer: PeerId,
        reason: Reason,
        is_usable: impl Fn(PeerId) -> bool,
    ) -> Announced {
        let Some(request) = self.wanted.get_mut(&hash) else {
            return self.introduce(hash, peer, reason, vec![peer]);
        };
        if !request.sources.contains(&peer) && request.sources.len() < MAX_SOURCES {
            request.sources.push(peer);
        }
        let is_better = match request.place {
            Place::Line(other) => !is_usable(other) || !request.sources.contains(&other) || other == peer,
            Place::Asked(other, seq) => {
                if other == peer {
                    self.own_up(peer, seq);
                }
                false
            }
            Place::Resting(_) | Place::Nowhere => !request.tried.contains(&peer),
            Place::Kept => return Announced::Taken,
        };
        if is_better || reason < self.wanted.get(&hash).map_or(reason, |request| request.rank.0) {
            self.hasten(hash, reason, is_better.then_some(peer));
        }
        Announced::Taken
    }

    /// What was asked of this peer on a hunch was announced by it now.
    fn own_up(&mut self, peer: PeerId, seq: u64) {
        let Some(line) = self.lines.get_mut(&peer) else { return };
        if let Some(asked) = line.asked.get_mut(&seq).filter(|asked| asked.is_hunch) {
            asked.is_hunch = false;
            line.open_hunches -= 1;
        }
    }

    /// Puts a request where it is served earlier.
    fn hasten(&mut self, hash: BlockHash, reason: Reason, peer: Option<PeerId>) {
        let Some(request) = self.wanted.get(&hash) else { return };
        let peer = match (request.place, peer) {
            (_, Some(peer)) | (Place::Line(peer), None) => peer,
            (Place::Asked(..) | Place::Resting(_) | Place::Kept | Place::Nowhere, None) => return,
        };
        self.take_out(hash);
        if let Some(request) = self.wanted.get_mut(&hash) {
            request.rank.0 = request.rank.0.min(reason);
        }
        self.line_up(hash, peer);
    }

    /// An orphan waits for this block, and whoever brought that one is gone: this peer may have it.
    pub(super) fn guess(&mut self, hash: BlockHash, peer: PeerId) {
        if !self.contains(hash) {
            self.introduce(hash, peer, Reason::Awaited, Vec::new());
        }
    }

    fn introduce(
        &mut self,
        hash: BlockHash,
        peer: PeerId,
        reason: Reason,
        sources: Vec<PeerId>,
    ) -> Announced {
        let Some(line) = self.lines.get_mut(&peer) else { return Announced::Refused };
        if self.wanted.len() >= MAX_REQUESTED || line.introduced >= self.share {
            return Announced::Refused;
        }
        line.introduced += 1;
        let rank = (reason, self.next);
        self.next += 1;
        let (place, tried, by) = (Place::Nowhere, Vec::new(), Some(peer));
        self.wanted.insert(hash, Request { place, rank, attempt: 0, sources, tried, by });
        self.line_up(hash, peer);
        Announced::Taken
    }

    /// What to ask of a peer now: at most `most` blocks, at most `listed` of them for which no orphan waits.
    pub(super) fn take(
        &mut self,
        now: Instant,
        peer: PeerId,
        mut most: usize,
        mut listed: usize,
        is_moot: impl Fn(BlockHash) -> bool,
    ) -> Vec<BlockHash> {
        let mut blocks = Vec::new();
        let mut void = Vec::new();
        let Some(line) = self.lines.get_mut(&peer) else { return blocks };
        for is_hunch in [false, true] {
            let from = if is_hunch { &mut line.hunches } else { &mut line.waiting };
            while let Some(entry) = from.first_entry() {
                let is_listed = entry.key().0 == Reason::Listed;
                if most == 0 || is_listed && listed == 0 || is_hunch && line.open_hunches >= MAX_HUNCHES {
                    break;
                }
                let hash = entry.remove();
                let Some(request) = self.wanted.get_mut(&hash) else { continue };
                if is_moot(hash) {
                    request.place = Place::Nowhere;
                    void.push(hash);
                    continue;
                }
                most -= 1;
                listed -= usize::from(is_listed);
                line.open_hunches += usize::from(is_hunch);
                line.asked.insert(line.next, Asked { hash, at: now, is_hunch });
                request.place = Place::Asked(peer, line.next);
                line.next += 1;
                self.asked += 1;
                blocks.push(hash);
            }
        }
        void.into_iter().for_each(|hash| self.done(hash));
        blocks
    }

    /// A block came from this peer.
    pub(super) fn landed(&mut self, now: Instant, peer: PeerId, hash: BlockHash) {
        let Some(Place::Asked(at, seq)) = self.wanted.get(&hash).map(|request| request.place) else { return };
        if let Some(line) = self.lines.get_mut(&peer).filter(|_| at == peer) {
            line.landed = Some((line.landed.map_or(seq, |(last, _)| last.max(seq)), now));
        }
    }

    /// The peer is held, or let go: what it was asked for has its whole time then.
    pub(super) fn hold(&mut self, now: Instant, peer: PeerId, is_held: bool) {
        if let Some(line) = self.lines.get_mut(&peer) {
            line.is_held = is_held;
            line.asked.values_mut().for_each(|asked| asked.at = now);
        }
    }

    /// A block is not wanted any more.
    pub(super) fn done(&mut self, hash: BlockHash) {
        self.take_out(hash);
        let Some(request) = self.wanted.remove(&hash) else { return };
        match request.by {
            Some(peer) => {
                if let Some(line) = self.lines.get_mut(&peer) {
                    line.introduced -= 1;
                }
            }
            None => self.left_behind -= 1,
        }
    }

    /// This peer will not bring this block. True if it was asked, and the request has to be passed on.
    pub(super) fn fail(&mut self, hash: BlockHash, peer: PeerId) -> bool {
        let Some(request) = self.wanted.get_mut(&hash) else { return false };
        if !matches!(request.place, Place::Asked(at, _) if at == peer) {
            return false;
        }
        if !request.tried.contains(&peer) {
            request.tried.push(peer);
        }
        self.take_out(hash);
        true
    }

    /// This peer does not have this block. True if it said before that it has.
    pub(super) fn disown(&mut self, hash: BlockHash, peer: PeerId) -> bool {
        let Some(request) = self.wanted.get_mut(&hash) else { return false };
        let before = request.sources.len();
        request.sources.retain(|source| *source != peer);
        request.sources.len() < before
    }

    /// Everything that is asked of this peer, to be passed on.
    pub(super) fn withdraw(&mut self, peer: PeerId) -> Vec<BlockHash> {
        let Some(line) = self.lines.get(&peer) else { return Vec::new() };
        let mut asked: Vec<BlockHash> = line.asked.values().map(|asked| asked.hash).collect();
        asked.retain(|&hash| self.fail(hash, peer));
        asked
    }

    /// Passes a request on to one of `usable`, the preferred first.
    pub(super) fn pass_on(&mut self, now: Instant, hash: BlockHash, usable: &[PeerId], is_awaited: bool) {
        let Some(request) = self.wanted.get_mut(&hash) else { return };
        request.attempt += 1;
        self.find_place(now, hash, usable, is_awaited);
    }

    /// A block that came waits for its parents. It is wanted again if it has to go before they come.
    pub(super) fn keep(&mut self, hash: BlockHash) {
        self.take_out(hash);
        if let Some(request) = self.wanted.get_mut(&hash) {
            request.place = Place::Kept;
            self.kept += 1;
        }
    }

    /// A block that came can't be used now: it rests.
    pub(super) fn put_off(&mut self, now: Instant, hash: BlockHash) {
        self.take_out(hash);
        let Some(request) = self.wanted.get_mut(&hash) else { return };
        request.attempt += 1;
        let until = now + pause(request.attempt);
        request.place = Place::Resting(until);
        self.resting.insert((until, hash));
    }

    /// Ends the pauses that are over at `now`.
    pub(super) fn wake(&mut self, now: Instant, usable: &[PeerId], is_awaited: impl Fn(BlockHash) -> bool) {
        while let Some(&(until, hash)) = self.resting.first().filter(|(until, _)| *until <= now) {
            self.resting.remove(&(until, hash));
            let Some(request) = self.wanted.get_mut(&hash) else { continue };
            request.place = Place::Nowhere;
            // Without an announcer it is not asked for again but of those who were not asked.
            if !request.sources.is_empty() || is_awaited(hash) {
                request.tried.clear();
            }
            self.find_place(now, hash, usable, is_awaited(hash));
        }
    }

    /// Ends all pauses: there is somebody new to ask.
    pub(super) fn wake_all(
        &mut self,
        now: Instant,
        usable: &[PeerId],
        is_awaited: impl Fn(BlockHash) -> bool,
    ) {
        let resting = std::mem::take(&mut self.resting);
        for (_, hash) in resting {
            if let Some(request) = self.wanted.get_mut(&hash) {
                request.place = Place::Nowhere;
                self.find_place(now, hash, usable, is_awaited(hash));
            }
        }
    }

    fn find_place(&mut self, now: Instant, hash: BlockHash, usable: &[PeerId], is_awaited: bool) {
        let Some(request) = self.wanted.get_mut(&hash) else { return };
        let Request { sources, tried, .. } = request;
        let source = usable.iter().find(|peer| sources.contains(peer) && !tried.contains(peer));
        let guess = usable.iter().find(|peer| !tried.contains(peer));
        let is_vain = sources.is_empty() && !is_awaited && !tried.is_empty();
        match source.or(guess) {
            Some(&peer) => self.line_up(hash, peer),
            None if is_vain && tried.len() >= self.lines.len() => self.done(hash),
            None => {
                let until = now + pause(request.attempt);
                request.place = Place::Resting(until);
                self.resting.insert((until, hash));
            }
        }
    }

    fn line_up(&mut self, hash: BlockHash, peer: PeerId) {
        let (Some(request), Some(line)) = (self.wanted.get_mut(&hash), self.lines.get_mut(&peer)) else {
            return;
        };
        let line = if request.sources.contains(&peer) { &mut line.waiting } else { &mut line.hunches };
        line.insert(request.rank, hash);
        request.place = Place::Line(peer);
    }

    /// Takes a request out of where it is.
    fn take_out(&mut self, hash: BlockHash) {
        let Some(request) = self.wanted.get_mut(&hash) else { return };
        match std::mem::replace(&mut request.place, Place::Nowhere) {
            Place::Line(peer) => {
                if let Some(line) = self.lines.get_mut(&peer) {
                    line.waiting.remove(&request.rank);
                    line.hunches.remove(&request.rank);
                }
            }
            Place::Asked(peer, seq) => {
                self.asked -= 1;
                if let Some(line) = self.lines.get_mut(&peer) {
                    let asked = line.asked.remove(&seq);
                    line.open_hunches -= usize::from(asked.is_some_and(|asked| asked.is_hunch));
                }
            }
            Place::Resting(until) => _ = self.resting.remove(&(until, hash)),
            Place::Kept => self.kept -= 1,
            Place::Nowhere => {}
        }
    }

    /// The requests that have expired: of whom, and which.
    pub(super) fn late(&self, now: Instant) -> Vec<(PeerId, BlockHash)> {
        let late = |(&peer, line): (&PeerId, &Line)| {
            let (_, first) = line.asked.first_key_value()?;
            (line.expires_at()? <= now).then_some((peer, first.hash))
        };
        self.lines.iter().filter_map(late).collect()
    }

    /// When a request expires or a pause ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let expiry = self.lines.values().filter_map(Line::expires_at).min();
        self.resting.first().map(|(until, _)| *until).into_iter().chain(expiry).min()
    }

    pub(super) fn contains(&self, hash: BlockHash) -> bool {
        self.wanted.contains_key(&hash)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.wanted.len()
    }

    /// How many blocks are asked for.
    pub(super) fn asked(&self) -> usize {
        self.asked
    }

    /// How many blocks are asked of this peer, those on a hunch not counted.
    pub(super) fn asked_of(&self, peer: PeerId) -> usize {
        self.lines.get(&peer).map_or(0, |line| line.asked.len() - line.open_hunches)
    }

    /// Whether blocks that the peer announced are asked of it or will be.
    pub(super) fn is_busy(&self, peer: PeerId) -> bool {
        self.asked_of(peer) > 0 || self.lines.get(&peer).is_some_and(|line| !line.waiting.is_empty())
    }

    /// Whether nothing is asked for, nor will be before somebody says more or a pause ends.
    pub(super) fn is_idle(&self) -> bool {
        self.wanted.len() == self.resting.len() + self.kept
    }

    /// Whether there are blocks that somebody has, and of which it is not known yet that they are hard to get.
    pub(super) fn has_hopes(&self) -> bool {
        let is_kept = |request: &Request| matches!(request.place, Place::Kept);
        let is_hope = |it: &Request| it.attempt <= 1 && !it.sources.is_empty() && !is_kept(it);
        self.wanted.values().any(is_hope)
    }
}

fn pause(attempt: u32) -> Duration {
    MIN_PAUSE * 2u32.pow(attempt.saturating_sub(1).min(MAX_PAUSE_DOUBLINGS))
}
