//! A block in reads and parts of different sizes, held against the view over the whole block.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use tipward_wire::{
    BlockEvent, DownloadId,
    bitcoin::{Block, BlockOptions, BlockReader, Network},
};

fuzz_target!(|data: &[u8]| {
    let Some(([choice, part], block)) = data.split_first_chunk() else { return };
    let mut block = block.to_vec();
    // A mutated block no longer has its root, which the reader must find as the view does.
    if choice & 2 == 2
        && let Ok(view) = Block::new(Bytes::copy_from_slice(&block))
    {
        block[36..68].copy_from_slice(&view.merkle_root().0);
    }
    let block = &block[..];
    let mut options = BlockOptions::new(Network::BTC);
    (options.part_size, options.merkle_root) = (128 + 4 * usize::from(*part), choice & 1 == 1);
    options.witnesses_from = (choice & 4 == 4).then_some(0);
    let mut reader = BlockReader::new(DownloadId(1), block.len() as u64, options);
    let (mut input, mut bytes, mut offsets, mut end) = (BytesMut::new(), BytesMut::new(), Vec::new(), None);
    let mut error = None;
    'reads: for read in block.chunks(1 + usize::from(*choice)) {
        input.extend_from_slice(read);
        loop {
            match reader.decode(&mut input) {
                Ok(None) => break,
                Ok(Some(BlockEvent::Part(part))) => {
                    assert!(!part.bytes.is_empty() && part.offset as usize == bytes.len());
                    assert_eq!(part.first_transaction as usize, offsets.len());
                    bytes.extend_from_slice(&part.bytes);
                    offsets.extend(part.transaction_offsets());
                }
                Ok(Some(BlockEvent::End(found))) => end = Some(found),
                Err(found) => {
                    error = Some(found.reason);
                    break 'reads;
                }
            }
        }
    }
    match Block::new(Bytes::copy_from_slice(block)) {
        // Without witnesses it depends on the height that the coinbase tells.
        Ok(whole)
            if options.merkle_root
                && options.witnesses_from.is_some()
                && whole.check_merkle_root().is_ok()
                && whole.check_witness_commitment().is_err() =>
        {
            let has_witnesses = whole.transactions().any(|transaction| transaction.has_witnesses());
            assert!(error.is_some() || !has_witnesses, "wrong witnesses were let through");
        }
        Ok(whole) if !options.merkle_root || whole.check_merkle_root().is_ok() => {
            let end = end.expect("a block has an end");
            assert_eq!((end.transactions as usize, end.size as usize), (whole.offsets().len(), block.len()));
            assert_eq!(offsets, whole.offsets());
            assert_eq!(bytes, block);
            whole.transactions().for_each(|transaction| tipward_fuzz::walk(&transaction));
            let _ = whole.check_witness_commitment();
        }
        Ok(_) => assert!(error.is_some(), "a wrong root was let through"),
        Err(expected) => {
            assert!(end.is_none(), "{expected} was let through");
            assert!(error.is_some() || block.is_empty() || bytes.len() < block.len());
        }
    }
});
