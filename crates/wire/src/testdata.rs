//! Files of real chain data, for the tests.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::bitcoin::{BlkFile, Block};

/// A file in the directory that `TIPWARD_TESTDATA` names, or in `../shared/data` beside the project. Without it the test is
/// to be skipped, unless `TIPWARD_REQUIRE_TESTDATA` is 1.
pub(crate) fn read(name: &str) -> Option<Bytes> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let path = std::env::var_os("TIPWARD_TESTDATA").map_or(root, PathBuf::from).join(name);
    if path.exists() {
        return Some(std::fs::read(&path).unwrap().into());
    }
    let required = std::env::var_os("TIPWARD_REQUIRE_TESTDATA").is_some_and(|value| value == "1");
    assert!(!required, "no test data at {}", path.display());
    println!("skipped: no test data at {}", path.display());
    None
}

/// The blocks of a `.blk` file.
pub(crate) fn blocks(name: &str) -> Option<Vec<Block>> {
    Some(BlkFile::new(read(name)?).map(Result::unwrap).collect())
}
