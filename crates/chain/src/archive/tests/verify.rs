//! Damage is found and named, and a repair leaves what is sound.

use super::{chain::*, *};

/// Segments of a few blocks.
fn small() -> ArchiveOptions {
    ArchiveOptions { segment_size: 2000, ..ArchiveOptions::default() }
}

fn open_small(dir: &tempfile::TempDir) -> Archive {
    Archive::open_with(dir.path(), &Network::BTC_REGTEST, small()).unwrap()
}

fn reader(dir: &tempfile::TempDir) -> ArchiveReader {
    ArchiveReader::open(dir.path(), &Network::BTC_REGTEST).unwrap()
}

fn verify(archive: &ArchiveReader) -> Vec<CheckedBlock> {
    archive.verify(&Network::BTC_REGTEST).map(|checked| checked.unwrap()).collect()
}

fn problems(archive: &ArchiveReader) -> Vec<CheckedBlock> {
    verify(archive).into_iter().filter(|checked| checked.problem.is_some()).collect()
}

/// Changes a segment's bytes.
fn change(dir: &tempfile::TempDir, segment: u32, change: impl FnOnce(&mut Vec<u8>)) {
    let path = dir.path().join(format!("blk{segment:05}.blk"));
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn every_block_of_a_sound_archive_is_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let trunk = trunk(1100);
    let side = blocks(&branch(&trunk, 1090, 5));
    let trunk = blocks(&trunk);
    let mut archive = open_small(&dir);
    archive.append(&side).unwrap();
    archive.rollback(1090).unwrap();
    archive.append(&trunk[1091..]).unwrap();
    let mut found = verify(&archive);
    assert!(found.is_sorted_by_key(|checked| checked.place), "as they are on disk");
    assert!(found.iter().all(|checked| checked.problem.is_none()));
    let mut expected: Vec<_> =
        side.iter().chain(&trunk[1091..]).map(|block| (block.id, block.size)).collect();
    expected.sort();
    found.sort_by_key(|checked| checked.block);
    assert_eq!(found.iter().map(|checked| (checked.block, checked.size)).collect::<Vec<_>>(), expected);
}

#[test]
fn every_byte_that_changes_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let chain = blocks(&trunk(8));
    open_small(&dir).append(&chain).unwrap();
    let archive = reader(&dir);
    let place = archive.by_height(5).unwrap().unwrap();
    let start = place.offset as usize;
    for at in start - 8..start + place.size as usize {
        change(&dir, place.segment, |bytes| bytes[at] ^= 4);
        let found = problems(&archive);
        assert_eq!(found.len(), 1, "byte {at}");
        assert_eq!((found[0].block, found[0].place), (chain[5].id, Some((place.segment, place.offset))));
        match found[0].problem {
            Some(ArchiveProblem::Frame { size }) if at < start => assert_eq!(size, place.size),
            Some(ArchiveProblem::Checksum { expected, found }) if at >= start => {
                assert_eq!(expected, place.checksum);
                assert_ne!(found, expected);
                let error = archive.read(&place).unwrap().read_to_end(&mut Vec::new()).unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
                // Not even who asks for no more than there is gets the last of them.
                let mut exactly = vec![0; place.size as usize];
                assert!(archive.read(&place).unwrap().read_exact(&mut exactly).is_err());
            }
            ref other => panic!("byte {at}: {other:?}"),
        }
        change(&dir, place.segment, |bytes| bytes[at] ^= 4);
    }
    assert_eq!(problems(&archive), []);
}

#[test]
fn bytes_that_are_gone_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let chain = blocks(&trunk(20));
    open_small(&dir).append(&chain).unwrap();
    let archive = reader(&dir);
    let place = |height: u64| archive.by_height(height).unwrap().unwrap();
    let last = place(20);
    change(&dir, last.segment, |bytes| bytes.truncate(last.offset as usize + 5));
    let found = problems(&archive);
    let missing = |size, found| Some(ArchiveProblem::Missing { size, found });
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].block, &found[0].problem), (chain[20].id, &missing(last.size, 13)));
    assert!(archive.read(&last).unwrap().read_to_end(&mut Vec::new()).is_err());
    let gone = place(7).segment;
    std::fs::remove_file(dir.path().join(format!("blk{gone:05}.blk"))).unwrap();
    let found = problems(&archive);
    assert!(found.len() > 2);
    for problem in &found[..found.len() - 1] {
        assert_eq!(problem.place.unwrap().0, gone);
        assert_eq!(problem.problem, missing(problem.size, 0));
    }
    assert!(archive.read(&place(7)).is_err());
    let text = found[0].to_string();
    let (segment, offset) = found[0].place.unwrap();
    let expected = format!("block {}, blk{segment:05}.blk from byte {offset}: of its ", found[0].block);
    assert!(text.starts_with(&expected), "{text}");
}

#[test]
fn blocks_that_are_not_what_the_index_says_are_found() {
    let chain = blocks(&trunk(6));
    let other = blocks(&branch(&trunk(6), 3, 3));
    let with = |block: Block| [&chain[..5], &[block], &chain[6..]].concat();
    let (right, id) = (chain[5].clone(), chain[5].id);
    let other_parent = ArchiveProblem::Parent { found: other[4].id.hash, expected: chain[4].id.hash };
    let transactions = ArchiveProblem::Transactions { found: right.transactions, expected: 70 };
    // A merkle root that was right when the block came: bytes and checksum were wrong together.
    let mut spoiled = right.clone();
    let last = spoiled.parts.last_mut().unwrap();
    last.bytes = last.bytes.iter().rev().copied().collect();
    let elsewhere = BlockId { height: 5, ..chain[4].id };
    type Case = (Vec<Block>, u64, fn(&ArchiveProblem) -> bool);
    let cases: [Case; 6] = [
        (with(Block { id, ..chain[4].clone() }), 5, |found| matches!(found, ArchiveProblem::Hash { .. })),
        (with(Block { transactions: 70, ..right }), 5, |found| {
            matches!(found, ArchiveProblem::Transactions { .. })
        }),
        (with(other[5].clone()), 5, |found| matches!(found, ArchiveProblem::Parent { .. })),
        (with(spoiled), 5, |found| matches!(found, ArchiveProblem::Block(_))),
        (with(Block { id: elsewhere, ..chain[4].clone() }), 5, |found| *found == ArchiveProblem::NoPlace),
        ([&chain[..3], &chain[4..]].concat(), 4, |found| *found == ArchiveProblem::Gap),
    ];
    for (n, (blocks, height, is_expected)) in cases.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let mut archive = open_small(&dir);
        blocks.iter().for_each(|block| archive.append(std::slice::from_ref(block)).unwrap());
        drop(archive);
        let found = problems(&reader(&dir));
        let at = found.iter().find(|checked| checked.block.height == height);
        let problem = at.and_then(|checked| checked.problem.as_ref()).unwrap();
        assert!(is_expected(problem), "case {n}: {problem:?}");
        assert!(n != 1 || *problem == transactions);
        assert!(n != 2 || *problem == other_parent);
        // Whatever it is, a repair ends the chain before it and leaves nothing to complain about.
        let repaired = Archive::repair(dir.path(), &Network::BTC_REGTEST, |_| ()).unwrap();
        let below = blocks.iter().map(|block| block.id.height).filter(|at| *at < height).max();
        assert_eq!(repaired.after.map(|after| after.height), below, "case {n}");
        assert_eq!(problems(&reader(&dir)), [], "case {n}");
    }
}

#[test]
fn a_repair_forgets_what_is_broken_and_keeps_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let trunk = trunk(30);
    let side = blocks(&branch(&trunk, 20, 4));
    let chain = blocks(&trunk);
    let mut archive = open_small(&dir);
    archive.append(&side).unwrap();
    archive.rollback(20).unwrap();
    archive.append(&chain[21..]).unwrap();
    let place = |hash: BlockHash| archive.by_hash(hash).unwrap().unwrap();
    // One of the best chain, one of the other branch, and the tail.
    let (broken, aside, last) = (place(chain[25].id.hash), place(side[23].id.hash), place(chain[30].id.hash));
    drop(archive);
    for found in [broken, aside] {
        change(&dir, found.segment, |bytes| bytes[found.offset as usize + 90] ^= 1);
    }
    change(&dir, last.segment, |bytes| bytes.truncate(last.offset as usize + 100));

    let error = Archive::open(dir.path(), &Network::BTC_REGTEST).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "nothing is repaired unasked: {error}");
    let mut seen = (0, 0);
    let repaired = Archive::repair(dir.path(), &Network::BTC_REGTEST, |checked| {
        seen = (seen.0 + 1, seen.1 + u64::from(checked.problem.is_some()));
    });
    let (before, after) = (Some(chain[30].id), Some(chain[24].id));
    assert_eq!(repaired.unwrap(), Repaired { forgotten: 3, before, after });
    assert_eq!(seen, (chain.len() + 4, 3));

    let mut archive = open_small(&dir);
    assert_eq!(archive.cursor().unwrap(), after);
    assert_eq!(problems(&archive), []);
    for gone in [broken, aside, last] {
        assert_eq!(archive.by_hash(gone.id.hash).unwrap(), None);
    }
    let kept = archive.by_hash(chain[27].id.hash).unwrap().unwrap();
    assert_eq!(content(&archive, &kept), chain[27].bytes());
    // What a sync does next.
    archive.append(&chain[25..]).unwrap();
    assert_eq!(problems(&archive), []);
    assert_eq!(archive.by_height(27).unwrap(), Some(kept), "not written again");
    for block in &chain {
        assert_eq!(content(&archive, &archive.by_height(block.id.height).unwrap().unwrap()), block.bytes());
    }
    // A reader that looked a block up before the repair gets its bytes or an error.
    assert!(archive.read(&broken).unwrap().read_to_end(&mut Vec::new()).is_err());
}

#[test]
fn a_repair_may_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let chain = blocks(&trunk(5));
    open_small(&dir).append(&chain).unwrap();
    std::fs::remove_file(dir.path().join("blk00000.blk")).unwrap();
    std::fs::remove_file(dir.path().join("blk00001.blk")).ok();
    let repaired = Archive::repair(dir.path(), &Network::BTC_REGTEST, |_| ()).unwrap();
    assert_eq!(repaired, Repaired { forgotten: 6, before: Some(chain[5].id), after: None });
    let mut archive = open_small(&dir);
    archive.append(&chain).unwrap();
    assert_eq!((verify(&archive).len(), problems(&archive).len()), (6, 0));
    let empty = tempfile::tempdir().unwrap();
    assert!(Archive::repair(empty.path(), &Network::BTC_REGTEST, |_| ()).is_err());
    assert!(!empty.path().join("index.redb").exists(), "no archive is made up");
}
