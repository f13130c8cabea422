//! `tipward inspect`.

use std::{collections::HashMap, fs::File, io::Read, path::Path};

use bytes::{BufMut, BytesMut};
use tipward_chain::sync::peer::wire::{
    BlockEvent, BlockHash, BlockPart,
    bitcoin::{BlkDecoder, BlkEvent, BlockHeader, Network},
};

use crate::{Failure, print};

const READ: usize = 1 << 20;

pub(crate) fn run(path: &Path) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::Failed(format!("{}: {error}", path.display()));
    let mut file = File::open(path).map_err(|error| failed(&error.kind()))?;
    let (mut decoder, mut input) = (BlkDecoder::default(), BytesMut::new());
    let mut list = List::default();
    let mut read = vec![0; READ];
    loop {
        let len = file.read(&mut read).map_err(|error| failed(&error.kind()))?;
        input.put_slice(&read[..len]);
        while let Some(event) = decoder.decode(&mut input).map_err(|error| failed(&error))? {
            list.event(event)?;
        }
        if len == 0 {
            decoder.finish(&input).map_err(|error| failed(&error))?;
            return list.total();
        }
    }
}

#[derive(Default)]
struct List {
    network: Option<&'static Network>,
    /// Heights of the blocks so far, since a block's height is its parent's plus one.
    heights: HashMap<BlockHash, u64>,
    height: Option<u64>,
    blocks: u64,
    transactions: u64,
    bytes: u64,
}

impl List {
    fn event(&mut self, event: BlkEvent) -> Result<(), Failure> {
        match event {
            BlkEvent::Begin { network, .. } if self.network.is_none() => {
                print(format_args!("network {}", network.name))?;
                print(format_args!(
                    "{:>9}  {:<64}  {:>12}  {:>12}",
                    "height", "hash", "transactions", "bytes"
                ))?;
                self.network = Some(network);
            }
            BlkEvent::Begin { .. } => {}
            BlkEvent::Block(BlockEvent::Part(part)) if part.index == 0 => self.height = self.height_of(&part),
            BlkEvent::Block(BlockEvent::Part(_)) => {}
            BlkEvent::Block(BlockEvent::End(end)) => {
                if let Some(height) = self.height {
                    self.heights.insert(end.block, height);
                }
                let height = self.height.map_or_else(|| "?".to_owned(), |height| height.to_string());
                print(format_args!(
                    "{height:>9}  {}  {:>12}  {:>12}",
                    end.block, end.transactions, end.size
                ))?;
                self.blocks += 1;
                self.transactions += end.transactions;
                self.bytes += end.size;
            }
        }
        Ok(())
    }

    fn height_of(&self, part: &BlockPart) -> Option<u64> {
        let header = BlockHeader::from_bytes(part.bytes.first_chunk()?);
        if self.network.is_some_and(|network| network.genesis_hash() == part.block) {
            return Some(0);
        }
        if let Some(parent) = self.heights.get(&header.parent) {
            return Some(parent + 1);
        }
        let coinbase = part.bytes.get(*part.transactions.first()? as usize..)?;
        if header.version >= 2 { coinbase_height(coinbase) } else { None }
    }

    fn total(&self) -> Result<(), Failure> {
        print(format_args!(
            "{} blocks, {} transactions, {} bytes",
            self.blocks, self.transactions, self.bytes
        ))
    }
}

/// The height at the start of the coinbase's script (BIP 34); `None` if there is none.
fn coinbase_height(transaction: &[u8]) -> Option<u64> {
    // The version, and the marker and flag if there are witnesses; one input; its outpoint; the script's length.
    let body = transaction.get(4..)?;
    let body = body.strip_prefix(&[0, 1]).unwrap_or(body).strip_prefix(&[1])?;
    let script = body.get(36 + 1..)?;
    match *script.first()? {
        small @ 0x51..=0x60 => Some(u64::from(small - 0x50)),
        len @ 1..=5 => {
            let number = script.get(1..1 + usize::from(len))?;
            Some(number.iter().rev().fold(0, |height, byte| height << 8 | u64::from(*byte)))
        }
        _ => None,
    }
}
