//! Reading while somebody writes, and after they were killed.

use super::{chain::*, *};

fn reader(dir: &std::path::Path) -> ArchiveReader {
    ArchiveReader::open(dir, &Network::BTC_REGTEST).unwrap()
}

#[test]
fn a_reader_follows_a_writer() {
    let dir = tempfile::tempdir().unwrap();
    let chain = trunk(600);
    let side = blocks(&branch(&chain, 90, 15));
    let chain = blocks(&chain);
    let options = ArchiveOptions { max_depth: Some(0), segment_size: 3000, ..ArchiveOptions::default() };
    let mut archive = Archive::open_with(dir.path(), &Network::BTC_REGTEST, options).unwrap();
    let reader = reader(dir.path());
    assert_eq!(reader.cursor().unwrap(), None);
    archive.append(&chain[..=100]).unwrap();
    assert_eq!(reader.cursor().unwrap(), Some(chain[100].id));
    let found = reader.by_height(95).unwrap().unwrap();
    archive.rollback(90).unwrap();
    archive.append(&side[91..]).unwrap();
    // It is not on the best chain any more, and still what it was.
    assert_eq!(reader.by_height(95).unwrap().unwrap().id, side[95].id);
    assert_eq!(reader.by_hash(found.id.hash).unwrap(), Some(found));
    let mut bytes = Vec::new();
    reader.read(&found).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, chain[95].bytes());
    assert!(reader.verify(&Network::BTC_REGTEST).all(|checked| checked.unwrap().problem.is_none()));

    // A block that is pruned while it is read, and one that was looked up before.
    let mut half = reader.read(&found).unwrap();
    let mut start = [0; 10];
    half.read_exact(&mut start).unwrap();
    let mut verify = reader.verify(&Network::BTC_REGTEST);
    assert!(verify.next().unwrap().unwrap().problem.is_none());
    archive.rollback(90).unwrap();
    archive.append(&chain[91..]).unwrap();
    assert!(matches!(reader.read(&found), Err(StoreError::Pruned { block }) if block == found.id));
    assert!(reader.by_hash(found.id.hash).unwrap().unwrap().is_pruned);
    let mut rest = Vec::new();
    if half.read_to_end(&mut rest).is_ok() {
        assert_eq!([&start[..], &rest].concat(), bytes);
    }
    assert!(
        verify.all(|checked| checked.unwrap().problem.is_none()),
        "what is pruned meanwhile is no damage"
    );
}

#[test]
fn some_of_a_block_is_read_without_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let chain = blocks(&trunk(3));
    open(&dir).append(&chain).unwrap();
    let reader = reader(dir.path());
    let (found, bytes) = (reader.by_height(2).unwrap().unwrap(), chain[2].bytes());
    let size = bytes.len();
    let read = |range: std::ops::Range<usize>| {
        let mut found_bytes = Vec::new();
        let range = range.start as u64..range.end as u64;
        reader.read_range(&found, range).unwrap().read_to_end(&mut found_bytes).unwrap();
        found_bytes
    };
    for start in 0..size {
        assert_eq!(read(start..size), bytes[start..]);
        assert_eq!(read(0..start), bytes[..start]);
    }
    assert_eq!(read(10..size + 1000), bytes[10..], "the next block is left out");
    assert!(read(size + 1..size + 2).is_empty() && read(20..20).is_empty());
}

#[test]
fn a_writer_that_was_killed_is_no_hindrance() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let chain = blocks(&trunk(50));
    let mut archive = open(&dir);
    archive.append(&chain).unwrap();
    // What a kill leaves: the files as they are, not closed.
    for name in ["index.redb", "blk00000.blk"] {
        std::fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    }
    assert_eq!(Archive::network_name(copy.path()).unwrap().as_deref(), Some("btc-regtest"));
    for name in ["index.redb", "blk00000.blk"] {
        std::fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    }
    let reader = reader(copy.path());
    assert_eq!(reader.cursor().unwrap(), Some(chain[50].id));
    assert!(reader.verify(&Network::BTC_REGTEST).all(|checked| checked.unwrap().problem.is_none()));
    // And it is none for the next writer.
    drop(archive);
    let mut archive = Archive::open(copy.path(), &Network::BTC_REGTEST).unwrap();
    archive.rollback(40).unwrap();
    assert_eq!(reader.cursor().unwrap(), Some(chain[40].id));
}

#[test]
fn an_archive_that_is_not_there_is_not_made_by_reading() {
    let dir = tempfile::tempdir().unwrap();
    let error = ArchiveReader::open(dir.path(), &Network::BTC_REGTEST).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    drop(open(&dir));
    let error = ArchiveReader::open(dir.path(), &Network::BSV_REGTEST).unwrap_err().to_string();
    assert!(error.ends_with("index.redb belongs to network btc-regtest, not bsv-regtest"), "{error}");
}
