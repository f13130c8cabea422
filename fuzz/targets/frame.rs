//! A connection's bytes, in reads of different sizes: both must lead to the same.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tipward_wire::{
    BlockEvent, Dialect, Incoming,
    bitcoin::{Codec, CodecOptions, Network},
};

/// The events of a stream as text; blocks by their bytes, since parts may be cut in other places.
fn events(
    network: &'static Network,
    handshake_done: bool,
    records: bool,
    data: &[u8],
    reads: usize,
) -> (Vec<String>, bool) {
    let mut options = CodecOptions::new(network);
    // What the fuzzer can't compute is not compared.
    (options.checksum, options.block.merkle_root, options.block.part_size) = (false, false, 200);
    (options.long_messages, options.max_transaction_size) = (true, 500);
    let mut codec = Codec::with_options(network, options);
    if records {
        assert!(codec.use_v2());
    }
    if handshake_done {
        codec.handshake_done();
    }
    let (mut input, mut events, mut block) = (BytesMut::new(), Vec::new(), BytesMut::new());
    for read in data.chunks(reads) {
        input.extend_from_slice(read);
        loop {
            match codec.decode(&mut input) {
                Ok(None) => break,
                Ok(Some(Incoming::Message(message))) => {
                    let mut frame = BytesMut::new();
                    codec.encode_with_trailing(&message, codec.trailing(), &mut frame);
                    events.push(format!("{message:?} {frame:?}"));
                }
                Ok(Some(Incoming::Block(BlockEvent::Part(part)))) => {
                    assert!(!part.bytes.is_empty() && part.offset as usize == block.len());
                    block.extend_from_slice(&part.bytes);
                }
                Ok(Some(Incoming::Block(BlockEvent::End(end)))) => {
                    assert_eq!(end.size as usize, block.len());
                    events.push(format!(
                        "{} {} {:?}",
                        end.block,
                        end.transactions,
                        std::mem::take(&mut block)
                    ));
                }
                // All are of the same size, however they were read.
                Ok(Some(Incoming::Piece(piece))) => {
                    assert!(!piece.bytes.is_empty() && piece.bytes.len() <= 200);
                    events.push(format!("{piece:?}"));
                }
                Err(_) => return (events, false),
            }
        }
        assert!(input.len() <= 4_000_044, "the codec lets its input pile up");
    }
    (events, codec.finish(&input).is_ok())
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, data)) = data.split_first() else { return };
    let network = if choice & 1 == 0 { Network::BTC } else { Network::BSV };
    // Inside an encrypted connection, which BSV has not, there is no magic.
    let records = choice & 0x81 == 0x80;
    let stream = if records { data.to_vec() } else { [&network.magic[..], data].concat() };
    let handshake_done = choice & 2 == 0;
    let whole = events(network, handshake_done, records, &stream, stream.len().max(1));
    let reads = 1 + usize::from((choice & 0x7f) >> 2);
    assert_eq!(whole, events(network, handshake_done, records, &stream, reads));
});
