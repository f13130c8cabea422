//! Block filters and bloom filters: any that come, and those that are built.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tipward_wire::{
    BlockHash,
    bitcoin::{BlockFilter, BloomFilter, BloomUpdate},
};

fuzz_target!(|data: &[u8]| {
    let block = BlockHash::from_bytes([data.first().copied().unwrap_or_default(); 32]);
    let filter = BlockFilter::new(Bytes::copy_from_slice(data));
    let queries = [&b"one"[..], b"two", data];
    let any = filter.match_any(&block, queries);
    if filter.check().is_ok() {
        assert!(any.is_ok() && filter.match_all(&block, queries).is_ok());
    }

    let elements: Vec<&[u8]> = data.chunks(5).collect();
    let filter = BlockFilter::build(&block, &elements);
    filter.check().expect("what was built is right");
    assert_eq!(filter.match_all(&block, &elements), Ok(true));
    let mut bloom = BloomFilter::new(elements.len() as u32, 0.01, 7, BloomUpdate::None);
    for element in &elements {
        assert_eq!(filter.match_any(&block, [element]), Ok(true));
        bloom.insert(element);
    }
    assert!(elements.iter().all(|element| bloom.contains(element)));
    let (tweak, functions) = (data.len() as u32, u32::from(data.first().copied().unwrap_or_default()));
    let any = BloomFilter { data: data.to_vec(), hash_functions: functions, tweak, update: BloomUpdate::All };
    let _ = any.contains(b"something");
});
