use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::BlockHash;
use crate::bitcoin::{
    BlockHeader, Inventory, InventoryKind, Locator, NetworkAddress, Protoconf, Reject, Services, Version,
};

fn hash() -> impl Strategy<Value = [u8; 32]> {
    any::<[u8; 32]>()
}

fn address() -> impl Strategy<Value = NetworkAddress> {
    (any::<u64>(), any::<[u8; 16]>(), any::<u16>()).prop_map(|(services, ip, port)| NetworkAddress {
        services: Services(services),
        ip: ip.into(),
        port,
    })
}

fn version() -> impl Strategy<Value = Version> {
    let first = (any::<i32>(), any::<u64>(), any::<i64>(), address(), address());
    (first, any::<u64>(), "\\PC{0,60}", any::<i32>(), any::<bool>()).prop_map(
        |((protocol, services, time, receiver, sender), nonce, user_agent, start_height, relay)| Version {
            protocol,
            services: Services(services),
            time,
            receiver,
            sender,
            nonce,
            user_agent,
            start_height,
            relay,
        },
    )
}

fn locator() -> impl Strategy<Value = Locator> {
    (any::<u32>(), prop::collection::vec(hash(), 0..102), hash()).prop_map(|(protocol, hashes, stop)| {
        Locator {
            protocol,
            hashes: hashes.into_iter().map(BlockHash::from_bytes).collect(),
            stop: BlockHash::from_bytes(stop),
        }
    })
}

fn inventory() -> impl Strategy<Value = Vec<Inventory>> {
    let kind = any::<u32>().prop_map(InventoryKind::from_u32);
    let kind = prop_oneof![kind, Just(InventoryKind::Block), Just(InventoryKind::WitnessBlock)];
    prop::collection::vec((kind, hash()).prop_map(|(kind, hash)| Inventory { kind, hash }), 0..300)
}

fn headers() -> impl Strategy<Value = Vec<BlockHeader>> {
    let header = prop::collection::vec(any::<u8>(), 80)
        .prop_map(|bytes| BlockHeader::from_bytes(bytes.first_chunk().unwrap()));
    prop::collection::vec(header, 0..20)
}

fn other() -> impl Strategy<Value = Message> {
    ("[a-z_]{1,12}", prop::collection::vec(any::<u8>(), 0..300))
        .prop_map(|(name, payload)| Message::Other {
            command: Command::new(&name).unwrap(),
            payload: payload.into(),
        })
        .prop_filter("a name of its own", |message| match message {
            Message::Other { command, .. } => {
                !["version", "verack", "ping", "pong", "inv", "headers", "reject", "block"]
                    .contains(&command.as_str())
            }
            _ => false,
        })
}

fn message() -> impl Strategy<Value = Message> {
    let protoconf =
        (any::<u32>(), prop::option::of("\\PC{0,100}")).prop_map(|(max_receive_payload, policies)| {
            Message::Protoconf(Protoconf { max_receive_payload, stream_policies: policies })
        });
    let reject = ("[a-z]{0,12}", any::<u8>(), "[a-z ]{0,111}", prop::option::of(hash()))
        .prop_map(|(message, code, reason, hash)| Message::Reject(Reject { message, code, reason, hash }));
    prop_oneof![
        version().prop_map(Message::Version),
        Just(Message::Verack),
        Just(Message::SendHeaders),
        any::<u64>().prop_map(Message::Ping),
        any::<u64>().prop_map(Message::Pong),
        locator().prop_map(Message::GetHeaders),
        locator().prop_map(Message::GetBlocks),
        headers().prop_map(Message::Headers),
        inventory().prop_map(Message::Inv),
        inventory().prop_map(Message::GetData),
        inventory().prop_map(Message::NotFound),
        protoconf,
        reject,
        other(),
    ]
}

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
            let mut codec = ready(network);
            let bytes: Vec<u8> = messages.iter().flat_map(|message| frame(&codec, message)).collect();
            let decoded: Vec<Message> = decode(&mut codec, &bytes, size)
                .unwrap()
                .into_iter()
                .map(|incoming| match incoming {
                    Incoming::Message(message) => message,
                    Incoming::Block(event) => panic!("{event:?}"),
                })
                .collect();
            prop_assert_eq!(&decoded, &messages);
            prop_assert!(codec.is_between_frames());
        }
    }

    #[test]
    fn cut_payloads_are_errors_and_name_their_field(message in message(), at: prop::sample::Index) {
        let codec = ready(Network::BTC);
        let whole = frame(&codec, &message);
        let command = message.command();
        let payload = &whole[HEADER..];
        prop_assume!(!payload.is_empty() && !matches!(message, Message::Other { .. }));
        let cut = at.index(payload.len());
        let parsed = parse::message(command, Bytes::copy_from_slice(&payload[..cut]));
        match (&message, parsed) {
            // The only fields that may be absent.
            (Message::Version(_), Ok(_)) => prop_assert_eq!(cut, payload.len() - 1),
            (Message::Reject(reject), Ok(_)) => prop_assert!(reject.hash.is_some() && cut >= payload.len() - 32),
            (_, Err(WireError::Malformed { field, offset, .. })) => {
                prop_assert!(!field.is_empty() && offset <= cut);
            }
            (_, other) => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn arbitrary_payloads_never_panic(payload in prop::collection::vec(any::<u8>(), 0..500), which in 0usize..12) {
        let names = ["version", "ping", "getheaders", "getblocks", "headers", "inv", "getdata", "notfound",
            "protoconf", "reject", "verack", "whatever"];
        let _ = parse::message(Command::new(names[which]).unwrap(), payload.into());
    }

    #[test]
    fn arbitrary_streams_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..500), size in 1usize..100) {
        let mut stream = Network::BTC.magic.to_vec();
        stream.extend_from_slice(&bytes);
        let _ = decode(&mut ready(Network::BTC), &stream, size);
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
    assert!(matches!(decode(&mut codec, &bytes, 100), Err(WireError::Checksum { .. })));

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
        ("headers", 162_010),
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
fn a_count_larger_than_the_payload_allocates_nothing() {
    let payload = Bytes::from_static(&[0xfd, 0xd0, 0x07]); // 2000 headers, none there
    match parse::message(Command::new("headers").unwrap(), payload) {
        Err(WireError::Malformed { field, offset, problem, .. }) => {
            assert_eq!((field, offset), ("headers", 0));
            assert_eq!(problem, "more entries than the payload has room for");
        }
        other => panic!("{other:?}"),
    }
}
