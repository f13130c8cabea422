//! Files of real chain data, for the tests.

use std::path::{Path, PathBuf};

use tipward_sync::peer::wire::bitcoin::BlockHeader;

/// A file in the directory that `TIPWARD_TESTDATA` names, or in `../shared/data` beside the project. Without it the test is
/// to be skipped, unless `TIPWARD_REQUIRE_TESTDATA` is 1.
pub(crate) fn read(name: &str) -> Option<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let path = std::env::var_os("TIPWARD_TESTDATA").map_or(root, PathBuf::from).join(name);
    if path.exists() {
        return Some(std::fs::read(&path).unwrap());
    }
    let required = std::env::var_os("TIPWARD_REQUIRE_TESTDATA").is_some_and(|value| value == "1");
    assert!(!required, "no test data at {}", path.display());
    println!("skipped: no test data at {}", path.display());
    None
}

/// The headers of a file that has nothing else.
pub(crate) fn headers(name: &str) -> Option<Vec<BlockHeader>> {
    Some(read(name)?.as_chunks().0.iter().map(BlockHeader::from_bytes).collect())
}
