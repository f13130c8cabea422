use tipward_wire::bitcoin::{BlockFilter, FilterHeaders, FilterMessage, FilterRange};
use tipward_wire::{FilterHash, FilterHeader};

use super::*;

fn hash(number: u8) -> BlockHash {
    BlockHash::from_bytes([number; 32])
}

fn with_filters() -> Talk {
    let mut talk = Talk::start(Network::BTC);
    let mut version = their_version(Network::BTC);
    version.services = version.services | Services::COMPACT_FILTERS;
    talk.hear(Message::Version(version)).unwrap();
    talk.hear(Message::Verack).unwrap();
    talk.out = Outbox::default();
    talk
}

fn filter(block: BlockHash) -> Message {
    let filter = BlockFilter::build(&block, [b"script"]);
    Message::CFilter(FilterMessage { filter_type: 0, block, filter })
}

fn hashes(stop: BlockHash, count: u8) -> Message {
    let hashes = (0..count).map(|number| FilterHash::from_bytes([number; 32])).collect();
    Message::CFHeaders(FilterHeaders { filter_type: 0, stop, previous: FilterHeader::ZERO, hashes })
}

#[test]
fn only_who_serves_filters_is_asked_and_for_no_more_than_may_be() {
    let want = |count: u8| Want::Filters { start: 7, blocks: (0..count).map(hash).collect() };
    let mut plain = Talk::ready(Network::BTC);
    assert_eq!(plain.session.ask(want(1), &mut plain.out), Err(Unsupported));
    let hashes = |count| Want::FilterHashes { start: 7, count, stop: hash(3) };
    assert_eq!(plain.session.ask(hashes(1), &mut plain.out), Err(Unsupported));

    let Talk { mut session, mut out } = with_filters();
    for refused in [
        want(0),
        hashes(0),
        hashes(2001),
        Want::Filters { start: 1, blocks: vec![hash(1); 1001] },
        Want::Filters { start: 1 << 32, blocks: vec![hash(1)] },
    ] {
        assert_eq!(session.ask(refused, &mut out), Err(Unsupported));
    }
    session.ask(want(3), &mut out).unwrap();
    session.ask(hashes(2000), &mut out).unwrap();
    let range = |stop| FilterRange { filter_type: 0, start_height: 7, stop };
    assert_eq!(out.messages, [Message::GetCFilters(range(hash(2))), Message::GetCFHeaders(range(hash(3)))]);
}

#[test]
fn what_was_asked_for_is_an_answer_once_and_all_else_ends_the_connection() {
    let mut talk = with_filters();
    talk.session.ask(Want::Filters { start: 1, blocks: vec![hash(1), hash(2)] }, &mut talk.out).unwrap();
    talk.session.ask(Want::FilterHashes { start: 1, count: 2, stop: hash(2) }, &mut talk.out).unwrap();
    for block in [hash(1), hash(2)] {
        talk.hear(filter(block)).unwrap();
        let bytes = BlockFilter::build(&block, [b"script"]).as_bytes().clone();
        let reply = SessionEvent::Reply(Reply::Filter { block, bytes });
        assert_eq!(std::mem::take(&mut talk.out.events), [reply]);
    }
    let refused = "sent filters up to block 0202020202020202020202020202020202020202020202020202020202020202, \
                   which were not asked for";
    for unasked in [filter(hash(2)), hashes(hash(2), 1), hashes(hash(2), 3)] {
        assert_eq!(talk.hear(unasked).unwrap_err().to_string(), refused);
    }
    talk.hear(hashes(hash(2), 2)).unwrap();
    assert!(
        matches!(&talk.out.events[..], [SessionEvent::Reply(Reply::FilterHashes { hashes, .. })] if hashes.len() == 2)
    );
    assert_eq!(talk.hear(hashes(hash(2), 2)).unwrap_err().to_string(), refused);
}

/// Who asks in messages of his own gets the messages.
#[test]
fn the_users_own_answers_are_his() {
    let mut talk = with_filters();
    let range = FilterRange { filter_type: 0, start_height: 1, stop: hash(1) };
    talk.session.send(Message::GetCFilters(range), &mut talk.out);
    talk.hear(filter(hash(1))).unwrap();
    assert_eq!(talk.out.untranslated, Some(filter(hash(1))));
}
