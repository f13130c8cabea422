//! Which headers are valid on BTC and BSV (Bitcoin Core, `CheckBlockHeader` and `ContextualCheckBlockHeader`; BIP 94).

use std::time::Duration;

use tipward_sync::{
    BlockHead,
    peer::{
        UnixTime,
        wire::{
            BlockHash, Header,
            bitcoin::{BlockHeader, CompactTarget, Difficulty, Network, Target, Work},
        },
    },
};

use super::{
    difficulty::{self, INTERVAL},
    eighty,
};
use crate::{Branch, HeaderError, HeaderFacts, HeaderNode, HeaderRules};

/// A header's time may be so far ahead of ours (Bitcoin Core, `MAX_FUTURE_BLOCK_TIME`).
const MAX_FUTURE: Duration = Duration::from_secs(2 * 60 * 60);
/// A period may begin so many seconds before its parent (BIP 94).
const MAX_TIMEWARP: u32 = 600;

/// A network's rules.
#[derive(Debug)]
pub(super) struct Rules {
    network: &'static Network,
    /// The easiest target, which no header's may exceed.
    limit: Option<Target>,
}

/// What a header's bits stand for.
#[derive(Debug, Clone, Copy)]
struct Claim {
    bits: CompactTarget,
    target: Target,
    work: Work,
}

impl Rules {
    pub(super) fn new(network: &'static Network) -> Self {
        Self { network, limit: network.pow_limit.to_target() }
    }

    /// The hash meets the target that the header claims, and that is no easier than the network's limit. `last` is what the
    /// header before claimed, mostly the same: then no work is worked out.
    fn meet(&self, header: &Header, last: Option<Claim>) -> Result<(BlockHeader, Claim), HeaderError> {
        let (hash, decoded) = (header.hash, BlockHeader::from_bytes(eighty(&header.raw)?));
        let bits = decoded.bits;
        let claim = match last {
            Some(last) if last.bits == bits => last,
            _ => {
                let target = bits.to_target().filter(|target| Some(*target) <= self.limit);
                let target = target.ok_or_else(|| HeaderError::Target { hash, bits: bits.to_string() })?;
                Claim { bits, target, work: target.work() }
            }
        };
        if !claim.target.is_met_by(hash) {
            return Err(HeaderError::ProofOfWork { hash, bits: bits.to_string() });
        }
        Ok((decoded, claim))
    }

    /// It does not contradict what is known of the chain.
    fn check_checkpoints(
        &self,
        hash: BlockHash,
        height: u64,
        branch: &dyn Branch,
    ) -> Result<(), HeaderError> {
        match self.network.chain_block {
            Some((at, expected)) if at == height && expected != hash => {
                return Err(HeaderError::OtherChain { hash, height, expected });
            }
            _ => {}
        }
        // If a later one is there, so is this one.
        match self.network.checkpoints.iter().find(|(at, _)| *at >= height) {
            Some(&(at, expected)) if at == height && expected != hash => {
                Err(HeaderError::Checkpoint { hash, height, expected })
            }
            Some(&(checkpoint, known)) if checkpoint > height && branch.knows(known) => {
                Err(HeaderError::BelowCheckpoint { hash, height, checkpoint })
            }
            _ => Ok(()),
        }
    }

    fn check_time(
        &self,
        hash: BlockHash,
        time: u32,
        branch: &dyn Branch,
        parent: &HeaderNode,
        now: UnixTime,
    ) -> Result<(), HeaderError> {
        let height = parent.id.height;
        let median =
            branch.median_time(height).ok_or(HeaderError::NoPast { height: height.saturating_sub(10) })?;
        if time <= median {
            return Err(HeaderError::TimeTooOld { hash, time, median });
        }
        let begins_period = (height + 1).is_multiple_of(INTERVAL);
        let is_bounded = matches!(self.network.difficulty, Difficulty::Retarget { bip94: true, .. });
        if is_bounded && begins_period && time < parent.time.saturating_sub(MAX_TIMEWARP) {
            return Err(HeaderError::TimeWarp { hash, time, parent: parent.time });
        }
        if UnixTime::from_secs(time.into()) > now.after(MAX_FUTURE) {
            return Err(HeaderError::TimeTooNew { hash, time, now: now.as_secs() });
        }
        Ok(())
    }
}

impl HeaderRules for Rules {
    fn read(&self, header: &Header) -> Result<HeaderFacts, HeaderError> {
        let (BlockHeader { time, bits, .. }, Claim { work, .. }) = self.meet(header, None)?;
        Ok(HeaderFacts { work, time, bits: bits.0 })
    }

    fn read_all(&self, headers: &[Header]) -> (Vec<HeaderFacts>, Result<(), HeaderError>) {
        let (mut all, mut last) = (Vec::with_capacity(headers.len()), None);
        for header in headers {
            match self.meet(header, last) {
                Ok((BlockHeader { time, bits, .. }, claim)) => {
                    all.push(HeaderFacts { work: claim.work, time, bits: bits.0 });
                    last = Some(claim);
                }
                Err(error) => return (all, Err(error)),
            }
        }
        (all, Ok(()))
    }

    fn follow(
        &self,
        header: &Header,
        HeaderFacts { time, bits, .. }: HeaderFacts,
        branch: &dyn Branch,
        now: UnixTime,
    ) -> Result<(), HeaderError> {
        // By reference from here on: a copy waits until what was just written can be read as a whole.
        let (hash, tip) = (header.hash, &branch.tip());
        if header.parent != tip.id.hash {
            return Err(HeaderError::NotLinked { hash });
        }
        let height = tip.id.height + 1;
        self.check_checkpoints(hash, height, branch)?;
        let required = difficulty::required(self.network, branch, tip, time)?;
        if bits != required.0 {
            let (bits, required) = (CompactTarget(bits).to_string(), required.to_string());
            return Err(HeaderError::Difficulty { hash, height, bits, required });
        }
        self.check_time(hash, time, branch, tip, now)
    }

    fn past(&self, height: u64) -> u64 {
        difficulty::past(self.network, height)
    }

    fn min_work(&self) -> Work {
        self.network.min_work
    }

    fn read_head(&self, start: &[u8]) -> Result<BlockHead, HeaderError> {
        let raw = start.first_chunk().ok_or(HeaderError::Length { len: start.len() })?;
        let header = Header::from(BlockHeader::from_bytes(raw));
        self.meet(&header, None)?;
        let parents = Some(header.parent).filter(|parent| *parent != BlockHash::ZERO).into_iter().collect();
        Ok(BlockHead { header, parents, index: None })
    }
}
