//! What peers say: hashes of filters, and filters.

use std::time::Instant;

use bytes::Bytes;
use tipward_peer::{
    PeerId, Reply, Want,
    wire::{BlockHash, FilterHash, FilterHeader},
};

use super::{Batch, Filters, Kind, State, View, peers::What};
use crate::{BlockId, Chain, Fault};

/// Over how many filters the average of their sizes runs.
const AVERAGED: u64 = 256;

impl Filters {
    pub(super) fn reply(&mut self, now: Instant, id: PeerId, reply: Reply, view: &View<'_>) {
        if !self.peers.contains_key(&id) {
            return; // Dropped; what was still under way is void.
        }
        match reply {
            Reply::FilterHashes { stop, previous, hashes } => {
                self.hashes(now, id, stop, previous, hashes, view.chain);
            }
            Reply::Filter { block, bytes } => self.filter(now, id, block, bytes),
            Reply::Part(part) => self.part(now, id, part),
            Reply::BlockEnd(end) => self.block_end(now, id, &end),
            Reply::BlockAborted { block, .. } => self.no_block(now, id, &[block]),
            Reply::Missing(blocks) | Reply::Unsupported(Want::Blocks(blocks)) => {
                self.no_block(now, id, &blocks);
            }
            Reply::Progress { .. } => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.sends_block(now);
                }
            }
            Reply::Unsupported(Want::FilterHashes { .. } | Want::Filters { .. }) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.serves_filters = false;
                    peer.tasks.retain(|task| task.what.kind() == Kind::Blocks);
                    // Nobody else may be left to bring what it has said.
                    self.forget_word(now, id);
                }
            }
            _ => {}
        }
    }

    fn hashes(
        &mut self,
        now: Instant,
        id: PeerId,
        stop: BlockHash,
        previous: FilterHeader,
        hashes: Vec<FilterHash>,
        chain: &dyn Chain,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.tasks.retain(|task| !matches!(task.what, What::Hashes { stop: of, .. } if of == stop));
        peer.brought(Kind::Hashes, true, now);
        self.is_stale = true;
        let batch = self.batches.values_mut().find(|it| it.stop() == stop && it.slots.len() == hashes.len());
        // Of blocks that are done, or not on the best chain any more.
        let Some(batch) = batch else { return };
        let header = hashes.iter().fold(previous, |previous, hash| self.rules.header(*hash, previous));
        let before = batch.start.checked_sub(1).and_then(|height| Some((height, chain.best_at(height)?)));
        // All that a peer says has to be of one chain of filters; that others say the same is for each filter alone.
        let is_same = before.is_none_or(|(height, block)| peer.says(height, block, previous))
            && peer.says(batch.end(), stop, header)
            && batch.claims.get(&id).is_none_or(|before| *before == hashes);
        if !is_same {
            return self.drop_peer(now, id, Fault::FilterEquivocation { block: stop });
        }
        batch.claims.insert(id, hashes);
        if batch.is_settled {
            self.figures.disputed += batch.compare();
        }
    }

    fn filter(&mut self, now: Instant, id: PeerId, block: BlockHash, bytes: Bytes) {
        let Some(height) = self.filter_came(now, id, block) else { return };
        let Some((_, batch)) = self.batches.range_mut(..=height).next_back() else { return };
        let Some(said) = batch.claim(id, height) else { return };
        let Some(slot) = batch.slot(height).filter(|slot| slot.block == block) else { return };
        if self.rules.hash(&bytes) != said {
            let reason = "it does not have the hash that the peer said".to_owned();
            return self.drop_peer(now, id, Fault::FalseFilter { block, reason });
        }
        let length = bytes.len() as u64;
        self.average = (self.average * (AVERAGED - 1) + length).div_ceil(AVERAGED);
        self.figures.filters += 1;
        let is_front = self.front.map_or(0, |front| front.height + 1) == height;
        match &mut slot.state {
            // It is asked for again when there is room.
            State::Agreed(_) | State::Disputed(_)
                if !is_front && self.buffered + length > self.options.byte_budget =>
            {
                return;
            }
            State::Agreed(hash) if *hash == said => {
                slot.state = State::There { hash: said, filter: bytes, seen: 0, matches: false };
            }
            State::Disputed(filters) => {
                if let Some(filter) = filters.get_mut(&said) {
                    *filter = Some(bytes);
                    self.is_stale = true;
                }
            }
            _ => return,
        }
        self.buffered += length;
        self.look(now, BlockId { height, hash: block });
    }

    /// Takes a filter off the list of what is asked for; `None` if it is not on it any more.
    fn filter_came(&mut self, now: Instant, id: PeerId, block: BlockHash) -> Option<u64> {
        let peer = self.peers.get_mut(&id)?;
        let mut found = None;
        for task in &mut peer.tasks {
            if let What::Filters(blocks) = &mut task.what
                && let Some(height) = blocks.remove(&block)
            {
                task.moved = now;
                found = Some((height, blocks.is_empty()));
                break;
            }
        }
        let (height, is_done) = found?;
        peer.brought(Kind::Filters, true, now);
        if is_done {
            peer.tasks.retain(|task| !matches!(&task.what, What::Filters(blocks) if blocks.is_empty()));
            self.is_stale = true;
        }
        Some(height)
    }

    /// Looks through a filter at once, so that the block is fetched before its turn.
    fn look(&mut self, now: Instant, id: BlockId) {
        let (rules, watch) = (&self.rules, &self.watch);
        let Some((_, batch)) = self.batches.range_mut(..=id.height).next_back() else { return };
        let start = batch.start;
        let Some(slot) = batch.slot(id.height) else { return };
        let State::There { hash, filter, seen, matches } = &mut slot.state else { return };
        let look = |scripts: &[_]| (scripts.len(), rules.matches(id.hash, filter, scripts));
        match watch.after(*seen, look) {
            (new, Ok(is_match)) => {
                (*seen, *matches) = (*seen + new, is_match);
                self.is_stale |= is_match;
            }
            (_, Err(error)) => {
                let (hash, reason) = (*hash, error.to_string());
                self.malformed(now, start, id, hash, &reason);
            }
        }
    }

    /// Everybody who said that this is the filter has lied.
    pub(super) fn malformed(
        &mut self,
        now: Instant,
        start: u64,
        id: BlockId,
        hash: FilterHash,
        reason: &str,
    ) {
        let liars = self.batches.get(&start).map(|batch: &Batch| batch.claimants(id.height, hash));
        for liar in liars.into_iter().flatten() {
            let reason = reason.to_owned();
            self.drop_peer(now, liar, Fault::FalseFilter { block: id.hash, reason });
        }
    }
}
