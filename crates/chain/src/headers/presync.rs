//! Long chains of headers that have not shown yet that they are worth their memory (Bitcoin Core, `headerssync.h`).
//!
//! While the best chain has less work than the network is known to have, anybody can make headers by the million that are
//! valid and easy. So they are looked at twice. The first time only their work is added up, and of every 600th one bit is
//! kept. Once they have the work that it takes, they are asked for again, and let in as far as bits of what follows them
//! agree with those of the first time. Who shows another chain the second time is found out after 600 headers with odds of one
//! half, and nothing has been let in before 24 bits agreed.

use std::{
    collections::{VecDeque, hash_map::RandomState},
    hash::BuildHasher,
};

use tipward_sync::{
    BlockId,
    peer::{
        PeerId,
        wire::{BlockHash, Header, bitcoin::Work},
    },
};

use crate::{HeaderError, HeaderFacts};

/// Of how many headers one bit is kept. Which ones is a secret, as is what decides the bit.
const PERIOD: u64 = 600;
/// So many headers have to agree with their bits before one is let in.
pub(super) const AHEAD: usize = 24 * PERIOD as usize;
/// How many chains are looked at at a time, one of each peer: more than there are peers, if the user has not asked for more. The
/// one that has got on least recently goes. Each takes a bit for every 600 headers, and at the second look some 2.5 MiB.
const MAX_RUNS: usize = 64;
/// The most headers of a chain that are looked at: at ten minutes each, 160 years.
const MAX_HEADERS: u64 = 1 << 23;

/// The chains that are being looked at.
#[derive(Debug, Default)]
pub(super) struct Presync {
    secret: RandomState,
    /// The one that got on last is the last.
    runs: VecDeque<Run>,
}

/// A chain of headers on top of one in the tree.
#[derive(Debug)]
struct Run {
    /// Who shows it. Nobody else can get on with it, or lead it elsewhere.
    peer: Option<PeerId>,
    start: BlockId,
    /// Work of the chain up to `start`.
    before: Work,
    look: Look,
    /// The last header that came, and work of the chain up to there.
    last: BlockId,
    work: Work,
    /// For each period the bit that was found at the first look.
    bits: Vec<bool>,
    /// What came at the second look and is not let in yet.
    held: VecDeque<Header>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    First,
    /// It has the work. The next header is the first one again.
    Again,
    Second,
}

impl Presync {
    /// The last header of a chain that is being looked at, if it is this.
    pub(super) fn find(&self, hash: BlockHash) -> Option<BlockId> {
        self.runs.iter().map(|run| run.last).find(|last| last.hash == hash)
    }

    /// What to ask after, to get on with the chain of which this is the last header: what a peer is asked after is in the tree
    /// then, if there is more to be asked for than what follows this.
    pub(super) fn start(&self, hash: BlockHash) -> Option<(BlockId, bool)> {
        let run = self.runs.iter().find(|run| run.last.hash == hash)?;
        Some((run.start, run.look == Look::Again))
    }

    /// Whether the next header of the chain that this peer shows is a child of this.
    pub(super) fn expects(&self, peer: Option<PeerId>, parent: BlockHash) -> bool {
        self.position(peer, parent).is_some()
    }

    /// Begins to look at a chain of this peer, instead of what it has shown before, on top of a header in the tree that has this
    /// work. Returns whether there was any.
    pub(super) fn begin(&mut self, peer: Option<PeerId>, start: BlockId, work: Work) -> bool {
        let before = self.runs.len();
        self.runs.retain(|run| run.peer != peer);
        let has_begun_before = self.runs.len() < before;
        if self.runs.len() == MAX_RUNS {
            self.runs.pop_front();
        }
        let (bits, held) = (Vec::new(), VecDeque::new());
        self.runs.push_back(Run {
            peer,
            start,
            before: work,
            look: Look::First,
            last: start,
            work,
            bits,
            held,
        });
        has_begun_before
    }

    /// Takes headers of which the first is the child of one that is [expected](Self::expects), with what they say. The chain
    /// has to show `needed` work. Returns what may be let in, of which the first is the child of a header in the tree.
    ///
    /// # Errors
    /// They are not those of the first look, or too many; the chain is forgotten.
    pub(super) fn take(
        &mut self,
        peer: Option<PeerId>,
        headers: &[Header],
        facts: &[HeaderFacts],
        needed: Work,
    ) -> Result<Vec<Header>, HeaderError> {
        let at = headers.first().and_then(|first| self.position(peer, first.parent));
        let Some(mut run) = at.and_then(|at| self.runs.remove(at)) else { return Ok(Vec::new()) };
        let ready = run.take(headers, facts, needed, &self.secret)?;
        if run.look != Look::Second || run.work < needed {
            self.runs.push_back(run);
        }
        Ok(ready)
    }

    /// Forgets what this peer has shown.
    pub(super) fn forget(&mut self, peer: PeerId) {
        self.runs.retain(|run| run.peer != Some(peer));
    }

    /// Forgets all: the tree has the work that it takes.
    pub(super) fn clear(&mut self) {
        self.runs.clear();
    }

    /// How many chains are being looked at.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    fn position(&self, peer: Option<PeerId>, parent: BlockHash) -> Option<usize> {
        self.runs.iter().position(|run| run.peer == peer && run.expects() == parent)
    }
}

impl Run {
    fn expects(&self) -> BlockHash {
        if self.look == Look::Again { self.start.hash } else { self.last.hash }
    }

    fn take(
        &mut self,
        headers: &[Header],
        facts: &[HeaderFacts],
        needed: Work,
        secret: &RandomState,
    ) -> Result<Vec<Header>, HeaderError> {
        if self.look == Look::Again {
            (self.look, self.last, self.work) = (Look::Second, self.start, self.before);
        }
        // Where the bits are differs from chain to chain.
        let offset = secret.hash_one(self.start.hash) % PERIOD;
        for (header, facts) in headers.iter().zip(facts) {
            self.last = BlockId { height: self.last.height + 1, hash: header.hash };
            self.work += facts.work;
            let count = self.last.height - self.start.height;
            if count > MAX_HEADERS {
                return Err(HeaderError::LowWork { hash: header.hash, count });
            }
            if (count + offset).is_multiple_of(PERIOD) {
                self.compare(header, ((count + offset) / PERIOD - 1) as usize, secret)?;
            }
        }
        let has_work = self.work >= needed;
        if self.look == Look::First {
            if has_work {
                tracing::info!(last = %self.last, "a chain of headers has enough work, and is asked for again");
                self.look = Look::Again;
            }
            return Ok(Vec::new());
        }
        self.held.extend(headers.iter().cloned());
        let ready = if has_work { self.held.len() } else { self.held.len().saturating_sub(AHEAD) };
        Ok(self.held.drain(..ready).collect())
    }

    fn compare(&mut self, header: &Header, number: usize, secret: &RandomState) -> Result<(), HeaderError> {
        let bit = secret.hash_one(header.hash) & 1 == 1;
        match self.look {
            Look::First | Look::Again => self.bits.push(bit),
            Look::Second if self.bits.get(number) != Some(&bit) => {
                return Err(HeaderError::OtherThanShown { hash: header.hash, height: self.last.height });
            }
            Look::Second => {}
        }
        Ok(())
    }
}
