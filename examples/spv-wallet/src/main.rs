//! spv-wallet.

fn main() {}
