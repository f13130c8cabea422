//! How blocks are found: one machine for each strategy.

mod headers;

pub(crate) use headers::HeadersFlow;
