//! A block of 5 GiB goes through in little memory. Alone in its process, whose peak is what is measured.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![cfg(target_os = "linux")]

use bytes::{BufMut, BytesMut};
use tipward_wire::{
    BlockEvent, Dialect, Incoming, Verdict,
    bitcoin::{Codec, CodecOptions, Network, encode_compact_size},
};

const BLOCK: u64 = 5 << 30;
const READ: usize = 1 << 20;
/// What may be added to the process's memory: three parts of 32 MiB.
const MOST: u64 = 100 << 20;

/// The most memory that the process ever had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// The start of a transaction whose only output has a script of so many bytes, all but script and lock time.
fn before_script(script: u64) -> BytesMut {
    let mut bytes = BytesMut::from(&[1, 0, 0, 0, 1][..]);
    bytes.put_bytes(7, 36);
    bytes.put_slice(&[0, 0xff, 0xff, 0xff, 0xff, 1]);
    bytes.put_u64_le(0);
    encode_compact_size(script, &mut bytes);
    bytes
}

/// The block in pieces, as (bytes, how many zeros follow): one transaction of
/// 512 MiB, many small ones, and one of more than 4 GiB.
fn pieces() -> (Vec<(BytesMut, u64)>, u64) {
    let mut pieces = Vec::new();
    let mut head = BytesMut::from(&Network::BSV.genesis_block()[..80]);
    const SMALL: u64 = 100_000;
    encode_compact_size(SMALL + 2, &mut head);
    let mut size = head.len() as u64;
    pieces.push((head, 0));
    let mut add = |script: u64, size: &mut u64| {
        let bytes = before_script(script);
        *size += bytes.len() as u64 + script + 4;
        pieces.push((bytes, script + 4)); // the lock time is zero as well
    };
    add(1 << 29, &mut size);
    (0..SMALL).for_each(|n| add(n % 300, &mut size));
    let last = before_script(BLOCK - size).len() as u64 + 4;
    add(BLOCK - size - last, &mut size);
    assert_eq!(size, BLOCK);
    (pieces, SMALL + 2)
}

#[test]
fn five_gib_in_a_hundred_mib() {
    let (pieces, transactions) = pieces();
    let mut frame = BytesMut::from(&Network::BSV.magic[..]);
    frame.put_slice(b"extmsg\0\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0block\0\0\0\0\0\0\0");
    frame.put_u64_le(BLOCK);
    let mut options = CodecOptions::new(Network::BSV);
    options.block.merkle_root = false; // it would be wrong, and hashing in a debug build takes minutes
    let mut codec = Codec::with_options(Network::BSV, options);
    codec.handshake_done();
    let (mut offset, mut starts, mut largest, mut end) = (0, 0u64, 0, None);
    let before = peak();

    let mut input = frame;
    let mut decode = |input: &mut BytesMut| {
        while let Some(event) = codec.decode(input).unwrap() {
            match event {
                Incoming::Block(BlockEvent::Part(part)) => {
                    assert_eq!(part.offset, offset);
                    offset += part.bytes.len() as u64;
                    starts += part.transactions.len() as u64;
                    largest = largest.max(part.bytes.len());
                }
                Incoming::Block(BlockEvent::End(found)) => end = Some(found),
                other => panic!("{other:?}"),
            }
        }
    };
    for (bytes, mut zeros) in pieces {
        input.put_slice(&bytes);
        while zeros > 0 {
            if input.len() >= READ {
                decode(&mut input);
            }
            let step = zeros.min(READ as u64);
            input.put_bytes(0, step as usize);
            zeros -= step;
        }
    }
    decode(&mut input);

    let end = end.unwrap();
    assert_eq!((end.size, end.transactions, offset, starts), (BLOCK, transactions, BLOCK, transactions));
    assert_eq!((end.checksum, end.merkle_root), (Verdict::NotChecked, Verdict::NotChecked));
    assert!(largest <= 32 << 20, "a part of {largest} bytes");
    let grown = peak() - before;
    println!("peak memory grew by {:.1} MiB", grown as f64 / f64::from(1 << 20));
    assert!(grown <= MOST, "peak memory grew by {grown} bytes");
}
