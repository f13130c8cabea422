//! How blocks are found, one flow for every strategy.

mod backfill;
pub(crate) mod ranges;
#[cfg(test)]
mod ranges_sim;
pub(crate) mod slots;
