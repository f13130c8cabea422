//! Every message: real vectors, round trips, truncation.

use std::{collections::BTreeSet, ops::RangeInclusive};

use bytes::BufMut;
use hex_conservative::decode_to_vec;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    BlockHash, Txid,
    bitcoin::{
        BlockFilter, BloomFilter, FilterHash, FilterHeader, PartialMerkleTree,
        transaction::tests::{serialize as serialize_shape, shape},
    },
};

/// Payloads that nodes sent (`tests/vectors/capture.py`), and for what no node here sends, from the sources' own tests or
/// written out by their layouts.
const VECTORS: [(&str, &str); 3] = [
    ("bitcoind", include_str!("../../../tests/vectors/bitcoind.txt")),
    ("bcoin", include_str!("../../../tests/vectors/bcoin.txt")),
    ("layouts", include_str!("../../../tests/vectors/layouts.txt")),
];

pub(in crate::bitcoin) fn vectors() -> impl Iterator<Item = (&'static str, Command, Bytes)> {
    VECTORS.into_iter().flat_map(|(source, text)| {
        text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(move |line| {
            let (command, payload) = line.split_once(' ').unwrap();
            let payload = if payload == "-" { Vec::new() } else { decode_to_vec(payload).unwrap() };
            (source, Command::new(command).unwrap(), Bytes::from(payload))
        })
    })
}

fn serialized(message: &Message) -> Bytes {
    let mut payload = BytesMut::new();
    message.serialize(&mut payload);
    payload.freeze()
}

#[test]
fn captured_payloads_are_understood_and_written_again() {
    let mut seen = BTreeSet::new();
    for (source, command, payload) in vectors() {
        let (message, trailing) = Message::parse(command, payload.clone()).unwrap();
        assert!(trailing.is_empty(), "{source} {command}: {trailing:?}");
        assert!(!matches!(message, Message::Other { .. }), "{source} {command}");
        assert_eq!(message.command(), command);
        assert_eq!(serialized(&message), payload, "{source} {command}");
        seen.insert(command.as_str().to_owned());
    }
    let missing: Vec<_> = Message::COMMANDS.iter().filter(|command| !seen.contains(**command)).collect();
    assert!(missing.is_empty(), "no vector for {missing:?}");
}

#[test]
fn trailing_bytes_are_kept_apart() {
    for (source, command, payload) in vectors() {
        // What follows these is a field of theirs.
        if ["version", "mempool", "block"].contains(&command.as_str()) {
            continue;
        }
        let longer = Bytes::from([&payload[..], b"\x07new"].concat());
        let (message, trailing) = Message::parse(command, longer).unwrap();
        assert_eq!(trailing, &b"\x07new"[..], "{source} {command}");
        assert_eq!(serialized(&message), payload);
    }
}

/// Parses every front of a payload. Only where fields may be absent may one that is cut have a meaning.
fn check_truncation(command: Command, payload: &Bytes) {
    let optional: RangeInclusive<usize> = match Message::parse(command, payload.clone()).unwrap().0 {
        Message::Version(version) => {
            let id = version.association_id.map_or(0, |id| 1 + id.len());
            // Without the id, and without the flag before it.
            payload.len() - id - 1..=payload.len()
        }
        Message::Reject(reject) => payload.len() - reject.hash.map_or(0, |hash| hash.len())..=payload.len(),
        Message::Mempool(_) => 0..=payload.len(),
        Message::Block(_) => return,
        _ => payload.len()..=payload.len(),
    };
    for cut in 0..payload.len() {
        match Message::parse(command, payload.slice(..cut)) {
            Ok((Message::Other { .. }, _)) if cut >= 2 => {} // of another version, as it seems
            Ok(message) => assert!(optional.contains(&cut), "{command} cut at {cut}: {message:?}"),
            Err(WireError::Malformed { command: name, field, offset, problem }) => {
                assert!(name == command.as_str() && !field.is_empty() && !problem.is_empty());
                assert!(offset <= cut, "{command}: {offset} of {cut}");
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn truncated_vectors_are_errors() {
    for (_, command, payload) in vectors() {
        check_truncation(command, &payload);
    }
}

#[test]
fn counts_are_refused_before_anything_is_allocated() {
    let field = |command: &str, payload: &'static [u8]| match Message::parse(
        Command::new(command).unwrap(),
        Bytes::from_static(payload),
    ) {
        Err(WireError::Malformed { field, offset, problem, .. }) => (field, offset, problem),
        other => panic!("{other:?}"),
    };
    const ROOM: &str = "more entries than the payload has room for";
    const ALLOWED: &str = "more entries than allowed";
    assert_eq!(field("headers", &[0xfd, 0xd0, 0x07]), ("headers", 0, ROOM));
    assert_eq!(field("headers", &[0xfd, 0xd1, 0x07]), ("headers", 0, ALLOWED));
    assert_eq!(field("inv", &[0xfd, 0x51, 0xc3]), ("inventory", 0, ALLOWED));
    assert_eq!(field("addr", &[0xfd, 0xe9, 0x03]), ("addresses", 0, ALLOWED));
    assert_eq!(field("addrv2", &[0xfd, 0xe8, 0x03]), ("addresses", 0, ROOM));
    assert_eq!(field("getheaders", &[0, 0, 0, 0, 102]), ("hashes", 4, ALLOWED));
    assert_eq!(field("filteradd", &[0xfd, 0x09, 0x02]), ("element", 0, "longer than allowed"));
    assert_eq!(field("filterload", &[0xfd, 0xa1, 0x8c]), ("filter", 0, "longer than allowed"));
    assert_eq!(field("hdrsen", &[0xfd, 0xd1, 0x07]), ("headers", 0, ALLOWED));
    assert_eq!(field("protoconf", &[0]), ("fields", 0, "at least one is needed"));
    assert_eq!(field("inv", &[0xfd, 1, 0]), ("inventory", 0, "not in its shortest form"));
    let endless = [&[0; 32][..], &[0xff; 9]].concat().leak();
    assert_eq!(field("blocktxn", endless), ("transactions", 32, ROOM));
    assert_eq!(field("getblocktxn", endless), ("indexes", 32, ROOM));
}

#[test]
fn positions_beyond_32_bits_are_refused() {
    let payload = [&[0; 32][..], &[2, 0xfe, 0xff, 0xff, 0xff, 0xff, 0]].concat();
    let error = Message::parse(Command::new("getblocktxn").unwrap(), payload.into()).unwrap_err();
    assert_eq!(error.to_string(), "'getblocktxn' is malformed at byte 38, field index: beyond 32 bits");
}

/// Fields of captured payloads, as the nodes' RPC and logs show them.
#[test]
fn captured_fields_are_read_right() {
    for (source, command, payload) in vectors() {
        match Message::parse(command, payload).unwrap().0 {
            Message::Version(version) if source == "bitcoind" => {
                assert_eq!(version.protocol, 70016);
                assert!(version.services.has(Services::NETWORK | Services::WITNESS));
                assert!(version.user_agent.to_string().starts_with("/Satoshi:29."));
                assert_eq!(version.association_id, None);
            }
            Message::SendCmpct(send) if source == "bitcoind" => assert_eq!(send.version, 2),
            Message::Reject(reject) if source == "bcoin" && reject.hash.is_none() => {
                assert_eq!(
                    (reject.code, reject.reason.to_string()),
                    (RejectCode::MALFORMED, "error parsing message".into())
                );
            }
            Message::AddrV2(addresses) if source == "bitcoind" => {
                let text: String = addresses.iter().map(|address| format!("{}\n", address.host)).collect();
                assert!(
                    text.contains(".onion\n") && text.contains(".b32.i2p\n") && text.contains("fc"),
                    "{text}"
                );
            }
            Message::MerkleBlock(block) => {
                assert_eq!(block.tree.verify().unwrap().root, block.header.merkle_root);
            }
            Message::CmpctBlock(block) => {
                assert!(block.prefilled[0].transaction.is_coinbase() && block.prefilled[0].index == 0);
            }
            Message::HdrsEn(headers) => {
                for entry in &headers {
                    for HeaderProof { transaction, proof } in entry.coinbase.iter().chain(&entry.miner_info) {
                        assert_eq!(proof.txid(), transaction.txid());
                        assert_eq!(proof.root(), Some(entry.header.merkle_root));
                    }
                }
            }
            _ => {}
        }
    }
}

/// Short ids of a captured compact block are those of the block's transactions.
#[test]
fn short_ids_name_their_transactions() {
    let blocks: Vec<crate::bitcoin::Block> = vectors()
        .filter(|(_, command, _)| command.as_str() == "block")
        .map(|(.., payload)| crate::bitcoin::Block::new(payload).unwrap())
        .collect();
    let mut named = 0;
    for (source, command, payload) in vectors() {
        let (Message::CmpctBlock(compact), _) = Message::parse(command, payload).unwrap() else { continue };
        let ids = ShortIds::new(&compact.header, compact.nonce);
        let Some(block) = blocks.iter().rev().find(|block| *block.header() == compact.header) else {
            continue;
        };
        for id in &compact.short_ids {
            // Version 1 names by txid, version 2 by wtxid.
            assert!(
                block.transactions().any(|transaction| ids.of(transaction.wtxid().as_bytes()) == *id
                    || ids.of(transaction.txid().as_bytes()) == *id),
                "{source}"
            );
            named += 1;
        }
    }
    assert!(named >= 2, "{named}");
}

#[test]
fn what_comes_later_or_is_out_of_order() {
    // Other versions are kept as they are.
    for (command, payload) in [("dsdetected", &[2, 0, 9][..]), ("authch", &[2, 0, 0, 0])] {
        let command = Command::new(command).unwrap();
        let payload = Bytes::copy_from_slice(payload);
        let (message, _) = Message::parse(command, payload.clone()).unwrap();
        assert_eq!(message, Message::Other { command, payload });
    }
    // An age that can't be read is none.
    let mempool = Message::parse(Command::new("mempool").unwrap(), Bytes::from_static(&[1, 2, 3])).unwrap();
    assert_eq!(mempool, (Message::Mempool(MempoolRequest { age: None }), Bytes::from_static(&[1, 2, 3])));
    // Positions are sent in order.
    let indexes = |indexes: &[u32]| {
        let request = CompactBlockRequest { block: BlockHash::ZERO, indexes: indexes.to_vec() };
        serialized(&Message::GetBlockTxn(request))
    };
    assert_eq!(indexes(&[5, 3, 5]), indexes(&[3, 5]));
    // A prefilled transaction lies in the block.
    let (.., payload) = vectors().find(|(_, command, _)| command.as_str() == "cmpctblock").unwrap();
    let (Message::CmpctBlock(mut block), _) =
        Message::parse(Command::new("cmpctblock").unwrap(), payload).unwrap()
    else {
        panic!("no compact block")
    };
    block.prefilled[0].index = (block.short_ids.len() + block.prefilled.len()) as u32;
    let beyond = serialized(&Message::CmpctBlock(block));
    let error = Message::parse(Command::new("cmpctblock").unwrap(), beyond).unwrap_err();
    assert!(error.to_string().ends_with("field prefilled: a position beyond the block's end"), "{error}");
}

#[test]
fn errors_name_the_innermost_field() {
    let check = |command: &str, payload: &[u8], expected: &str| {
        let error =
            Message::parse(Command::new(command).unwrap(), Bytes::copy_from_slice(payload)).unwrap_err();
        assert_eq!(error.to_string(), format!("'{command}' is malformed at {expected}"));
    };
    let net_1_of_5_bytes = [&[1, 0, 0, 0, 0, 0, 1, 5][..], &[7; 5], &[0, 0]].concat();
    check("addrv2", &net_1_of_5_bytes, "byte 7, field address: not the length of its net");
    check("addrv2", &[1, 0, 0, 0, 0, 0, 99, 2, 7, 7], "byte 10, field port: the payload ends inside it");
    let enriched = [&[1][..], &[0; 80], &[1, 0, 1], &[0; 5]].concat();
    check("hdrsen", &enriched, "byte 89, field transaction: the bytes end inside the transaction");
    let double_spend = [&[1, 0, 2, 0][..], &[0; 400]].concat();
    check("dsdetected", &double_spend, "byte 3, field headers: a branch has one at least");
}

/// Every position of trees of all small sizes, against the root of the whole list.
#[test]
fn merkle_proofs_lead_to_the_root() {
    for count in 1..10u8 {
        let leaves: Vec<[u8; 32]> = (0..count).map(|leaf| [leaf + 1; 32]).collect();
        let mut builder = crate::bitcoin::MerkleBuilder::new();
        leaves.iter().for_each(|leaf| builder.push(Txid::from_bytes(*leaf)));
        let (root, _) = builder.finish();
        for index in 0..count {
            let (mut level, mut at, mut nodes) = (leaves.clone(), usize::from(index), Vec::new());
            while level.len() > 1 {
                if level.len() % 2 == 1 {
                    level.push(level[level.len() - 1]);
                }
                nodes.push(MerkleProofNode { kind: 0, hash: level[at ^ 1] });
                level = level.chunks(2).map(|two| crate::bitcoin::merkle::pair(&two[0], &two[1])).collect();
                at /= 2;
            }
            let subject = MerkleProofSubject::Txid(Txid::from_bytes(leaves[usize::from(index)]));
            let proof = MerkleProof { flags: 4, index: u64::from(index), subject, target: root, nodes };
            assert_eq!(proof.root(), Some(root), "{index} of {count}");
            // Of the copy of an odd last leaf, and of a place beyond the tree.
            let beyond = MerkleProof { index: proof.index + (1 << proof.nodes.len()), ..proof.clone() };
            assert_eq!(beyond.root(), None);
            if count % 2 == 1 && count > 1 && index == count - 1 {
                assert_eq!(MerkleProof { index: u64::from(count), ..proof.clone() }.root(), None, "a copy");
            }
            if let Some(kind) = (!proof.nodes.is_empty()).then_some(1) {
                let mut other = proof.clone();
                other.nodes[0].kind = kind;
                assert_eq!(other.root(), None);
            }
        }
    }
}

#[test]
fn text_of_peers_is_safe_to_show() {
    let text = VarStr::from(Bytes::from_static(b"/ok\x1b[31m\xff\n/"));
    assert_eq!(text.to_string(), "/ok\u{fffd}[31m\u{fffd}\u{fffd}/");
    assert_eq!(text.as_bytes(), b"/ok\x1b[31m\xff\n/");
}

fn hash() -> impl Strategy<Value = [u8; 32]> {
    any::<[u8; 32]>()
}

fn block_hash() -> impl Strategy<Value = BlockHash> {
    hash().prop_map(BlockHash::from_bytes)
}

fn bytes(limit: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..=limit).prop_map(Bytes::from)
}

fn text(limit: usize) -> impl Strategy<Value = VarStr> {
    prop_oneof![bytes(limit).prop_map(VarStr::from), "[a-z]{0,10}".prop_map(|text| VarStr::from(&text[..]))]
}

fn header() -> impl Strategy<Value = BlockHeader> {
    vec(any::<u8>(), 80).prop_map(|bytes| BlockHeader::from_bytes(bytes.first_chunk().unwrap()))
}

fn transaction() -> impl Strategy<Value = Transaction> {
    shape().prop_map(|shape| {
        let mut bytes = BytesMut::new();
        serialize_shape(&shape, true, &mut bytes);
        Transaction::new(bytes.freeze()).unwrap()
    })
}

fn address() -> impl Strategy<Value = NetworkAddress> {
    (any::<u64>(), any::<[u8; 16]>(), any::<u16>()).prop_map(|(services, ip, port)| NetworkAddress {
        services: Services(services),
        ip: ip.into(),
        port,
    })
}

fn version() -> impl Strategy<Value = Message> {
    let first = (any::<i32>(), any::<u64>(), any::<i64>(), address(), address());
    let last = (any::<i32>(), any::<bool>(), prop::option::of(bytes(129)));
    (first, any::<u64>(), text(256), last).prop_map(|(first, nonce, user_agent, last)| {
        let (protocol, services, time, receiver, sender) = first;
        let (start_height, relay, association_id) = last;
        let services = Services(services);
        Message::Version(Version {
            protocol,
            services,
            time,
            receiver,
            sender,
            nonce,
            user_agent,
            start_height,
            relay,
            association_id,
        })
    })
}

fn host() -> impl Strategy<Value = HostAddress> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|ip| HostAddress::Ipv4(ip.into())),
        any::<[u8; 16]>().prop_map(|ip| HostAddress::Ipv6(ip.into())),
        any::<[u8; 16]>().prop_map(|ip| HostAddress::Cjdns(ip.into())),
        hash().prop_map(HostAddress::TorV3),
        hash().prop_map(HostAddress::I2p),
        (7u8.., bytes(512)).prop_map(|(net, bytes)| HostAddress::Unknown { net, bytes }),
    ]
}

fn handshake() -> BoxedStrategy<Message> {
    let reject = (text(12), any::<u8>(), text(111), prop::option::of(hash()));
    let protoconf = (any::<u32>(), prop::option::of(text(650)));
    let feature = (vec(any::<u8>(), 4..=80), bytes(512));
    prop_oneof![
        version(),
        any::<u64>().prop_map(Message::Ping),
        any::<u64>().prop_map(Message::Pong),
        reject.prop_map(|(message, code, reason, hash)| {
            Message::Reject(Reject { message, code: RejectCode(code), reason, hash })
        }),
        any::<u64>().prop_map(|rate| Message::FeeFilter(FeeRate(rate))),
        any::<(u32, u64)>()
            .prop_map(|(version, salt)| Message::SendTxRcncl(Reconciliation { version, salt })),
        feature.prop_map(|(id, data)| Message::Feature(Feature { id: Bytes::from(id).into(), data })),
        any::<Option<i64>>().prop_map(|age| Message::Mempool(MempoolRequest { age })),
        protoconf.prop_map(|(max_receive_payload, stream_policies)| {
            Message::Protoconf(Protoconf { max_receive_payload, stream_policies })
        }),
        prop::sample::select(vec![
            Message::Verack,
            Message::GetAddr,
            Message::SendHeaders,
            Message::SendAddrV2,
            Message::WtxidRelay,
            Message::FilterClear,
            Message::SendHdrsEn,
        ]),
    ]
    .boxed()
}

fn inventories() -> BoxedStrategy<Message> {
    let entry = (any::<u32>(), prop_oneof![0u32..7, 0x4000_0000u32..0x4000_0005], any::<bool>(), hash());
    let entry = entry.prop_map(|(any, known, is_known, hash)| Inventory {
        kind: InventoryKind::from_u32(if is_known { known } else { any }),
        hash,
    });
    let entry = entry.boxed();
    let entries = || vec(entry.clone(), 0..50);
    let locator = || {
        (any::<u32>(), vec(block_hash(), 0..=101), block_hash())
            .prop_map(|(protocol, hashes, stop)| Locator { protocol, hashes, stop })
    };
    let addr = (any::<u32>(), address()).prop_map(|(time, address)| TimedAddress { time, address });
    let addr_v2 =
        (any::<u32>(), any::<u64>(), host(), any::<u16>()).prop_map(|(time, services, host, port)| {
            AddressV2 { time, services: Services(services), host, port }
        });
    prop_oneof![
        entries().prop_map(Message::Inv),
        entries().prop_map(Message::GetData),
        entries().prop_map(Message::NotFound),
        locator().prop_map(Message::GetHeaders),
        locator().prop_map(Message::GetBlocks),
        locator().prop_map(Message::GetHdrsEn),
        vec(header(), 0..20).prop_map(Message::Headers),
        vec(addr, 0..40).prop_map(Message::Addr),
        vec(addr_v2, 0..20).prop_map(Message::AddrV2),
    ]
    .boxed()
}

fn transactions() -> BoxedStrategy<Message> {
    // Ascending positions, from their distances.
    let indexes = |count| {
        vec(prop_oneof![0u32..300, 0u32..100_000], count).prop_map(|distances| {
            let positions = distances.into_iter().scan(0, |next, distance| {
                let index = *next + distance;
                *next = index + 1;
                Some(index)
            });
            positions.collect::<Vec<u32>>()
        })
    };
    let prefilled = (0usize..30, 0usize..4).prop_flat_map(|(short_ids, count)| {
        let positions: Vec<u32> = (0..(short_ids + count) as u32).collect();
        let positions = prop::sample::subsequence(positions, count);
        let short_ids = vec(any::<[u8; 6]>().prop_map(ShortId), short_ids);
        (short_ids, positions, vec(transaction(), count)).prop_map(|(short_ids, positions, transactions)| {
            let both = positions.into_iter().zip(transactions);
            let prefilled = both.map(|(index, transaction)| PrefilledTransaction { index, transaction });
            (short_ids, prefilled.collect::<Vec<_>>())
        })
    });
    let request = (block_hash(), indexes(0..=30));
    let tree = (any::<u32>(), vec(hash(), 0..20), vec(any::<u8>(), 0..20));
    prop_oneof![
        transaction().prop_map(Message::Tx),
        any::<(bool, u64)>()
            .prop_map(|(announce, version)| Message::SendCmpct(SendCompact { announce, version })),
        (header(), any::<u64>(), prefilled).prop_map(|(header, nonce, (short_ids, prefilled))| {
            Message::CmpctBlock(CompactBlock { header, nonce, short_ids, prefilled })
        }),
        request.prop_map(|(block, indexes)| Message::GetBlockTxn(CompactBlockRequest { block, indexes })),
        (block_hash(), vec(transaction(), 0..4)).prop_map(|(block, transactions)| {
            Message::BlockTxn(BlockTransactions { block, transactions })
        }),
        (header(), tree).prop_map(|(header, (transactions, hashes, flags))| {
            Message::MerkleBlock(MerkleBlock {
                header,
                tree: PartialMerkleTree { transactions, hashes, flags },
            })
        }),
    ]
    .boxed()
}

fn filters() -> BoxedStrategy<Message> {
    let range =
        || {
            (any::<u8>(), any::<u32>(), block_hash())
                .prop_map(|(filter_type, start_height, stop)| FilterRange { filter_type, start_height, stop })
        };
    let load = (vec(any::<u8>(), 0..300), 0u32..=50, any::<u32>(), any::<u8>());
    let hashes = vec(hash().prop_map(FilterHash::from_bytes), 0..30);
    let headers = vec(hash().prop_map(FilterHeader::from_bytes), 0..30);
    prop_oneof![
        range().prop_map(Message::GetCFilters),
        range().prop_map(Message::GetCFHeaders),
        (any::<u8>(), block_hash(), bytes(300)).prop_map(|(filter_type, block, filter)| {
            Message::CFilter(FilterMessage { filter_type, block, filter: BlockFilter::new(filter) })
        }),
        (any::<u8>(), block_hash(), hash(), hashes).prop_map(|(filter_type, stop, previous, hashes)| {
            let previous = FilterHeader::from_bytes(previous);
            Message::CFHeaders(FilterHeaders { filter_type, stop, previous, hashes })
        }),
        (any::<u8>(), block_hash()).prop_map(|(filter_type, stop)| {
            Message::GetCFCheckpt(GetFilterCheckpoints { filter_type, stop })
        }),
        (any::<u8>(), block_hash(), headers).prop_map(|(filter_type, stop, headers)| {
            Message::CFCheckpt(FilterCheckpoints { filter_type, stop, headers })
        }),
        load.prop_map(|(data, hash_functions, tweak, update)| {
            Message::FilterLoad(BloomFilter { data, hash_functions, tweak, update: update.into() })
        }),
        bytes(520).prop_map(|element| Message::FilterAdd(FilterAdd { element })),
    ]
    .boxed()
}

fn merkle_proof() -> impl Strategy<Value = MerkleProof> {
    let subject = prop_oneof![
        hash().prop_map(|txid| MerkleProofSubject::Txid(Txid::from_bytes(txid))),
        transaction().prop_map(MerkleProofSubject::Transaction),
    ];
    let node = (any::<u8>(), hash()).prop_map(|(kind, hash)| MerkleProofNode { kind, hash });
    (any::<u8>(), any::<u64>(), subject, hash(), vec(node, 0..6)).prop_map(
        |(flags, index, subject, target, nodes)| {
            // The lowest flag follows from the subject.
            let whole = u8::from(matches!(subject, MerkleProofSubject::Transaction(_)));
            MerkleProof { flags: flags & !1 | whole, index, subject, target, nodes }
        },
    )
}

fn bsv() -> BoxedStrategy<Message> {
    let header_proof = || {
        (transaction(), merkle_proof()).prop_map(|(transaction, proof)| HeaderProof { transaction, proof })
    };
    let proofs = (prop::option::of(header_proof()), prop::option::of(header_proof()));
    let enriched = (header(), any::<u64>(), any::<bool>(), proofs).prop_map(
        |(header, transactions, no_more_headers, (coinbase, miner_info))| EnrichedHeader {
            header,
            transactions,
            no_more_headers,
            coinbase,
            miner_info,
        },
    );
    let branch = (vec(header(), 1..4), merkle_proof())
        .prop_map(|(headers, proof)| DoubleSpendBranch { headers, proof });
    let key = || vec(any::<u8>(), 33).prop_map(|key| <[u8; 33]>::try_from(&key[..]).unwrap());
    prop_oneof![
        (bytes(129), any::<u8>(), text(64)).prop_map(|(association_id, stream_type, policy)| {
            Message::CreateStrm(CreateStream { association_id, stream_type, policy })
        }),
        (bytes(129), any::<u8>()).prop_map(|(association_id, stream_type)| {
            Message::StreamAck(StreamAck { association_id, stream_type })
        }),
        hash().prop_map(|challenge| Message::AuthCh(AuthChallenge { version: 1, challenge })),
        (key(), any::<u64>(), bytes(72)).prop_map(|(public_key, nonce, signature)| {
            Message::AuthResp(AuthResponse { public_key, nonce, signature })
        }),
        vec(enriched, 0..4).prop_map(Message::HdrsEn),
        vec(branch, 2..4).prop_map(|branches| Message::DsDetected(DoubleSpend { version: 1, branches })),
        (any::<u32>(), [key(), key(), key()], bytes(255), bytes(255)).prop_map(
            |(version, [revocation_key, miner_id, revoked], revocation_signature, miner_signature)| {
                Message::RevokeMid(MinerIdRevocation {
                    version,
                    revocation_key,
                    miner_id,
                    revoked,
                    revocation_signature,
                    miner_signature,
                })
            }
        ),
        header_proof().prop_map(|proof| Message::DataRefTx(DataRefTransaction(proof))),
    ]
    .boxed()
}

fn other() -> impl Strategy<Value = Message> {
    ("[a-z_]{1,12}", bytes(300))
        .prop_map(|(name, payload)| Message::Other { command: Command::new(&name).unwrap(), payload })
        .prop_filter("a name of its own", |message| {
            let name = message.command();
            name.as_str() != "block"
                && name.as_str() != "extmsg"
                && !Message::COMMANDS.contains(&name.as_str())
        })
}

/// Any message but a block, which is not parsed as one.
pub(in crate::bitcoin) fn message() -> impl Strategy<Value = Message> {
    prop_oneof![handshake(), inventories(), transactions(), filters(), bsv(), other()]
}

proptest! {
    #[test]
    fn payloads_round_trip(message in message(), trailing in bytes(20)) {
        let payload = serialized(&message);
        prop_assert!(Message::limit(message.command().as_str()).is_none_or(|limit| payload.len() as u64 <= limit));
        let (parsed, rest) = Message::parse(message.command(), payload.clone()).unwrap();
        prop_assert!(rest.is_empty());
        prop_assert_eq!(&parsed, &message);
        if !matches!(message, Message::Version(_) | Message::Mempool(_) | Message::Reject(_) | Message::Other { .. }) {
            let longer = Bytes::from([&payload[..], &trailing[..]].concat());
            let (parsed, rest) = Message::parse(message.command(), longer).unwrap();
            prop_assert_eq!((parsed, rest), (message, trailing));
        }
    }

    #[test]
    fn truncated_payloads_are_errors(message in message()) {
        if !matches!(message, Message::Other { .. }) {
            check_truncation(message.command(), &serialized(&message));
        }
    }

    /// What was understood is understood the same way again, whatever the bytes were.
    #[test]
    fn any_payload_ends_well(which in 0..Message::COMMANDS.len(), payload in vec(prop_oneof![any::<u8>(), 0u8..4], 0..500)) {
        let command = Command::new(Message::COMMANDS[which]).unwrap();
        if let Ok((message, trailing)) = Message::parse(command, payload.into()) {
            let mut again = BytesMut::from(&serialized(&message)[..]);
            // Before an absent flag nothing can trail.
            again.put_slice(&trailing);
            let (parsed, rest) = Message::parse(command, again.freeze()).unwrap();
            prop_assert_eq!((parsed, rest), (message, trailing));
        }
    }
}
