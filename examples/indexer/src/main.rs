//! indexer.

fn main() {}
