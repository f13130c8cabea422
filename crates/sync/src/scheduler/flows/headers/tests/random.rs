//! Random peers.

use proptest::prelude::*;

use super::*;

fn model() -> impl Strategy<Value = Model> {
    let chains = vec![
        trunk(0),
        trunk(100),
        trunk(200),
        branch(&trunk(200), 75, 2, 195),
        branch(&trunk(200), 199, 3, 200),
        branch(&trunk(200), 5, 4, 150),
    ];
    let delay = prop_oneof![3 => 1u64..1500, 1 => 1500u64..9000];
    let answers = prop_oneof![3 => Just(u32::MAX), 1 => 0u32..6];
    let boast = prop_oneof![4 => Just(0u64), 1 => 0u64..10, 1 => Just(1_000_000)];
    (prop::sample::select(chains), delay, answers, 0u32..2, boast, prop::bool::weighted(0.05)).prop_map(
        |(chain, answers_after, answers, ignores, boast, is_broken_record)| {
            let honest = Model::honest(&chain);
            let claim = honest.claim + boast;
            Model { claim, answers_after, answers, ignores, is_broken_record, ..honest }
        },
    )
}

proptest! {
    /// Whatever the other peers are like: with one honest peer on the best chain all headers come, everybody who answers
    /// shows what it has, and no honest peer is blamed. The same seed does the same.
    #[test]
    fn one_honest_peer_is_enough(
        others in prop::collection::vec((model(), 0u64..40), 0..8),
        leaves in prop::collection::vec((0u64..8, 0u64..60), 0..3),
        honest_comes in 0u64..20,
        seed in any::<u64>(),
    ) {
        let best = branch(&trunk(200), 198, 5, 201);
        let run = || {
            let mut sim = Sim::with(&SyncOptions::default(), seed, []);
            for second in 0..120 {
                for ((model, comes), id) in others.iter().zip(0..) {
                    if *comes == second {
                        sim.connect(id, model.clone());
                    }
                }
                if honest_comes == second {
                    sim.connect(99, Model::honest(&best));
                }
                leaves.iter().filter(|(_, at)| *at == second).for_each(|&(id, _)| sim.disconnect(id));
                sim.run_for(1);
            }
            sim.run_until_caught_up();
            sim.run_for(200);
            sim
        };
        let mut sim = run();
        prop_assert_eq!(sim.tree.best(), &best[..]);
        prop_assert!(sim.flow.may_fetch());
        sim.run_until_caught_up();
        let blamed: BTreeSet<PeerId> = sim.dropped.iter().chain(&sim.penalised).map(|(id, _)| *id).collect();
        for (&id, model) in &sim.peers {
            let is_silent = model.answers < u32::MAX || model.is_broken_record;
            if is_silent || model.claim > model.chain.len() as u64 + 15 {
                continue;
            }
            prop_assert!(!blamed.contains(&id), "{:?}", blamed);
            let is_ahead = model.chain.iter().enumerate().any(|(n, block)| best.get(n) != Some(block));
            if is_ahead || id == PeerId(99) {
                prop_assert_eq!(sim.shown.get(&id), model.chain.last());
            }
        }
        prop_assert!(!blamed.contains(&PeerId(99)));
        let penalties: BTreeSet<PeerId> = sim.penalised.iter().map(|(id, _)| *id).collect();
        prop_assert_eq!(penalties.len(), sim.penalised.len(), "each once");
        let mut again = run();
        again.run_until_caught_up();
        prop_assert_eq!(&sim.trace, &again.trace);
    }
}
