use bytes::BufMut;

use super::*;

fn record(network: &Network) -> Vec<u8> {
    let block = network.genesis_block();
    let mut bytes = blk_frame_header(network.magic, block.len() as u64);
    bytes.extend_from_slice(&block);
    bytes
}

fn decode(bytes: &[u8], read: usize) -> Result<Vec<BlkEvent>, BlkError> {
    let (mut decoder, mut input, mut events) = (BlkDecoder::default(), BytesMut::new(), Vec::new());
    for chunk in bytes.chunks(read) {
        input.put_slice(chunk);
        while let Some(event) = decoder.decode(&mut input)? {
            events.push(event);
        }
    }
    decoder.finish(&input)?;
    Ok(events)
}

fn in_memory(bytes: &[u8]) -> Result<Vec<Block>, BlkError> {
    BlkFile::new(Bytes::copy_from_slice(bytes)).collect()
}

#[test]
fn reads_records_and_ignores_padding() {
    let mut file = record(Network::BTC);
    file.extend(record(Network::BTC));
    file.extend([0; 100]);
    let hashes: Vec<_> = in_memory(&file).unwrap().iter().map(Block::hash).collect();
    assert_eq!(hashes, [Network::BTC.genesis_hash(); 2]);
    assert_eq!(in_memory(&[0; 5]), Ok(vec![]));
    for read in [1, 5, 64, 1000] {
        let events = decode(&file, read).unwrap();
        assert_eq!(events.len(), 6, "begin, part and end of two blocks");
        assert!(matches!(events[3], BlkEvent::Begin { offset: 301, size: 285, .. }));
    }
}

#[test]
fn errors_name_the_byte() {
    let mut file = record(Network::BTC);
    file.extend(b"what is this");
    assert!(matches!(decode(&file, 50), Err(BlkError::Magic { offset: 293, .. })));
    assert!(matches!(in_memory(&file), Err(BlkError::Magic { offset: 293, .. })));
    assert_eq!(BlkFile::new(file).count(), 2, "nothing after an error");
    // A hole is not the end.
    let mut hole = record(Network::BTC);
    hole.extend([0; 100]);
    hole.extend(record(Network::BTC));
    for read in [1, 10, 1000] {
        assert!(matches!(decode(&hole, read), Err(BlkError::Magic { offset: 393, .. })), "reads of {read}");
    }
    assert!(matches!(in_memory(&hole), Err(BlkError::Magic { offset: 393, .. })));
    // A record of another network is no record here.
    let mut file = record(Network::BTC);
    file.extend(record(Network::BSV));
    assert!(matches!(decode(&file, 50), Err(BlkError::Magic { offset: 293, .. })));
    assert!(matches!(in_memory(&file), Err(BlkError::Magic { offset: 293, .. })));
    let file = record(Network::BTC);
    for cut in [200, 5] {
        assert_eq!(decode(&file[..cut], 50), Err(BlkError::Truncated { offset: 0 }));
        assert_eq!(in_memory(&file[..cut]), Err(BlkError::Truncated { offset: 0 }));
    }
    let mut file = record(Network::BTC);
    file[100] ^= 1;
    assert!(matches!(decode(&file, 50), Err(BlkError::Block { offset: 8, .. })));
}

#[test]
fn long_records_have_long_lengths() {
    assert_eq!(blk_frame_header(*b"abcd", 0xffff_fffe), b"abcd\xfe\xff\xff\xff");
    assert_eq!(blk_frame_header(*b"abcd", 0xffff_ffff), b"abcd\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0",);
    let mut file = Network::BSV.magic.to_vec();
    file.extend([0xff; 4]);
    let block = Network::BSV.genesis_block();
    file.extend((block.len() as u64).to_le_bytes());
    file.extend_from_slice(&block);
    assert_eq!(in_memory(&file).unwrap()[0].as_bytes(), &block);
    assert_eq!(in_memory(&file[..12]), Err(BlkError::Truncated { offset: 0 }));
    for read in [1, 7, 1000] {
        let events = decode(&file, read).unwrap();
        assert!(matches!(events[0], BlkEvent::Begin { offset: 16, size: 285, .. }));
        assert!(matches!(events[2], BlkEvent::Block(BlockEvent::End(_))));
    }
}
