use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    BlockEvent, Dialect, Incoming, Verdict,
    bitcoin::{
        Chain, CodecOptions, Message, Network,
        message::tests::{message, vectors},
    },
};

fn v2(options: Option<CodecOptions>) -> Codec {
    let options = options.unwrap_or_else(|| CodecOptions::new(Network::BTC));
    let mut codec = Codec::with_options(Network::BTC, options);
    assert!(codec.use_v2());
    codec.handshake_done();
    codec
}

/// Feeds the bytes in reads of these sizes, over and over, and collects what comes.
fn decode(codec: &mut Codec, bytes: &[u8], sizes: &[usize]) -> Result<Vec<Incoming<Message>>, WireError> {
    let (mut input, mut found, mut rest) = (BytesMut::new(), Vec::new(), bytes);
    for size in sizes.iter().cycle() {
        let (read, left) = rest.split_at((*size).min(rest.len()));
        rest = left;
        input.put_slice(read);
        while let Some(incoming) = codec.decode(&mut input)? {
            found.push(incoming);
        }
        if rest.is_empty() {
            break;
        }
    }
    Ok(found)
}

fn record(id: u8, length: u32, rest: &[u8]) -> Vec<u8> {
    [&length.to_le_bytes()[..], &[id], rest].concat()
}

fn long_record(command: &str, payload_length: u32) -> Vec<u8> {
    record(0, 13 + payload_length, Command::new(command).unwrap().as_bytes())
}

#[test]
fn every_command_round_trips_in_both_framings() {
    let mut seen = BTreeSet::new();
    for (_, command, payload) in vectors().filter(|(_, command, _)| command.as_str() != "block") {
        let (original, _) = Message::parse(command, payload.clone()).unwrap();
        let mut clear = Codec::new(Network::BTC);
        clear.handshake_done();
        for mut codec in [clear, v2(None)] {
            let mut bytes = BytesMut::new();
            codec.encode(&original, &mut bytes);
            let Ok(Some(Incoming::Message(found))) = codec.decode(&mut bytes) else { panic!("{command}") };
            assert_eq!(found, original);
            assert!(bytes.is_empty() && codec.is_between_frames(), "{command}");
        }
        seen.insert(command.as_str().to_owned());
    }
    let all: BTreeSet<_> = Message::COMMANDS.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(seen, all);
}

#[test]
fn usual_commands_take_one_byte_and_the_others_thirteen() {
    let codec = v2(None);
    for name in Message::COMMANDS.iter().chain(&["block"]) {
        let command = Command::new(name).unwrap();
        let mut bytes = BytesMut::new();
        codec.put_frame(command, b"abc", &mut bytes);
        let long = [&[16, 0, 0, 0, 0][..], command.as_bytes(), b"abc"].concat();
        let expected = SHORT_IDS.iter().find(|(_, known)| known == name).map_or(long, |(id, _)| {
            assert!(matches!(id, 1..=28 | 37));
            record(*id, 4, b"abc")
        });
        assert_eq!(bytes[..], expected[..], "{name}");
    }
    // A few by the numbers of BIP 324.
    for (id, name) in
        [(1, "addr"), (2, "block"), (14, "inv"), (21, "tx"), (22, "getcfilters"), (28, "addrv2")]
    {
        assert_eq!(command(id).unwrap().as_str(), name);
    }
    for name in ["version", "verack", "wtxidrelay", "sendaddrv2", "getaddr", "sendheaders"] {
        assert_eq!(short_id(Command::new(name).unwrap()), None, "{name}");
    }
}

#[test]
fn a_long_type_is_taken_where_a_short_one_exists() {
    let mut bytes = long_record("ping", 8);
    bytes.extend_from_slice(&7u64.to_le_bytes());
    let found = decode(&mut v2(None), &bytes, &[1]).unwrap();
    assert!(matches!(found[..], [Incoming::Message(Message::Ping(7))]), "{found:?}");
}

#[test]
fn what_has_no_type_is_refused() {
    for id in (29..=36).chain(38..=255) {
        let error = decode(&mut v2(None), &record(id, 1, &[]), &[5]).unwrap_err();
        assert_eq!(error, WireError::ShortId { found: id });
    }
    for (bytes, length) in [(vec![0, 0, 0, 0], 0), (record(0, 12, &[]), 12), (record(0, 1, &[]), 1)] {
        assert_eq!(decode(&mut v2(None), &bytes, &[1]).unwrap_err(), WireError::NoType { length });
    }
    let bytes = record(0, 21, b"pi\xffg\0\0\0\0\0\0\0\0");
    assert!(matches!(decode(&mut v2(None), &bytes, &[1]), Err(WireError::Command { .. })));
}

#[test]
fn lengths_are_refused_before_the_payload_comes() {
    let too_long = |mut codec: Codec, bytes: &[u8], announced: u64| {
        let error = decode(&mut codec, bytes, &[bytes.len()]).unwrap_err();
        assert!(matches!(error, WireError::TooLong { length, .. } if length == announced), "{error}");
    };
    too_long(v2(None), &record(13, 178_011, &[]), 178_010); // headers
    too_long(v2(None), &record(14, 1_800_011, &[]), 1_800_010); // inv
    too_long(v2(None), &record(2, 4_000_002, &[]), 4_000_001); // block
    too_long(v2(None), &record(18, 1026, &[]), 1025); // ping
    too_long(v2(None), &record(18, u32::MAX, &[]), u64::from(u32::MAX) - 1);
    too_long(v2(None), &long_record("unheard", 4_000_001), 4_000_001);
    let mut early = Codec::new(Network::BTC);
    assert!(early.use_v2());
    too_long(early, &record(13, 1026, &[]), 1025);
    // At the limit it is waited for.
    let mut codec = v2(None);
    assert!(decode(&mut codec, &record(2, 4_000_001, &[]), &[5]).unwrap().is_empty());
    assert!(!codec.is_between_frames());
    assert_eq!(codec.block_progress(), Some(0));
}

#[test]
fn blocks_stream_and_say_that_no_checksum_was_compared() {
    let block = Network::BTC.genesis_block();
    for size in [1, 7, 50, 1000] {
        let mut codec = v2(None);
        let mut bytes = BytesMut::new();
        codec.encode(&Message::Block(block.clone()), &mut bytes);
        codec.encode(&Message::Ping(1), &mut bytes);
        let events = decode(&mut codec, &bytes, &[size]).unwrap();
        let [
            Incoming::Block(BlockEvent::Part(part)),
            Incoming::Block(BlockEvent::End(end)),
            Incoming::Message(Message::Ping(1)),
        ] = &events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!(part.bytes, block);
        assert_eq!((end.checksum, end.merkle_root), (Verdict::NotChecked, Verdict::Verified));
        assert_eq!(codec.finish(&[]), Ok(()));
        // A block that was cut, and one that was made up.
        let mut codec = v2(None);
        decode(&mut codec, &bytes[..100], &[size]).unwrap();
        assert!(matches!(codec.finish(&[]), Err(WireError::Block(_))));
        bytes[5 + 200] ^= 1;
        assert!(matches!(decode(&mut v2(None), &bytes, &[size]), Err(WireError::Block(_))));
    }
}

#[test]
fn long_messages_pass_in_pieces() {
    let mut options = CodecOptions::new(Network::BTC);
    (options.max_message_size, options.block.part_size, options.long_messages) = (1000, 700, true);
    let mut codec = v2(Some(options));
    let payload: Vec<u8> = (0..5000u32).map(|n| n as u8).collect();
    let mut bytes = BytesMut::new();
    codec.put_frame(Command::new("blocktxn").unwrap(), &payload, &mut bytes);
    let mut arrived = Vec::new();
    for incoming in decode(&mut codec, &bytes, &[333]).unwrap() {
        let Incoming::Piece(piece) = incoming else { panic!("{incoming:?}") };
        assert_eq!((piece.command, piece.size), ("blocktxn", 5000));
        arrived.extend_from_slice(&piece.bytes);
    }
    assert_eq!(arrived, payload);
}

#[test]
fn a_stream_that_ends_inside_a_record_is_cut() {
    let mut codec = v2(None);
    assert_eq!(codec.finish(&[3]), Err(WireError::Cut));
    assert!(decode(&mut codec, &record(18, 9, &[1]), &[1]).unwrap().is_empty());
    assert_eq!(codec.wanted(), 8);
    assert_eq!(codec.finish(&[]), Err(WireError::Cut));
}

#[test]
fn only_chains_with_the_transport_switch_and_only_between_frames() {
    assert_eq!(Network::BSV.chain, Chain::Bsv);
    let mut codec = Codec::new(Network::BSV);
    assert!(!codec.use_v2());
    let mut bytes = BytesMut::new();
    codec.encode(&Message::Verack, &mut bytes);
    assert_eq!(bytes[..4], Network::BSV.magic);

    let mut codec = Codec::new(Network::BTC);
    bytes.clear();
    codec.encode(&Message::Ping(1), &mut bytes);
    bytes.truncate(25);
    assert!(codec.decode(&mut bytes).unwrap().is_none());
    assert!(!codec.use_v2());
}

proptest! {
    #[test]
    fn messages_round_trip(
        messages in prop::collection::vec(message(), 1..6),
        sizes in prop::collection::vec(1usize..200, 1..8),
    ) {
        let mut codec = v2(None);
        let mut bytes = BytesMut::new();
        messages.iter().for_each(|message| codec.encode(message, &mut bytes));
        let found = decode(&mut codec, &bytes, &sizes).unwrap();
        let found: Vec<_> = found.into_iter().map(|incoming| match incoming {
            Incoming::Message(message) => message,
            other => panic!("{other:?}"),
        }).collect();
        prop_assert_eq!(found, messages);
        prop_assert!(codec.is_between_frames());
    }

    #[test]
    fn arbitrary_records_never_panic(
        bytes in prop::collection::vec(prop_oneof![0u8..40, any::<u8>()], 0..600),
        id in 0u8..40,
        length in 0u32..700,
        sizes in prop::collection::vec(1usize..100, 1..4),
    ) {
        let _ = decode(&mut v2(None), &record(id, length, &bytes), &sizes);
        let _ = decode(&mut v2(None), &bytes, &sizes);
    }

    #[test]
    fn trailing_bytes_pass_through(payload in prop::collection::vec(any::<u8>(), 8..40)) {
        let mut codec = v2(None);
        let mut bytes = BytesMut::new();
        codec.put_frame(Command::new("ping").unwrap(), &payload, &mut bytes);
        let original = Bytes::copy_from_slice(&bytes);
        let Ok(Some(Incoming::Message(message))) = codec.decode(&mut bytes) else { panic!("no message") };
        let mut again = BytesMut::new();
        codec.encode_with_trailing(&message, codec.trailing(), &mut again);
        prop_assert_eq!(again, original);
    }
}
