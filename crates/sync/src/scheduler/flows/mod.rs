//! How blocks are found: one machine for each strategy.

mod headers;
mod inventory;

pub(crate) use headers::HeadersFlow;
pub(crate) use inventory::InventoryFlow;
