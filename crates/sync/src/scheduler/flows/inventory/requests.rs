//! The blocks that are wanted: of whom each is asked, since when, how often it was.
//!
//! A wanted block waits in one line with all others, is asked of a peer, or rests until it is tried again. What the peer that
//! leads has listed comes first, in the order of its list. Whoever announced a block comes first to be asked. Others may have
//! it too, which is a hunch: they are asked for few of those at a time, and may be silent. A block that nobody brings comes
//! back after a pause that doubles; it is forgotten only when nobody who is connected says that it exists and all of them
//! were asked in vain.

mod asking;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tipward_peer::{PeerId, wire::BlockHash};

use super::line::Line;

/// How many blocks may be wanted. What is announced beyond that is refused.
pub(super) const MAX_REQUESTED: usize = 50_000;
/// The pause of a block that nobody brings, at first; it doubles.
const MIN_PAUSE: Duration = Duration::from_secs(2);
const MAX_PAUSE_DOUBLINGS: u32 = 5;
/// How many announcers of a block are remembered.
const MAX_SOURCES: usize = 8;
/// How many blocks that nobody can be asked for now are passed over to find some that can.
const MAX_PASSED_OVER: usize = 128;
/// How many blocks may be wanted whose first announcer is gone.
const MAX_LEFT_BEHIND: usize = MAX_REQUESTED / 4;

/// All wanted blocks.
#[derive(Debug)]
pub(super) struct Requests {
    wanted: BTreeMap<BlockHash, Request>,
    /// Those that can be asked for.
    waiting: BTreeMap<Rank, BlockHash>,
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
    /// How many lists have told in which order to ask.
    lists: u64,
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

/// In this order blocks are asked for: the latest list that tells it begins where the chain ends.
pub(super) type Rank = (Reason, Reverse<u64>, u64);

/// A peer as the one to ask for a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) peer: PeerId,
    /// It has not announced the block.
    pub(super) is_hunch: bool,
}

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
    Waiting,
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
            waiting: BTreeMap::new(),
            lines: BTreeMap::new(),
            resting: BTreeSet::new(),
            share: batch.saturating_mul(2).min(MAX_REQUESTED / 4),
            left_behind: 0,
            asked: 0,
            kept: 0,
            next: 0,
            lists: 0,
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
        if self.lines.remove(&peer).is_none() {
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
            let has_lost = match request.place {
                Place::Asked(at, _) => at == peer,
                // Who is left was asked in vain.
                Place::Waiting => self.lines.keys().all(|other| request.tried.contains(other)),
                Place::Resting(_) | Place::Kept | Place::Nowhere => false,
            };
            if has_lost {
                homeless.push(hash);
            }
        }
        homeless.iter().for_each(|&hash| self.take_out(hash));
        void.iter().for_each(|&hash| self.done(hash));
        homeless.retain(|hash| self.wanted.contains_key(hash));
        homeless
    }

    /// A peer has this block, which is wanted.
    pub(super) fn announce(&mut self, hash: BlockHash, peer: PeerId, reason: Reason) -> Announced {
        let Some(request) = self.wanted.get_mut(&hash) else {
            return self.introduce(hash, peer, reason, vec![peer]);
        };
        if !request.sources.contains(&peer) && request.sources.len() < MAX_SOURCES {
            request.sources.push(peer);
            if let (Place::Waiting, Some(line)) = (request.place, self.lines.get_mut(&peer)) {
                line.announced.insert(request.rank, hash);
            }
        }
        let rank = (request.rank.0.min(reason), request.rank.1, request.rank.2);
        match request.place {
            Place::Asked(other, seq) if other == peer => self.own_up(peer, seq),
            Place::Resting(_) | Place::Nowhere if !request.tried.contains(&peer) => self.line_up(hash),
            Place::Asked(..) | Place::Resting(_) | Place::Nowhere | Place::Waiting | Place::Kept => {}
        }
        self.rank(hash, rank);
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

    /// From here on blocks are listed in the order in which they are to be asked for.
    pub(super) fn begin_list(&mut self) {
        self.lists += 1;
    }

    /// This block is the next on the list.
    pub(super) fn list(&mut self, hash: BlockHash) {
        let Some(request) = self.wanted.get(&hash) else { return };
        let rank = (request.rank.0, Reverse(self.lists), self.next);
        self.next += 1;
        self.rank(hash, rank);
    }

    fn rank(&mut self, hash: BlockHash, rank: Rank) {
        let Some(request) = self.wanted.get(&hash) else { return };
        let is_waiting = matches!(request.place, Place::Waiting);
        if is_waiting {
            self.take_out(hash);
        }
        if let Some(request) = self.wanted.get_mut(&hash) {
            request.rank = rank;
        }
        if is_waiting {
            self.line_up(hash);
        }
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
        let rank = (reason, Reverse(0), self.next);
        self.next += 1;
        let (place, tried, by) = (Place::Nowhere, Vec::new(), Some(peer));
        self.wanted.insert(hash, Request { place, rank, attempt: 0, sources, tried, by });
        self.line_up(hash);
        Announced::Taken
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
        if let (Place::Waiting, Some(line)) = (request.place, self.lines.get_mut(&peer)) {
            line.announced.remove(&request.rank);
        }
        request.sources.len() < before
    }

    /// Others are to be asked.
    pub(super) fn pass_on(&mut self, now: Instant, hash: BlockHash, is_awaited: bool) {
        let Some(request) = self.wanted.get_mut(&hash) else { return };
        request.attempt += 1;
        self.find_place(now, hash, is_awaited);
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
    pub(super) fn wake(&mut self, now: Instant, is_awaited: impl Fn(BlockHash) -> bool) {
        while let Some(&(until, hash)) = self.resting.first().filter(|(until, _)| *until <= now) {
            self.resting.remove(&(until, hash));
            let Some(request) = self.wanted.get_mut(&hash) else { continue };
            request.place = Place::Nowhere;
            // Without an announcer it is not asked for again but of those who were not asked.
            if !request.sources.is_empty() || is_awaited(hash) {
                request.tried.clear();
            }
            self.find_place(now, hash, is_awaited(hash));
        }
    }

    /// Ends all pauses: there is somebody new to ask.
    pub(super) fn wake_all(&mut self, now: Instant, is_awaited: impl Fn(BlockHash) -> bool) {
        let resting = std::mem::take(&mut self.resting);
        for (_, hash) in resting {
            if let Some(request) = self.wanted.get_mut(&hash) {
                request.place = Place::Nowhere;
                self.find_place(now, hash, is_awaited(hash));
            }
        }
    }

    fn find_place(&mut self, now: Instant, hash: BlockHash, is_awaited: bool) {
        let Some(request) = self.wanted.get_mut(&hash) else { return };
        let is_vain = request.sources.is_empty() && !is_awaited && !request.tried.is_empty();
        if self.lines.keys().any(|peer| !request.tried.contains(peer)) {
            self.line_up(hash);
        } else if is_vain {
            self.done(hash);
        } else {
            let until = now + pause(request.attempt);
            request.place = Place::Resting(until);
            self.resting.insert((until, hash));
        }
    }

    fn line_up(&mut self, hash: BlockHash) {
        self.take_out(hash);
        let Some(request) = self.wanted.get_mut(&hash) else { return };
        self.waiting.insert(request.rank, hash);
        request.place = Place::Waiting;
        for source in &request.sources {
            if let Some(line) = self.lines.get_mut(source) {
                line.announced.insert(request.rank, hash);
            }
        }
    }

    /// Takes a request out of where it is.
    fn take_out(&mut self, hash: BlockHash) {
        let Some(request) = self.wanted.get_mut(&hash) else { return };
        match std::mem::replace(&mut request.place, Place::Nowhere) {
            Place::Waiting => {
                self.waiting.remove(&request.rank);
                for source in &request.sources {
                    if let Some(line) = self.lines.get_mut(source) {
                        line.announced.remove(&request.rank);
                    }
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

    pub(super) fn contains(&self, hash: BlockHash) -> bool {
        self.wanted.contains_key(&hash)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.wanted.len()
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
