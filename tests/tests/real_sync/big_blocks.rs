//! Blocks larger than the byte budget: they reach the sink in parts.
//!
//! Neither node makes blocks of 30 MB: on every network, regtest included, four million units of weight are a rule of
//! consensus without an option in Bitcoin Knots (`MAX_BLOCK_WEIGHT`; `-blockmaxweight` only lowers what it mines) as in
//! bcoin (`consensus.MAX_BLOCK_WEIGHT`). So real nodes serve blocks of nearly 4 MB here, most of it witnesses, and larger
//! ones are simulated.

use bytes::Bytes;
use serde_json::{Value, json};
use tipward_chain::{
    Node,
    sync::peer::{
        Encrypt,
        wire::{
            Txid,
            bitcoin::{Block, Network},
        },
    },
};
use tipward_simnet::{Behaviour, SimChain, SimNode};
use tipward_tests::{Bitcoind, Record, Recorded, Throttle, patiently, wait_for};

use crate::{SLOW, builder, reached};

/// How many transactions a large block has beside its coinbase, and how many bytes of witness each.
const SPENDS: u32 = 8;
const WITNESS: u32 = 490_000;

/// A transaction that spends an output of a future version of witnesses, which anybody may with any witness; hexadecimal.
fn spend(funding: &str, output: u32) -> String {
    let mut raw = vec![2, 0, 0, 0, 0, 1, 1];
    raw.extend_from_slice(funding.parse::<Txid>().unwrap().as_bytes());
    raw.extend_from_slice(&output.to_le_bytes());
    raw.extend_from_slice(&[0, 0xff, 0xff, 0xff, 0xff, 1]);
    raw.extend_from_slice(&100_000_000_u64.to_le_bytes());
    raw.extend_from_slice(&program(100 + output));
    raw.extend_from_slice(&[1, 0xfe]);
    raw.extend_from_slice(&WITNESS.to_le_bytes());
    raw.resize(raw.len() + WITNESS as usize, output as u8);
    raw.extend_from_slice(&[0; 4]);
    raw.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An output script of the last version of witnesses: its length and itself.
fn program(number: u32) -> [u8; 35] {
    let mut script = [0; 35];
    script[..3].copy_from_slice(&[34, 0x60, 32]);
    script[3..7].copy_from_slice(&number.to_be_bytes());
    script
}

/// Mines two blocks of nearly 4 MB.
fn mine_large(bitcoind: &Bitcoind) {
    let address = bitcoind.wallet();
    bitcoind.mine(102, &address);
    let text = |value: Value| value.as_str().unwrap().to_owned();
    for round in 0..2 {
        let outputs: Vec<Value> = (0..SPENDS)
            .map(|output| {
                let script: String = program(1000 * (round + 1) + output)[1..]
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                let to = text(bitcoind.rpc("decodescript", &json!([script]))["address"].take());
                json!({to: 1})
            })
            .collect();
        let empty = bitcoind.rpc("createrawtransaction", &json!([[], outputs]));
        let mut funded = bitcoind.rpc("fundrawtransaction", &json!([empty, {"changePosition": SPENDS}]));
        let signed =
            text(bitcoind.rpc("signrawtransactionwithwallet", &json!([funded["hex"].take()]))["hex"].take());
        let _ = bitcoind.rpc("generateblock", &json!([address, [signed]]));
        let funding = text(bitcoind.rpc("decoderawtransaction", &json!([signed]))["txid"].take());
        let spends: Vec<String> = (0..SPENDS).map(|output| spend(&funding, output)).collect();
        let _ = bitcoind.rpc("generateblock", &json!([address, spends]));
        let size = bitcoind.block(&bitcoind.hash(bitcoind.height())).len() / 2;
        assert!(size > 3_900_000, "the block has {size} bytes");
    }
    bitcoind.mine(5, &address);
}

fn assert_offsets(found: &Recorded) {
    let block = Block::new(Bytes::from(found.bytes.clone())).unwrap();
    assert_eq!(found.transactions, block.offsets(), "of block {}", found.hash);
}

#[tokio::test(flavor = "multi_thread")]
async fn real_ones_of_4_mb() {
    let Some(one) = Bitcoind::start_on([127, 0, 0, 2].into(), &[]) else { return };
    mine_large(&one);
    let Some(two) = Bitcoind::start_on([127, 0, 0, 3].into(), &[]) else { return };
    let _ = two.rpc("addnode", &json!([one.address().to_string(), "onetry"]));
    two.wait_for("the chain", |two| two.height() == one.height()).await;

    let (record, dir) = (Record::in_parts(), tempfile::tempdir().unwrap());
    let mut builder = builder(dir.path(), &[one.address(), two.address()]).sink(record.sink());
    builder.sync.byte_budget = 1 << 20;
    builder.peers.link.part_size = 256 << 10;
    let node = builder.spawn().await.unwrap();
    let progress = reached(&node, &one.hash(one.height())).await;
    assert_eq!((progress.blocks, progress.buffered_bytes), (one.height(), 0));
    patiently("the end", node.shutdown()).await.unwrap();
    record.assert_holds(&one.chain());
    for found in record.blocks() {
        assert_offsets(&found);
        let is_large = found.bytes.len() > 1 << 20;
        assert_eq!(found.parts > 4, is_large, "{} bytes in {} parts", found.bytes.len(), found.parts);
    }
}

/// In the middle of a block, which it gets in parts, a node dies: the sink is told to forget them, and the other one begins
/// anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_dies_within_one() {
    let Some(mut one) = Bitcoind::start_on([127, 0, 0, 2].into(), &[]) else { return };
    mine_large(&one);
    let Some(two) = Bitcoind::start_on([127, 0, 0, 3].into(), &[]) else { return };
    let _ = two.rpc("addnode", &json!([one.address().to_string(), "onetry"]));
    two.wait_for("the chain", |two| two.height() == one.height()).await;

    let (record, dir) = (Record::in_parts(), tempfile::tempdir().unwrap());
    // So slow that the block takes seconds.
    let line = Throttle::start(one.address(), 10 * SLOW).await.unwrap();
    let mut builder = builder(dir.path(), &[line.address()]).sink(record.sink());
    builder.sync.byte_budget = 1 << 20;
    builder.peers.link.part_size = 64 << 10;
    // An encrypted message is known to be genuine when all of it has come, and not before.
    builder.peers.link.encrypt = Encrypt::Off;
    let node = builder.spawn().await.unwrap();
    let begun = async {
        while record.arriving() < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    patiently("a part", begun).await;
    // What it had sent may still be on its way: that is lost as well.
    one.kill();
    drop(line);
    node.control().add_peer(two.address().into()).await.unwrap();
    reached(&node, &two.hash(two.height())).await;
    patiently("the end", node.shutdown()).await.unwrap();
    record.assert_holds(&two.chain());
    record.blocks().iter().for_each(assert_offsets);
    assert_eq!(record.aborted(), 1);
}

/// A block of 40 MiB between small ones, with a budget of 8 MiB.
#[tokio::test(flavor = "multi_thread")]
async fn a_simulated_one_of_40_mib() {
    const BUDGET: u64 = 8 << 20;
    let mut chain = SimChain::genesis(Network::BSV_REGTEST);
    chain.extend_sized(20, 300..=5000, 1);
    chain.extend_sized(1, 40 << 20..=40 << 20, 2);
    chain.extend_sized(20, 300..=5000, 3);
    let dir = tempfile::tempdir().unwrap();
    let (record, mut servers) = (Record::in_parts(), Vec::new());
    let mut builder = Node::builder(Network::BSV_REGTEST, dir.path()).sink(record.sink());
    for _ in 0..2 {
        let server = SimNode::spawn(chain.clone(), Behaviour::Honest, "127.0.0.1:0").await.unwrap();
        builder = builder.connect(server.address().into());
        servers.push(server);
    }
    builder.sync.byte_budget = BUDGET;
    let node = builder.spawn().await.unwrap();
    wait_for(&node, "the tip", |progress| progress.synced && progress.blocks == 41).await;
    patiently("the end", node.shutdown()).await.unwrap();
    let blocks: Vec<_> = chain.blocks().iter().map(|block| (block.hash, block.bytes().to_vec())).collect();
    record.assert_holds(&blocks);
    for found in record.blocks() {
        assert_offsets(&found);
        assert_eq!(found.parts >= 40, found.bytes.len() as u64 > BUDGET, "{} parts", found.parts);
    }
}
