use proptest::prelude::*;

use super::*;
use crate::bitcoin::{
    message::tests::message,
    reader::tests::{block, make_different},
    transaction::tests::shape,
};

fn ready(network: &'static Network) -> Codec {
    let mut codec = Codec::new(network);
    codec.handshake_done();
    codec
}

fn frame(codec: &Codec, message: &Message) -> BytesMut {
    let mut bytes = BytesMut::new();
    codec.encode(message, &mut bytes);
    bytes
}

/// Feeds the bytes in reads of `size` and collects the messages.
fn decode(codec: &mut Codec, bytes: &[u8], size: usize) -> Result<Vec<Incoming<Message>>, WireError> {
    let (mut input, mut messages) = (BytesMut::new(), Vec::new());
    for read in bytes.chunks(size) {
        input.put_slice(read);
        while let Some(message) = codec.decode(&mut input)? {
            messages.push(message);
        }
    }
    Ok(messages)
}

proptest! {
    #[test]
    fn messages_round_trip(messages in prop::collection::vec(message(), 1..6), size in 1usize..200) {
        for network in [Network::BTC, Network::BSV] {
            if network == Network::BSV && messages.iter().any(Message::has_witnesses) {
                continue;
            }
            let mut codec = ready(network);
            let bytes: Vec<u8> = messages.iter().flat_map(|message| frame(&codec, message)).collect();
            let decoded: Vec<Message> = decode(&mut codec, &bytes, size)
                .unwrap()
                .into_iter()
                .map(|incoming| match incoming {
                    Incoming::Message(message) => message,
                    other => panic!("{other:?}"),
                })
                .collect();
            prop_assert_eq!(&decoded, &messages);
            prop_assert!(codec.is_between_frames());
        }
    }

    #[test]
    fn arbitrary_frames_never_panic(
        command in prop::sample::select(Message::COMMANDS),
        is_block: bool,
        payload in prop::collection::vec(any::<u8>(), 0..500),
        announced in prop_oneof![0u32..600, any::<u32>()],
        size in 1usize..100,
    ) {
        let mut stream = BytesMut::new();
        let mut codec = ready(Network::BTC);
        codec.options.checksum = false;
        let command = Command::new(if is_block { "block" } else { command }).unwrap();
        codec.put_header(command, u64::from(announced), || first_four(sha256d(&payload)), &mut stream);
        stream.put_slice(&payload);
        stream.put_slice(&Network::BTC.magic);
        let _ = decode(&mut codec, &stream, size);
    }

    /// Checksum and merkle root over many parts, which are cut behind what is hashed already; and a message behind.
    #[test]
    fn blocks_in_parts_are_verified(
        mut shapes in prop::collection::vec(shape(), 0..12),
        part_size in 128usize..2000,
        size in 1usize..700,
        damaged in prop::option::of(any::<prop::sample::Index>()),
    ) {
        make_different(&mut shapes);
        let block = block(&shapes, true).block;
        let mut options = CodecOptions::new(Network::BSV);
        (options.block.part_size, options.block.witnesses) = (part_size, true);
        let mut codec = Codec::with_options(Network::BSV, options);
        codec.handshake_done();
        let mut bytes = frame(&codec, &Message::Block(block.clone()));
        codec.encode(&Message::Ping(3), &mut bytes);
        if let Some(at) = damaged {
            // A byte of a witness is in no merkle root, so this is the checksum's to find where the merkle root can't.
            bytes[24 + at.index(block.len())] ^= 0x40;
        }
        let (mut input, mut found) = (BytesMut::new(), BytesMut::new());
        let (mut end, mut last) = (None, None);
        let mut failed = None;
        'reads: for read in bytes.chunks(size) {
            input.put_slice(read);
            loop {
                match codec.decode(&mut input) {
                    Ok(None) => break,
                    Ok(Some(Incoming::Block(BlockEvent::Part(part)))) => found.put_slice(&part.bytes),
                    Ok(Some(Incoming::Block(BlockEvent::End(verdicts)))) => end = Some(verdicts),
                    Ok(Some(other)) => last = Some(other),
                    Err(error) => {
                        failed = Some(error);
                        break 'reads;
                    }
                }
            }
        }
        if damaged.is_some() {
            prop_assert!(matches!(failed, Some(WireError::Block(_))), "{failed:?}");
            prop_assert!(found.len() < block.len(), "the last part was handed out");
            prop_assert_eq!(codec.finish(&input), Err(failed.unwrap()));
        } else {
            prop_assert_eq!(failed, None);
            prop_assert_eq!(found, block);
            let end = end.unwrap();
            prop_assert_eq!((end.checksum, end.merkle_root), (Verdict::Verified, Verdict::Verified));
            prop_assert!(matches!(last, Some(Incoming::Message(Message::Ping(3)))));
        }
    }
}

/// In an encrypted connection, too.
#[test]
fn a_block_can_be_sent_in_pieces() {
    let block = Network::BTC.genesis_block();
    for encrypted in [false, true] {
        let mut codec = ready(Network::BTC);
        assert!(!encrypted || codec.use_v2());
        let mut pieces = BytesMut::new();
        codec.encode_block_start(block.len() as u64, || first_four(sha256d(&block)), &mut pieces);
        pieces.put_slice(&block);
        assert_eq!(pieces, frame(&codec, &Message::Block(block.clone())));
    }
}

/// The genesis block as a message, and the events it makes.
#[test]
fn a_block_streams_with_its_checksum() {
    let block = Network::BTC.genesis_block();
    for size in [1, 7, 50, 1000] {
        let mut codec = ready(Network::BTC);
        let bytes = frame(&codec, &Message::Block(block.clone()));
        let events = decode(&mut codec, &bytes, size).unwrap();
        let [Incoming::Block(BlockEvent::Part(part)), Incoming::Block(BlockEvent::End(end))] = &events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!(part.bytes, block);
        assert_eq!(part.transactions, [81]);
        assert_eq!(end.block, Network::BTC.genesis_hash());
        assert!(codec.is_between_frames());
    }
}

#[test]
fn a_bad_checksum_is_found_before_the_last_part() {
    let mut codec = ready(Network::BTC);
    let mut bytes = frame(&codec, &Message::Block(Network::BTC.genesis_block()));
    bytes[20] ^= 1;
    let error = decode(&mut codec, &bytes, 100).unwrap_err();
    let WireError::Block(aborted) = error else { panic!("{error}") };
    assert!(matches!(aborted.reason, BlockError::Checksum { .. }));
    assert_eq!((aborted.download, aborted.block), (DownloadId(1), Some(Network::BTC.genesis_hash())));

    let mut codec = ready(Network::BTC);
    let mut bytes = frame(&codec, &Message::Ping(1));
    bytes[24] ^= 1;
    assert!(matches!(decode(&mut codec, &bytes, 100), Err(WireError::Checksum { .. })));
}

#[test]
fn extended_frames_carry_blocks_without_checksum_on_bsv_only() {
    let block = Network::BSV.genesis_block();
    let mut bytes = BytesMut::new();
    bytes.put_slice(&Network::BSV.magic);
    bytes.put_slice(Command::new("extmsg").unwrap().as_bytes());
    bytes.put_u32_le(u32::MAX);
    bytes.put_u32_le(0);
    bytes.put_slice(Command::new("block").unwrap().as_bytes());
    bytes.put_u64_le(block.len() as u64);
    bytes.put_slice(&block);
    let events = decode(&mut ready(Network::BSV), &bytes, 11).unwrap();
    assert!(matches!(events.last(), Some(Incoming::Block(BlockEvent::End(_)))));

    bytes[..4].copy_from_slice(&Network::BTC.magic);
    assert!(matches!(decode(&mut ready(Network::BTC), &bytes, 11), Err(WireError::TooLong { .. })));
}

#[test]
fn headers_of_large_payloads_are_extended() {
    let codec = Codec::new(Network::BSV);
    let block = Command::new("block").unwrap();
    let header = |length| {
        let mut bytes = BytesMut::new();
        codec.put_header(block, length, || [9; 4], &mut bytes);
        bytes
    };
    // Exactly 2^32 - 1 bytes still use the basic header.
    assert_eq!(
        header(0xffff_ffff)[..],
        *b"\xe3\xe1\xf3\xe8block\0\0\0\0\0\0\0\xff\xff\xff\xff\x09\x09\x09\x09"
    );
    let basic = *b"\xe3\xe1\xf3\xe8extmsg\0\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0";
    let extension = *b"block\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0";
    assert_eq!(header(0x1_0000_0000)[..], [&basic[..], &extension].concat());
    // What we write we read.
    let mut codec = ready(Network::BSV);
    assert!(codec.decode(&mut header(0x1_0000_0000)).unwrap().is_none());
    assert!(!codec.is_between_frames());
}

/// Who receives a part knows how much is to come before it decides to keep it.
#[test]
fn every_part_tells_the_size_of_its_block() {
    const DECLARED: u64 = 5 << 30;
    let genesis = Network::BSV.genesis_block();
    let small = frame(&ready(Network::BSV), &Message::Block(genesis.clone()));
    // The header, one transaction, and the start of one with a script of more than 4 GiB.
    let mut huge = BytesMut::from(&genesis[..80]);
    huge.put_u8(2);
    huge.put_slice(&genesis[81..]);
    huge.put_slice(&[1, 0, 0, 0, 1]);
    huge.put_bytes(7, 36);
    huge.put_slice(&[0, 0xff, 0xff, 0xff, 0xff, 1]);
    huge.put_u64_le(0);
    huge.put_u8(0xff);
    huge.put_u64_le(DECLARED - (huge.len() as u64 + 8 + 4));
    huge.put_bytes(0, 10_000);
    let mut extended = BytesMut::new();
    let block = Command::new("block").unwrap();
    ready(Network::BSV).put_header(block, DECLARED, || panic!("it has none"), &mut extended);
    extended.put_slice(&huge);
    for (stream, size, parts) in
        [(&small, genesis.len() as u64, 1), (&small, genesis.len() as u64, 2), (&extended, DECLARED, 40)]
    {
        let mut codec = ready(Network::BSV);
        codec.options.block.part_size = if parts == 1 { 1 << 20 } else { 256 };
        let events = decode(&mut codec, stream, 100).unwrap();
        let sizes: Vec<u64> = events
            .iter()
            .filter_map(|event| match event {
                Incoming::Block(BlockEvent::Part(part)) => Some(part.block_size),
                _ => None,
            })
            .collect();
        assert!(sizes.len() >= parts && sizes.iter().all(|&found| found == size), "{sizes:?}");
    }
}

#[test]
fn lengths_are_refused_before_the_payload_comes() {
    let header = |command: &str, length: u32| {
        let mut bytes = BytesMut::new();
        bytes.put_slice(&Network::BTC.magic);
        bytes.put_slice(Command::new(command).unwrap().as_bytes());
        bytes.put_u32_le(length);
        bytes.put_u32_le(0);
        bytes
    };
    for (command, length) in [
        ("headers", 178_010),
        ("inv", 1_800_010),
        ("block", 4_000_001),
        ("unheard", 4_000_001),
        ("ping", 1025),
    ] {
        let error = decode(&mut ready(Network::BTC), &header(command, length), 24).unwrap_err();
        assert!(
            matches!(error, WireError::TooLong { length: found, .. } if found == u64::from(length)),
            "{error}"
        );
    }
    // Before the handshake everything above 1 KiB is.
    let mut codec = Codec::new(Network::BTC);
    assert!(matches!(decode(&mut codec, &header("headers", 1025), 24), Err(WireError::TooLong { .. })));
}

#[test]
fn another_network_shows_by_four_bytes() {
    let mut input = BytesMut::from(&Network::BSV.magic[..]);
    let error = Codec::new(Network::BTC).decode(&mut input).unwrap_err();
    assert_eq!(error.to_string(), "wrong network magic e3e1f3e8, expected f9beb4d9");
}

#[test]
fn trailing_bytes_pass_through_a_proxy() {
    for payload in [&b"\x01\0\0\0\0\0\0\0and more"[..], b"\x01\0\0\0\0\0\0\0"] {
        let mut codec = ready(Network::BTC);
        let mut frame = BytesMut::new();
        codec.put_frame(Command::new("ping").unwrap(), payload, &mut frame);
        let original = frame.clone();
        let Ok(Some(Incoming::Message(message))) = codec.decode(&mut frame) else { panic!("no message") };
        assert_eq!((&message, &codec.trailing()[..]), (&Message::Ping(1), &payload[8..]));
        let mut again = BytesMut::new();
        codec.encode_with_trailing(&message, codec.trailing(), &mut again);
        assert_eq!(again, original);
    }
}

#[test]
fn a_stream_that_ends_inside_a_frame_says_what_is_void() {
    let mut codec = ready(Network::BTC);
    assert_eq!(codec.finish(&[]), Ok(()));
    assert_eq!(codec.finish(&[0xf9]), Err(WireError::Cut));
    let mut bytes = frame(&codec, &Message::Ping(1));
    bytes.truncate(30);
    assert!(codec.decode(&mut bytes).unwrap().is_none());
    assert_eq!(codec.finish(&[]), Err(WireError::Cut));

    let mut codec = ready(Network::BTC);
    let block = Network::BTC.genesis_block();
    let mut bytes = frame(&codec, &Message::Block(block.clone()));
    bytes.truncate(24 + 100);
    assert!(codec.decode(&mut bytes).unwrap().is_none());
    let Err(WireError::Block(aborted)) = codec.finish(&[]) else { panic!("no abort") };
    assert_eq!((aborted.download, aborted.block), (DownloadId(1), Some(Network::BTC.genesis_hash())));
    assert_eq!(aborted.reason, BlockError::Cut { received: 100, size: block.len() as u64 });
}

#[test]
fn checks_are_a_policy_and_the_end_says_which_were_made() {
    let block = Network::BTC.genesis_block();
    for (checksum, merkle_root) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut options = CodecOptions::new(Network::BTC);
        (options.checksum, options.block.merkle_root) = (checksum, merkle_root);
        let mut codec = Codec::with_options(Network::BTC, options);
        codec.handshake_done();
        let mut damaged = frame(&codec, &Message::Block(block.clone()));
        let mut wrong = damaged.clone();
        let verdict = |made| if made { Verdict::Verified } else { Verdict::NotChecked };
        match decode(&mut codec, &damaged.clone(), 100).unwrap().last() {
            Some(Incoming::Block(BlockEvent::End(end))) => {
                assert_eq!((end.checksum, end.merkle_root), (verdict(checksum), verdict(merkle_root)));
            }
            other => panic!("{other:?}"),
        }
        // A checksum that is wrong, and a transaction that is not the one of the root under a checksum that is right.
        damaged[20] ^= 1;
        assert_eq!(decode(&mut codec, &damaged, 100).is_err(), checksum);
        let mut codec = Codec::with_options(Network::BTC, codec.options);
        codec.handshake_done();
        wrong[24 + 200] ^= 1;
        let sum = first_four(sha256d(&wrong[24..]));
        wrong[20..24].copy_from_slice(&sum);
        assert_eq!(decode(&mut codec, &wrong, 100).is_err(), merkle_root);
    }
}

#[test]
fn messages_as_long_as_blocks_pass_in_pieces_if_wanted() {
    let payload: Vec<u8> = (0..5000u32).map(|n| n as u8).collect();
    let long = |extended| {
        let mut options = CodecOptions::new(Network::BSV);
        (options.max_message_size, options.block.part_size) = (1000, 700);
        let mut bytes = BytesMut::new();
        let codec = Codec::with_options(Network::BSV, options.clone());
        if extended {
            bytes.put_slice(&Network::BSV.magic);
            bytes.put_slice(b"extmsg\0\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0blocktxn\0\0\0\0");
            bytes.put_u64_le(payload.len() as u64);
            bytes.put_slice(&payload);
        } else {
            codec.put_frame(Command::new("blocktxn").unwrap(), &payload, &mut bytes);
        }
        codec.encode(&Message::Ping(7), &mut bytes);
        (options, bytes)
    };
    for (extended, read) in [(false, 1), (true, 333), (false, 10_000)] {
        let (mut options, bytes) = long(extended);
        let mut codec = Codec::with_options(Network::BSV, options.clone());
        codec.handshake_done();
        assert!(matches!(decode(&mut codec, &bytes, read), Err(WireError::TooLong { limit: 1000, .. })));

        options.long_messages = true;
        let mut codec = Codec::with_options(Network::BSV, options.clone());
        codec.handshake_done();
        let mut arrived = Vec::new();
        let mut events = decode(&mut codec, &bytes, read).unwrap();
        assert!(matches!(events.pop(), Some(Incoming::Message(Message::Ping(7)))));
        for event in events {
            let Incoming::Piece(piece) = event else { panic!("{event:?}") };
            assert_eq!((piece.command, piece.offset, piece.size), ("blocktxn", arrived.len() as u64, 5000));
            assert!(!piece.bytes.is_empty() && piece.bytes.len() <= 700);
            arrived.extend_from_slice(&piece.bytes);
        }
        assert_eq!(arrived, payload);

        let mut codec = Codec::with_options(Network::BSV, options.clone());
        codec.handshake_done();
        decode(&mut codec, &bytes[..3000], read).unwrap();
        assert_eq!(codec.finish(&[]), Err(WireError::Cut));
        if !extended {
            let mut damaged = bytes.clone();
            damaged[24 + 4999] ^= 1;
            let mut codec = Codec::with_options(Network::BSV, options);
            codec.handshake_done();
            assert!(matches!(decode(&mut codec, &damaged, read), Err(WireError::Checksum { .. })));
        }
    }
}

#[test]
fn a_short_block_is_not_named_after_what_follows() {
    for length in [0, 79] {
        let mut codec = ready(Network::BTC);
        let mut bytes = BytesMut::new();
        codec.put_frame(Command::new("block").unwrap(), &vec![7; length], &mut bytes);
        bytes.put_bytes(1, 200);
        let WireError::Block(aborted) = codec.decode(&mut bytes).unwrap_err() else { panic!("no abort") };
        assert_eq!((aborted.block, aborted.reason), (None, BlockError::NoHeader { size: length as u64 }));
    }
}

#[test]
fn witnesses_are_refused_on_bsv() {
    let vectors = include_str!("../../../tests/vectors/bitcoind.txt");
    let witness = vectors.lines().filter_map(|line| line.strip_prefix("tx "));
    let payloads: Vec<Bytes> =
        witness.map(|hex| hex_conservative::decode_to_vec(hex).unwrap().into()).collect();
    let mut refused = 0;
    for payload in payloads {
        let mut codec = ready(Network::BSV);
        let mut bytes = BytesMut::new();
        codec.put_frame(Command::new("tx").unwrap(), &payload, &mut bytes);
        refused += usize::from(codec.decode(&mut bytes).is_err());
    }
    assert_eq!(refused, 1, "of one with and one without");
}

#[test]
fn extended_frames_do_not_nest() {
    let mut bytes = BytesMut::from(&Network::BSV.magic[..]);
    bytes.put_slice(b"extmsg\0\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0extmsg\0\0\0\0\0\0");
    bytes.put_u64_le(0);
    assert!(matches!(ready(Network::BSV).decode(&mut bytes), Err(WireError::Command { .. })));
}
