//! Where the progress is shown: not with every block, for who looks has to be woken.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::peers::Peers;
use crate::{
    Progress, Scheduler, delivery::Delivered, filters::FilterFigures, metrics::Told, progress::Tally,
};

/// How often the progress is shown while it changes.
const INTERVAL: Duration = Duration::from_millis(100);
/// How often it is shown while only rates change.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// What is counted, and who is shown it.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) tally: Tally,
    shown: watch::Sender<Progress>,
    told: Told,
    /// When it was shown last; `None` before.
    shown_at: Option<Instant>,
    is_changed: bool,
    /// What was shown of filters.
    filters: Option<FilterFigures>,
}

impl Board {
    pub(super) fn new(tally: Tally, shown: watch::Sender<Progress>) -> Self {
        Self { tally, shown, told: Told::default(), shown_at: None, is_changed: true, filters: None }
    }

    /// Bytes of a block have come.
    pub(super) fn received(&mut self, bytes: usize) {
        self.tally.received(bytes);
        self.is_changed = true;
    }

    /// A filter has come.
    pub(super) fn filtered(&mut self, bytes: usize) {
        self.tally.filtered(bytes);
        self.is_changed = true;
    }

    /// The sink has done something.
    pub(super) fn delivered(&mut self, delivered: &Delivered) {
        self.tally.delivered(delivered);
        self.is_changed = true;
    }

    /// When it is to be shown again, if nothing happens.
    pub(super) fn due(&self) -> Option<Instant> {
        let shown_at = self.shown_at?;
        match (self.is_changed, self.tally.is_still()) {
            (true, _) => Some(shown_at + INTERVAL),
            (false, false) => Some(shown_at + IDLE_INTERVAL),
            (false, true) => None,
        }
    }

    /// Shows it if that is due.
    pub(super) fn look(&mut self, now: Instant, scheduler: &Scheduler, peers: &Peers) {
        // A peer that turns out to serve no filters says so in silence.
        self.is_changed |= scheduler.filter_figures() != self.filters;
        if self.shown_at.is_none() || self.due().is_some_and(|at| at <= now) {
            self.publish(now, scheduler, peers);
        }
    }

    /// Shows it now.
    pub(super) fn publish(&mut self, now: Instant, scheduler: &Scheduler, peers: &Peers) {
        let progress = self.tally.progress();
        progress.buffered_bytes = scheduler.buffered_bytes();
        progress.shares = peers.shares(scheduler.shares());
        progress.peers = peers.len();
        self.filters = scheduler.filter_figures();
        if let Some(figures) = self.filters {
            progress.filters = figures.filters;
            progress.disputed_filters = figures.disputed;
            progress.undecided_filters = figures.undecided;
            progress.filter_peers = figures.peers;
        }
        let progress = self.tally.at(now);
        self.told.tell(progress, scheduler.figures());
        self.shown.send_replace(progress.clone());
        (self.shown_at, self.is_changed) = (Some(now), false);
    }
}
