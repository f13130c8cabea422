//! Checkpoints as files: a trusted header to start from, with those before it that it takes to check what follows.

use std::path::Path;

use bdk_wallet::bitcoin::hex::FromHex as _;
use serde::{Deserialize, Serialize};
use tipward_chain::{
    Checkpoint, Coin, HeaderReader,
    sync::{
        SinkError,
        peer::wire::{
            Header,
            bitcoin::{BlockHeader, Network, Work},
        },
    },
};

use crate::ledger::hex;

/// The largest file that is read, in bytes: 2016 headers are a fifth of it.
const MAX_FILE: u64 = 2 << 20;

#[derive(Serialize, Deserialize)]
struct File {
    height: u64,
    /// The work of the chain up to the last header, as 64 hexadecimal digits.
    work: String,
    /// The headers, 80 bytes each in hexadecimal digits.
    headers: Vec<String>,
}

/// Reads a checkpoint. Whether its headers keep the rules is checked by the node.
pub(crate) fn read(path: &Path) -> Result<Checkpoint, SinkError> {
    let what = |error: &dyn std::fmt::Display| format!("checkpoint {}: {error}", path.display());
    let size = std::fs::metadata(path).map_err(|error| what(&error))?.len();
    if size > MAX_FILE {
        return Err(what(&format!("{size} bytes are too many")).into());
    }
    let text = std::fs::read(path).map_err(|error| what(&error))?;
    let file: File = serde_json::from_slice(&text).map_err(|error| what(&error))?;
    let work = <[u8; 32]>::from_hex(&file.work).map_err(|error| what(&format!("work: {error}")))?;
    let header = |digits: &String| <[u8; BlockHeader::SIZE]>::from_hex(digits);
    let headers = file.headers.iter().map(header).collect::<Result<Vec<_>, _>>();
    let headers = headers.map_err(|error| what(&format!("headers: {error}")))?;
    Ok(Checkpoint {
        height: file.height,
        work: Work::from_be_bytes(work),
        headers: headers.iter().map(|raw| Header::from(BlockHeader::from_bytes(raw))).collect(),
    })
}

/// Writes a checkpoint.
pub(crate) fn write(path: &Path, checkpoint: &Checkpoint) -> Result<(), SinkError> {
    let file = File {
        height: checkpoint.height,
        work: hex(&checkpoint.work.to_be_bytes()),
        headers: checkpoint.headers.iter().map(|header| hex(&header.raw)).collect(),
    };
    let text = serde_json::to_string_pretty(&file)?;
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Makes a checkpoint of the block at a height of the best chain.
pub(crate) fn make(
    reader: &HeaderReader,
    network: &'static Network,
    height: u64,
) -> Result<Checkpoint, SinkError> {
    let tree = reader.tree();
    let missing = |height| {
        format!("no header at height {height}: there are those from {} to {}", tree.root(), tree.tip())
    };
    let tip = tree.best_at(height).and_then(|hash| tree.node(hash)).ok_or_else(|| missing(height))?;
    let mut headers = Vec::new();
    for at in network.rules().past(height)..=height {
        let hash = tree.best_at(at).ok_or_else(|| missing(at))?;
        headers.push(reader.header(hash)?.ok_or_else(|| missing(at))?);
    }
    Ok(Checkpoint { height, work: tip.work, headers })
}
