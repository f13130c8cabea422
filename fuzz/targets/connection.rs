//! What a peer sends to a connection of ours, before and after the handshake, from either side: it ends or goes on, and
//! neither what it has to tell nor what it has to send piles up.
#![no_main]

use std::time::{Duration, Instant};

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tipward_peer::{
    Delivery, Direction, LinkOptions, Local, Needs, Protocol, Start, Want,
    bitcoin::Bitcoin,
    wire::{
        BlockHash, Dialect,
        bitcoin::{Codec, Message, Network, NetworkAddress, Services, Version},
    },
};

/// What one read may add to a queue, on top of the limit at which the connection stops decoding.
const EVENTS: usize = 256 + 4;

fn greeting(codec: &Codec) -> BytesMut {
    let version = Version {
        protocol: 70016,
        services: Services::NETWORK | Services::WITNESS,
        time: 1_700_000_000,
        receiver: NetworkAddress::UNSPECIFIED,
        sender: NetworkAddress::UNSPECIFIED,
        nonce: 99,
        user_agent: "/fuzz/".into(),
        start_height: 7,
        relay: true,
        association_id: None,
    };
    let mut bytes = BytesMut::new();
    codec.encode(&Message::Version(version), &mut bytes);
    codec.encode(&Message::Verack, &mut bytes);
    bytes
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, data)) = data.split_first() else { return };
    let network = if choice & 1 == 0 { Network::BTC } else { Network::BSV };
    let direction = if choice & 2 == 0 { Direction::Outbound } else { Direction::Inbound };
    let mut options = LinkOptions::default();
    options.needs = Needs::Nothing;
    options.delivery = if choice & 8 == 0 { Delivery::All } else { Delivery::Raw };
    options.relay_transactions = choice & 16 == 0;
    options.part_size = 200;
    let mut now = Instant::now();
    let start = Start { direction, encrypted: false, seed: 1, now };
    let mut link = Bitcoin::new(network).connect(&Local::default(), &options, start);
    let codec = Codec::new(network);
    let mut input = if choice & 4 == 0 { greeting(&codec) } else { BytesMut::new() };
    let reads = 1 + usize::from(choice >> 5) * 100;
    for read in data.chunks(reads) {
        now += Duration::from_millis(10);
        input.extend_from_slice(read);
        loop {
            let received = link.receive(now, &mut input);
            let events = std::iter::from_fn(|| link.poll()).count();
            assert!(events <= EVENTS, "{events} events at once");
            assert!(link.output().len() <= options.max_unsent + (4 << 20));
            link.output().clear();
            match received {
                Ok(true) => {}
                Ok(false) => break,
                Err(reason) => {
                    assert!(!reason.to_string().is_empty());
                    return;
                }
            }
        }
        link.ask(Want::Blocks(vec![BlockHash::ZERO]), now).ok();
        if link.timeout(now).is_err() {
            return;
        }
        assert!(link.deadline() > now);
    }
    link.closed(&input);
});
