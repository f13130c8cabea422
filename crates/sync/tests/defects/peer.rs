//! Simulated peers, honest and not. What they send comes in the order of the questions, over a line of their own.

use std::{collections::BTreeSet, time::Instant};

use bytes::Bytes;
use tipward_sync::{
    Input,
    peer::{
        Reply,
        wire::{BlockEnd, BlockPart, DownloadId, Verdict},
    },
};

use super::*;

/// In how large parts what follows the start of a block comes.
const PART: u64 = 1 << 20;
/// After how many bytes of a part it is told how far it has come.
const TELL: u64 = 64 << 10;
/// How many hashes a list has at most.
const LIST: usize = 500;

#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) chain: Vec<SimBlock>,
    /// There or back.
    pub(crate) latency: Duration,
    /// Bytes a second.
    pub(crate) rate: f64,
    pub(crate) joins_after: Duration,
    /// Its claim, if that is not its height.
    pub(crate) claim: Option<u64>,
    /// It sends no block after so many, and answers nothing more.
    pub(crate) mute_after: Option<usize>,
    /// It never sends blocks with these indexes.
    pub(crate) skips: BTreeSet<u64>,
    /// It passes these over the first time that it is asked.
    pub(crate) skips_once: BTreeSet<u64>,
    /// It sends what it was asked for in reverse.
    pub(crate) reverses: bool,
    /// It says when a range is over, and which blocks it does not have.
    pub(crate) tells_what_is_missing: bool,
    /// It lists what it has, in headers or hashes.
    pub(crate) lists: bool,
    /// It answers questions for ancestors.
    pub(crate) knows_ancestors: bool,
}

impl Model {
    pub(crate) fn honest(chain: &[SimBlock]) -> Self {
        Self {
            chain: chain.to_vec(),
            latency: millis(50),
            rate: 100_000.0,
            joins_after: Duration::ZERO,
            claim: None,
            mute_after: None,
            skips: BTreeSet::new(),
            skips_once: BTreeSet::new(),
            reverses: false,
            tells_what_is_missing: true,
            lists: true,
            knows_ancestors: true,
        }
    }

    pub(crate) fn claim(&self) -> u64 {
        self.claim.unwrap_or_else(|| self.chain.last().map_or(0, |block| block.index))
    }
}

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) model: Model,
    /// How many blocks it has sent.
    pub(crate) served: usize,
    pub(crate) free_at: Instant,
    /// What has come since nothing is read from it.
    pub(crate) held: Option<Vec<Input>>,
}

impl Peer {
    pub(crate) fn new(model: Model, now: Instant) -> Self {
        Self { model, served: 0, free_at: now, held: None }
    }

    fn is_mute(&self) -> bool {
        self.model.mute_after.is_some_and(|most| self.served >= most)
    }

    /// What it sends in answer, and when that arrives.
    pub(crate) fn serve(&mut self, id: PeerId, want: &Want, now: Instant) -> Vec<(Instant, Input)> {
        if self.is_mute() {
            return Vec::new();
        }
        let model = &self.model;
        let soon = |reply| vec![(now + model.latency * 2, Input::Reply(id, reply))];
        let after = |locator: &[BlockHash]| {
            let at = |hash: &BlockHash| model.chain.iter().position(|block| block.hash == *hash);
            model.chain.iter().skip(locator.iter().find_map(at).unwrap_or(0) + 1)
        };
        let is_there = |block: &&SimBlock| !model.skips.contains(&block.index);
        let blocks: Vec<SimBlock> = match want {
            Want::HeadersAfter(_) | Want::BlocksAfter { .. } if !model.lists => return Vec::new(),
            Want::HeadersAfter(locator) => {
                let headers: Vec<Header> = after(locator).take(2000).map(SimBlock::header).collect();
                let more = headers.len() == 2000;
                return soon(Reply::Headers { headers, more });
            }
            Want::BlocksAfter { locator, stop } => {
                let mut hashes: Vec<_> = after(locator).map(|block| block.hash).collect();
                let end = hashes.iter().position(|hash| hash == stop).map_or(LIST, |at| at + 1);
                hashes.truncate(end.min(LIST));
                return if hashes.is_empty() { Vec::new() } else { soon(Reply::Announced(hashes)) };
            }
            Want::Blocks(hashes) => {
                let find = |hash: &BlockHash| model.chain.iter().find(|block| block.hash == *hash);
                hashes.iter().filter_map(find).filter(is_there).cloned().collect()
            }
            Want::Range { start, count } => {
                let heights = *start..*start + u64::from(*count);
                let asked = model.chain.iter().filter(|block| heights.contains(&block.index));
                asked.filter(is_there).cloned().collect()
            }
            Want::SlotRange { start, count } => {
                let asked = model.chain.iter().filter(|block| block.index >= *start).filter(is_there);
                asked.take(*count as usize).cloned().collect()
            }
            Want::Ancestors { of, count } if model.knows_ancestors => {
                let at = model.chain.iter().position(|block| block.hash == *of).unwrap_or(0);
                model.chain[..at].iter().rev().take(*count as usize).filter(is_there).cloned().collect()
            }
            other => return soon(Reply::Unsupported(other.clone())),
        };
        self.send(id, want, blocks, now)
    }

    fn send(
        &mut self,
        id: PeerId,
        want: &Want,
        mut blocks: Vec<SimBlock>,
        now: Instant,
    ) -> Vec<(Instant, Input)> {
        blocks.retain(|block| !self.model.skips_once.remove(&block.index));
        if self.model.reverses {
            blocks.reverse();
        }
        self.free_at = self.free_at.max(now + self.model.latency);
        let mut replies = Vec::new();
        for block in &blocks {
            if self.is_mute() {
                return replies;
            }
            self.served += 1;
            self.send_block(id, block, &mut replies);
        }
        if self.model.tells_what_is_missing {
            let end = match want {
                Want::Blocks(asked) => {
                    let is_sent = |hash: &BlockHash| blocks.iter().any(|block| block.hash == *hash);
                    let missing: Vec<_> = asked.iter().filter(|hash| !is_sent(hash)).copied().collect();
                    (!missing.is_empty()).then_some(Reply::Missing(missing))
                }
                _ => Some(Reply::RangeEnd),
            };
            let at = self.free_at + self.model.latency;
            replies.extend(end.map(|end| (at, Input::Reply(id, end))));
        }
        replies
    }

    fn send_block(&mut self, id: PeerId, block: &SimBlock, replies: &mut Vec<(Instant, Input)>) {
        let zeros =
            Bytes::from(vec![0; if block.size > block.bytes.len() as u64 { PART as usize } else { 0 }]);
        let (mut offset, mut index) = (0, 0);
        while offset < block.size {
            let bytes = if index == 0 {
                block.bytes.clone()
            } else {
                zeros.slice(..(block.size - offset).min(PART) as usize)
            };
            let length = bytes.len() as u64;
            // As the link does it: told between parts, of all bytes of the block so far.
            for received in (TELL..length).step_by(TELL as usize) {
                let at = self.free_at + Duration::from_secs_f64(received as f64 / self.model.rate);
                let progress = Reply::Progress { received: offset + received };
                replies.push((at + self.model.latency, Input::Reply(id, progress)));
            }
            self.free_at += Duration::from_secs_f64(length as f64 / self.model.rate);
            let part = BlockPart {
                block: block.hash,
                download: DownloadId(self.served as u64),
                block_size: block.size,
                index,
                offset,
                first_transaction: 0,
                transactions: Vec::new(),
                bytes,
                ends_inside_transaction: offset + length < block.size,
            };
            replies.push((self.free_at + self.model.latency, Input::Reply(id, Reply::Part(part))));
            (offset, index) = (offset + length, index + 1);
        }
        let end = BlockEnd {
            block: block.hash,
            download: DownloadId(self.served as u64),
            transactions: 1,
            size: block.size,
            parts: index,
            checksum: Verdict::Verified,
            merkle_root: Verdict::Verified,
        };
        replies.push((self.free_at + self.model.latency, Input::Reply(id, Reply::BlockEnd(end))));
    }
}
