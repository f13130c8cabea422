use hex_conservative::decode_to_vec as hex;
use proptest::{collection::vec, prelude::*};
use serde_json::Value;

use super::*;
use crate::{bitcoin::Script, testdata};

/// A block of BIP 158's test vectors.
struct Vector {
    block: Block,
    spent: Vec<Vec<u8>>,
    filter: Bytes,
    previous: FilterHeader,
    header: FilterHeader,
}

fn vectors() -> Vec<Vector> {
    let Some(file) = testdata::read("bip158-testnet-vectors.json") else { return Vec::new() };
    let rows: Value = serde_json::from_slice(&file).unwrap();
    // The first row names the columns.
    let rows = &rows.as_array().unwrap()[1..];
    assert_eq!(rows.len(), 10);
    rows.iter().map(vector).collect()
}

fn vector(row: &Value) -> Vector {
    let text = |column: usize| row[column].as_str().unwrap();
    let block = Block::new(hex(text(2)).unwrap().into()).unwrap();
    assert_eq!(text(1).parse(), Ok(block.hash()));
    let spent = row[3].as_array().unwrap().iter().map(|script| hex(script.as_str().unwrap()).unwrap());
    Vector {
        block,
        spent: spent.collect(),
        filter: hex(text(5)).unwrap().into(),
        previous: text(4).parse().unwrap(),
        header: text(6).parse().unwrap(),
    }
}

#[test]
fn bip_158_vectors() {
    for Vector { block, spent, filter: expected, previous, header } in vectors() {
        let hash = block.hash();
        let filter = BlockFilter::of_block(&block, &spent);
        assert_eq!(filter.as_bytes(), &expected, "{hash}");
        assert_eq!(filter.header(previous), header, "{hash}");
        assert_eq!(filter.hash().header(previous), header, "{hash}");

        let filter = BlockFilter::new(expected);
        filter.check().unwrap();
        let transactions: Vec<_> = block.transactions().collect();
        let outputs = transactions.iter().flat_map(|transaction| transaction.outputs());
        let outputs = outputs.map(|output| output.script()).filter(|script| !script.is_op_return());
        let scripts: Vec<&[u8]> = outputs
            .map(Script::as_bytes)
            .chain(spent.iter().map(Vec::as_slice))
            .filter(|script| !script.is_empty())
            .collect();
        assert_eq!(filter.match_any(&hash, &scripts), Ok(!scripts.is_empty()));
        assert_eq!(filter.match_all(&hash, &scripts), Ok(true));
        for script in scripts {
            assert_eq!(filter.match_any(&hash, [b"no script", script]), Ok(true));
            assert_eq!(filter.match_all(&hash, [b"no script", script]), Ok(false));
        }
        assert_eq!(filter.match_any(&hash, ["no script", "neither"]), Ok(false));
    }
}

const BLOCK: BlockHash = BlockHash::from_bytes([0x5a; 32]);
const NONE: [&[u8]; 0] = [];

#[test]
fn sets_without_elements() {
    for filter in [BlockFilter::build(&BLOCK, NONE), BlockFilter::build(&BLOCK, [b"", b""])] {
        assert_eq!(&filter.as_bytes()[..], [0]);
        assert_eq!(filter.element_count(), Ok(0));
        assert_eq!(filter.check(), Ok(()));
        assert_eq!(filter.match_any(&BLOCK, [b"a"]), Ok(false));
        assert_eq!(filter.match_all(&BLOCK, [b"a"]), Ok(false));
        assert_eq!(filter.match_any(&BLOCK, NONE), Ok(false));
        assert_eq!(filter.match_all(&BLOCK, NONE), Ok(true));
    }
}

#[test]
fn order_and_repetition_do_not_matter() {
    let filter = BlockFilter::build(&BLOCK, ["a", "b", "c"]);
    assert_eq!(filter, BlockFilter::build(&BLOCK, ["c", "", "a", "b", "a", "c"]));
    assert_eq!(filter.element_count(), Ok(3));
    assert_ne!(filter, BlockFilter::build(&BlockHash::from_bytes([0xa5; 32]), ["a", "b", "c"]));
    assert_eq!(filter.match_all(&BLOCK, ["c", "c", "a"]), Ok(true));
}

#[test]
fn different_elements_of_equal_value_both_count() {
    let value = |n: u32| sorted_values(&BLOCK, range(2), [n.to_be_bytes()])[0];
    let mut seen = std::collections::HashMap::new();
    let pair = (0..100_000_u32).find_map(|n| Some([seen.insert(value(n), n)?, n])).unwrap();
    let filter = BlockFilter::build(&BLOCK, pair.map(u32::to_be_bytes));
    assert_eq!(filter.element_count(), Ok(2));
    assert_eq!(filter.check(), Ok(()));
    assert_eq!(filter.match_all(&BLOCK, pair.map(u32::to_be_bytes)), Ok(true));
}

#[test]
fn values_end_below_the_range() {
    let check = |differences: &[u64]| {
        let mut writer = BitWriter::new(BytesMut::from(&[differences.len() as u8][..]));
        differences.iter().for_each(|difference| writer.write_difference(*difference));
        BlockFilter::new(writer.finish()).check()
    };
    let range = 2 * INVERSE_FALSE_POSITIVE_RATE;
    assert_eq!(check(&[0, range - 1]), Ok(()));
    assert_eq!(check(&[0, range]), Err(FilterError::OutOfRange { index: 1, range }));
    assert_eq!(check(&[1, range - 1]), Err(FilterError::OutOfRange { index: 1, range }));
}

#[test]
fn strangers_rarely_match() {
    let filter = BlockFilter::build(&BLOCK, (0..1000_u32).map(u32::to_be_bytes));
    let strangers = (1000..50_000_u32).map(u32::to_be_bytes);
    let found = strangers.filter(|stranger| filter.match_any(&BLOCK, [stranger]).unwrap()).count();
    // 49,000 / 784,931 are to be expected.
    assert!(found <= 1, "{found}");
}

#[test]
fn malformed_filters() {
    let check = |bytes: &[u8]| BlockFilter::new(Bytes::copy_from_slice(bytes)).check();
    assert_eq!(check(&[]), Err(FilterError::Count));
    assert_eq!(check(&[0xfd, 1, 0]), Err(FilterError::Count));
    assert_eq!(check(&[0, 0]), Err(FilterError::Excess { bytes: 1 }));
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0];
    assert_eq!(check(&huge), Err(FilterError::TooManyElements { count: u64::MAX, limit: 2 }));
    assert_eq!(check(&[2, 0, 0, 0, 0]), Err(FilterError::TooManyElements { count: 2, limit: 1 }));
    assert_eq!(check(&[2, 0, 0, 0, 0, 0]), Ok(()));
    assert_eq!(check(&[1, 0xff, 0xff, 0xff]), Err(FilterError::Cut { read: 0, count: 1 }));
    let range = INVERSE_FALSE_POSITIVE_RATE;
    assert_eq!(check(&[1, 0xff, 0x00, 0, 0]), Err(FilterError::OutOfRange { index: 0, range }));
    assert_eq!(check(&[1, 0xbf, 0xff, 0xff]), Err(FilterError::OutOfRange { index: 0, range }));

    let mut bytes = BlockFilter::build(&BLOCK, (0..100_u8).map(|n| [n])).as_bytes().to_vec();
    let cut = check(&bytes[..bytes.len() - 1]);
    assert!(matches!(cut, Err(FilterError::Cut { read: 99 | 98, count: 100 })), "{cut:?}");
    // The padding's bits are free, a byte of them is too much.
    bytes.push(0);
    assert_eq!(check(&bytes), Err(FilterError::Excess { bytes: 1 }));
}

/// The differences between values by the definition: a bit at a time.
fn decode_by_bits(stream: &[u8], count: usize) -> Option<Vec<u64>> {
    let mut bits = stream.iter().flat_map(|byte| (0..8).rev().map(move |shift| u64::from(byte >> shift & 1)));
    (0..count)
        .map(|_| {
            let mut difference = 0;
            while bits.next()? == 1 {
                difference += 1;
            }
            for _ in 0..REMAINDER_BITS {
                difference = difference << 1 | bits.next()?;
            }
            Some(difference)
        })
        .collect()
}

proptest! {
    #[test]
    fn members_match(
        elements in vec(vec(any::<u8>(), 0..40), 0..300),
        key: [u8; 32],
        picks in vec(any::<prop::sample::Index>(), 1..5),
    ) {
        let block = BlockHash::from_bytes(key);
        let filter = BlockFilter::build(&block, &elements);
        prop_assert_eq!(filter.check(), Ok(()));
        let members: Vec<_> = elements.iter().filter(|element| !element.is_empty()).collect();
        prop_assert_eq!(filter.match_all(&block, &members), Ok(true));
        if !members.is_empty() {
            let picked: Vec<_> = picks.iter().map(|pick| pick.get(&members)).collect();
            prop_assert_eq!(filter.match_all(&block, &picked), Ok(true));
            for member in picked {
                prop_assert_eq!(filter.match_any(&block, [member]), Ok(true));
                prop_assert_eq!(filter.match_any(&block, [&b"x"[..], member, b"yy"]), Ok(true));
            }
        }
    }

    #[test]
    fn differences_are_read_as_written(differences in vec(0..1_u64 << 27, 0..50)) {
        let mut writer = BitWriter::new(BytesMut::new());
        differences.iter().for_each(|difference| writer.write_difference(*difference));
        let stream = writer.finish();
        prop_assert_eq!(decode_by_bits(&stream, differences.len()), Some(differences.clone()));

        let mut reader = BitReader::new(&stream);
        for difference in differences {
            let ones = reader.read_ones().unwrap();
            prop_assert_eq!(ones << REMAINDER_BITS | reader.read_remainder().unwrap(), difference);
        }
        prop_assert_eq!(reader.unread_bytes(), 0);
    }

    #[test]
    fn any_bytes_end_well(
        count in 0..20_u8,
        stream in vec(prop_oneof![any::<u8>(), Just(0xff), Just(0)], 0..60),
    ) {
        let bytes: Bytes = [&[count], &stream[..]].concat().into();
        let filter = BlockFilter::new(bytes);
        let by_bits = decode_by_bits(&stream, count.into());
        let range = range(count.into());
        let in_range = by_bits.is_some_and(|differences| {
            let below = |sum: &u64| *sum < range;
            differences.iter().try_fold(0, |sum, difference| Some(sum + difference).filter(below)).is_some()
        });
        match filter.check() {
            Ok(()) | Err(FilterError::Excess { .. }) => prop_assert!(in_range),
            Err(_) => prop_assert!(!in_range),
        }
        drop(filter.match_any(&BLOCK, ["a", "b"]));
        drop(filter.match_all(&BLOCK, ["a", "b"]));
        prop_assert!(filter.match_all(&BLOCK, NONE).is_ok() == filter.element_count().is_ok());
    }

    #[test]
    fn any_start_ends_well(bytes in vec(any::<u8>(), 0..40)) {
        let filter = BlockFilter::new(bytes.into());
        drop(filter.check());
        drop(filter.match_any(&BLOCK, ["a", "b"]));
    }
}
