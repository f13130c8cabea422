//! Compact block filters (BIP 157): what was asked for, and whether an answer is one.

use tipward_wire::{
    BlockHash,
    bitcoin::{
        FilterHeaders, FilterMessage, FilterRange, MAX_FILTER_HEADERS, MAX_FILTERS, Message, Services,
    },
};

use super::asked::Asked;
use crate::{Reply, Unsupported, Violation};

/// The basic filter (BIP 158), which is the only one that nodes serve.
const BASIC: u8 = 0;

/// Questions for filters that are open.
#[derive(Debug, Default)]
pub(super) struct Filters {
    /// The peer says that it serves them.
    is_served: bool,
    /// The last block and how many hashes.
    hashes: Asked<(BlockHash, usize)>,
    filters: Asked<BlockHash>,
    /// The user has asked for some in messages of his own; then it is for him to know which answers are.
    is_users: bool,
}

impl Filters {
    pub(super) fn greeted(&mut self, services: u64) {
        self.is_served = services & Services::COMPACT_FILTERS.0 != 0;
    }

    pub(super) fn ask_for_hashes(
        &mut self,
        start: u64,
        count: u32,
        stop: BlockHash,
    ) -> Result<Message, Unsupported> {
        let count = count as usize;
        let range = self.range(start, stop)?;
        if !(1..=MAX_FILTER_HEADERS).contains(&count) || !self.hashes.add(&[(stop, count)]) {
            return Err(Unsupported);
        }
        Ok(Message::GetCFHeaders(range))
    }

    pub(super) fn ask(&mut self, start: u64, blocks: &[BlockHash]) -> Result<Message, Unsupported> {
        let stop = *blocks.last().ok_or(Unsupported)?;
        let range = self.range(start, stop)?;
        if blocks.len() > MAX_FILTERS || !self.filters.add(blocks) {
            return Err(Unsupported);
        }
        Ok(Message::GetCFilters(range))
    }

    fn range(&self, start: u64, stop: BlockHash) -> Result<FilterRange, Unsupported> {
        let start_height = u32::try_from(start).ok().filter(|_| self.is_served).ok_or(Unsupported)?;
        Ok(FilterRange { filter_type: BASIC, start_height, stop })
    }

    /// What the user asks for by himself.
    pub(super) fn note(&mut self) {
        self.is_users = true;
    }

    /// The neutral answer; none if it is the user's own.
    pub(super) fn answer_hashes(&mut self, message: &FilterHeaders) -> Result<Option<Reply>, Violation> {
        let FilterHeaders { filter_type, stop, previous, hashes } = message;
        if *filter_type == BASIC && self.hashes.answered(&(*stop, hashes.len())) {
            let (stop, previous, hashes) = (*stop, *previous, hashes.clone());
            return Ok(Some(Reply::FilterHashes { stop, previous, hashes }));
        }
        if self.is_users { Ok(None) } else { Err(Violation::UnrequestedFilter { block: *stop }) }
    }

    pub(super) fn answer(&mut self, message: &FilterMessage) -> Result<Option<Reply>, Violation> {
        let FilterMessage { filter_type, block, filter } = message;
        if *filter_type == BASIC && self.filters.answered(block) {
            return Ok(Some(Reply::Filter { block: *block, bytes: filter.as_bytes().clone() }));
        }
        if self.is_users { Ok(None) } else { Err(Violation::UnrequestedFilter { block: *block }) }
    }
}
