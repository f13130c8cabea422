use bytes::{BufMut, BytesMut};
use hex_conservative::decode_to_vec as hex;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::bitcoin::encode_compact_size;

#[test]
fn murmur3_vectors() {
    // From Bitcoin Core's hash_tests.
    let vectors = [
        (0, "", 0),
        (0xfba4_c795, "", 0x6a39_6f08),
        (0xffff_ffff, "", 0x81f1_6f39),
        (0, "00", 0x514e_28b7),
        (0xfba4_c795, "00", 0xea3f_0b17),
        (0, "ff", 0xfd6c_f10d),
        (0, "0011", 0x16c6_b7ab),
        (0, "001122", 0x8eb5_1c3d),
        (0, "00112233", 0xb447_1bf8),
        (0, "0011223344", 0xe230_1fa8),
        (0, "001122334455", 0xfc2e_4a15),
        (0, "00112233445566", 0xb074_502c),
        (0, "0011223344556677", 0x8034_d2a0),
        (0, "001122334455667788", 0xb469_8def),
    ];
    for (seed, data, expected) in vectors {
        assert_eq!(murmur3(seed, &hex(data).unwrap()), expected, "{seed:x} {data}");
    }
}

#[test]
fn filters_as_bitcoin_core_builds_them() {
    let elements = [
        "99108ad8ed9bb6274d3980bab5a85c048f0950c8",
        "b5a2c786d9ef4658287ced5914b37a1b4aa32eee",
        "b9300670b4c5366e95b2699e8b18bc75e5f729c5",
    ];
    for (tweak, data) in [(0, "614e9b"), (2_147_483_649, "ce4299")] {
        let mut filter = BloomFilter::new(3, 0.01, tweak, BloomUpdate::All);
        for element in elements.map(|element| hex(element).unwrap()) {
            assert!(!filter.contains(&element));
            filter.insert(&element);
            assert!(filter.contains(&element));
        }
        assert!(!filter.contains(&hex("19108ad8ed9bb6274d3980bab5a85c048f0950c8").unwrap()));
        assert_eq!((filter.data, filter.hash_functions), (hex(data).unwrap(), 5));
    }

    let key = hex("045b81f0017e2091e2edcd5eecf10d5bdd120a5514cb3ee65b8447ec18bfc4575c\
         6d5bf415e54e03b1067934a0f0ba76b01c6b9ab227142ee1d543764b69d901e0");
    let mut filter = BloomFilter::new(2, 0.001, 0, BloomUpdate::All);
    filter.insert(&key.unwrap());
    filter.insert(&hex("477abbacd4113f2e6b100526222eedd953c26a64").unwrap());
    assert_eq!((filter.data, filter.hash_functions), (hex("8fc16b").unwrap(), 8));
}

#[test]
fn sizes_stay_within_the_limits() {
    let size = |elements, rate| {
        let filter = BloomFilter::new(elements, rate, 0, BloomUpdate::None);
        assert!(filter.is_within_limits());
        (filter.data.len(), filter.hash_functions)
    };
    assert_eq!(size(10, 0.000_001), (35, 19));
    assert_eq!(size(1, 1e-30), (17, 50));
    assert_eq!(size(20_000, 0.000_001), (36_000, 9));
    assert_eq!(size(1_000_000, 0.01), (36_000, 0));
    assert_eq!(size(u32::MAX, 0.01), (36_000, 0));
    assert_eq!(size(0, 0.01), size(1, 0.01));
    for rate in [1.0, 2.0, f64::INFINITY] {
        assert_eq!(size(1000, rate), (0, 0));
    }
    for rate in [0.0, -1.0, f64::NAN, f64::NEG_INFINITY] {
        assert_eq!(size(1000, rate), (36_000, 50));
    }
    let filter = |size, hash_functions| {
        let update = BloomUpdate::None;
        BloomFilter { data: vec![0; size], hash_functions, tweak: 0, update }.is_within_limits()
    };
    assert!(filter(36_000, 50) && !filter(36_001, 50) && !filter(36_000, 51));
}

#[test]
fn a_filter_without_data_contains_everything() {
    let mut filter = BloomFilter { data: Vec::new(), hash_functions: 50, tweak: 0, update: BloomUpdate::All };
    filter.insert(b"a");
    assert!(filter.data.is_empty());
    assert!(filter.contains(b"b"));
    assert!(filter.matches_transaction(&real()));
}

#[test]
fn update_flags_are_kept() {
    for flags in 0..=u8::MAX {
        assert_eq!(u8::from(BloomUpdate::from(flags)), flags);
    }
    let adds = |flags: u8| BloomUpdate::from(flags).adds(Script(b""));
    assert!(adds(1) && adds(5) && adds(0xfd));
    assert!(!adds(0) && !adds(2) && !adds(3) && !adds(4));
}

#[test]
fn hash_functions_of_a_peer_are_bounded() {
    // Billions would take minutes.
    let mut filter =
        BloomFilter { data: vec![0xff; 8], hash_functions: u32::MAX, tweak: 0, update: BloomUpdate::All };
    filter.insert(b"a");
    assert!(filter.contains(b"a"));
}

/// A transaction of one input and any number of outputs.
fn transaction(outpoint: &[u8], input_script: &[u8], output_scripts: &[Vec<u8>]) -> Transaction {
    let mut bytes = BytesMut::from(&[1, 0, 0, 0, 1][..]);
    bytes.put_slice(outpoint);
    encode_compact_size(input_script.len() as u64, &mut bytes);
    bytes.put_slice(input_script);
    bytes.put_u32_le(u32::MAX);
    encode_compact_size(output_scripts.len() as u64, &mut bytes);
    for script in output_scripts {
        bytes.put_u64_le(1);
        encode_compact_size(script.len() as u64, &mut bytes);
        bytes.put_slice(script);
    }
    bytes.put_u32_le(0);
    Transaction::new(bytes.freeze()).unwrap()
}

/// A transaction of the main chain.
fn real() -> Transaction {
    let bytes = "01000000010b26e9b7735eb6aabdf358bab62f9816a21ba9ebdb719d5299e88607d722c190000000008b4830450220070aca4450\
        6c5cef3a16ed519d7c3c39f8aab192c4e1c90d065f37b8a4af6141022100a8e160b856c2d43d27d8fba71e5aef6405b8643ac4cb7cb3\
        c462aced7f14711a0141046d11fee51b0e60666d5049a9101a72741df480b96ee26488a4d3466b95c9a40ac5eeef87e10a5cd336c19a\
        84565f80fa6c547957b7700ff4dfbdefe76036c339ffffffff021bff3d11000000001976a91404943fdd508053c75000106d3bc6e275\
        4dbcff1988ac2f15de00000000001976a914a266436d2965547608b9e15d9032a7b9d64fa43188ac00000000";
    let transaction = Transaction::new(hex(bytes).unwrap().into()).unwrap();
    let txid = "b4749f017444b051c44dfd2720e88f314ff94f3dd6d56d40ef65854fcd7fff6b";
    assert_eq!(transaction.txid().to_string(), txid);
    transaction
}

/// A transaction that spends the output `index` of `spent`.
fn spending(spent: &Transaction, index: u32) -> Transaction {
    transaction(&outpoint(spent.txid(), index), &[], &[])
}

fn filter_of(element: &str, update: BloomUpdate) -> BloomFilter {
    let mut filter = BloomFilter::new(10, 0.000_001, 0, update);
    filter.insert(&hex(element).unwrap());
    filter
}

#[test]
fn transactions_match_as_in_bitcoin_core() {
    let matching = [
        "6bff7fcd4f8565ef406dd5d63d4ff94f318fe82027fd4dc451b04474019f74b4",
        "04943fdd508053c75000106d3bc6e2754dbcff19",
        "a266436d2965547608b9e15d9032a7b9d64fa431",
        "0b26e9b7735eb6aabdf358bab62f9816a21ba9ebdb719d5299e88607d722c19000000000",
        "30450220070aca44506c5cef3a16ed519d7c3c39f8aab192c4e1c90d065f37b8a4af6141022100a8e160b856c2d43d27d8fb\
         a71e5aef6405b8643ac4cb7cb3c462aced7f14711a01",
        "046d11fee51b0e60666d5049a9101a72741df480b96ee26488a4d3466b95c9a40ac5eeef87e10a5cd336c19a84565f80fa6c\
         547957b7700ff4dfbdefe76036c339",
    ];
    for element in matching {
        assert!(filter_of(element, BloomUpdate::All).matches_transaction(&real()), "{element}");
    }
    let others = [
        "0000006d2965547608b9e15d9032a7b9d64fa431",
        "0b26e9b7735eb6aabdf358bab62f9816a21ba9ebdb719d5299e88607d722c19001000000",
        "0b26e9b7735eb6aabdf358bab62f9816a21ba9ebdb719d5299e88607d700000000000000",
    ];
    for element in others {
        let mut filter = filter_of(element, BloomUpdate::All);
        assert!(!filter.matches_transaction(&real()), "{element}");
        assert_eq!(filter, filter_of(element, BloomUpdate::All), "changed without a match");
    }
}

#[test]
fn outpoints_as_they_travel() {
    let expected = "6bff7fcd4f8565ef406dd5d63d4ff94f318fe82027fd4dc451b04474019f74b404030201";
    assert_eq!(outpoint(real().txid(), 0x0102_0304), hex(expected).unwrap()[..]);
}

/// Which of the transaction's outputs match when they are spent, after the transaction was seen.
fn updated(transaction: &Transaction, element: &str, update: BloomUpdate) -> Vec<u32> {
    let mut filter = filter_of(element, update);
    assert!(filter.matches_transaction(transaction));
    (0..transaction.outputs().len() as u32)
        .filter(|index| filter.matches_transaction(&spending(transaction, *index)))
        .collect()
}

const NONE: [u32; 0] = [];

#[test]
fn matching_outputs_are_added() {
    let element = "a266436d2965547608b9e15d9032a7b9d64fa431";
    assert_eq!(updated(&real(), element, BloomUpdate::All), [1]);
    assert_eq!(updated(&real(), element, BloomUpdate::Other(5)), [1]);
    assert_eq!(updated(&real(), element, BloomUpdate::None), NONE);
    assert_eq!(updated(&real(), element, BloomUpdate::P2PubkeyOnly), NONE);
    // A match by the txid or an input adds nothing.
    let outpoint = "0b26e9b7735eb6aabdf358bab62f9816a21ba9ebdb719d5299e88607d722c19000000000";
    assert_eq!(updated(&real(), outpoint, BloomUpdate::All), NONE);

    // Even after the txid matched, outputs are looked at.
    let mut filter = filter_of(element, BloomUpdate::All);
    filter.insert(real().txid().as_bytes());
    assert!(filter.matches_transaction(&real()));
    assert!(filter.matches_transaction(&spending(&real(), 1)));
}

#[test]
fn outputs_to_public_keys_are_added() {
    let short = format!("21{}", ["02"; 33].concat());
    let long = format!("41{}", ["04"; 65].concat());
    let wrong = format!("21{}", ["04"; 33].concat());
    let keys = |count: usize| [short.as_str()].repeat(count).concat();
    let element = &short[2..];
    let adds = |script: &str, element: &str| {
        let transaction = transaction(&[0; 36], &[], &[hex(script).unwrap()]);
        assert_eq!(updated(&transaction, element, BloomUpdate::All), [0], "{script}");
        updated(&transaction, element, BloomUpdate::P2PubkeyOnly) == [0]
    };
    assert!(adds(&format!("{short}ac"), element));
    assert!(adds(&format!("{long}ac"), &long[2..]));
    assert!(!adds(&format!("{wrong}ac"), &wrong[2..]));
    assert!(!adds(&format!("{short}acac"), element));
    assert!(!adds(&format!("61{short}ac"), element));
    assert!(!adds(&format!("21{}ac", &long[2..]), &wrong[2..]), "33 bytes of a long key");

    assert!(adds(&format!("51{short}51ae"), element));
    assert!(adds(&format!("51{short}{long}52ae"), element));
    assert!(adds(&format!("52{}53ae", keys(3)), element));
    assert!(adds(&format!("60{}60ae", keys(16)), element));
    assert!(adds(&format!("0114{}0114ae", keys(20)), element), "20 of 20");
    assert!(!adds(&format!("51{}0115ae", keys(21)), element), "too many keys");
    assert!(!adds(&format!("0101{short}51ae"), element), "not the shortest form");
    assert!(!adds(&format!("00{short}51ae"), element), "no signature");
    assert!(!adds(&format!("52{short}51ae"), element), "more signatures than keys");
    assert!(!adds(&format!("51{short}52ae"), element), "fewer keys than told");
    assert!(!adds(&format!("51{}51ae", keys(2)), element), "more keys than told");
    assert!(!adds(&format!("51{short}{wrong}52ae"), element), "not a key");
    assert!(!adds(&format!("51{short}51aeae"), element), "an operation more");
    assert!(!adds(&format!("51{short}51af"), element), "an other operation");
    assert!(!adds(&format!("51{short}ae"), element), "no number of keys");
}

#[test]
fn pushes_end_at_the_first_malformed_one() {
    let pushed = |script: &str| {
        let script = hex(script).unwrap();
        Script(&script).pushes().map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    assert!(pushed("").is_empty());
    assert_eq!(pushed("01aa02bbbb"), [&[0xaa][..], &[0xbb, 0xbb]]);
    assert_eq!(pushed("00516a4c004d00004e00000000ff01aa"), [[0xaa]], "empty data and other operations");
    assert_eq!(pushed("4c01aa4d0100bb4e01000000cc"), [[0xaa], [0xbb], [0xcc]]);
    for malformed in ["02aa", "4c", "4c02aa", "4d01", "4d0200aa", "4e010000", "4effffffff01aa"] {
        assert_eq!(pushed(&format!("01dd{malformed}")), [[0xdd]], "{malformed}");
    }
    let longest_direct = [&[75][..], &[7; 75]].concat();
    assert_eq!(Script(&longest_direct).pushes().collect::<Vec<_>>(), [[7; 75]]);
}

proptest! {
    #[test]
    fn members_are_contained(
        elements in vec(vec(any::<u8>(), 0..40), 0..100),
        rate in 1e-9..0.5,
        tweak: u32,
    ) {
        let mut filter = BloomFilter::new(elements.len() as u32, rate, tweak, BloomUpdate::None);
        elements.iter().for_each(|element| filter.insert(element));
        for element in &elements {
            prop_assert!(filter.contains(element));
        }
    }

    #[test]
    fn any_filter_and_script_end_well(
        data in vec(any::<u8>(), 0..20),
        hash_functions: u32,
        tweak: u32,
        flags: u8,
        scripts in vec(vec(prop_oneof![any::<u8>(), 0..0x52_u8, Just(0xae)], 0..80), 3),
    ) {
        let mut filter = BloomFilter { data, hash_functions, tweak, update: flags.into() };
        filter.matches_transaction(&transaction(&[7; 36], &scripts[2], &scripts[..2]));
        for script in &scripts {
            is_pubkey_or_multisig(script);
        }
    }
}
