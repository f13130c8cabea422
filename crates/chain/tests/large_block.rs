//! A block of 300 MiB goes into the archive part by part in little memory. Alone in its process, whose peak is measured.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![cfg(target_os = "linux")]

use std::io::Read;

use bytes::BytesMut;
use tipward_chain::{
    Archive, ArchiveSink,
    sync::{
        Block, BlockId, BlockSink,
        peer::wire::{
            BlockEvent, DownloadId, Sha256d,
            bitcoin::{BlockOptions, BlockReader, Network},
        },
    },
};
use tipward_simnet::SimChain;

const BLOCK: u64 = 300 << 20;
/// What may be added to the process's memory: a few parts, and the write buffer.
const MOST: u64 = 24 << 20;

/// The most memory that the process ever had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn three_hundred_mib_in_parts() {
    let mut chain = SimChain::genesis(Network::BSV_REGTEST);
    chain.extend_sized(1, BLOCK..=BLOCK, 1);
    let sent = chain.tip();
    let checksum = sent.checksum();
    let dir = tempfile::tempdir().unwrap();
    let mut sink = ArchiveSink::new(Archive::open(dir.path(), &Network::BSV_REGTEST).unwrap());
    let id = BlockId { height: 1, hash: sent.hash };
    let before = peak();

    let mut options = BlockOptions::new(Network::BSV_REGTEST);
    options.part_size = 1 << 20;
    let mut reader = BlockReader::new(DownloadId(1), sent.size(), options);
    let (mut input, mut parts) = (BytesMut::new(), 0);
    for piece in sent.pieces() {
        input.extend_from_slice(&piece);
        while let Some(event) = reader.decode(&mut input).unwrap() {
            match event {
                BlockEvent::Part(part) => {
                    parts += 1;
                    sink.apply_part(id, part).await.unwrap();
                }
                BlockEvent::End(end) => {
                    let (transactions, size) = (end.transactions, end.size);
                    let served_by = None;
                    let block =
                        Block { id, parts: Vec::new(), transactions, size, served_by, is_streamed: true };
                    sink.apply(block).await.unwrap();
                }
            }
        }
    }
    assert!(parts >= 300);
    assert_eq!(sink.cursor().await.unwrap(), Some(id));
    let grown = peak() - before;
    println!("peak memory grew by {:.1} MiB", grown as f64 / f64::from(1 << 20));
    assert!(grown <= MOST, "peak memory grew by {grown} bytes");

    drop(sink);
    let archive = Archive::open(dir.path(), &Network::BSV_REGTEST).unwrap();
    let found = archive.by_height(1).unwrap().unwrap();
    let (mut file, mut hash) = (archive.read(&found).unwrap(), Sha256d::new());
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    assert_eq!((found.size, &hash.finish()[..4]), (BLOCK, &checksum[..]));
}
