mod filters;

use std::time::Instant;

use bytes::BytesMut;
use tipward_wire::{
    BlockEnd, BlockEvent, BlockHash, BlockPart, Dialect, DownloadId, Incoming, Verdict,
    bitcoin::{
        AuthChallenge, BlockHeader, Command, Feature, Inventory, InventoryKind, NetworkAddress,
        Reconciliation, Services, Version,
    },
};

use super::{asked::MAX_ASKED, *};
use crate::{
    AnyMessage, DisconnectReason, Encrypt, LinkEvent, Outbox, PeerInfo, Reply, Session, SessionEvent,
    Unsupported, Violation, Want,
};

fn their_version(network: &Network) -> Version {
    Version {
        protocol: 70016,
        services: if network.chain == Chain::Btc {
            Services::NETWORK | Services::WITNESS
        } else {
            Services::NETWORK
        },
        time: 0,
        receiver: NetworkAddress::UNSPECIFIED,
        sender: NetworkAddress::UNSPECIFIED,
        nonce: 99,
        user_agent: "/them:1/".into(),
        start_height: 500,
        relay: true,
        association_id: None,
    }
}

fn options() -> LinkOptions {
    LinkOptions { encrypt: Encrypt::Off, ..LinkOptions::default() }
}

fn start(seed: u64) -> Start {
    Start { direction: Direction::Outbound, encrypted: false, seed, now: Instant::now() }
}

fn other(name: &str) -> Message {
    Message::Other { command: Command::new(name).unwrap(), payload: Default::default() }
}

struct Talk {
    session: BitcoinSession,
    out: Outbox<Message>,
}

impl Talk {
    fn start(network: &'static Network) -> Self {
        Self::start_with(network, &options())
    }

    fn start_with(network: &'static Network, options: &LinkOptions) -> Self {
        let session = BitcoinSession::new(network, &Local::default(), options, start(7));
        let mut talk = Self { session, out: Outbox::default() };
        talk.session.start(&mut talk.out);
        assert!(matches!(&talk.out.messages[..], [Message::Version(_)]));
        talk.out.messages.clear();
        talk
    }

    fn ready(network: &'static Network) -> Self {
        let mut talk = Self::start(network);
        talk.hear(Message::Version(their_version(network))).unwrap();
        talk.hear(Message::Verack).unwrap();
        talk.out = Outbox::default();
        talk
    }

    fn hear(&mut self, message: Message) -> Result<(), DisconnectReason> {
        self.session.receive(Incoming::Message(message), &mut self.out)
    }

    fn said(&mut self) -> Vec<String> {
        self.out.messages.drain(..).map(|message| message.command().as_str().to_owned()).collect()
    }
}

#[test]
fn each_chain_hears_only_what_it_tolerates_before_verack() {
    for (network, after_version) in
        [(Network::BTC, vec!["sendaddrv2", "verack"]), (Network::BSV, vec!["verack", "protoconf"])]
    {
        let mut talk = Talk::start(network);
        talk.hear(Message::Version(their_version(network))).unwrap();
        assert_eq!(talk.said(), after_version, "{}", network.name);
        // What BTC nodes negotiate features with.
        talk.hear(Message::WtxidRelay).unwrap();
        talk.hear(Message::SendAddrV2).unwrap();
        talk.hear(Message::SendTxRcncl(Reconciliation { version: 1, salt: 2 })).unwrap();
        talk.hear(Message::Feature(Feature { id: "BIP434".into(), data: Default::default() })).unwrap();
        // What BSV nodes may ask then, and what nobody knows.
        talk.hear(Message::AuthCh(AuthChallenge { version: 1, challenge: [7; 32] })).unwrap();
        talk.hear(other("unheardof")).unwrap();
        talk.hear(Message::Verack).unwrap();
        assert_eq!(talk.said(), ["sendheaders"]);
        let mut info = PeerInfo::new("/them:1/", 500);
        (info.protocol_version, info.clock) = (70016, Some(0));
        info.services = their_version(network).services.0;
        assert_eq!(talk.out.events, [SessionEvent::Greeted, SessionEvent::Ready(info)]);
    }
}

#[test]
fn peers_that_are_no_use_are_refused_with_the_reason() {
    type Change = fn(&mut Version);
    let cases: [(Change, &str); 5] = [
        (|version| version.nonce = 7, "it is this node itself"),
        (|version| version.protocol = 209, "speaks protocol 209, at least 60001 is needed"),
        (|version| version.services = Services::NONE, "does not serve blocks (services 0x0)"),
        (|version| version.services = Services::NETWORK, "does not serve blocks (services 0x1)"),
        (|version| version.services = Services::WITNESS, "does not serve blocks (services 0x8)"),
    ];
    for (change, reason) in cases {
        let mut version = their_version(Network::BTC);
        change(&mut version);
        let error = Talk::start(Network::BTC).hear(Message::Version(version)).unwrap_err();
        assert_eq!(error.to_string(), reason);
    }
}

#[test]
fn who_needs_filters_takes_those_alone_who_serve_them() {
    let filters = LinkOptions { needs: Needs::Filters, ..options() };
    let hear = |options: &LinkOptions, services| {
        let mut version = their_version(Network::BTC);
        version.services = services;
        Talk::start_with(Network::BTC, options).hear(Message::Version(version))
    };
    let blocks = Services::NETWORK | Services::WITNESS;
    hear(&filters, blocks | Services::COMPACT_FILTERS).unwrap();
    hear(&options(), blocks).unwrap();
    let refused = |services| hear(&filters, services).unwrap_err().to_string();
    assert_eq!(refused(blocks), "does not serve block filters (services 0x9)");
    assert_eq!(refused(Services::COMPACT_FILTERS), "does not serve blocks (services 0x40)");
    let seeds = |needs| Bitcoin::new(Network::BTC).dns_seeds(needs);
    assert!(seeds(Needs::Filters).iter().all(|seed| seed.starts_with("x49.")));
    assert!(seeds(Needs::Blocks).iter().all(|seed| seed.starts_with("x9.")));
}

#[test]
fn a_pruned_node_serves_its_last_blocks() {
    let mut talk = Talk::start(Network::BTC);
    let mut version = their_version(Network::BTC);
    version.services = Services::NETWORK_LIMITED | Services::WITNESS;
    talk.hear(Message::Version(version)).unwrap();
    talk.hear(Message::Verack).unwrap();
    assert!(matches!(&talk.out.events[..], [_, SessionEvent::Ready(info)] if info.recent_only == Some(288)));
}

#[test]
fn the_handshake_has_one_order() {
    for (messages, reason) in [
        (vec![Message::Verack], "sent 'verack' before the handshake was done"),
        (vec![Message::Headers(vec![])], "sent 'headers' before the handshake was done"),
        (
            vec![
                Message::Version(their_version(Network::BTC)),
                Message::Version(their_version(Network::BTC)),
            ],
            "sent 'version' twice",
        ),
    ] {
        let mut talk = Talk::start(Network::BTC);
        let errors: Vec<String> = messages
            .into_iter()
            .filter_map(|message| talk.hear(message).err())
            .map(|e| e.to_string())
            .collect();
        assert_eq!(errors, [reason]);
    }
}

fn part(block: BlockHash) -> Incoming<Message> {
    let part = BlockPart {
        block,
        download: DownloadId(1),
        block_size: Network::BTC.genesis_block().len() as u64,
        index: 0,
        offset: 0,
        first_transaction: 0,
        transactions: vec![81],
        bytes: Network::BTC.genesis_block(),
        ends_inside_transaction: false,
    };
    Incoming::Block(BlockEvent::Part(part))
}

#[test]
fn a_block_that_was_not_asked_for_ends_the_connection() {
    let mut talk = Talk::ready(Network::BTC);
    let (asked, other) = (BlockHash::from_bytes([1; 32]), BlockHash::from_bytes([2; 32]));
    talk.session.ask(Want::Blocks(vec![asked]), &mut talk.out).unwrap();
    match &talk.out.messages[..] {
        [Message::GetData(entries)] => {
            assert_eq!(entries, &[Inventory::block(InventoryKind::WitnessBlock, asked)]);
        }
        other => panic!("{other:?}"),
    }
    assert!(talk.session.receive(part(asked), &mut talk.out).is_ok());
    let error = talk.session.receive(part(other), &mut talk.out).unwrap_err();
    assert!(
        matches!(error, DisconnectReason::Violation(Violation::UnrequestedBlock { block }) if block == other)
    );
}

#[test]
fn a_block_that_was_asked_for_twice_may_come_twice() {
    let mut talk = Talk::ready(Network::BSV);
    let block = BlockHash::from_bytes([1; 32]);
    let end = BlockEnd {
        block,
        download: DownloadId(1),
        transactions: 1,
        size: 285,
        parts: 1,
        checksum: Verdict::Verified,
        merkle_root: Verdict::Verified,
    };
    for _ in 0..2 {
        talk.session.ask(Want::Blocks(vec![block]), &mut talk.out).unwrap();
    }
    for _ in 0..2 {
        talk.session.receive(part(block), &mut talk.out).unwrap();
        talk.session.receive(Incoming::Block(BlockEvent::End(end)), &mut talk.out).unwrap();
    }
    assert!(talk.session.receive(part(block), &mut talk.out).is_err(), "but not three times");
}

#[test]
fn more_questions_than_a_peer_may_have_open_are_refused() {
    let mut talk = Talk::ready(Network::BTC);
    let blocks: Vec<BlockHash> = (0..=MAX_ASKED as u64)
        .map(|n| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.to_le_bytes());
            BlockHash::from_bytes(hash)
        })
        .collect();
    assert_eq!(talk.session.ask(Want::Blocks(blocks), &mut talk.out), Err(Unsupported));
}

/// As bitcoind reads it: `getblocks` is a version, the locator and the stop.
#[test]
fn a_question_for_a_list_of_blocks_is_getblocks() {
    let now = Instant::now();
    let hash = |n: u8| BlockHash::from_bytes([n; 32]);
    for (count, written) in [(0, 0), (3, 3), (200, 101)] {
        let mut link = link(now);
        let hands = [Message::Version(their_version(Network::BTC)), Message::Verack];
        link.receive(now, &mut bytes(&hands)).unwrap();
        link.output().clear();
        let locator = (0..count).map(hash).collect();
        link.ask(Want::BlocksAfter { locator, stop: hash(250) }, now).unwrap();
        let mut payload = 70016_u32.to_le_bytes().to_vec();
        payload.push(written);
        (0..written).for_each(|n| payload.extend([n; 32]));
        payload.extend([250; 32]);
        let mut frame = Network::BTC.magic.to_vec();
        frame.extend(b"getblocks\0\0\0");
        frame.extend((payload.len() as u32).to_le_bytes());
        frame.extend(&tipward_wire::sha256d(&payload)[..4]);
        frame.extend(payload);
        assert_eq!(link.output()[..], frame);
    }
}

#[test]
fn a_list_of_blocks_comes_as_it_is() {
    let mut talk = Talk::ready(Network::BSV);
    let hash = |n: u8| BlockHash::from_bytes([n; 32]);
    let entry = |n: u8| Inventory::block(InventoryKind::Block, hash(n));
    let transaction = Inventory { kind: InventoryKind::Tx, hash: [9; 32] };
    let list = vec![entry(3), transaction, entry(0), entry(1), entry(1), entry(200), entry(0)];
    let announced =
        || SessionEvent::Reply(Reply::Announced([3, 0, 1, 1, 200, 0].into_iter().map(hash).collect()));
    let want = Want::BlocksAfter { locator: vec![hash(2)], stop: BlockHash::ZERO };
    talk.session.ask(want, &mut talk.out).unwrap();
    talk.hear(Message::Inv(list.clone())).unwrap();
    assert_eq!(std::mem::take(&mut talk.out.events), [announced()], "an answer says nothing of the tip");
    talk.hear(Message::Inv(list)).unwrap();
    let tip = SessionEvent::Reply(Reply::NewTip(hash(200)));
    assert_eq!(std::mem::take(&mut talk.out.events), [announced(), tip], "what is told unasked does");
    // A zero hash alone means: ask again. It is no tip.
    talk.hear(Message::Inv(vec![entry(0)])).unwrap();
    assert_eq!(talk.out.events, [SessionEvent::Reply(Reply::Announced(vec![BlockHash::ZERO]))]);
}

#[test]
fn what_a_peer_does_not_have_is_missing_once() {
    let mut talk = Talk::ready(Network::BSV);
    let hash = |n: u8| BlockHash::from_bytes([n; 32]);
    let entry = |n: u8| Inventory::block(InventoryKind::Block, hash(n));
    talk.session.ask(Want::Blocks(vec![hash(1), hash(2), hash(3)]), &mut talk.out).unwrap();
    let not_found = Message::NotFound(vec![entry(2), entry(9), entry(1)]);
    talk.hear(not_found.clone()).unwrap();
    let missing = Reply::Missing(vec![hash(2), hash(1)]);
    assert_eq!(std::mem::take(&mut talk.out.events), [SessionEvent::Reply(missing)]);
    talk.hear(not_found).unwrap();
    assert_eq!(talk.out.events, [], "they are not asked for any more");
    assert!(talk.session.receive(part(hash(1)), &mut talk.out).is_err());
    assert!(talk.session.receive(part(hash(3)), &mut talk.out).is_ok());
    // What is missing makes room for other questions, up to the bound.
    let many = |count: usize| {
        let number = |n: usize| {
            let mut hash = [7; 32];
            hash[..8].copy_from_slice(&n.to_le_bytes());
            BlockHash::from_bytes(hash)
        };
        Want::Blocks((0..count).map(number).collect())
    };
    assert_eq!(talk.session.ask(many(MAX_ASKED), &mut talk.out), Err(Unsupported));
    assert_eq!(talk.session.ask(many(MAX_ASKED - 1), &mut talk.out), Ok(()));
}

fn link(now: Instant) -> Box<dyn Connection> {
    Bitcoin::new(Network::BTC).connect(&Local::default(), &options(), Start { now, ..start(5) })
}

fn bytes(messages: &[Message]) -> BytesMut {
    let (codec, mut bytes) = (Codec::new(Network::BTC), BytesMut::new());
    messages.iter().for_each(|message| codec.encode(message, &mut bytes));
    bytes
}

#[test]
fn a_link_times_out_in_the_handshake() {
    let now = Instant::now();
    let mut link = link(now);
    assert!(link.ask(Want::HeadersAfter(vec![]), now).is_err(), "not before the handshake");
    let deadline = link.deadline();
    assert_eq!(deadline, now + LinkOptions::default().handshake_timeout);
    // Bytes that get nowhere do not help.
    link.receive(deadline, &mut bytes(&[other("sendaddrv2")])).unwrap();
    assert!(matches!(link.timeout(deadline), Err(DisconnectReason::HandshakeTimedOut)));
}

#[test]
fn a_link_pings_and_gives_up_on_silence() {
    let mut now = Instant::now();
    let start = now;
    let mut link = link(now);
    link.receive(now, &mut bytes(&[Message::Version(their_version(Network::BTC)), Message::Verack])).unwrap();
    assert!(matches!(link.poll(), Some(LinkEvent::Ready(_))));
    link.output().clear();
    let mut pings = 0;
    let reason = loop {
        now = link.deadline();
        match link.timeout(now) {
            Ok(()) => pings += usize::from(!std::mem::take(link.output()).is_empty()),
            Err(reason) => break reason,
        }
    };
    assert!(matches!(reason, DisconnectReason::Idle));
    assert_eq!(now - start, LinkOptions::default().idle_timeout);
    assert_eq!(pings, 9, "every two minutes, up to the twentieth");
}

#[test]
fn time_in_which_nothing_was_read_is_not_the_peers() {
    let hour = std::time::Duration::from_secs(3600);
    let start = Instant::now();
    let mut link = link(start);
    link.receive(start, &mut bytes(&[Message::Version(their_version(Network::BTC)), Message::Verack]))
        .unwrap();
    assert!(matches!(link.poll(), Some(LinkEvent::Ready(_))));
    let second = hour / 3600;
    link.call(1, AnyMessage::new(Message::Ping(77)), start + 2 * second).unwrap();
    link.resumed(start + second, start + second + hour);
    let now = start + second + hour;
    link.timeout(now).unwrap();
    assert!(link.poll().is_none(), "a request has as long as it had");
    link.timeout(now + second).unwrap();
    assert!(matches!(link.poll(), Some(LinkEvent::Answer(1, Err(_)))));
    // The ping of the handshake was sent more than an hour ago, and the last bytes came then.
    let idle = LinkOptions::default().idle_timeout;
    link.timeout(now + idle - second).unwrap();
    assert!(link.timeout(now + idle).is_err());
}

#[test]
fn the_end_of_a_stream_tells_whether_a_message_was_cut() {
    let now = Instant::now();
    let mut link = link(now);
    assert!(matches!(link.closed(&[]), DisconnectReason::Closed));
    let mut whole = bytes(&[Message::Version(their_version(Network::BTC))]);
    let mut half = whole.split_to(40);
    link.receive(now, &mut half).unwrap();
    assert!(matches!(link.closed(&half), DisconnectReason::Truncated));
}

/// BCH answers on the port and with the magic of BSV, and has its own blocks.
#[test]
fn a_peer_that_claims_to_be_past_the_fork_shows_our_side_of_it() {
    for network in [Network::BTC, Network::BSV] {
        let (height, block) = network.chain_block.unwrap();
        let mut version = their_version(network);
        version.start_height = i32::try_from(height).unwrap();
        let mut talk = Talk::start(network);
        talk.hear(Message::Version(version)).unwrap();
        talk.said();
        talk.hear(Message::Verack).unwrap();
        assert!(
            matches!(&talk.out.messages[..], [Message::GetHeaders(l), Message::Ping(7)] if l.hashes.is_empty() && l.stop == block)
        );
        assert_eq!(talk.out.events, [SessionEvent::Greeted], "not ready yet");
        talk.hear(Message::Ping(3)).unwrap();
        assert!(matches!(talk.out.messages.last(), Some(Message::Pong(3))));
        // An announcement proves nothing.
        talk.hear(Message::Headers(vec![network.genesis()])).unwrap();
        talk.hear(Message::Pong(3)).unwrap();
        assert!(
            matches!(talk.session.overdue(), DisconnectReason::HandshakeTimedOut),
            "the line may have died before the question came"
        );
        talk.hear(Message::Pong(7)).unwrap();
        let reason = talk.session.overdue();
        assert_eq!(reason.to_string(), format!("is on another chain: it does not show block {block}"));
        assert_eq!(reason.penalty(), crate::Penalty::Ban);
        let behind = talk.hear(Message::Headers(Vec::new())).unwrap_err();
        assert_eq!(behind.penalty(), crate::Penalty::BackOff);
    }
}

#[test]
fn who_shows_the_block_of_our_chain_is_ready() {
    let genesis = Network::BTC.genesis();
    let network: &'static Network =
        Box::leak(Box::new(Network { chain_block: Some((400, genesis.hash())), ..*Network::BTC }));
    let mut talk = Talk::start(network);
    talk.hear(Message::Version(their_version(network))).unwrap();
    talk.hear(Message::Verack).unwrap();
    assert_eq!(talk.out.events, [SessionEvent::Greeted]);
    talk.hear(Message::Headers(vec![genesis])).unwrap();
    assert!(matches!(talk.out.events.last(), Some(SessionEvent::Ready(info)) if info.claimed_height == 500));
}

#[test]
fn our_own_greeting_is_known_on_either_side() {
    let local = Local::default();
    let mut ours = BitcoinSession::new(Network::BTC, &local, &options(), start(1234));
    let inbound = Start { direction: Direction::Inbound, ..start(99) };
    let mut theirs = BitcoinSession::new(Network::BTC, &local, &options(), inbound);
    let mut out = Outbox::default();
    ours.start(&mut out);
    let greeting = out.messages.remove(0);
    let error = theirs.receive(Incoming::Message(greeting), &mut out).unwrap_err();
    assert!(matches!(error, DisconnectReason::Violation(Violation::OwnNonce)));
}

fn transaction(n: u32) -> tipward_wire::bitcoin::Transaction {
    let mut bytes = vec![1, 0, 0, 0, 1];
    bytes.extend([7; 36]);
    bytes.extend([0, 255, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(n.to_le_bytes());
    tipward_wire::bitcoin::Transaction::new(Bytes::from(bytes)).unwrap()
}

/// Probing by `getdata` tells nothing about what we hold: only what was offered to this very peer is handed over.
#[test]
fn unsolicited_getdata_probing() {
    let mut talk = Talk::ready(Network::BTC);
    let (offered, secret) = (transaction(1), transaction(2));
    let entry = |t: &tipward_wire::bitcoin::Transaction| Inventory {
        kind: InventoryKind::WitnessTx,
        hash: *t.txid().as_bytes(),
    };
    let offer = Want::Offer { id: offered.txid(), bytes: offered.as_bytes().clone() };
    talk.session.ask(offer, &mut talk.out).unwrap();
    assert_eq!(talk.said(), ["inv"]);
    talk.hear(Message::GetData(vec![entry(&secret), entry(&offered)])).unwrap();
    assert_eq!(talk.said(), ["tx"]);
    assert_eq!(talk.out.events, [SessionEvent::Reply(Reply::Fetched(offered.txid()))]);
    assert_eq!(talk.out.untranslated, Some(Message::GetData(vec![entry(&secret)])), "is for who serves");
}

#[test]
fn unsolicited_headers_taken_as_the_reply_to_a_request() {
    let genesis = Network::BTC.genesis();
    let child = |parent, nonce| BlockHeader { parent, nonce, ..genesis };
    let locator = tipward_wire::bitcoin::Locator {
        protocol: 70016,
        hashes: vec![genesis.hash()],
        stop: BlockHash::ZERO,
    };
    let asked = Message::GetHeaders(locator);
    let answers = |headers| BitcoinSession::answers(&asked, &Message::Headers(headers));
    let first = child(genesis.hash(), 1);
    assert!(answers(vec![first]) && answers(vec![]));
    assert!(!answers(vec![child(first.hash(), 2)]), "an announcement of the tip is no answer");
    assert!(!BitcoinSession::answers(&Message::Ping(1), &Message::Pong(2)));
    assert!(BitcoinSession::answers(&Message::Ping(1), &Message::Pong(1)));
}

#[test]
fn a_malformed_transaction_has_no_identifier() {
    let protocol = Bitcoin::new(Network::BTC);
    let whole = transaction(5);
    assert_eq!(protocol.transaction_id(whole.as_bytes()), Ok(whole.txid()));
    for end in 0..whole.as_bytes().len() {
        assert!(protocol.transaction_id(&whole.as_bytes().slice(..end)).is_err(), "{end} bytes");
    }
}

/// One may be a bug of theirs, or of ours; twenty at once are no accident.
#[test]
fn some_messages_that_do_not_parse_are_passed_over() {
    let mut now = Instant::now();
    let mut link = link(now);
    link.receive(now, &mut bytes(&[Message::Version(their_version(Network::BTC)), Message::Verack])).unwrap();
    let broken = || {
        let mut frame = bytes(&[Message::Ping(1)]);
        let end = frame.len() - 1;
        frame[end] ^= 1;
        frame
    };
    let mut points = 0;
    for _ in 0..19 {
        link.receive(now, &mut broken()).unwrap();
        while let Some(event) = link.poll() {
            points += if let LinkEvent::Misbehaved(points, _) = event { points } else { 0 };
        }
    }
    assert_eq!(points, 190, "the pool hears of each");
    let mut input = broken();
    input.unsplit(broken());
    assert!(matches!(link.receive(now, &mut input), Err(DisconnectReason::Wire(_))));
    // Spread over time they are not a flood.
    now += std::time::Duration::from_secs(1);
    let mut patient = self::link(now);
    patient
        .receive(now, &mut bytes(&[Message::Version(their_version(Network::BTC)), Message::Verack]))
        .unwrap();
    for _ in 0..200 {
        now += std::time::Duration::from_secs(10);
        patient.receive(now, &mut broken()).unwrap();
        while patient.poll().is_some() {}
    }
}
