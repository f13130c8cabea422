//! Simulated peers.

use std::{
    collections::HashMap,
    ops::Range,
    time::{Duration, Instant},
};

use tipward_chain::sync::peer::{
    Reply, Want,
    wire::{BlockEnd, BlockHash, Verdict},
};

use super::blocks::{SIZE, SimBlock};

/// What a peer is like.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    /// Its best chain, which it tells of.
    pub(crate) chain: Vec<SimBlock>,
    /// Branches that it has beside it: by hash only.
    pub(crate) others: Vec<Vec<SimBlock>>,
    /// It has no blocks in these slots.
    pub(crate) lacks: Vec<Range<u64>>,
    /// The slot that it claims, if that is not its tip's.
    pub(crate) claim: Option<u64>,
    /// There or back.
    pub(crate) latency: Duration,
    pub(crate) per_block: Duration,
    pub(crate) joins_at: Duration,
    pub(crate) leaves_at: Option<Duration>,
    /// It says nothing after so many blocks.
    pub(crate) silent_after: Option<usize>,
    /// It answers questions for ancestors.
    pub(crate) knows_ancestors: bool,
}

impl Model {
    pub(crate) fn new(chain: &[SimBlock]) -> Self {
        Self {
            chain: chain.to_vec(),
            others: Vec::new(),
            lacks: Vec::new(),
            claim: None,
            latency: Duration::from_millis(50),
            per_block: Duration::from_millis(2),
            joins_at: Duration::ZERO,
            leaves_at: None,
            silent_after: None,
            knows_ancestors: true,
        }
    }

    /// One without the blocks from one slot to before another.
    pub(crate) fn lacking(chain: &[SimBlock], lacks: &[(u64, u64)]) -> Self {
        Self { lacks: lacks.iter().map(|&(from, to)| from..to).collect(), ..Self::new(chain) }
    }

    pub(crate) fn claim(&self) -> u64 {
        let highest = || self.chain.iter().rev().find(|block| self.has(block)).map_or(0, |block| block.slot);
        self.claim.unwrap_or_else(highest)
    }

    pub(crate) fn has(&self, block: &SimBlock) -> bool {
        !self.lacks.iter().any(|slots| slots.contains(&block.slot))
    }

    /// Everything that it serves.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = &SimBlock> {
        self.others.iter().chain([&self.chain]).flatten().filter(|block| self.has(block))
    }
}

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) model: Model,
    free_at: Instant,
    served: usize,
}

impl Peer {
    pub(crate) fn new(model: Model, now: Instant) -> Self {
        Self { model, free_at: now, served: 0 }
    }

    /// What it answers, and when that arrives.
    pub(crate) fn serve(&mut self, want: &Want, now: Instant) -> Vec<(Instant, Vec<Reply>)> {
        let model = &self.model;
        self.free_at = self.free_at.max(now + model.latency);
        let by_hash: HashMap<BlockHash, &SimBlock> =
            model.blocks().map(|block| (block.hash, block)).collect();
        let mut missing = Vec::new();
        let blocks: Vec<SimBlock> = match want {
            Want::SlotRange { start, count } => {
                let asked = model.chain.iter().filter(|block| block.slot >= *start && model.has(block));
                asked.take(*count as usize).cloned().collect()
            }
            Want::Ancestors { of, count } if model.knows_ancestors => {
                let parent = |block: &&SimBlock| by_hash.get(&block.parent).copied();
                let first = by_hash.get(of).copied();
                // It has thrown away what comes before.
                missing.extend(first.map(|block| block.parent).filter(|hash| !by_hash.contains_key(hash)));
                let below = std::iter::successors(first, parent).skip(1).filter(|block| block.slot > 0);
                below.take(*count as usize).cloned().collect()
            }
            Want::Blocks(hashes) => {
                missing = hashes.iter().copied().filter(|hash| !by_hash.contains_key(hash)).collect();
                hashes.iter().filter_map(|hash| by_hash.get(hash).copied()).cloned().collect()
            }
            other => return vec![(now + model.latency * 2, vec![Reply::Unsupported(other.clone())])],
        };
        let mut replies = Vec::new();
        for block in blocks {
            if self.model.silent_after.is_some_and(|most| self.served >= most) {
                return replies;
            }
            self.served += 1;
            self.free_at += self.model.per_block;
            replies.push((self.free_at + self.model.latency, whole(&block, self.served as u64)));
        }
        let at = self.free_at + self.model.latency;
        if !missing.is_empty() {
            replies.push((at, vec![Reply::Missing(missing)]));
        }
        if !matches!(want, Want::Blocks(_)) && self.model.silent_after.is_none_or(|most| self.served < most) {
            replies.push((at, vec![Reply::RangeEnd]));
        }
        replies
    }
}

fn whole(block: &SimBlock, download: u64) -> Vec<Reply> {
    let part = block.part(download);
    let end = BlockEnd {
        block: block.hash,
        download: part.download,
        transactions: 1,
        size: SIZE as u64,
        parts: 1,
        checksum: Verdict::Verified,
        merkle_root: Verdict::Verified,
    };
    vec![Reply::Part(part), Reply::BlockEnd(end)]
}
