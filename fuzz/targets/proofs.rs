//! Partial merkle trees: any that come, and those that are built.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tipward_wire::{
    Txid,
    bitcoin::{MerkleBuilder, Message, PartialMerkleTree},
};

fuzz_target!(|data: &[u8]| {
    if let Some(Message::MerkleBlock(block)) = tipward_fuzz::message(&["merkleblock"], data)
        && let Ok(proven) = block.tree.verify()
    {
        assert!(proven.matches.is_sorted_by(|a, b| a.0 < b.0));
        assert!(proven.matches.iter().all(|(index, _)| *index < block.tree.transactions));
    }
    // Each byte is a transaction, an odd one matches.
    let txids: Vec<Txid> = (0u16..)
        .zip(data)
        .map(|(index, byte)| {
            let [low, high] = index.to_le_bytes();
            Txid::from_bytes(std::array::from_fn(|at| [low, high, *byte, 1][at % 4]))
        })
        .collect();
    let matched = |index: usize| data[index] & 1 == 1;
    let Some(tree) = PartialMerkleTree::build(&txids, matched) else { return };
    let proven = tree.verify().expect("what was built is right");
    let mut builder = MerkleBuilder::new();
    txids.iter().for_each(|txid| builder.push(*txid));
    assert_eq!(builder.finish(), (proven.root, false));
    let expected = (0..txids.len()).filter(|index| matched(*index)).map(|index| (index as u32, txids[index]));
    assert!(proven.matches.into_iter().eq(expected));
});
