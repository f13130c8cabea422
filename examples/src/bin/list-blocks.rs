//! Lists the blocks of a block file with `tipward-wire` alone: `cargo run --bin list-blocks -- FILE.blk`.

use bytes::BytesMut;
use tipward_wire::{
    BlockEvent,
    bitcoin::{BlkDecoder, BlkEvent},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: list-blocks FILE.blk")?;
    let mut input = BytesMut::from(&std::fs::read(path)?[..]);
    let mut file = BlkDecoder::default();
    while let Some(event) = file.decode(&mut input)? {
        match event {
            BlkEvent::Begin { network, offset, .. } => println!("byte {offset}: a block of {}", network.name),
            BlkEvent::Block(BlockEvent::Part(part)) => println!("  transactions at {:?}", part.transactions),
            BlkEvent::Block(BlockEvent::End(end)) => println!("  {}: {} bytes", end.block, end.size),
        }
    }
    file.finish(&input)?;
    Ok(())
}
