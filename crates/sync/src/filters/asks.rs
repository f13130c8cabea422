//! What is asked of whom: hashes of several, filters of one who has said their hashes, blocks of anybody.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use tipward_peer::{
    PeerId, Want,
    wire::{BlockHash, FilterHash},
};

use super::{
    Batch, Filters, Kind, State, TIP_DELAY, View, WITNESSES,
    peers::{Peer, Peers, What},
};
use crate::{BlockId, Output};

/// How many blocks a batch has at most. Batches end at multiples of it, so that peers are asked for the same ranges again.
const BATCH: u64 = 128;
/// How many batches may wait for their hashes.
const MAX_UNSETTLED: usize = 16;
/// A peer that lacks no more than so many blocks is about to have them.
const NEAR: u64 = 6;

impl Filters {
    /// Asks for whatever is due.
    pub(super) fn ask(&mut self, now: Instant, view: &View<'_>) {
        self.buffered = self.buffered_bytes();
        self.begin_batches(now, view);
        self.ask_for_hashes(now, view);
        self.settle(now, view);
        self.ask_for_filters(now);
        self.judge_disputes(now);
        self.ask_for_blocks(now, view);
    }

    /// Takes up the blocks that come next, as far as the window and the budget reach.
    fn begin_batches(&mut self, now: Instant, view: &View<'_>) {
        let Some(base) = self.base(view.chain) else { return };
        let first = base.map_or(0, |base| base.height + 1);
        let target = self.target(view.chain);
        let mut next = self.batches.values().next_back().map_or(first, |last| first.max(last.end() + 1));
        let mut unsettled = self.batches.values().filter(|batch| !batch.is_settled).count();
        let mut waiting = self.batches.values().map(|batch| batch.slots.len() as u64).sum::<u64>();
        let is_local = |height, hash| view.chain.local_block(BlockId { height, hash }).is_some();
        while next <= target && unsettled < MAX_UNSETTLED {
            let has_room =
                waiting < self.options.window as u64 && waiting * self.average < self.options.byte_budget / 2;
            if !self.batches.is_empty() && !has_room {
                break;
            }
            if next == 0 && view.chain.best_at(0).is_some_and(|hash| is_local(0, hash)) {
                next = 1;
                continue;
            }
            let end = (next - next % BATCH + BATCH - 1).min(target);
            let is_last = end == view.chain.tip().height;
            if is_last && self.tip.is_some_and(|(_, since)| now < since + TIP_DELAY) {
                break;
            }
            let blocks: Option<Vec<BlockHash>> =
                (next..=end).map(|height| view.chain.best_at(height)).collect();
            let Some(blocks) = blocks else { break };
            waiting += blocks.len() as u64;
            self.batches.insert(next, Batch::new(next, blocks, now));
            (next, unsettled) = (end + 1, unsettled + 1);
        }
        let has_work = !self.batches.is_empty();
        let is_alone = has_work && self.filter_peers().next().is_none();
        if is_alone && !self.is_alone {
            tracing::warn!("no peer serves filters: waiting for one that does");
        }
        self.is_alone = is_alone;
    }

    fn ask_for_hashes(&mut self, now: Instant, view: &View<'_>) {
        // Who comes later is asked too, while there are few: better late than never.
        let is_open = |batch: &&Batch| !batch.is_settled || batch.claims.len() < WITNESSES;
        for batch in self.batches.values().filter(is_open) {
            let (start, count, stop) = (batch.start, batch.count(), batch.stop());
            let what = What::Hashes { start, count, stop };
            let asked = self.peers.values().filter(|peer| peer.is_asked(&what)).count();
            let missing = WITNESSES.saturating_sub(batch.claims.len() + asked);
            for _ in 0..missing {
                let may_ask = |id: PeerId, peers: &Peers| {
                    peers.get(&id).is_some_and(|peer| {
                        peer.has_room(Kind::Hashes, now)
                            && !peer.is_asked(&what)
                            && !batch.claims.contains_key(&id)
                            && (view.serves)(id).end() >= &batch.end()
                    })
                };
                let Some(id) = choose(&self.peers, &mut self.turn, Kind::Hashes, may_ask) else { break };
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.ask(what.clone(), now);
                    self.outputs.push_back(Output::Ask(id, Want::FilterHashes { start, count, stop }));
                }
            }
        }
    }

    /// Takes what was said of a batch for all that will be: when enough peers have said it, or everybody who may.
    fn settle(&mut self, now: Instant, view: &View<'_>) {
        let grace = self.options.header_timeout;
        let peers: Vec<PeerId> = self.filter_peers().collect();
        for batch in self.batches.values_mut().filter(|batch| !batch.is_settled && !batch.claims.is_empty()) {
            // Who has shown nothing yet, or not the last blocks, is waited for: it may be the one who is right.
            let is_new = now < batch.begun + grace;
            let may_say = |id: &PeerId| {
                let serves = (view.serves)(*id);
                let reach = if is_new && !serves.is_empty() { serves.end() + NEAR } else { *serves.end() };
                reach >= batch.end() || is_new && serves.is_empty()
            };
            let is_heard = |id: &PeerId| batch.claims.contains_key(id);
            if batch.claims.len() >= WITNESSES || peers.iter().all(|id| is_heard(id) || !may_say(id)) {
                batch.is_settled = true;
                self.figures.disputed += batch.compare();
            }
        }
    }

    fn ask_for_filters(&mut self, now: Instant) {
        let mut asked = self.asked_filters(now);
        let mut planned = self.buffered + asked.len() as u64 * self.average;
        let front = self.batches.keys().next().copied();
        let next = self.front.map_or(0, |front| front.height + 1);
        let most = self.options.byte_budget / 2;
        for batch in self.batches.values().filter(|batch| batch.is_settled) {
            let expected = batch.slots.len() as u64 * self.average;
            if Some(batch.start) != front && planned + expected > most {
                return;
            }
            for (mut blocks, of) in runs(batch, &asked) {
                // What comes next is taken all the same.
                let is_next = blocks.first().is_some_and(|(height, _)| *height == next);
                let room = most.saturating_sub(planned) / self.average.max(1);
                blocks.truncate(usize::try_from(room).unwrap_or(usize::MAX).max(usize::from(is_next)));
                if blocks.is_empty() {
                    continue;
                }
                let claims_it = |id: PeerId, peers: &Peers| {
                    let peer = peers.get(&id).filter(|peer| peer.has_room(Kind::Filters, now));
                    // The front may have been asked of one who is slow.
                    let is_free = |peer: &Peer| {
                        !blocks.iter().any(|(_, block)| peer.is_to_bring(*block, Kind::Filters))
                    };
                    peer.is_some_and(is_free)
                        && of.is_none_or(|(height, hash)| batch.claim(id, height) == Some(hash))
                        && batch.claims.contains_key(&id)
                };
                let Some(id) = choose(&self.peers, &mut self.turn, Kind::Filters, claims_it) else {
                    continue;
                };
                let Some(peer) = self.peers.get_mut(&id) else { continue };
                let start = blocks.first().map_or(0, |(height, _)| *height);
                let hashes: Vec<BlockHash> = blocks.iter().map(|(_, block)| *block).collect();
                planned += hashes.len() as u64 * self.average;
                peer.ask(
                    What::Filters(blocks.into_iter().map(|(height, block)| (block, height)).collect()),
                    now,
                );
                // A filter in dispute is asked of each side.
                if of.is_none() {
                    asked.extend(hashes.iter().map(|block| (*block, None)));
                }
                self.outputs.push_back(Output::Ask(id, Want::Filters { start, blocks: hashes }));
            }
        }
    }

    /// The filters that are under way, but those at the front that are slow to come; those in dispute with the hash that whoever
    /// was asked has said.
    fn asked_filters(&self, now: Instant) -> BTreeSet<(BlockHash, Option<FilterHash>)> {
        let mut asked = BTreeSet::new();
        let front = self.batches.keys().next().copied();
        for (id, peer) in &self.peers {
            for task in &peer.tasks {
                let What::Filters(blocks) = &task.what else { continue };
                let is_slow = task.slow_at(self.options.stall_timeout) <= now;
                for (block, height) in blocks {
                    let batch = self.batches.range(..=*height).next_back().map(|(_, batch)| batch);
                    let Some(batch) = batch.filter(|batch| !is_slow || Some(batch.start) != front) else {
                        continue;
                    };
                    let slot = batch.slots.get((height - batch.start) as usize);
                    let Some(slot) = slot.filter(|slot| slot.block == *block) else { continue };
                    let is_disputed = matches!(slot.state, State::Disputed(_));
                    asked.insert((*block, batch.claim(*id, *height).filter(|_| is_disputed)));
                }
            }
        }
        asked
    }

    /// Asks for blocks whose filter matches, and for those that have to tell whose filter is right.
    fn ask_for_blocks(&mut self, now: Instant, view: &View<'_>) {
        self.want_blocks();
        let under_way: BTreeSet<BlockHash> = self.asked_blocks(now).collect();
        let mut planned = self.buffered + under_way.len() as u64 * super::blocks::USUAL_SIZE;
        let front = self.blocks.keys().next().copied();
        for wanted in self.blocks.values().filter(|wanted| wanted.block.is_none()) {
            let BlockId { height, hash } = wanted.id;
            if under_way.contains(&hash) {
                continue;
            }
            if Some(height) != front && planned + wanted.size > self.options.byte_budget {
                return;
            }
            let has_it = |id: PeerId, peers: &Peers| {
                peers.get(&id).is_some_and(|peer| {
                    peer.has_room(Kind::Blocks, now) && !peer.is_to_bring(hash, Kind::Blocks)
                }) && (view.serves)(id).contains(&height)
            };
            let Some(id) = choose(&self.peers, &mut self.turn, Kind::Blocks, has_it) else { return };
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.ask(What::Block { height, hash }, now);
                planned += wanted.size;
                self.outputs.push_back(Output::Ask(id, Want::Blocks(vec![hash])));
            }
        }
    }
}

/// The runs of filters of a batch that are to be asked for; those in dispute by themselves, with the hash that is theirs.
type Run = (Vec<(u64, BlockHash)>, Option<(u64, FilterHash)>);

fn runs(batch: &Batch, asked: &BTreeSet<(BlockHash, Option<FilterHash>)>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut is_open = false;
    for (height, slot) in (batch.start..).zip(&batch.slots) {
        let mut is_agreed = false;
        match &slot.state {
            State::Agreed(_) if !asked.contains(&(slot.block, None)) => {
                is_agreed = true;
                match runs.last_mut().filter(|_| is_open) {
                    Some((blocks, _)) => blocks.push((height, slot.block)),
                    None => runs.push((vec![(height, slot.block)], None)),
                }
            }
            State::Disputed(filters) => {
                let missing = filters.iter().filter(|(_, filter)| filter.is_none()).map(|(hash, _)| *hash);
                let unasked = missing.filter(|hash| !asked.contains(&(slot.block, Some(*hash))));
                runs.extend(unasked.map(|hash| (vec![(height, slot.block)], Some((height, hash)))));
            }
            _ => {}
        }
        is_open = is_agreed;
    }
    runs
}

/// The peer with the fewest questions of this kind among those that may be asked; each in its turn among equals.
fn choose(
    peers: &Peers,
    turn: &mut usize,
    kind: Kind,
    may_ask: impl Fn(PeerId, &Peers) -> bool,
) -> Option<PeerId> {
    let able: BTreeMap<PeerId, usize> = peers
        .iter()
        .filter(|(id, _)| may_ask(**id, peers))
        .map(|(id, peer)| (*id, peer.open(kind)))
        .collect();
    let least = *able.values().min()?;
    let equal: Vec<PeerId> = able.into_iter().filter(|(_, open)| *open == least).map(|(id, _)| id).collect();
    *turn = turn.wrapping_add(1);
    equal.get(*turn % equal.len()).copied()
}
