use bytes::BytesMut;
use tipward_wire::{
    BlockEnd, BlockEvent, BlockPart, Dialect, DownloadId, Verdict,
    bitcoin::{AuthChallenge, Command, Feature, Reconciliation},
};

use super::*;

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

fn other(name: &str) -> Message {
    Message::Other { command: Command::new(name).unwrap(), payload: Default::default() }
}

struct Talk {
    session: BitcoinSession,
    out: Outbox<Message>,
}

impl Talk {
    fn start(network: &'static Network) -> Self {
        let mut talk =
            Self { session: BitcoinSession::new(network, &Local::default(), 7), out: Outbox::default() };
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
        [(Network::BTC, vec!["verack"]), (Network::BSV, vec!["verack", "protoconf"])]
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
        assert_eq!(talk.out.events, [SessionEvent::Ready(PeerInfo::new("/them:1/", 500))]);
    }
}

#[test]
fn peers_that_are_no_use_are_refused_with_the_reason() {
    type Change = fn(&mut Version);
    let cases: [(Change, &str); 5] = [
        (|version| version.nonce = 7, "it is this node itself"),
        (|version| version.protocol = 209, "speaks protocol 209, at least 31800 is needed"),
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
fn a_pruned_node_serves_its_last_blocks() {
    let mut talk = Talk::start(Network::BTC);
    let mut version = their_version(Network::BTC);
    version.services = Services::NETWORK_LIMITED | Services::WITNESS;
    talk.hear(Message::Version(version)).unwrap();
    talk.hear(Message::Verack).unwrap();
    assert!(matches!(&talk.out.events[..], [SessionEvent::Ready(info)] if info.recent_only == Some(288)));
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

fn link(now: Instant) -> Box<dyn Connection> {
    Bitcoin::new(Network::BTC).connect(&Local::default(), &LinkOptions::default(), 5, now)
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
    assert!(link.ask(Want::HeadersAfter(vec![])).is_err(), "not before the handshake");
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
    assert!(matches!(link.poll(), Some(crate::LinkEvent::Ready(_))));
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
fn the_end_of_a_stream_tells_whether_a_message_was_cut() {
    let now = Instant::now();
    let mut link = link(now);
    assert!(matches!(link.closed(&[]), DisconnectReason::Closed));
    let mut whole = bytes(&[Message::Version(their_version(Network::BTC))]);
    let mut half = whole.split_to(40);
    link.receive(now, &mut half).unwrap();
    assert!(matches!(link.closed(&half), DisconnectReason::Truncated));
}
