//! Lists the transactions of a block file with `tipward-wire` alone: `cargo run --bin list-transactions -- FILE.blk`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: list-transactions FILE.blk")?;
    for block in tipward_wire::bitcoin::BlkFile::new(std::fs::read(path)?) {
        let block = block?;
        for (transaction, offset) in block.transactions().zip(block.offsets()) {
            println!("{} {offset} {}", block.hash(), transaction.txid());
        }
    }
    Ok(())
}
