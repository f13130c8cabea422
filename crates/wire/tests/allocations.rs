//! Parsing allocates in proportion to what has come, never to what is announced. Measured with a counting allocator.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use allocation_counter::measure;
use bytes::{Bytes, BytesMut};
use tipward_wire::{
    Dialect,
    bitcoin::{BlockFilter, Codec, Command, Message, Network},
};

/// The bytes that may be allocated at once for each byte of input. The smallest entry of `addrv2`, 9 bytes, takes 72 in
/// memory, and a vector that grows takes up to twice what it holds.
const FACTOR: u64 = 16;
/// What is taken ahead for a list, before its first entry was understood: a byte for a byte.
const AHEAD: u64 = 1;
/// What an error's text, an empty message and room for one entry may take.
const CONSTANT: u64 = 1024;

fn check(command: Command, payload: &Bytes, factor: u64) {
    let mut parsed = None;
    let info = measure(|| parsed = Some(Message::parse(command, payload.clone())));
    let most = factor * payload.len() as u64 + CONSTANT;
    assert!(info.bytes_max <= most, "{command}: {} bytes allocated for {}", info.bytes_max, payload.len());
}

#[test]
fn truncated_payloads() {
    let mut checked = 0;
    for text in [
        include_str!("vectors/bitcoind.txt"),
        include_str!("vectors/bcoin.txt"),
        include_str!("vectors/layouts.txt"),
    ] {
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (command, payload) = line.split_once(' ').unwrap();
            let payload = hex_conservative::decode_to_vec(payload.trim_matches('-')).unwrap();
            let (command, payload) = (Command::new(command).unwrap(), Bytes::from(payload));
            for cut in 0..=payload.len() {
                check(command, &payload.slice(..cut), FACTOR);
                checked += 1;
            }
        }
    }
    assert!(checked > 5000, "{checked}");
}

#[test]
fn counts_that_promise_too_much() {
    // Each command, with a count or length of every size at every place where one may stand.
    for name in Message::COMMANDS {
        let command = Command::new(name).unwrap();
        for at in 0..130 {
            for count in [&[0xfc][..], &[0xfd, 0xff, 0xff], &[0xfe, 0xff, 0xff, 0xff, 0x7f], &[0xff; 9]] {
                for fill in [0, 1, 0x20] {
                    for after in [0, 40, 400] {
                        check(command, &[&vec![fill; at], count, &vec![fill; after]].concat().into(), FACTOR);
                    }
                }
            }
        }
    }
}

/// Full lists of the smallest entries are where values take the most room for their bytes.
#[test]
fn full_lists() {
    let list = |name: &str, before: &[u8], entry: &[u8], count: u16| {
        let count_bytes = [&[0xfd][..], &count.to_le_bytes()].concat();
        let payload = [before, &count_bytes, &entry.repeat(usize::from(count))].concat();
        let command = Command::new(name).unwrap();
        let (message, trailing) = Message::parse(command, payload.clone().into()).unwrap();
        assert!(trailing.is_empty() && !matches!(message, Message::Other { .. }), "{name}");
        check(command, &payload.into(), FACTOR);
    };
    list("headers", &[], &[7; 81], 252 + 1000);
    list("inv", &[], &[7; 36], 30_000);
    list("addr", &[], &[7; 30], 1000);
    list("addrv2", &[], &[0, 0, 0, 0, 0, 99, 0, 0, 0], 1000);
    list("hdrsen", &[], &[0; 84], 2000);
    list("blocktxn", &[7; 32], &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0], 60_000);
    list("getblocktxn", &[7; 32], &[0], 60_000);
}

#[test]
fn frames_that_announce_what_never_comes() {
    for (network, length) in [(Network::BTC, 4_000_000u32), (Network::BSV, 2 << 20)] {
        for name in ["tx", "unheard", "blocktxn", "block"] {
            let mut codec = Codec::new(network);
            codec.handshake_done();
            let mut frame = BytesMut::from(&network.magic[..]);
            frame.extend_from_slice(Command::new(name).unwrap().as_bytes());
            frame.extend_from_slice(&length.to_le_bytes());
            frame.extend_from_slice(&[0; 4 + 500]);
            let size = frame.len() as u64;
            let info = measure(|| drop(codec.decode(&mut frame)));
            assert!(info.bytes_max <= FACTOR * size + CONSTANT + 4096, "{name}: {}", info.bytes_max);
        }
    }
}

#[test]
fn filters_that_claim_too_many_elements() {
    let filter = BlockFilter::new(Bytes::from_static(&[0xfe, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]));
    let info = measure(|| {
        assert!(filter.check().is_err() && filter.match_any(&Default::default(), [b"x"]).is_err());
    });
    assert!(info.bytes_max <= CONSTANT, "{}", info.bytes_max);
}

/// A count that fits the payload's length, over entries that are none.
#[test]
fn counts_over_junk() {
    let junk = |name: &str, before: usize, count: u32| {
        let payload = [&vec![0; before][..], &[0xfe], &count.to_le_bytes(), &[0xff; 4_000_000]].concat();
        let command = Command::new(name).unwrap();
        let payload = Bytes::from(payload);
        assert!(Message::parse(command, payload.clone()).is_err(), "{name}");
        check(command, &payload, AHEAD);
    };
    junk("blocktxn", 32, 390_000);
    junk("getblocktxn", 32, 4_000_000);
    junk("cmpctblock", 80 + 8, 600_000);
}
