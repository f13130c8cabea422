//! `tipward archive`.

use std::path::PathBuf;

use serde_json::json;
use tipward_chain::{
    Archive, ArchiveReader, CheckedBlock,
    sync::{BlockId, peer::wire::bitcoin::Network},
};

use crate::{
    Failure,
    args::{ArchiveCommand, CheckArguments, DataArguments},
    print,
};

pub(crate) fn run(command: &ArchiveCommand) -> Result<(), Failure> {
    match command {
        ArchiveCommand::Verify(arguments) => verify(arguments),
        ArchiveCommand::Repair(arguments) => repair(arguments),
    }
}

/// The folder of an archive and its network.
pub(crate) fn locate(data: &DataArguments) -> Result<(PathBuf, &'static Network), Failure> {
    let data_dir = data.dir()?;
    let dir = data_dir.join("blocks");
    let name = Archive::network_name(&dir)
        .map_err(Failure::failed)?
        .ok_or_else(|| Failure::Failed(format!("there is no archive in {}", data_dir.display())))?;
    let network = data.network.or_else(|| Network::by_name(&name));
    let network =
        network.ok_or_else(|| Failure::Failed(format!("{} is of unknown network {name}", dir.display())))?;
    Ok((dir, network))
}

fn verify(arguments: &CheckArguments) -> Result<(), Failure> {
    let (dir, network) = locate(&arguments.data)?;
    let archive = ArchiveReader::open(&dir, &network).map_err(Failure::failed)?;
    let mut seen = Seen::new(arguments.json);
    for checked in archive.verify(&network) {
        seen.block(&checked.map_err(Failure::failed)?);
        if seen.printed.is_err() {
            break;
        }
    }
    let Seen { blocks, bytes, problems, .. } = seen;
    seen.printed?;
    if arguments.json {
        let line = json!({ "event": "summary", "blocks": blocks, "bytes": bytes, "problems": problems });
        print(line)?;
    } else {
        print(format_args!("{blocks} blocks, {bytes} bytes, {problems} problems"))?;
    }
    match problems {
        0 => Ok(()),
        _ => Err(Failure::Failed(format!(
            "{} is damaged; 'tipward archive repair' forgets what is broken, so that 'tipward sync' fetches it again",
            dir.display()
        ))),
    }
}

fn repair(arguments: &CheckArguments) -> Result<(), Failure> {
    let (dir, network) = locate(&arguments.data)?;
    let mut seen = Seen::new(arguments.json);
    let repaired = Archive::repair(&dir, &network, |checked| seen.block(checked)).map_err(Failure::failed)?;
    seen.printed?;
    if arguments.json {
        let id = |id: Option<BlockId>| {
            id.map(|BlockId { height, hash }| json!({ "height": height, "hash": hash.to_string() }))
        };
        return print(json!({
            "event": "summary",
            "blocks": seen.blocks,
            "bytes": seen.bytes,
            "forgotten": repaired.forgotten,
            "before": id(repaired.before),
            "after": id(repaired.after),
        }));
    }
    let text = |id: Option<BlockId>| id.map_or_else(|| "no block".to_owned(), |id| format!("block {id}"));
    let (before, after) = (text(repaired.before), text(repaired.after));
    let Seen { blocks, bytes, .. } = seen;
    print(format_args!("{blocks} blocks, {bytes} bytes, {} forgotten", repaired.forgotten))?;
    if repaired.before == repaired.after {
        print(format_args!("the best chain still ends with {after}"))
    } else {
        print(format_args!("the best chain ends with {after}, and ended with {before}"))
    }
}

/// What has been read. Problems are printed as they are found.
struct Seen {
    as_json: bool,
    blocks: u64,
    bytes: u64,
    problems: u64,
    printed: Result<(), Failure>,
}

impl Seen {
    fn new(as_json: bool) -> Self {
        Self { as_json, blocks: 0, bytes: 0, problems: 0, printed: Ok(()) }
    }

    fn block(&mut self, checked: &CheckedBlock) {
        self.blocks += u64::from(checked.size > 0);
        self.bytes += checked.size;
        let Some(problem) = &checked.problem else { return };
        self.problems += 1;
        if self.printed.is_err() {
            return;
        }
        self.printed = if self.as_json {
            print(json!({
                "event": "problem",
                "height": checked.block.height,
                "hash": checked.block.hash.to_string(),
                "segment": checked.place.map(|(segment, _)| segment),
                "offset": checked.place.map(|(_, offset)| offset),
                "problem": problem.to_string(),
            }))
        } else {
            print(checked)
        };
    }
}
