//! Blocks taken back, crashes and restarts leave nothing behind: the index is what it would be had the chain come in one go.

use indexer::{
    index::{Index, UNDO_DEPTH},
    keys::ScriptKey,
    parse::{Parsed, ParsedOutput, ParsedTransaction},
};
use proptest::prelude::*;
use tipward_chain::{
    sync::{BlockId, BlockSink},
    wire::{BlockHash, Txid},
};
use tipward_simnet::{ChainSpec, SimChain};

use crate::world::{How, NETWORK, World, fresh, lines};

/// Spends begin after a hundred blocks.
const TRUNK: u32 = 108;

#[derive(Debug, Clone)]
enum Step {
    /// So many more blocks come; if there are none, the chain grows first.
    Apply(u64, How),
    /// Another branch is the best one: it leaves the chain so many blocks below where the sink is, and is so long.
    Reorg { depth: u64, length: u32, seed: u64 },
    /// The sink holds nothing back any more.
    Flush,
    /// The process ends without warning.
    Crash,
    /// Some parts of the next block come, and then it proves to be void.
    Abort,
}

fn step() -> impl Strategy<Value = Step> {
    let how =
        (128_usize..3000, any::<bool>()).prop_map(|(part_size, is_streamed)| How { part_size, is_streamed });
    prop_oneof![
        4 => (1_u64..8, how).prop_map(|(count, how)| Step::Apply(count, how)),
        2 => (1_u64..8, 1_u32..9, any::<u64>()).prop_map(|(depth, length, seed)| Step::Reorg { depth, length, seed }),
        1 => Just(Step::Flush),
        1 => Just(Step::Crash),
        1 => Just(Step::Abort),
    ]
}

fn spec(blocks: u32, seed: u64) -> ChainSpec {
    let mut spec = ChainSpec::new(blocks, seed);
    spec.max_data = 400;
    spec
}

/// Plays the steps; what the index holds in the end, and the chain that it is of.
async fn play(steps: &[Step], seed: u64, most_pending: usize) -> (Vec<String>, SimChain) {
    let mut chain = SimChain::generate(NETWORK, spec(TRUNK, seed));
    let mut world = World::with_most_pending(NETWORK, most_pending);
    // The height of the next block.
    let mut next = 0;
    let how = How { part_size: 1000, is_streamed: false };
    while next <= u64::from(TRUNK) {
        world.apply(&chain, next, how).await;
        next += 1;
    }
    for step in steps {
        match *step {
            // There is nothing to leave.
            Step::Reorg { .. } | Step::Abort if next == 0 => {}
            Step::Apply(count, how) => {
                for _ in 0..count {
                    if next > chain.height() {
                        chain.extend(spec(1, seed ^ next));
                    }
                    world.apply(&chain, next, how).await;
                    next += 1;
                }
            }
            Step::Reorg { depth, length, seed } => {
                let fork = next.saturating_sub(1 + depth);
                chain = chain.fork(fork, spec(length, seed));
                rollback(&mut world, &chain, fork).await;
                next = fork + 1;
            }
            Step::Flush => world.sink().flush().await.unwrap(),
            Step::Crash => {
                world.crash();
                // What was committed is of this chain, or of one that was left, and then all the sink was told of it.
                next = world.sink().cursor().await.unwrap().map_or(0, |cursor| {
                    assert_eq!(cursor.hash, chain.blocks()[usize::try_from(cursor.height).unwrap()].hash);
                    cursor.height + 1
                });
            }
            Step::Abort => {
                let mut other = chain.fork(next - 1, spec(1, !seed));
                other.extend(spec(1, seed));
                abort(&mut world, &other, next).await;
            }
        }
    }
    while next <= chain.height() {
        world.apply(&chain, next, how).await;
        next += 1;
    }
    (lines(&world.end().await.1), chain)
}

async fn rollback(world: &mut World, chain: &SimChain, height: u64) {
    let hash = chain.blocks()[usize::try_from(height).unwrap()].hash;
    let to = tipward_chain::sync::BlockId { height, hash };
    world.sink().rollback(to).await.unwrap();
}

/// All but the last part of a block, which is cut inside its transactions.
async fn abort(world: &mut World, chain: &SimChain, height: u64) {
    let sim = &chain.blocks()[usize::try_from(height).unwrap()];
    let (mut parts, block) = crate::world::cut(NETWORK, height, sim, 128);
    parts.pop();
    for part in parts {
        world.sink().apply_part(block.id, part).await.unwrap();
    }
    world.sink().abort(block.id).await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_happens_the_index_is_that_of_the_chain(steps in prop::collection::vec(step(), 1..25), seed in any::<u64>(), most_pending in 1_usize..500) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let (found, chain) = play(&steps, seed, most_pending).await;
            let expected = fresh(&chain).await;
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found, expected);
            }
            assert_eq!(found.len(), expected.len());
            assert!(found.iter().any(|line| line.starts_with("undo")), "something was spent");
        });
    }
}

#[tokio::test]
async fn every_block_can_be_taken_back_at_once() {
    let chain = SimChain::generate(NETWORK, spec(130, 5));
    let mut world = World::new(NETWORK);
    for height in 0..=130 {
        world.apply(&chain, height, crate::world::WHOLE).await;
    }
    rollback(&mut world, &chain, 0).await;
    assert_eq!(lines(&world.end().await.1), fresh(&SimChain::genesis(NETWORK)).await);
}

/// Heights and transactions are told apart by this.
fn bytes(number: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

fn block(height: u64) -> BlockId {
    BlockId { height, hash: BlockHash::from_bytes(bytes(height)) }
}

/// A block with nothing but a coinbase of this id, which pays a script.
fn coinbase(index: &mut Index, height: u64, txid: [u8; 32]) {
    let whole = Some((Txid::from_bytes(txid), 81, 100));
    let output = ParsedOutput { script: ScriptKey([7; 20]), value: 50 + height, is_unspendable: false };
    let transactions = vec![ParsedTransaction { whole, inputs: 0, outputs: 1 }];
    index.begin(block(height), &[0; 80]);
    index.add(&Parsed { transactions, inputs: Vec::new(), outputs: vec![output] }).unwrap();
    index.finish(1, 181).unwrap();
}

/// As blocks 91,842 and 91,880 of BTC have (BIP 30).
#[test]
fn of_two_transactions_with_one_id_both_are_kept_however_they_are_committed() {
    let dir = tempfile::tempdir().unwrap();
    let [mut together, mut apart] =
        ["together", "apart"].map(|name| Index::open(&dir.path().join(name), NETWORK, 16 << 20).unwrap());
    let dump = |index: &Index| lines(&index.reader().view().unwrap());
    let mut before = Vec::new();
    for (height, txid) in (0..).zip([[1; 32], [2; 32], [2; 32], [3; 32]]) {
        coinbase(&mut together, height, txid);
        coinbase(&mut apart, height, txid);
        apart.commit().unwrap();
        if height == 1 {
            before = dump(&apart);
        }
    }
    together.commit().unwrap();
    assert_eq!(dump(&together), dump(&apart));
    together.rollback(block(1)).unwrap();
    assert_eq!(dump(&together), before);
}

#[test]
fn as_many_blocks_as_promised_can_be_taken_back_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = Index::open(&dir.path().join("index"), NETWORK, 16 << 20).unwrap();
    let mut before = Vec::new();
    for height in 0..=UNDO_DEPTH + 1 {
        coinbase(&mut index, height, bytes(height));
        if height == 1 {
            index.commit().unwrap();
            before = lines(&index.reader().view().unwrap());
        }
    }
    let refused = index.rollback(block(0)).unwrap_err().to_string();
    assert!(refused.contains("only the last 1000 blocks can be undone"), "{refused}");
    index.rollback(block(1)).unwrap();
    let after = lines(&index.reader().view().unwrap());
    // What genesis would have to be taken back with is gone by then.
    let kept =
        |lines: &[String]| lines.iter().filter(|line| !line.starts_with("undo")).cloned().collect::<Vec<_>>();
    assert_eq!(kept(&after), kept(&before));
}

/// As a process leaves it that is killed while it makes an index.
#[test]
fn half_an_index_that_was_being_made_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("index.new"), [0; 100]).unwrap();
    let index = Index::open(&dir.path().join("index.redb"), NETWORK, 16 << 20).unwrap();
    assert_eq!(index.cursor(), None);
}
