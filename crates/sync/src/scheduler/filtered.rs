//! Blocks by their filters: the flow keeps the headers, [`Filters`] does the rest.

use std::{ops::RangeInclusive, sync::Arc, time::Instant};

use tipward_peer::{PeerId, Reply, Want};

use super::{Input, Output, Scheduler, flow::FlowInput};
use crate::{
    BlockId, Chain, FilterRules, SyncOptions, WatchSet,
    filters::{FilterFigures, FilterInput, Filters, View},
};

impl Scheduler {
    /// A scheduler that fetches those blocks alone whose filter has one of these scripts, for a sink at `cursor` that can
    /// [skip](crate::BlockSink::skip). Blocks are found by their headers and come in the order of the chain, whatever the
    /// options say; those that are too large to be kept are kept all the same.
    #[must_use]
    pub fn with_filters(
        mut options: SyncOptions,
        cursor: Option<BlockId>,
        seed: u64,
        rules: Arc<dyn FilterRules>,
        watch: WatchSet,
    ) -> Self {
        options.strategy = crate::Strategy::HeadersFirst;
        options.order = crate::Order::Chain;
        let filters = Filters::new(options.clone(), cursor, rules, watch);
        options.headers_only = true;
        let mut scheduler = Self::new(options, None, seed);
        (scheduler.filters, scheduler.is_filtered) = (Some(Box::new(filters)), true);
        scheduler
    }

    /// What has come of filters; `None` if none are asked for.
    pub(crate) fn filter_figures(&self) -> Option<FilterFigures> {
        self.filters.as_ref().map(|filters| filters.figures())
    }

    /// Takes what happened, where there are filters.
    pub(super) fn handle_filtered(
        &mut self,
        now: Instant,
        input: Input,
        mut filters: Box<Filters>,
        chain: &mut dyn Chain,
    ) {
        let (own, theirs) = divide(input);
        if let Some(FilterInput::Reply(peer, _)) = &theirs {
            // Answers for headers wait behind what is coming.
            self.tell_flow(now, FlowInput::Progress(*peer), chain);
        }
        if let Some(input) = own {
            self.step(now, input, chain);
        }
        let dropped: Vec<PeerId> = self
            .outputs
            .iter()
            .filter_map(|output| match output {
                Output::Drop(peer, _) => Some(*peer),
                _ => None,
            })
            .collect();
        let may_fetch = self.flow.may_fetch() && !self.is_over;
        let inputs = dropped.into_iter().map(FilterInput::Disconnected).chain(theirs);
        for input in inputs {
            self.tell_filters(now, input, may_fetch, &mut filters, chain);
        }
        self.filters = Some(filters);
        if !self.is_over {
            self.conclude(chain);
        }
    }

    fn tell_filters(
        &mut self,
        now: Instant,
        input: FilterInput,
        may_fetch: bool,
        filters: &mut Filters,
        chain: &mut dyn Chain,
    ) {
        if matches!(input, FilterInput::Rescan(_)) {
            self.synced_at = None;
        }
        let nothing = RangeInclusive::new(1, 0);
        let serves = |peer: PeerId| self.peers.get(&peer).map_or(nothing.clone(), |peer| peer.serves());
        filters.handle(now, input, &View { chain: &*chain, serves: &serves, may_fetch });
        while let Some(output) = filters.poll() {
            if let Output::Drop(peer, _) = output
                && self.forget(peer)
            {
                self.tell_flow(now, FlowInput::Disconnected(peer), chain);
            }
            self.outputs.push_back(output);
        }
    }
}

/// What is for the flow, and what is for the filters.
fn divide(input: Input) -> (Option<Input>, Option<FilterInput>) {
    match input {
        Input::Connected(peer, info) => {
            (Some(Input::Connected(peer, info)), Some(FilterInput::Connected(peer)))
        }
        Input::Disconnected(peer) => (Some(Input::Disconnected(peer)), Some(FilterInput::Disconnected(peer))),
        Input::Settled => (Some(Input::Settled), Some(FilterInput::Settled)),
        Input::Reply(peer, reply) => match &reply {
            Reply::Part(_)
            | Reply::BlockEnd(_)
            | Reply::BlockAborted { .. }
            | Reply::Progress { .. }
            | Reply::Missing(_)
            | Reply::FilterHashes { .. }
            | Reply::Filter { .. }
            | Reply::Unsupported(Want::Blocks(_) | Want::FilterHashes { .. } | Want::Filters { .. }) => {
                (None, Some(FilterInput::Reply(peer, reply)))
            }
            _ => (Some(Input::Reply(peer, reply)), Some(FilterInput::News)),
        },
        Input::Delivered(count) => (None, Some(FilterInput::Delivered(count))),
        // Such a sink ends the sync.
        Input::Rejected { .. } => (None, None),
        Input::Pause => (Some(Input::Pause), Some(FilterInput::Pause(true))),
        Input::Resume => (Some(Input::Resume), Some(FilterInput::Pause(false))),
        Input::Rescan(height) => (None, Some(FilterInput::Rescan(height))),
        Input::Tick => (Some(Input::Tick), Some(FilterInput::Tick)),
    }
}
