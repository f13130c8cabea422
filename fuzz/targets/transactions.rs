//! Transactions and compact blocks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tipward_fuzz::walk;
use tipward_wire::bitcoin::{BloomFilter, BloomUpdate, Message};

const COMMANDS: &[&str] = &["tx", "cmpctblock", "getblocktxn", "blocktxn", "sendcmpct"];

fuzz_target!(|data: &[u8]| {
    match tipward_fuzz::message(COMMANDS, data) {
        Some(Message::Tx(transaction)) => {
            walk(&transaction);
            let mut filter = BloomFilter::new(10, 0.01, 0, BloomUpdate::All);
            filter.insert(transaction.txid().as_bytes());
            assert!(filter.matches_transaction(&transaction));
        }
        Some(Message::CmpctBlock(block)) => {
            block.prefilled.iter().for_each(|prefilled| walk(&prefilled.transaction));
            assert!(block.prefilled.is_sorted_by(|a, b| a.index < b.index));
        }
        Some(Message::BlockTxn(block)) => block.transactions.iter().for_each(walk),
        Some(Message::GetBlockTxn(request)) => assert!(request.indexes.is_sorted_by(|a, b| a < b)),
        _ => {}
    }
});
