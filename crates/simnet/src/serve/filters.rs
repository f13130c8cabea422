//! Compact block filters for light clients, on BTC (BIP 157).

use std::ops::RangeInclusive;

use tipward_wire::{
    BlockHash,
    bitcoin::{
        FILTER_CHECKPOINT_INTERVAL, FilterCheckpoints, FilterHeader, FilterHeaders, FilterMessage,
        FilterRange, GetFilterCheckpoints, MAX_FILTER_HEADERS, MAX_FILTERS, Message,
    },
};

use super::{Connection, ServeError};
use crate::{Behaviour, FilterFault, chain::Content};

/// The only type of filter there is.
const BASIC: u8 = 0;

impl Connection<'_> {
    /// Whether a question about filters is answered. Who does not serve any disconnects, as nodes do.
    pub(super) fn answers_for_filters(&self) -> Result<bool, ServeError> {
        match self.behaviour() {
            Behaviour::Filters(FilterFault::Refused) => Err(ServeError::Excess("no filters are served")),
            Behaviour::Filters(FilterFault::Silent) => Ok(false),
            _ => Ok(true),
        }
    }

    /// What is in the filters; those that hashes are told of may be others.
    fn content(&self, is_for_hashes: bool) -> Content {
        match self.behaviour() {
            Behaviour::Filters(FilterFault::LackPayments) => Content::NoPayments,
            Behaviour::Filters(FilterFault::HaveMore) => Content::More,
            Behaviour::Filters(FilterFault::MissTheirHashes) if !is_for_hashes => Content::NoPayments,
            Behaviour::Filters(FilterFault::ChangeTheirHashes) if self.hash_answers % 2 == 1 => {
                Content::NoPayments
            }
            _ => Content::Right,
        }
    }

    pub(super) async fn serve_filters(&mut self, asked: FilterRange) -> Result<(), ServeError> {
        let Some(heights) = self.heights(asked, MAX_FILTERS)? else { return Ok(()) };
        let chain = self.chain.borrow().clone();
        for height in heights {
            let Some((filter, _)) = chain.filters(self.content(false)).get(height) else { return Ok(()) };
            let (block, filter) = (chain.blocks()[height].hash, filter.clone());
            self.send(&Message::CFilter(FilterMessage { filter_type: BASIC, block, filter })).await?;
        }
        Ok(())
    }

    pub(super) async fn serve_filter_headers(&mut self, asked: FilterRange) -> Result<(), ServeError> {
        let Some(heights) = self.heights(asked, MAX_FILTER_HEADERS)? else { return Ok(()) };
        let (chain, content) = (self.chain.borrow().clone(), self.content(true));
        self.hash_answers += 1;
        let before = heights.start().checked_sub(1).and_then(|height| chain.filters(content).get(height));
        let previous = before.map_or(FilterHeader::ZERO, |(_, header)| *header);
        let Some(filters) = chain.filters(content).get(heights) else { return Ok(()) };
        let hashes = filters.iter().map(|(filter, _)| filter.hash()).collect();
        let headers = FilterHeaders { filter_type: BASIC, stop: asked.stop, previous, hashes };
        self.send(&Message::CFHeaders(headers)).await
    }

    pub(super) async fn serve_filter_checkpoints(
        &mut self,
        asked: GetFilterCheckpoints,
    ) -> Result<(), ServeError> {
        let Some(last) = self.filtered_height(asked.filter_type, asked.stop) else { return Ok(()) };
        let chain = self.chain.borrow().clone();
        let up_to = chain.filters(self.content(true)).iter().take(last + 1);
        let interval = FILTER_CHECKPOINT_INTERVAL as usize;
        let headers = up_to.step_by(interval).skip(1).map(|(_, header)| *header).collect();
        let checkpoints = FilterCheckpoints { filter_type: BASIC, stop: asked.stop, headers };
        self.send(&Message::CFCheckpt(checkpoints)).await
    }

    /// The heights that a request is about; `None` if it is to be ignored. Who asks for more than `most` is disconnected, as by
    /// nodes.
    fn heights(&self, asked: FilterRange, most: usize) -> Result<Option<RangeInclusive<usize>>, ServeError> {
        let Some(last) = self.filtered_height(asked.filter_type, asked.stop) else { return Ok(None) };
        let first = asked.start_height as usize;
        match last.checked_sub(first) {
            None => Err(ServeError::Excess("the first filter is after the last")),
            Some(distance) if distance >= most => Err(ServeError::Excess("too many filters")),
            Some(_) => Ok(Some(first..=last)),
        }
    }

    fn filtered_height(&self, filter_type: u8, stop: BlockHash) -> Option<usize> {
        self.chain.borrow().position(stop).filter(|_| filter_type == BASIC && self.is_btc())
    }
}
