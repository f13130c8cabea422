//! An indexer on the public API of Tipward: follows a chain, keeps where every transaction is, what happened to every script and what
//! is unspent, and answers over HTTP. The README beside it tells how to run it.
//!
//! [`sink`] takes blocks from the node: their bytes go to an archive, their transactions to worker threads that [`parse`] them, and
//! what comes of that in order to the thread that writes the [`index`]. [`http`] answers from a [`view`] of it.

pub mod http;
pub mod index;
pub mod keys;
pub mod parse;
pub mod sink;
pub mod view;
