//! What is asked of whom, and what comes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::{Duration, Instant},
};

use tipward_peer::{PeerId, wire::BlockHash};

use super::{
    super::line::{Asked, Line},
    Chosen, MAX_PASSED_OVER, Place, Requests,
};

impl Requests {
    /// What to ask of whom now, at most so many blocks. `whom` is given who announced a block and who did not bring it, and sees
    /// what is asked of the peers already. Each of `idle` that is not asked for anything then is asked for a block that it has
    /// announced: what others have announced, and do not bring, must not keep it waiting.
    pub(in super::super) fn take(
        &mut self,
        now: Instant,
        most: usize,
        idle: &BTreeSet<PeerId>,
        is_moot: impl Fn(BlockHash) -> bool,
        whom: impl Fn(&BTreeMap<PeerId, Line>, &[PeerId], &[PeerId]) -> Option<Chosen>,
    ) -> BTreeMap<PeerId, Vec<BlockHash>> {
        let mut asks: BTreeMap<PeerId, Vec<BlockHash>> = BTreeMap::new();
        let (mut taken, mut passed_over, mut after) = (0, 0, None);
        while taken < most && passed_over < MAX_PASSED_OVER {
            let next = match after {
                None => self.waiting.first_key_value(),
                Some(rank) => self.waiting.range((Bound::Excluded(rank), Bound::Unbounded)).next(),
            };
            let Some((&rank, &hash)) = next else { break };
            after = Some(rank);
            if is_moot(hash) {
                self.done(hash);
                continue;
            }
            let Some(request) = self.wanted.get(&hash) else { continue };
            let Some(chosen) = whom(&self.lines, &request.sources, &request.tried) else {
                passed_over += 1;
                continue;
            };
            self.ask(now, hash, chosen);
            asks.entry(chosen.peer).or_default().push(hash);
            taken += 1;
        }
        for &peer in idle.iter().filter(|peer| self.load(**peer) == 0).collect::<Vec<_>>() {
            let own = self.lines.get(&peer).map(|line| line.announced.values().take(MAX_PASSED_OVER));
            let is_new = |hash: &&BlockHash| {
                self.wanted.get(*hash).is_some_and(|request| !request.tried.contains(&peer))
                    && !is_moot(**hash)
            };
            let Some(&hash) = own.and_then(|mut own| own.find(is_new)).filter(|_| taken < most) else {
                continue;
            };
            self.ask(now, hash, Chosen { peer, is_hunch: false });
            asks.entry(peer).or_default().push(hash);
            taken += 1;
        }
        asks
    }

    fn ask(&mut self, now: Instant, hash: BlockHash, Chosen { peer, is_hunch }: Chosen) {
        self.take_out(hash);
        let (Some(request), Some(line)) = (self.wanted.get_mut(&hash), self.lines.get_mut(&peer)) else {
            return;
        };
        line.open_hunches += usize::from(is_hunch);
        line.asked.insert(line.next, Asked { hash, at: now, is_hunch });
        request.place = Place::Asked(peer, line.next);
        line.next += 1;
        self.asked += 1;
    }

    /// A block came from this peer: how long it took in its turn, if that is known, and what the peer does not have: it was asked for
    /// that on a hunch, earlier.
    pub(in super::super) fn landed(
        &mut self,
        now: Instant,
        peer: PeerId,
        hash: BlockHash,
    ) -> (Option<Duration>, Vec<BlockHash>) {
        let place = self.wanted.get(&hash).map(|request| request.place);
        let (Some(Place::Asked(at, seq)), Some(line)) = (place, self.lines.get_mut(&peer)) else {
            return (None, Vec::new());
        };
        let Some(asked) = line.asked.get(&seq).filter(|_| at == peer) else { return (None, Vec::new()) };
        let begun = line.landed.map_or(asked.at, |(_, last)| last.max(asked.at));
        line.landed = Some((line.landed.map_or(seq, |(last, _)| last.max(seq)), now));
        let earlier = line.asked.range(..seq).filter(|(_, asked)| asked.is_hunch);
        let mut skipped: Vec<BlockHash> = earlier.map(|(_, asked)| asked.hash).collect();
        skipped.retain(|&hash| self.fail(hash, peer));
        (Some(now - begun), skipped)
    }

    /// Everything that is asked of this peer, to be passed on.
    pub(in super::super) fn withdraw(&mut self, peer: PeerId) -> Vec<BlockHash> {
        let Some(line) = self.lines.get(&peer) else { return Vec::new() };
        let mut asked: Vec<BlockHash> = line.asked.values().map(|asked| asked.hash).collect();
        asked.retain(|&hash| self.fail(hash, peer));
        asked
    }

    /// The peer is held, or let go: what it was asked for has its whole time then.
    pub(in super::super) fn hold(&mut self, now: Instant, peer: PeerId, is_held: bool) {
        if let Some(line) = self.lines.get_mut(&peer) {
            line.is_held = is_held;
            line.asked.values_mut().for_each(|asked| asked.at = now);
        }
    }

    /// The requests that have expired: of whom, and which.
    pub(in super::super) fn late(&self, now: Instant) -> Vec<(PeerId, BlockHash)> {
        let late = |(&peer, line): (&PeerId, &Line)| {
            let (_, first) = line.asked.first_key_value()?;
            (line.expires_at()? <= now).then_some((peer, first.hash))
        };
        self.lines.iter().filter_map(late).collect()
    }

    /// When a request expires or a pause ends.
    pub(in super::super) fn deadline(&self) -> Option<Instant> {
        let expiry = self.lines.values().filter_map(Line::expires_at).min();
        self.resting.first().map(|(until, _)| *until).into_iter().chain(expiry).min()
    }

    /// How many blocks are asked for.
    pub(in super::super) fn asked(&self) -> usize {
        self.asked
    }

    /// How many blocks are asked of this peer, those on a hunch not counted.
    pub(in super::super) fn asked_of(&self, peer: PeerId) -> usize {
        self.lines.get(&peer).map_or(0, |line| line.asked.len() - line.open_hunches)
    }

    /// How many blocks are asked of this peer.
    pub(in super::super) fn load(&self, peer: PeerId) -> usize {
        self.lines.get(&peer).map_or(0, |line| line.asked.len())
    }

    /// What this peer is asked for on a hunch, if that is all: it need not have that, and says nothing.
    pub(in super::super) fn only_hunches(&self, peer: PeerId) -> bool {
        self.lines
            .get(&peer)
            .is_some_and(|line| line.open_hunches > 0 && line.open_hunches == line.asked.len())
    }

    /// Whether this block is asked of this peer, which has not announced it.
    pub(in super::super) fn is_hunch(&self, hash: BlockHash, peer: PeerId) -> bool {
        let Some(Place::Asked(at, seq)) = self.wanted.get(&hash).map(|request| request.place) else {
            return false;
        };
        let asked = self.lines.get(&peer).filter(|_| at == peer).and_then(|line| line.asked.get(&seq));
        asked.is_some_and(|asked| asked.is_hunch)
    }

    /// Whether blocks that the peer announced are asked for or will be.
    pub(in super::super) fn is_busy(&self, peer: PeerId) -> bool {
        let is_of = |hash| self.wanted.get(hash).is_some_and(|request| request.sources.contains(&peer));
        let asked = || self.lines.values().flat_map(|line| line.asked.values().map(|asked| &asked.hash));
        self.asked_of(peer) > 0 || self.waiting.values().any(is_of) || asked().any(is_of)
    }
}
