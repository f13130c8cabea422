//! Blocks by their filters: against a real node's wallet, and among simulated nodes of all kinds.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod liars;
mod real;
mod seeds;
