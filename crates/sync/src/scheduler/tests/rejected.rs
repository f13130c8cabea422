//! Blocks that the sink refuses.

use super::*;

#[test]
fn the_sink_goes_over_to_the_next_best_branch() {
    let best = trunk(500);
    let second = branch(&best, 200, 2, 450);
    // The first block of the branch, and one that is followed by all that the window holds.
    for bad in [201, 300] {
        for lag in [0, 1000] {
            let mut sim =
                Sim::new(SyncOptions::default(), vec![Model::honest(&best), Model::honest(&second)]);
            (sim.bad, sim.lag) = (vec![best[bad]], Duration::from_millis(lag));
            while sim.applied.last() != second.last() {
                sim.run();
            }
            assert_eq!((&sim.applied, &sim.rejections), (&second, &vec![best[bad]]));
            let [(peer, reason)] = &sim.dropped[..] else { panic!("{:?}", sim.dropped) };
            assert_eq!((*peer, reason.starts_with("invalid headers")), (PeerId(0), true), "{reason}");
        }
    }
}

#[test]
fn without_another_branch_the_sink_stays_where_it_is() {
    let chain = trunk(500);
    let short = branch(&chain, 100, 2, 120);
    let mut sim = Sim::new(SyncOptions::default(), vec![Model::honest(&chain), Model::honest(&short)]);
    sim.bad = vec![chain[300]];
    sim.run_for(Duration::from_secs(60));
    // What is left of the branch has more blocks than the other one.
    assert_eq!((&sim.applied[..], sim.tree.tip().height), (&chain[..300], 299));
    assert_eq!(sim.synced.map(|tip| tip.height), Some(299));
    let [(PeerId(0), reason)] = &sim.dropped[..] else { panic!("{:?}", sim.dropped) };
    assert!(reason.starts_with("invalid headers"), "{reason}");
    let asked: u32 = sim.asked.values().sum();
    sim.run_for(Duration::from_secs(3600));
    assert_eq!((sim.asked.values().sum::<u32>(), sim.rejections.len()), (asked, 1), "nothing is asked for");
}

/// A branch: where it leaves the trunk, its length, and where it is bad.
type Drawn = (u64, u64, Option<u64>);

fn drawn() -> impl Strategy<Value = Drawn> {
    let bad = prop::option::weighted(0.7, 1u64..150);
    (0u64..200, 20u64..200, bad).prop_map(|(fork, more, bad)| (fork, fork + more, bad.map(|bad| fork + bad)))
}

proptest! {
    /// Whatever is refused: in the end the sink is as far as anything valid goes, and nobody but those who have what is refused is
    /// dropped.
    #[test]
    fn the_longest_valid_chain_is_followed(
        branches in prop::collection::vec(drawn(), 1..5),
        lag in 0u64..3000,
        window in 10usize..300,
        latencies in prop::collection::vec(1u64..2000, 9),
    ) {
        let base = trunk(210);
        let mut chains = vec![base.clone()];
        let (mut bad, mut longest) = (Vec::new(), 210);
        for (name, (fork, length, at)) in (2..).zip(branches) {
            let chain = branch(&base, fork, name, length);
            longest = longest.max(at.filter(|at| *at <= length).map_or(length, |at| at - 1));
            if let Some(at) = at.filter(|at| *at <= length) {
                bad.push(chain[at as usize]);
                // Who insists on the whole branch is dropped; somebody has to keep what is valid of it.
                chains.push(chain[..at as usize].to_vec());
            }
            chains.push(chain);
        }
        let models = chains.iter().zip(latencies).map(|(chain, latency)| Model {
            latency: Duration::from_millis(latency),
            ..Model::honest(chain)
        });
        let mut sim = Sim::new(SyncOptions { window, ..SyncOptions::default() }, models.collect());
        (sim.bad, sim.lag) = (bad.clone(), Duration::from_millis(lag));
        while sim.applied.len() as u64 != longest + 1 {
            sim.run();
        }
        prop_assert!(sim.applied.iter().all(|hash| !bad.contains(hash)));
        prop_assert!(sim.rejections.iter().all(|hash| bad.contains(hash)));
        for (PeerId(peer), reason) in &sim.dropped {
            let chain = &chains[*peer as usize];
            prop_assert!(chain.iter().any(|hash| bad.contains(hash)), "{peer} was dropped: {reason}");
        }
    }
}
