//! `tipward proof`.

use std::fmt::Write as _;

use serde_json::json;
use tipward_chain::{ArchiveReader, ArchivedBlock};

use crate::{Failure, archive::locate, args::ProofArguments, block::find, print};

pub(crate) fn run(arguments: &ProofArguments) -> Result<(), Failure> {
    let (dir, network) = locate(&arguments.data)?;
    let archive = ArchiveReader::open(&dir, &network).map_err(Failure::failed)?;
    let block = find(&archive, &arguments.block)?;
    let proof = archive.prove(network, &block, &arguments.transactions).map_err(Failure::failed)?;
    let proven = proof.tree.verify().map_err(Failure::failed)?;
    let hex = proof.to_bytes().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").ok();
        hex
    });
    if arguments.raw {
        return print(hex);
    }
    let confirmations = confirmations(&archive, &block)?;
    if arguments.json {
        let transactions: Vec<_> = proven
            .matches
            .iter()
            .map(|(position, txid)| json!({"txid": txid.to_string(), "position": position}))
            .collect();
        return print(json!({
            "block": block.id.hash.to_string(),
            "height": block.id.height,
            "confirmations": confirmations,
            "transactions": transactions,
            "proof": hex,
        }));
    }
    print(format_args!("block          {}", block.id.hash))?;
    print(format_args!("height         {}", block.id.height))?;
    match confirmations {
        Some(confirmations) => print(format_args!("confirmations  {confirmations}"))?,
        None => print("confirmations  none, it is not on the best chain")?,
    }
    for (position, txid) in proven.matches {
        print(format_args!("transaction    {txid}, number {position} of {}", block.transactions))?;
    }
    print(format_args!("proof          {hex}"))
}

/// How many blocks of the archive's best chain confirm what is in this one.
fn confirmations(archive: &ArchiveReader, block: &ArchivedBlock) -> Result<Option<u64>, Failure> {
    let best = archive.by_height(block.id.height).map_err(Failure::failed)?;
    let tip = archive.cursor().map_err(Failure::failed)?;
    Ok(tip.filter(|_| best == Some(*block)).map(|tip| tip.height - block.id.height + 1))
}
