//! Blocks that come in parts.

use tipward_sync::BlockSink;

use super::*;

/// The end of a block whose parts were given before.
fn streamed(block: &Block) -> Block {
    Block { parts: Vec::new(), is_streamed: true, ..block.clone() }
}

fn give(archive: &mut Archive, block: &Block, parts: usize) {
    block.parts[..parts].iter().for_each(|part| archive.append_part(block.id, part).unwrap());
}

/// Every segment's bytes.
fn files(dir: &tempfile::TempDir) -> Vec<Vec<u8>> {
    (0..).map_while(|n| std::fs::read(dir.path().join(format!("blk{n:05}.blk"))).ok()).collect()
}

#[test]
fn a_block_in_parts_is_archived_as_any_other() {
    let (whole, in_parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Below and above what is buffered before it is written.
    let blocks: Vec<Block> = [300, 5 << 20, 900, 3 << 20]
        .into_iter()
        .enumerate()
        .map(|(n, size)| block(n as u64, 1, size))
        .collect();
    open(&whole).append(&blocks).unwrap();
    let mut archive = open(&in_parts);
    archive.append(&blocks[..1]).unwrap();
    give(&mut archive, &blocks[1], 2);
    assert_eq!(archive.cursor().unwrap(), Some(blocks[0].id), "nothing counts before the end");
    assert_eq!(archive.by_hash(blocks[1].id.hash).unwrap(), None);
    archive.append(&[streamed(&blocks[1]), blocks[2].clone()]).unwrap();
    assert_eq!(archive.cursor().unwrap(), Some(blocks[2].id));
    give(&mut archive, &blocks[3], 2);
    archive.append(&[streamed(&blocks[3])]).unwrap();
    assert_eq!(files(&whole), files(&in_parts));
    drop(archive);
    let archive = open(&in_parts);
    for block in &blocks {
        let found = archive.by_height(block.id.height).unwrap().unwrap();
        assert_eq!((found.id, found.transactions), (block.id, block.transactions));
        assert_eq!(content(&archive, &found), block.bytes());
    }
}

#[test]
fn an_aborted_block_leaves_nothing() {
    for size in [300, 5 << 20, SEGMENT] {
        for parts in [1, 2] {
            let dir = tempfile::tempdir().unwrap();
            let mut archive = open(&dir);
            archive.append(&[block(0, 1, 400)]).unwrap();
            let before = files(&dir);
            let large = block(1, 1, size);
            give(&mut archive, &large, parts);
            archive.abort().unwrap();
            archive.abort().unwrap();
            let after = files(&dir);
            assert_eq!(after[0], before[0], "{size} bytes, {parts} parts");
            assert!(after[1..].iter().all(Vec::is_empty), "a segment that was begun for it is empty");
            // Another block takes its place, or the same from its first part on.
            let other = block(1, 2, 500);
            archive.append(std::slice::from_ref(&other)).unwrap();
            archive.rollback(0).unwrap();
            give(&mut archive, &large, 1);
            give(&mut archive, &large, 2);
            archive.append(&[streamed(&large)]).unwrap();
            drop(archive);
            let archive = open(&dir);
            for block in [&other, &large] {
                let found = archive.by_hash(block.id.hash).unwrap().unwrap();
                assert!(content(&archive, &found) == block.bytes());
            }
        }
    }
}

/// Larger than what is left of a segment.
const SEGMENT: usize = 128 << 20;

#[test]
fn a_crash_between_parts_leaves_nothing_once_it_is_opened_again() {
    for (size, parts) in [(300, 1), (5 << 20, 1), (5 << 20, 2), (SEGMENT, 1)] {
        let dir = tempfile::tempdir().unwrap();
        let mut archive = open(&dir);
        archive.append(&[block(0, 1, 400)]).unwrap();
        let before = files(&dir);
        give(&mut archive, &block(1, 1, size), parts);
        drop(archive);
        let mut archive = open(&dir);
        assert_eq!(files(&dir), before, "{size} bytes, {parts} parts");
        let small = block(1, 1, 500);
        archive.append(std::slice::from_ref(&small)).unwrap();
        let found = archive.by_height(1).unwrap().unwrap();
        assert_eq!(content(&archive, &found), small.bytes());
    }
}

#[test]
fn whatever_comes_instead_of_the_rest_voids_what_was_begun() {
    let dir = tempfile::tempdir().unwrap();
    let mut archive = open(&dir);
    let blocks: Vec<Block> = (0..3).map(|height| block(height, 1, 2 << 20)).collect();
    give(&mut archive, &block(0, 2, 3 << 20), 1);
    archive.append(&blocks[..2]).unwrap();
    give(&mut archive, &block(2, 2, 3 << 20), 1);
    archive.rollback(1).unwrap();
    give(&mut archive, &block(2, 3, 3 << 20), 1);
    give(&mut archive, &blocks[2], 2);
    archive.append(&[streamed(&blocks[2])]).unwrap();
    let records: u64 = blocks.iter().map(|block| 8 + block.size).sum();
    assert_eq!(files(&dir)[0].len() as u64, records);
    for block in &blocks {
        let found = archive.by_height(block.id.height).unwrap().unwrap();
        assert!(content(&archive, &found) == block.bytes());
    }
}

#[test]
fn parts_that_do_not_follow_each_other_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut archive = open(&dir);
    let (one, other) = (block(0, 1, 1000), block(0, 2, 1000));
    let refused = |result: Result<(), StoreError>| matches!(result, Err(StoreError::Parts { .. }));
    assert!(refused(archive.append_part(one.id, &one.parts[1])), "the first is missing");
    assert!(refused(archive.append(&[streamed(&one)])), "all are missing");
    give(&mut archive, &one, 1);
    assert!(refused(archive.append_part(other.id, &other.parts[1])), "of another block");
    let twice = BlockPart { index: 1, ..one.parts[0].clone() };
    assert!(refused(archive.append_part(one.id, &twice)), "the same again");
    assert!(refused(archive.append(&[streamed(&one)])), "the last is missing");
    let long = BlockPart { bytes: Bytes::from_static(&[0; 501]), ..one.parts[1].clone() };
    assert!(refused(archive.append_part(one.id, &long)), "more than the block has");
    archive.append_part(one.id, &one.parts[1]).unwrap();
    assert!(refused(archive.append(&[streamed(&other)])), "another block's end");
    assert_eq!(archive.cursor().unwrap(), None);
    archive.append(&[streamed(&one)]).unwrap();
    assert_eq!(archive.cursor().unwrap(), Some(one.id));
}

#[test]
fn a_block_that_is_there_from_before_is_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut archive = open(&dir);
    let blocks: Vec<Block> = (0..3).map(|height| block(height, 1, 2 << 20)).collect();
    archive.append(&blocks).unwrap();
    archive.rollback(0).unwrap();
    let (before, end) = (files(&dir), archive.segments.end());
    for parts in [1, 2] {
        give(&mut archive, &blocks[1], parts);
        if parts == 1 {
            archive.abort().unwrap();
        }
    }
    archive.append(&[streamed(&blocks[1])]).unwrap();
    archive.append(&blocks[2..]).unwrap();
    assert_eq!((archive.segments.end(), files(&dir) == before), (end, true));
    assert_eq!(archive.cursor().unwrap(), Some(blocks[2].id));
    assert!(content(&archive, &archive.by_height(1).unwrap().unwrap()) == blocks[1].bytes());
}

#[tokio::test]
async fn the_sink_takes_large_blocks_between_small_ones() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = ArchiveSink::new(open(&dir));
    assert!(sink.takes_parts());
    let blocks: Vec<Block> =
        (0..20).map(|height| block(height, 1, if height % 5 == 3 { 3 << 20 } else { 700 })).collect();
    for block in &blocks {
        if block.size < 1000 {
            sink.apply(block.clone()).await.unwrap();
            continue;
        }
        // A first attempt, by a peer that was lost.
        sink.apply_part(block.id, block.parts[0].clone()).await.unwrap();
        sink.flush().await.unwrap();
        let small = block.id.height - 1;
        assert_eq!(
            sink.cursor().await.unwrap(),
            Some(blocks[small as usize].id),
            "what came before is written"
        );
        sink.abort(block.id).await.unwrap();
        for part in &block.parts {
            sink.apply_part(block.id, part.clone()).await.unwrap();
            sink.flush().await.unwrap();
        }
        sink.apply(streamed(block)).await.unwrap();
        assert_eq!(sink.cursor().await.unwrap(), Some(block.id));
    }
    sink.rollback(blocks[12].id).await.unwrap();
    sink.apply_part(blocks[13].id, blocks[13].parts[0].clone()).await.unwrap();
    drop(sink);
    let archive = open(&dir);
    assert_eq!(archive.cursor().unwrap(), Some(blocks[12].id));
    for block in &blocks {
        let found = archive.by_hash(block.id.hash).unwrap().unwrap();
        assert!(content(&archive, &found) == block.bytes(), "{}", block.id);
    }
}
