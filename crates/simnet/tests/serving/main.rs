//! A node's answers, message by message, over loopback.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod blocks;
mod client;
mod faults;
mod filters;
mod live;
mod transactions;
