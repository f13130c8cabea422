//! How blocks are found, one flow for every strategy.

pub(crate) mod ranges;

#[cfg(test)]
mod ranges_sim;
