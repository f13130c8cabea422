//! What an archive should hold, and waiting for it.

use std::{collections::BTreeMap, io::Read, path::Path, time::Duration};

use tipward_chain::{
    Archive, Node,
    sync::{
        Progress,
        peer::wire::{BlockHash, bitcoin::Network},
    },
};

/// The blocks of an archive's best chain, by height.
///
/// # Panics
/// The archive can't be read.
#[must_use]
pub fn archived_blocks(data_dir: &Path, network: &'static Network) -> BTreeMap<u64, (BlockHash, Vec<u8>)> {
    let archive = Archive::open(&data_dir.join("blocks"), &network).expect("the archive opens");
    let cursor = archive.cursor().expect("the index is readable");
    let heights = cursor.map_or(0..0, |cursor| 0..cursor.height + 1);
    heights
        .map(|height| {
            let block =
                archive.by_height(height).expect("the index is readable").expect("no height is missing");
            assert_eq!(block.id.height, height);
            let mut bytes = Vec::new();
            archive
                .read(&block)
                .expect("the segment opens")
                .read_to_end(&mut bytes)
                .expect("the segment is readable");
            (height, (block.id.hash, bytes))
        })
        .collect()
}

/// The archive's best chain is exactly these blocks.
///
/// # Panics
/// It is not.
pub fn assert_archive_holds<'a>(
    data_dir: &Path,
    network: &'static Network,
    expected: impl ExactSizeIterator<Item = (BlockHash, &'a [u8])>,
) {
    let found = archived_blocks(data_dir, network);
    assert_eq!(found.len(), expected.len(), "blocks in the archive");
    for ((height, (hash, bytes)), (expected_hash, expected_bytes)) in found.iter().zip(expected) {
        assert_eq!(*hash, expected_hash, "hash at height {height}");
        assert!(bytes == expected_bytes, "the bytes at height {height} differ");
    }
}

/// Waits until the node's progress is as wanted.
///
/// # Panics
/// Not within two minutes; the node's last progress is told.
pub async fn wait_for(node: &Node, what: &str, is_there: impl Fn(&Progress) -> bool) -> Progress {
    for _ in 0..2400 {
        let progress = node.progress();
        if is_there(&progress) {
            return progress;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("waited in vain for {what}: {:?}", node.progress());
}
