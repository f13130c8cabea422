use tipward_sync::peer::wire::bitcoin::{BlkFile, Block};

use super::*;
use crate::testdata;

/// The blocks and proofs that are there of one chain: `gettxoutproof` of these indices.
const PROOFS: [&[usize]; 5] = [&[0], &[0, 1, 15, 20, 115, 2019, 2024], &[1], &[15], &[20]];

fn prove_in(block: &Block, txids: &[Txid]) -> Result<MerkleBlock, ProofError> {
    prove(Network::BTC, block.as_bytes().len() as u64, || Ok(&block.as_bytes()[..]), txids)
}

#[test]
fn real_proofs_are_made_byte_for_byte() {
    let Some(file) = testdata::read("btc-mainnet-blocks-831328-831335.blk") else { return };
    let block = BlkFile::new(file).map(Result::unwrap).nth(4).unwrap();
    for indices in PROOFS {
        let names: Vec<_> = indices.iter().map(ToString::to_string).collect();
        let name = format!("btc-mainnet-txoutproof-0831332-{}.bin", names.join("_"));
        let Some(expected) = testdata::read(&name) else { return };
        let mut txids: Vec<Txid> =
            indices.iter().map(|&index| block.transaction(index).unwrap().txid()).collect();
        // In any order.
        txids.reverse();
        let proof = prove_in(&block, &txids).unwrap();
        assert_eq!(proof.to_bytes(), expected[..], "{name}");
        assert_eq!(MerkleBlock::from_bytes(expected.clone().into()), Ok(proof));
        // Neither less nor more.
        assert!(MerkleBlock::from_bytes(expected[..expected.len() - 1].to_vec().into()).is_err());
        let longer = MerkleBlock::from_bytes([&expected[..], &[0]].concat().into()).unwrap_err();
        let place = format!("byte {}, field flags: more bytes follow", expected.len());
        assert!(longer.to_string().contains(&place), "{longer}");
    }
}

#[test]
fn what_is_not_in_the_block_is_not_proven() {
    let genesis = Block::new(Network::BTC.genesis_block()).unwrap();
    let own = genesis.transaction(0).unwrap().txid();
    assert_eq!(prove_in(&genesis, &[own]).unwrap().tree.verify().unwrap().matches, [(0, own)]);
    let other = Txid::from_bytes([7; 32]);
    assert!(matches!(prove_in(&genesis, &[own, other]), Err(ProofError::NotInBlock(txid)) if txid == other));
    let size = genesis.as_bytes().len();
    for bytes in [&genesis.as_bytes()[..size - 1], &[&genesis.as_bytes()[..size - 1], &[1]].concat()] {
        let proof = prove(Network::BTC, size as u64, || Ok(bytes), &[own]);
        assert!(matches!(proof, Err(ProofError::Damaged(_))), "{proof:?}");
    }
}
