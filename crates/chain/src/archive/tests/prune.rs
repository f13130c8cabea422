//! What is pruned, what stays, and what the index says of it.

use super::{chain::*, *};

const MIN_DEPTH: u64 = 288;

fn options(max_bytes: Option<u64>, max_depth: Option<u64>) -> ArchiveOptions {
    ArchiveOptions { max_bytes, max_depth, segment_size: 3000 }
}

fn open_with(dir: &tempfile::TempDir, options: ArchiveOptions) -> Archive {
    Archive::open_with(dir.path(), &Network::BTC_REGTEST, options).unwrap()
}

fn segments(dir: &tempfile::TempDir) -> Vec<u32> {
    let names =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut numbers: Vec<u32> =
        names.filter_map(|name| name.strip_prefix("blk")?.strip_suffix(".blk")?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

fn bytes_on_disk(dir: &tempfile::TempDir) -> u64 {
    let len = |number: &u32| std::fs::metadata(dir.path().join(format!("blk{number:05}.blk"))).unwrap().len();
    segments(dir).iter().map(len).sum()
}

/// Every height of the best chain is there, pruned below some height and whole from there on, which is returned.
fn lowest(archive: &Archive, chain: &[Block]) -> u64 {
    let found: Vec<ArchivedBlock> =
        (0..chain.len() as u64).map(|height| archive.by_height(height).unwrap().unwrap()).collect();
    let lowest = found.iter().take_while(|block| block.is_pruned).count();
    for (block, found) in chain.iter().zip(&found) {
        assert_eq!((found.id, found.size, found.transactions), (block.id, block.size, block.transactions));
        if found.is_pruned {
            assert!(matches!(archive.read(found), Err(StoreError::Pruned { block }) if block == found.id));
        } else {
            assert_eq!(content(archive, found), block.bytes());
        }
    }
    assert!(found[lowest..].iter().all(|block| !block.is_pruned));
    assert_eq!(archive.cursor().unwrap(), chain.last().map(|block| block.id));
    lowest as u64
}

#[test]
fn segments_go_whose_blocks_are_all_deep_enough() {
    let chain = blocks(&trunk(500));
    for (asked, kept) in [(350, 350), (10, MIN_DEPTH), (u64::MAX, u64::MAX)] {
        let dir = tempfile::tempdir().unwrap();
        let mut archive = open_with(&dir, options(None, Some(asked)));
        for (n, batch) in chain.chunks(80).enumerate() {
            archive.append(batch).unwrap();
            let tip = (n as u64 * 80 + 80).min(chain.len() as u64) - 1;
            let lowest = lowest(&archive, &chain[..=tip as usize]);
            // At least what is asked for, and at most the blocks of a segment more.
            let due = tip.checked_sub(kept).map_or(0, |deepest| deepest + 1);
            assert!(lowest <= due && lowest + 12 > due, "{lowest} of {due} pruned at {tip}");
            let first = archive.by_height(lowest).unwrap().unwrap().segment;
            assert_eq!(segments(&dir), (first..=archive.segments.end().0).collect::<Vec<_>>());
        }
        let before = lowest(&archive, &chain);
        drop(archive);
        assert_eq!(lowest(&open(&dir), &chain), before, "what is gone stays gone without options");
    }
}

#[test]
fn segments_go_until_the_rest_is_small_enough() {
    let chain = blocks(&trunk(500));
    let size = |blocks: &[Block]| blocks.iter().map(|block| block.size + 8).sum::<u64>();
    let least = size(&chain[500 - MIN_DEPTH as usize..]);
    for most in [0, least / 2, least + 30_000, u64::MAX] {
        let dir = tempfile::tempdir().unwrap();
        let mut archive = open_with(&dir, options(Some(most), None));
        chain.chunks(80).for_each(|batch| archive.append(batch).unwrap());
        let lowest = lowest(&archive, &chain);
        let bytes = bytes_on_disk(&dir);
        assert!(lowest <= 500 - MIN_DEPTH, "the last ones stay");
        if most == u64::MAX {
            assert_eq!(lowest, 0);
        } else if most > least {
            assert!(bytes <= most && bytes + 3000 > most, "{bytes} of {most}");
        } else {
            assert!(bytes < least + 3000, "{bytes}, and {least} have to stay");
        }
    }
}

#[test]
fn a_segment_stays_for_its_highest_block() {
    let dir = tempfile::tempdir().unwrap();
    let trunk = trunk(695);
    let side = blocks(&branch(&trunk, 3, 400));
    let chain = blocks(&trunk);
    let mut archive = open_with(&dir, options(None, Some(0)));
    // High blocks of another branch first, then low ones.
    archive.append(&side[400..=403]).unwrap();
    archive.rollback(3).unwrap();
    archive.append(&chain[4..6]).unwrap();
    assert_eq!(archive.by_height(5).unwrap().unwrap().segment, 0);
    archive.append(&chain[6..691]).unwrap();
    assert_eq!(segments(&dir)[0], 0, "403 is 287 below 690");
    archive.append(&chain[691..692]).unwrap();
    let low = archive.by_height(691 - MIN_DEPTH + 1).unwrap().unwrap();
    assert!(!low.is_pruned && segments(&dir)[0] > 10);
    assert!(archive.by_hash(side[403].id.hash).unwrap().unwrap().is_pruned);
    assert!(archive.verify(&Network::BTC_REGTEST).all(|checked| checked.unwrap().problem.is_none()));
}

#[test]
fn a_pruned_block_that_comes_again_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let chain = blocks(&trunk(600));
    let mut archive = open_with(&dir, options(None, Some(0)));
    archive.append(&chain).unwrap();
    assert!(archive.by_height(50).unwrap().unwrap().is_pruned);
    archive.rollback(40).unwrap();
    assert_eq!(archive.cursor().unwrap(), Some(chain[40].id), "it is known, though its bytes are gone");
    archive.append(&chain[41..60]).unwrap();
    for part in &chain[60].parts {
        archive.append_part(chain[60].id, part).unwrap();
    }
    archive.append(&[Block { parts: Vec::new(), is_streamed: true, ..chain[60].clone() }]).unwrap();
    for block in &chain[41..=60] {
        let found = archive.by_hash(block.id.hash).unwrap().unwrap();
        assert_eq!(content(&archive, &found), block.bytes());
    }
    assert!(archive.verify(&Network::BTC_REGTEST).all(|checked| checked.unwrap().problem.is_none()));
}

#[test]
fn what_a_crash_left_of_pruned_segments_is_removed_on_opening() {
    let dir = tempfile::tempdir().unwrap();
    let chain = blocks(&trunk(600));
    let mut archive = open_with(&dir, options(None, Some(0)));
    archive.append(&chain).unwrap();
    let kept = segments(&dir);
    drop(archive);
    for left in [0, 2] {
        std::fs::write(dir.path().join(format!("blk{left:05}.blk")), b"left").unwrap();
    }
    std::fs::write(dir.path().join("blk7.blk"), b"of somebody else").unwrap();
    lowest(&open(&dir), &chain);
    std::fs::remove_file(dir.path().join("blk7.blk")).unwrap();
    assert_eq!(segments(&dir), kept);
}
