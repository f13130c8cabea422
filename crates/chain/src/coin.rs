//! What a network brings to the chain layer. A new coin is one more implementation of [`Coin`].

use std::{fmt, sync::Arc};

use bytes::Bytes;
use tipward_sync::{
    Block, BlockHead, FilterRules,
    peer::{
        Protocol, UnixTime,
        wire::{BlockError, Header, bitcoin::Work},
    },
};

use crate::{Branch, HeaderError, HeaderFacts};

/// A network, as a node needs it.
pub trait Coin: Send + Sync + fmt::Debug {
    /// The network's name; stores are bound to it.
    fn name(&self) -> &'static str;

    /// What starts each record of a block file.
    fn magic(&self) -> [u8; 4];

    /// How to talk to its nodes.
    fn protocol(&self) -> Arc<dyn Protocol>;

    /// Which headers are valid.
    fn rules(&self) -> Box<dyn HeaderRules>;

    /// Reads a header as it was stored, hash included.
    ///
    /// # Errors
    /// [`HeaderError::Length`] if it is none.
    fn parse_header(&self, raw: Bytes) -> Result<Header, HeaderError>;

    /// The header of block 0.
    fn genesis_header(&self) -> Header;

    /// Reads a block of that size again, piece by piece, and checks all that can be without other blocks and without knowing its
    /// hash. Returns its header and how many transactions it has.
    ///
    /// # Errors
    /// What is wrong with it; [`BlockError::Cut`] if the pieces end before it does.
    fn check_block(
        &self,
        size: u64,
        pieces: &mut dyn Iterator<Item = Bytes>,
    ) -> Result<(Header, u64), BlockError>;

    /// What the filters of its blocks are; `None` if nodes of the network serve none.
    fn filter_rules(&self) -> Option<Arc<dyn FilterRules>> {
        None
    }

    /// Block 0.
    fn genesis_block(&self) -> Block;
}

/// What makes a header valid, and what it weighs in the choice between branches.
pub trait HeaderRules: Send + Sync + fmt::Debug {
    /// What a header says, once everything about it was checked that can be without knowing its place in the chain.
    ///
    /// # Errors
    /// The rule that it breaks.
    fn read(&self, header: &Header) -> Result<HeaderFacts, HeaderError>;

    /// What headers say, up to the first that breaks a rule, and which one that breaks. As [`read`](Self::read), for many at a
    /// time: what they have in common needs to be worked out only once.
    fn read_all(&self, headers: &[Header]) -> (Vec<HeaderFacts>, Result<(), HeaderError>) {
        let mut all = Vec::with_capacity(headers.len());
        for header in headers {
            match self.read(header) {
                Ok(facts) => all.push(facts),
                Err(error) => return (all, Err(error)),
            }
        }
        (all, Ok(()))
    }

    /// Checks a header that says this as the next one of a branch. It may be valid `now` that was not before.
    ///
    /// # Errors
    /// The rule that it breaks.
    fn follow(
        &self,
        header: &Header,
        facts: HeaderFacts,
        branch: &dyn Branch,
        now: UnixTime,
    ) -> Result<(), HeaderError>;

    /// What a header says, once all was checked: [`read`](Self::read), then [`follow`](Self::follow).
    ///
    /// # Errors
    /// The rule that it breaks.
    fn check(&self, header: &Header, branch: &dyn Branch, now: UnixTime) -> Result<HeaderFacts, HeaderError> {
        let facts = self.read(header)?;
        self.follow(header, facts, branch, now)?;
        Ok(facts)
    }

    /// From what height on headers are needed to check any that follows the one at `height`.
    fn past(&self, height: u64) -> u64;

    /// Work that the chain is known to have: once that is there, branches with less are not kept.
    fn min_work(&self) -> Work {
        Work::ZERO
    }

    /// What a block says about itself in its first bytes, once everything about its header was checked that can be without
    /// knowing its place in the chain.
    ///
    /// # Errors
    /// There is no header, or the rule that it breaks.
    fn read_head(&self, start: &[u8]) -> Result<BlockHead, HeaderError>;
}
