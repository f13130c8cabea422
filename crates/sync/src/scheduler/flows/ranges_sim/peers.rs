//! Simulated peers, honest and not.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tipward_peer::{
    PeerId, Want,
    wire::{BlockHash, BlockPart, DownloadId},
};

use super::chain::SimBlock;
use crate::scheduler::flow::{Arrived, FlowInput};

/// What a simulated peer is like.
#[derive(Debug, Clone)]
pub(in super::super) struct Model {
    pub(in super::super) chain: Vec<SimBlock>,
    /// There or back.
    pub(in super::super) latency: Duration,
    pub(in super::super) per_block: Duration,
    pub(in super::super) joins_after: Duration,
    pub(in super::super) leaves_after: Option<Duration>,
    /// Its claim, if that is not its height.
    pub(in super::super) claim: Option<u64>,
    /// It tells when a range has ended.
    pub(in super::super) ends_ranges: bool,
    /// It is silent after so many blocks.
    pub(in super::super) mute_after: Option<usize>,
    /// It never sends blocks with these indexes.
    pub(in super::super) skips: BTreeSet<u64>,
    /// It passes these over the first time that it is asked.
    pub(in super::super) skips_once: BTreeSet<u64>,
    /// It sends bytes all the time, and never a block.
    pub(in super::super) trickles: bool,
    /// It sends what it was asked for in reverse.
    pub(in super::super) reverses: bool,
    /// From this index on it sends blocks that build on nothing.
    pub(in super::super) forges_from: Option<u64>,
    /// Whatever slots it is asked for, it sends blocks in them that build on nothing.
    pub(in super::super) forges_without_end: bool,
    /// It sends every block twice.
    pub(in super::super) repeats: bool,
    /// It answers questions for ancestors.
    pub(in super::super) knows_ancestors: bool,
    /// It has thrown away blocks with indexes below.
    pub(in super::super) pruned_below: u64,
    /// How many blocks it sends at once at most.
    pub(in super::super) max_answer: usize,
}

impl Model {
    pub(in super::super) fn honest(chain: &[SimBlock]) -> Self {
        Self {
            chain: chain.to_vec(),
            latency: Duration::from_millis(50),
            per_block: Duration::from_millis(2),
            joins_after: Duration::ZERO,
            leaves_after: None,
            claim: None,
            ends_ranges: false,
            mute_after: None,
            skips: BTreeSet::new(),
            skips_once: BTreeSet::new(),
            trickles: false,
            reverses: false,
            forges_from: None,
            forges_without_end: false,
            repeats: false,
            knows_ancestors: true,
            pruned_below: 0,
            max_answer: usize::MAX,
        }
    }

    pub(in super::super) fn claim(&self) -> u64 {
        self.claim.unwrap_or_else(|| self.chain.last().map_or(0, |block| block.index))
    }
}

#[derive(Debug)]
pub(in super::super) struct SimPeer {
    pub(in super::super) model: Model,
    pub(in super::super) served: usize,
    free_at: Instant,
    hashes: BTreeSet<BlockHash>,
}

impl SimPeer {
    pub(super) fn new(model: Model, now: Instant) -> Self {
        Self { model, served: 0, free_at: now, hashes: BTreeSet::new() }
    }

    pub(super) fn has_served(&self, hash: BlockHash) -> bool {
        self.hashes.contains(&hash)
    }

    /// What the peer sends in answer, and when that arrives.
    pub(super) fn serve(&mut self, id: PeerId, want: &Want, now: Instant) -> Vec<(Instant, FlowInput)> {
        let model = &self.model;
        self.free_at = self.free_at.max(now + model.latency);
        if model.trickles {
            let beat = |n: u64| (now + Duration::from_millis(500 * n), FlowInput::Progress(id));
            return (1..=600).map(beat).collect();
        }
        let is_there =
            |block: &&SimBlock| block.index >= model.pruned_below && !model.skips.contains(&block.index);
        let mut blocks: Vec<SimBlock> = match want {
            Want::Range { start, count } => {
                let heights = *start..*start + u64::from(*count);
                let asked = model.chain.iter().filter(|block| heights.contains(&block.index));
                asked.filter(is_there).cloned().collect()
            }
            Want::SlotRange { start, count } if model.forges_without_end => {
                let nothing = BlockHash::from_bytes([id.0 as u8 + 1; 32]);
                let slots = *start..=start.saturating_add(u64::from(*count) - 1);
                slots.map(|slot| SimBlock::new(nothing, slot, 2000 + id.0, true)).collect()
            }
            Want::SlotRange { start, count } => {
                let asked = model.chain.iter().filter(|block| block.index >= *start).filter(is_there);
                asked.take(*count as usize).cloned().collect()
            }
            Want::Ancestors { of, count } if model.knows_ancestors => {
                let at = model.chain.iter().position(|block| block.hash == *of).unwrap_or(0);
                let below = model.chain[..at].iter().rev().take(*count as usize);
                below.take_while(is_there).cloned().collect()
            }
            Want::Blocks(hashes) => {
                let asked = model.chain.iter().filter(|block| hashes.contains(&block.hash));
                asked.filter(is_there).cloned().collect()
            }
            other => return vec![(now + model.latency * 2, FlowInput::Unsupported(id, other.clone()))],
        };
        blocks.truncate(model.max_answer);
        blocks.retain(|block| !self.model.skips_once.remove(&block.index));
        if self.model.reverses {
            blocks.reverse();
        }
        self.send(id, want, blocks)
    }

    fn send(&mut self, id: PeerId, want: &Want, blocks: Vec<SimBlock>) -> Vec<(Instant, FlowInput)> {
        let mut replies = Vec::new();
        let is_empty = blocks.is_empty();
        for block in blocks {
            if self.model.mute_after.is_some_and(|most| self.served >= most) {
                return replies;
            }
            let block = match self.model.forges_from {
                Some(from) if block.index >= from => {
                    SimBlock::new(BlockHash::from_bytes([id.0 as u8 + 1; 32]), block.index, 1000 + id.0, true)
                }
                _ => block,
            };
            self.served += 1;
            self.hashes.insert(block.hash);
            self.free_at += self.model.per_block;
            let at = self.free_at + self.model.latency;
            let times = if self.model.repeats { 2 } else { 1 };
            replies.extend((0..times).map(|_| (at, FlowInput::Block(arrived(id, &block)))));
        }
        let at = self.free_at + self.model.latency;
        match want {
            Want::Blocks(hashes) if is_empty => replies.push((at, FlowInput::Missing(id, hashes.clone()))),
            Want::Range { .. } if !self.model.ends_ranges => {}
            Want::Blocks(_) => {}
            _ if self.model.mute_after.is_none_or(|most| self.served < most) => {
                replies.push((at, FlowInput::RangeEnd(id)));
            }
            _ => {}
        }
        replies
    }
}

pub(in super::super) fn arrived(id: PeerId, block: &SimBlock) -> Arrived {
    let part = BlockPart {
        block: block.hash,
        download: DownloadId(0),
        block_size: block.bytes.len() as u64,
        index: 0,
        offset: 0,
        first_transaction: 0,
        transactions: vec![49],
        bytes: Bytes::clone(&block.bytes),
        ends_inside_transaction: false,
    };
    Arrived {
        hash: block.hash,
        parts: vec![part],
        transactions: 1,
        size: block.bytes.len() as u64,
        served_by: id,
    }
}
