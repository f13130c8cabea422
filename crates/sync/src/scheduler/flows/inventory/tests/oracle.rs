//! Random peers, one of them honest: everything comes, once, within bounds.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn model(chains: Vec<Vec<Made>>, batch: usize) -> impl Strategy<Value = Model> {
    let some = |range| prop::option::weighted(0.3, range);
    let sets = prop::collection::vec((0usize..60, 0u8..3), 0..4);
    let timing = (1u64..500, 50u64..1_000_000, some(0u64..100), some(1u64..100));
    let habits =
        (0u64..3, any::<bool>(), prop::bool::weighted(0.8), any::<bool>(), prop::bool::weighted(0.1));
    (prop::sample::select(chains), timing, habits, sets).prop_map(move |(chain, timing, habits, sets)| {
        let (latency, bytes_per_second, silent_after, leaves_after) = timing;
        let (boast, tells_of_cut, answers_lists, says_missing, has_phantoms) = habits;
        let mut model = Model {
            claims: chain.last().unwrap().height * (boast + 1) / 2,
            latency: Duration::from_millis(latency),
            bytes_per_second,
            batch,
            silent_after,
            leaves_after,
            tells_of_cut,
            answers_lists,
            says_missing,
            ..Model::honest(&chain)
        };
        if has_phantoms {
            model.phantoms = (0..20).map(|n| make(n + 7_000_000, &[]).hash).collect();
        }
        for (n, fault) in sets {
            let hash = chain[n % chain.len()].hash;
            match fault {
                0 => model.missing.insert(hash),
                1 => model.withheld.insert(hash),
                _ => model.poisoned.insert(hash),
            };
        }
        model
    })
}

/// The highest blocks and all on which they build. Others of a DAG are of use to nobody until something builds on them.
fn past(all: &[Made]) -> BTreeSet<BlockHash> {
    let top = all.last().unwrap().height;
    let mut past: BTreeSet<BlockHash> =
        all.iter().filter(|block| block.height == top).map(|block| block.hash).collect();
    for block in all.iter().rev() {
        if past.contains(&block.hash) {
            past.extend(&block.parents);
        }
    }
    past
}

fn check(
    models: &[Model],
    honest: usize,
    window: usize,
    seed: u64,
    is_dag: bool,
) -> Result<(), TestCaseError> {
    let batch = models[honest].batch;
    let all = models[honest].chain.clone();
    let past = past(&all);
    let small = SyncOptions { window, max_in_flight: 40, ..options() };
    let run = || {
        let mut sim = Sim::with(&small, batch, is_dag, seed, models.to_vec());
        sim.run_until(|sim| past.iter().all(|hash| sim.tree.blocks.contains_key(hash)));
        sim
    };
    let sim = run();
    let known: BTreeSet<BlockHash> = models.iter().flat_map(|model| hashes(&model.chain)).collect();
    prop_assert!(sim.accepted.iter().all(|hash| known.contains(hash)));
    prop_assert!(sim.dropped.iter().all(|(id, _)| *id != PeerId(honest as u64)), "{:?}", sim.dropped);
    prop_assert!(sim.penalised.iter().all(|(id, _)| *id != PeerId(honest as u64)), "{:?}", sim.penalised);
    prop_assert!(sim.most_asked <= window);
    if !is_dag {
        prop_assert_eq!(&sim.tree.best, &hashes(&all));
    }
    prop_assert!(sim.trace == run().trace, "the same seed gives the same trace");
    Ok(())
}

proptest! {

    #[test]
    fn one_honest_peer_is_enough(
        others in prop::collection::vec(
            model(vec![trunk(30), trunk(120), branch(&trunk(120)[..51], 2, 118), branch(&trunk(120)[..120], 3, 120)], 20),
            0..7,
        ),
        at in 0usize..7,
        window in 8usize..200,
        seed in any::<u64>(),
    ) {
        let honest = Model { batch: 20, ..Model::honest(&trunk(121)) };
        let mut models = others;
        let at = at.min(models.len());
        models.insert(at, honest);
        check(&models, at, window, seed, false)?;
    }

    #[test]
    fn one_honest_peer_is_enough_for_a_dag(
        others in prop::collection::vec(model(vec![dag(50, 1), dag(20, 1), dag(30, 2)], 10), 0..5),
        at in 0usize..5,
        window in 8usize..200,
        seed in any::<u64>(),
    ) {
        let honest = Model { batch: 10, tells_of_cut: true, ..Model::honest(&dag(55, 1)) };
        let mut models = others;
        let at = at.min(models.len());
        models.insert(at, honest);
        check(&models, at, window, seed, true)?;
    }
}
