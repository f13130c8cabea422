//! The index and its sink, fed with generated chains: no network, no process.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod parts;
mod rollback;
#[path = "../world/mod.rs"]
mod world;
