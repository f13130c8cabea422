//! How blocks are found: one machine for each strategy.

mod backfill;
mod headers;
mod inventory;
mod ranges;
#[cfg(test)]
mod ranges_sim;
mod slots;

pub(crate) use headers::HeadersFlow;
pub(crate) use inventory::InventoryFlow;
pub(crate) use ranges::RangeFlow;
pub(crate) use slots::SlotFlow;
