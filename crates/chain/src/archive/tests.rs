use std::io::Read;

use bytes::Bytes;
use tipward_sync::{
    Block,
    peer::wire::{BlockHash, BlockPart, DownloadId, bitcoin::Network},
};

use super::*;

mod chain;
mod faults;
mod parts;
mod prune;
mod reader;
mod verify;

fn block(height: u64, branch: u8, size: usize) -> Block {
    let mut hash = [branch; 32];
    hash[..8].copy_from_slice(&height.to_le_bytes());
    let hash = BlockHash::from_bytes(hash);
    let content: Vec<u8> = (0..size).map(|n| (n as u64 + height + u64::from(branch)) as u8).collect();
    let part = |index: u32, bytes: &[u8], offset| BlockPart {
        block: hash,
        download: DownloadId(1),
        block_size: size as u64,
        index,
        offset,
        first_transaction: 0,
        transactions: Vec::new(),
        bytes: Bytes::copy_from_slice(bytes),
        ends_inside_transaction: false,
    };
    let (one, two) = content.split_at(size / 2);
    Block {
        id: BlockId { height, hash },
        parts: vec![part(0, one, 0), part(1, two, one.len() as u64)],
        transactions: height,
        size: size as u64,
        served_by: None,
        is_streamed: false,
    }
}

fn open(dir: &tempfile::TempDir) -> Archive {
    Archive::open(dir.path(), &Network::BTC_REGTEST).unwrap()
}

fn content(archive: &Archive, block: &ArchivedBlock) -> Vec<u8> {
    let mut bytes = Vec::new();
    archive.read(block).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn blocks_are_found_by_hash_and_height_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let blocks: Vec<Block> = (0..50).map(|height| block(height, 1, 100 + height as usize)).collect();
    open(&dir).append(&blocks).unwrap();
    let archive = open(&dir);
    assert_eq!(archive.cursor().unwrap(), Some(blocks[49].id));
    for block in &blocks {
        let found = archive.by_height(block.id.height).unwrap().unwrap();
        assert_eq!(archive.by_hash(block.id.hash).unwrap(), Some(found));
        assert_eq!((found.id, found.size, found.transactions), (block.id, block.size, block.transactions));
        assert_eq!(content(&archive, &found), block.bytes());
    }
    assert_eq!(archive.by_height(50).unwrap(), None);
}

#[test]
fn a_rollback_leaves_blocks_by_hash_and_a_return_writes_nothing_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut archive = open(&dir);
    let trunk: Vec<Block> = (0..10).map(|height| block(height, 1, 200)).collect();
    let branch: Vec<Block> = (6..12).map(|height| block(height, 2, 200)).collect();
    archive.append(&trunk).unwrap();
    archive.rollback(5).unwrap();
    assert_eq!(archive.cursor().unwrap(), Some(trunk[5].id));
    archive.append(&branch).unwrap();
    assert_eq!(archive.cursor().unwrap(), Some(branch[5].id));
    assert_eq!(archive.by_height(8).unwrap().unwrap().id, branch[2].id);
    let left = archive.by_hash(trunk[8].id.hash).unwrap().unwrap();
    assert_eq!(content(&archive, &left), trunk[8].bytes());
    let end = archive.segments.end();
    archive.rollback(5).unwrap();
    archive.append(&trunk[6..]).unwrap();
    assert_eq!(archive.segments.end(), end);
    assert_eq!(archive.by_height(8).unwrap().unwrap(), left);
}

#[test]
fn an_unfinished_write_is_cut_on_opening() {
    let dir = tempfile::tempdir().unwrap();
    let blocks: Vec<Block> = (0..5).map(|height| block(height, 1, 300)).collect();
    open(&dir).append(&blocks[..3]).unwrap();
    // A crash after the bytes and before the index: the block and half of the next, and a segment.
    let segment = dir.path().join("blk00000.blk");
    let len = std::fs::metadata(&segment).unwrap().len();
    assert_eq!(len, 3 * 308);
    let mut torn = std::fs::read(&segment).unwrap();
    torn.extend_from_slice(&[7; 450]);
    std::fs::write(&segment, torn).unwrap();
    std::fs::write(dir.path().join("blk00001.blk"), b"torn").unwrap();

    let mut archive = open(&dir);
    assert_eq!(archive.cursor().unwrap(), Some(blocks[2].id));
    assert_eq!(std::fs::metadata(&segment).unwrap().len(), len);
    assert!(!dir.path().join("blk00001.blk").exists());
    archive.append(&blocks[3..]).unwrap();
    for block in &blocks {
        let found = archive.by_height(block.id.height).unwrap().unwrap();
        assert_eq!(content(&archive, &found), block.bytes());
    }
}

#[test]
fn missing_bytes_are_reported_not_papered_over() {
    let dir = tempfile::tempdir().unwrap();
    open(&dir).append(&[block(0, 1, 300)]).unwrap();
    let segment = dir.path().join("blk00000.blk");
    std::fs::write(&segment, &std::fs::read(&segment).unwrap()[..200]).unwrap();
    let error = Archive::open(dir.path(), &Network::BTC_REGTEST).unwrap_err().to_string();
    assert!(
        error.ends_with("blk00000.blk is damaged: 308 bytes are indexed, 200 are there; it needs a repair"),
        "{error}"
    );
}

#[test]
fn segments_roll_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut archive = open(&dir);
    let blocks: Vec<Block> = (0..5).map(|height| block(height, 1, 60 << 20)).collect();
    archive.append(&blocks[..3]).unwrap();
    archive.append(&blocks[3..]).unwrap();
    drop(archive);
    let archive = open(&dir);
    let places: Vec<u32> = (0..5).map(|height| archive.by_height(height).unwrap().unwrap().segment).collect();
    assert_eq!(places, [0, 0, 1, 1, 2]);
    assert_eq!(content(&archive, &archive.by_height(4).unwrap().unwrap()), blocks[4].bytes());
}

#[test]
fn an_archive_of_another_network_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Archive::network_name(dir.path()).unwrap(), None);
    drop(open(&dir));
    assert_eq!(Archive::network_name(dir.path()).unwrap().as_deref(), Some("btc-regtest"));
    let error = Archive::open(dir.path(), &Network::BSV_REGTEST).unwrap_err().to_string();
    assert!(error.ends_with("index.redb belongs to network btc-regtest, not bsv-regtest"), "{error}");
}

#[test]
fn what_is_written_counts_when_it_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let mut archive = open(&dir);
    let blocks: Vec<Block> = (0..8).map(|height| block(height, 1, 2 << 20)).collect();
    archive.write(&blocks[..2]).unwrap();
    archive.write(&blocks[2..4]).unwrap();
    assert_eq!((archive.cursor().unwrap(), archive.by_height(0).unwrap()), (None, None));
    archive.commit().unwrap();
    assert_eq!(archive.cursor().unwrap(), Some(blocks[3].id));
    archive.write(&blocks[4..6]).unwrap();
    drop(archive);
    let mut archive = open(&dir);
    assert_eq!(archive.cursor().unwrap(), Some(blocks[3].id), "what was not committed is gone");
    assert_eq!(archive.segments.end(), (0, 4 * (8 + (2 << 20))));
    // A rollback and parts commit what was written before them; giving up parts leaves it alone.
    archive.write(&blocks[4..6]).unwrap();
    archive.abort().unwrap();
    archive.append_part(blocks[6].id, &blocks[6].parts[0]).unwrap();
    assert_eq!(archive.cursor().unwrap(), Some(blocks[5].id));
    archive.write(&blocks[6..]).unwrap();
    archive.rollback(6).unwrap();
    assert_eq!(archive.cursor().unwrap(), Some(blocks[6].id));
    for block in &blocks {
        let found = archive.by_hash(block.id.hash).unwrap().unwrap();
        assert!(content(&archive, &found) == block.bytes());
    }
}
