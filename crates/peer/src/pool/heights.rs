//! Which peers do not keep up with the chain.
//!
//! A peer is behind if others have told of a block, or a height, and it has not for too long. What one peer alone tells
//! proves nothing: a block counts once two hosts have told of it, a height once two hosts claim it or more. So a quiet chain
//! leaves everybody alone, a liar makes nobody look bad, and who oscillates between two tips does not advance.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use tipward_wire::BlockHash;

use crate::PeerId;

/// How many of the latest blocks are remembered.
const MAX_BLOCKS: usize = 64;
/// How many blocks one peer may have told of that no other has.
const MAX_OWN: usize = 16;
/// How many hosts make a rumour a fact.
const WITNESSES: usize = 2;
/// A block that becomes a fact so soon after a peer joined may have come to that peer before, which then never tells of it.
const PROPAGATION: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Heights {
    blocks: VecDeque<Block>,
    peers: BTreeMap<PeerId, Peer>,
    /// The second highest claim, and since when it has been that.
    height: Option<(u64, Instant)>,
}

#[derive(Debug)]
struct Block {
    hash: BlockHash,
    first: PeerId,
    peers: BTreeSet<PeerId>,
    hosts: BTreeSet<String>,
    /// When enough hosts had told of it.
    since: Option<Instant>,
}

#[derive(Debug)]
struct Peer {
    host: String,
    height: Option<u64>,
    /// Or was last excused.
    joined: Instant,
}

impl Heights {
    pub(super) fn join(&mut self, peer: PeerId, host: &str, now: Instant) {
        self.peers.insert(peer, Peer { host: host.to_owned(), height: None, joined: now });
    }

    pub(super) fn leave(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
        for block in &mut self.blocks {
            block.peers.remove(&peer);
        }
    }

    /// The peer can't tell of anything now: what others tell until then, and shortly after, it need not have told.
    pub(super) fn excuse(&mut self, peer: PeerId, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.joined = now;
        }
    }

    /// The peer has this block, and everything before it. That is to its credit, and no news: it was asked.
    pub(super) fn has_block(&mut self, peer: PeerId, hash: BlockHash, now: Instant) {
        self.learn(peer, hash, false, now);
    }

    /// The peer has this block, and everything before it, and tells as news.
    pub(super) fn told_block(&mut self, peer: PeerId, hash: BlockHash, now: Instant) {
        self.learn(peer, hash, true, now);
    }

    fn learn(&mut self, peer: PeerId, hash: BlockHash, is_news: bool, now: Instant) {
        let Some(host) = self.peers.get(&peer).map(|peer| peer.host.clone()) else { return };
        let witness = Some(host).filter(|_| is_news);
        if let Some(block) = self.blocks.iter_mut().find(|block| block.hash == hash) {
            block.peers.insert(peer);
            block.hosts.extend(witness);
            if block.since.is_none() && block.hosts.len() >= WITNESSES {
                block.since = Some(now);
            }
            return;
        }
        // A flood of made up blocks pushes out its own, not those that others told of.
        let own = |block: &Block| block.first == peer && block.since.is_none();
        if self.blocks.iter().filter(|block| own(block)).count() >= MAX_OWN {
            let oldest = self.blocks.iter().position(own);
            oldest.and_then(|at| self.blocks.remove(at));
        } else if self.blocks.len() == MAX_BLOCKS {
            let unproven = self.blocks.iter().position(|block| block.since.is_none());
            self.blocks.remove(unproven.unwrap_or(0));
        }
        let (peers, hosts) = (BTreeSet::from([peer]), witness.into_iter().collect());
        self.blocks.push_back(Block { hash, first: peer, peers, hosts, since: None });
    }

    /// The peer says that it is at this height. Only more than before is progress.
    pub(super) fn told_height(&mut self, peer: PeerId, height: u64, now: Instant) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        known.height = Some(known.height.map_or(height, |best| best.max(height)));
        let mut by_host: BTreeMap<&str, u64> = BTreeMap::new();
        for peer in self.peers.values() {
            if let Some(height) = peer.height {
                let best = by_host.entry(&peer.host).or_default();
                *best = height.max(*best);
            }
        }
        let mut heights: Vec<u64> = by_host.into_values().collect();
        heights.sort_unstable_by(|a, b| b.cmp(a));
        if let Some(&second) = heights.get(WITNESSES - 1)
            && self.height.is_none_or(|(height, _)| second > height)
        {
            self.height = Some((second, now));
        }
    }

    /// A peer that has missed what others know for longer than this, the one that misses most first.
    pub(super) fn behind(&self, patience: Duration, now: Instant) -> Option<PeerId> {
        let is_late =
            |since: Instant, peer: &Peer| now.saturating_duration_since(since.max(peer.joined)) > patience;
        let missed = |id: &PeerId, peer: &Peer| {
            let blocks = self.blocks.iter().enumerate().filter(|(at, block)| {
                // Who told of a later block has the earlier ones too.
                let has_later = self
                    .blocks
                    .iter()
                    .skip(*at)
                    .any(|later| later.peers.contains(id) && later.since.is_some());
                block.since.is_some_and(|since| {
                    since.saturating_duration_since(peer.joined) >= PROPAGATION && is_late(since, peer)
                }) && !has_later
            });
            let height = self.height.is_some_and(|(height, since)| {
                peer.height.is_some_and(|own| own < height) && since >= peer.joined && is_late(since, peer)
            });
            blocks.count() + usize::from(height)
        };
        let (most, id) = self.peers.iter().map(|(id, peer)| (missed(id, peer), *id)).max()?;
        (most > 0).then_some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(120);

    fn hash(n: u8) -> BlockHash {
        BlockHash::from_bytes([n; 32])
    }

    fn peers(count: u64, now: Instant) -> Heights {
        let mut heights = Heights::default();
        (0..count).for_each(|n| heights.join(PeerId(n), &format!("host{n}"), now));
        heights
    }

    #[test]
    fn a_quiet_chain_evicted_every_peer() {
        let now = Instant::now();
        let heights = peers(5, now);
        assert_eq!(heights.behind(PATIENCE, now + Duration::from_secs(86_400)), None);
    }

    #[test]
    fn who_misses_what_two_others_know_is_behind() {
        let now = Instant::now();
        let mut heights = peers(3, now);
        heights.told_block(PeerId(0), hash(1), now);
        assert_eq!(heights.behind(PATIENCE, now + 2 * PATIENCE), None, "one may make it up");
        heights.told_block(PeerId(1), hash(1), now + PATIENCE);
        assert_eq!(heights.behind(PATIENCE, now + 2 * PATIENCE), None, "not yet");
        assert_eq!(heights.behind(PATIENCE, now + 3 * PATIENCE), Some(PeerId(2)));
        heights.told_block(PeerId(2), hash(2), now + 3 * PATIENCE);
        assert_eq!(
            heights.behind(PATIENCE, now + 3 * PATIENCE),
            Some(PeerId(2)),
            "made up blocks do not help"
        );
        heights.told_block(PeerId(0), hash(2), now + 3 * PATIENCE);
        assert_eq!(
            heights.behind(PATIENCE, now + 3 * PATIENCE),
            None,
            "who has a later one has all before it"
        );
    }

    #[test]
    fn who_may_have_had_a_block_before_it_joined_is_not_behind() {
        let now = Instant::now();
        let mut heights = peers(2, now);
        let joined = now + PATIENCE;
        heights.join(PeerId(2), "host2", joined);
        (0..2).for_each(|n| heights.told_block(PeerId(n), hash(1), joined + Duration::from_secs(20)));
        assert_eq!(heights.behind(PATIENCE, joined + 9 * PATIENCE), None);
        (0..2).for_each(|n| heights.told_block(PeerId(n), hash(2), joined + PROPAGATION));
        assert_eq!(heights.behind(PATIENCE, joined + 9 * PATIENCE), Some(PeerId(2)));
    }

    #[test]
    fn a_peer_that_oscillates_its_height_counted_as_alive() {
        let now = Instant::now();
        let mut heights = peers(3, now);
        for n in 0..100 {
            let at = now + Duration::from_secs(10 * n);
            heights.told_height(PeerId(0), 500 + n, at);
            heights.told_height(PeerId(1), 500 + n, at);
            heights.told_height(PeerId(2), 498 + n % 2, at);
        }
        // What two others know moves on all the time, and the oscillator is behind it all the time.
        heights.told_height(PeerId(2), 498, now + Duration::from_secs(1000));
        assert_eq!(heights.behind(PATIENCE, now + Duration::from_secs(990) + 2 * PATIENCE), Some(PeerId(2)));
    }

    #[test]
    fn an_old_tip_that_was_asked_for_is_no_news() {
        let now = Instant::now();
        let mut heights = peers(3, now);
        let later = now + PATIENCE;
        (0..2).for_each(|n| heights.has_block(PeerId(n), hash(1), later));
        assert_eq!(heights.behind(PATIENCE, later + 9 * PATIENCE), None);
        // Who had a block when it was asked for need not tell of it.
        heights.has_block(PeerId(2), hash(2), later);
        (0..2).for_each(|n| heights.told_block(PeerId(n), hash(2), later));
        assert_eq!(heights.behind(PATIENCE, later + 9 * PATIENCE), None);
    }

    #[test]
    fn one_liar_about_heights_makes_nobody_look_bad() {
        let now = Instant::now();
        let mut heights = peers(4, now);
        heights.told_height(PeerId(0), u64::MAX, now);
        (1..4).for_each(|n| heights.told_height(PeerId(n), 100, now));
        assert_eq!(heights.behind(PATIENCE, now + 10 * PATIENCE), None);
    }

    #[test]
    fn siblings_on_one_host_are_one_witness() {
        let now = Instant::now();
        let mut heights = Heights::default();
        for n in 0..3 {
            heights.join(PeerId(n), if n < 2 { "one" } else { "two" }, now);
        }
        heights.told_block(PeerId(0), hash(1), now);
        heights.told_block(PeerId(1), hash(1), now);
        assert_eq!(heights.behind(PATIENCE, now + 2 * PATIENCE), None);
    }

    #[test]
    fn a_flood_of_made_up_blocks_is_bounded_and_pushes_out_its_own() {
        let now = Instant::now();
        let mut heights = peers(3, now);
        let now = now + PROPAGATION;
        heights.told_block(PeerId(0), hash(1), now);
        heights.told_block(PeerId(1), hash(1), now);
        for n in 0..10_000_u32 {
            let mut bytes = [9; 32];
            bytes[..4].copy_from_slice(&n.to_le_bytes());
            heights.told_block(PeerId(2), BlockHash::from_bytes(bytes), now);
        }
        assert_eq!(heights.blocks.len(), 1 + MAX_OWN);
        assert_eq!(heights.behind(PATIENCE, now + 2 * PATIENCE), Some(PeerId(2)));
    }
}
