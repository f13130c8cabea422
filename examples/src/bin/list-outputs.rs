//! Lists what a block file's transactions spend and pay: `cargo run --bin list-outputs -- FILE`. It is in `docs/parsing.md`.

use tipward_wire::bitcoin::BlkFile;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).ok_or("usage: list-outputs FILE")?;
    for block in BlkFile::new(std::fs::read(file)?) {
        let block = block?; // its merkle root is that of its header
        println!("{} with {} transactions", block.hash(), block.offsets().len());
        for (transaction, offset) in block.transactions().zip(block.offsets()) {
            println!("  {} at byte {offset}", transaction.txid());
            for input in transaction.inputs() {
                println!("    spends {:?}", input.outpoint());
            }
            for output in transaction.outputs() {
                println!("    {} satoshi to {:?}", output.value(), output.script());
            }
        }
    }
    Ok(())
}
