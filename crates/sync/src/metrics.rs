//! What operators watch, told to whatever recorder the program has installed for the `metrics` facade; none costs next to
//! nothing. Counters and gauges of a sync are told when its progress is, the sink's calls as they come.
//!
//! | name | kind | labels |
//! |---|---|---|
//! | `tipward_sync_headers_total`, `tipward_sync_blocks_total`, `tipward_sync_block_bytes_total`, `tipward_sync_transactions_total` | counter | |
//! | `tipward_sync_reorgs_total` | counter | |
//! | `tipward_sync_stalls_total` | counter | |
//! | `tipward_sync_drops_total` | counter | `reason` |
//! | `tipward_sync_penalties_total` | counter | `reason` |
//! | `tipward_sync_height` | gauge | `of`: headers, applied |
//! | `tipward_sync_bytes_per_second`, `tipward_sync_blocks_per_second` | gauge | |
//! | `tipward_sync_in_flight_blocks`, `tipward_sync_window_blocks` | gauge | |
//! | `tipward_sync_buffered_bytes` | gauge | |
//! | `tipward_sync_paused` | gauge | |
//! | `tipward_sink_seconds` | histogram | `call`: apply, apply_part, abort, skip, rollback, flush |

use std::time::Duration;

use metrics::{counter, gauge, histogram};

use crate::{Fault, Progress, scheduler::Figures};

/// A call of the sink has returned.
pub(crate) fn sink(call: &'static str, took: Duration) {
    histogram!("tipward_sink_seconds", "call" => call).record(took.as_secs_f64());
}

/// A peer was dropped.
pub(crate) fn dropped(fault: &Fault) {
    counter!("tipward_sync_drops_total", "reason" => reason(fault)).increment(1);
}

/// Something was counted against a peer.
pub(crate) fn penalised(fault: &Fault) {
    counter!("tipward_sync_penalties_total", "reason" => reason(fault)).increment(1);
}

fn reason(fault: &Fault) -> &'static str {
    match fault {
        Fault::InvalidHeaders(_) => "invalid_headers",
        Fault::UnlinkedHeaders => "unlinked_headers",
        Fault::RepeatedHeaders => "repeated_headers",
        Fault::NoHeaders => "no_headers",
        Fault::Stalled => "stalled",
        Fault::InvalidBlock { .. } => "invalid_block",
        Fault::HeightNotShown { .. } => "height_not_shown",
        Fault::NoInventory => "no_inventory",
        Fault::BadInventory(_) => "bad_inventory",
        Fault::BadRange => "bad_range",
        Fault::NoFilters => "no_filters",
        Fault::FalseFilter { .. } => "false_filter",
        Fault::FilterEquivocation { .. } => "filter_equivocation",
        Fault::BrokenParts => "broken_parts",
    }
}

/// What was told of a sync so far.
#[derive(Debug, Default)]
pub(crate) struct Told {
    headers: u64,
    blocks: u64,
    bytes: u64,
    transactions: u64,
    reorgs: u64,
    stalls: u64,
}

impl Told {
    /// Tells what has changed.
    pub(crate) fn tell(&mut self, progress: &Progress, figures: Figures) {
        let add = |name: &'static str, told: &mut u64, count: u64| {
            counter!(name).increment(count - *told);
            *told = count;
        };
        add("tipward_sync_headers_total", &mut self.headers, progress.headers);
        add("tipward_sync_blocks_total", &mut self.blocks, progress.blocks);
        add("tipward_sync_block_bytes_total", &mut self.bytes, progress.bytes);
        add("tipward_sync_transactions_total", &mut self.transactions, progress.transactions);
        add("tipward_sync_reorgs_total", &mut self.reorgs, progress.reorgs);
        add("tipward_sync_stalls_total", &mut self.stalls, figures.stalls);
        let height = |tip: Option<crate::BlockId>| tip.map_or(0.0, |tip| tip.height as f64);
        gauge!("tipward_sync_height", "of" => "headers").set(height(progress.header_tip));
        gauge!("tipward_sync_height", "of" => "applied").set(height(progress.applied));
        gauge!("tipward_sync_bytes_per_second").set(progress.bytes_per_second as f64);
        gauge!("tipward_sync_blocks_per_second").set(progress.blocks_per_second);
        let in_flight: usize = progress.shares.iter().map(|peer| peer.share.in_flight).sum();
        gauge!("tipward_sync_in_flight_blocks").set(in_flight as f64);
        gauge!("tipward_sync_window_blocks").set(figures.window as f64);
        gauge!("tipward_sync_buffered_bytes").set(progress.buffered_bytes as f64);
        gauge!("tipward_sync_paused").set(f64::from(u8::from(progress.paused)));
    }
}
