//! `tipward block`.

use std::io::{self, IsTerminal, Read, Write};

use serde_json::json;
use tipward_chain::{
    ArchiveReader, ArchivedBlock,
    sync::peer::wire::{BlockHash, bitcoin::BlockHeader},
};

use crate::{Failure, archive::locate, args::BlockArguments, print, unwritten};

const BUFFER: usize = 1 << 20;

pub(crate) fn run(arguments: &BlockArguments) -> Result<(), Failure> {
    let (dir, network) = locate(&arguments.data)?;
    let archive = ArchiveReader::open(&dir, &network).map_err(Failure::failed)?;
    let block = find(&archive, &arguments.block)?;
    if arguments.raw {
        return raw(&archive, &block);
    }
    let mut header = [0; BlockHeader::SIZE];
    archive.read(&block).map_err(Failure::failed)?.read_exact(&mut header).map_err(Failure::failed)?;
    let is_best =
        archive.by_height(block.id.height).map_err(Failure::failed)?.is_some_and(|best| best == block);
    show(&block, &BlockHeader::from_bytes(&header), is_best, arguments.json)
}

pub(crate) fn find(archive: &ArchiveReader, text: &str) -> Result<ArchivedBlock, Failure> {
    let found = match (text.parse::<u64>(), text.parse::<BlockHash>()) {
        // 64 decimal digits are a hash.
        (_, Ok(hash)) => archive.by_hash(hash),
        (Ok(height), _) => archive.by_height(height),
        (Err(_), Err(_)) => {
            return Err(Failure::Usage(format!(
                "'{text}' is neither a height nor a hash of 64 hexadecimal digits"
            )));
        }
    };
    found
        .map_err(Failure::failed)?
        .ok_or_else(|| Failure::Failed(format!("block {text} is not in the archive")))
}

fn raw(archive: &ArchiveReader, block: &ArchivedBlock) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    if stdout.is_terminal() {
        return Err(Failure::Usage("--raw writes bytes: send stdout to a file or a pipe".to_owned()));
    }
    let mut bytes = archive.read(block).map_err(Failure::failed)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        match bytes.read(&mut buffer).map_err(Failure::failed)? {
            0 => return stdout.flush().map_err(|error| unwritten(&error)),
            read => stdout.write_all(&buffer[..read]).map_err(|error| unwritten(&error))?,
        }
    }
}

fn show(block: &ArchivedBlock, header: &BlockHeader, is_best: bool, as_json: bool) -> Result<(), Failure> {
    let merkle_root = BlockHash::from_bytes(header.merkle_root).to_string();
    let fields = [
        ("hash", json!(block.id.hash.to_string())),
        ("height", json!(block.id.height)),
        ("on_best_chain", json!(is_best)),
        ("size", json!(block.size)),
        ("transactions", json!(block.transactions)),
        ("version", json!(header.version)),
        ("previous", json!(header.parent.to_string())),
        ("merkle_root", json!(merkle_root)),
        ("time", json!(header.time)),
        ("bits", json!(header.bits.to_string())),
        ("nonce", json!(header.nonce)),
        ("segment", json!(block.segment)),
        ("offset", json!(block.offset)),
    ];
    if as_json {
        let object: serde_json::Map<String, serde_json::Value> =
            fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        return print(serde_json::Value::Object(object));
    }
    for (key, value) in fields {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        print(format_args!("{:<14} {text}", key.replace('_', " ")))?;
    }
    Ok(())
}
