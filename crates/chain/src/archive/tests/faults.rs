//! Whatever the disk does at whatever moment, an archive that is opened again holds what was applied up to some point, which is
//! not before the last call that succeeded: never a gap, never wrong bytes.

use std::sync::Arc;

use super::{super::index::Snapshot, chain::*, *};
use crate::disk::{
    Disk,
    faulty::{Fault, FaultyDisk, Left},
};

/// What is done to the archive, in steps that count or don't.
#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Block>),
    /// A block in parts, and then some whole ones.
    Stream(Block, Vec<Block>),
    /// So many parts of a block that never ends, and another block.
    Abandon(Block, usize, Block),
    Rollback(u64),
}

impl Step {
    fn apply(&self, archive: &mut Archive) -> Result<(), StoreError> {
        match self {
            // In one piece or in two, which count at once.
            Self::Append(blocks) => {
                let (one, two) = blocks.split_at(blocks.len() / 2);
                archive.write(one)?;
                archive.write(two)?;
                archive.commit()
            }
            Self::Stream(first, rest) => {
                for part in &first.parts {
                    archive.append_part(first.id, part)?;
                }
                let end = Block { parts: Vec::new(), is_streamed: true, ..first.clone() };
                archive.append(&[&[end], &rest[..]].concat())
            }
            Self::Abandon(block, parts, other) => {
                for part in &block.parts[..*parts] {
                    archive.append_part(block.id, part)?;
                }
                archive.append(std::slice::from_ref(other))
            }
            Self::Rollback(height) => archive.rollback(*height),
        }
    }
}

/// Everything that an archive can do: batches, blocks in parts, some of them given up, rollbacks, reorgs to and fro, and segments
/// that are pruned meanwhile.
struct Story {
    steps: Vec<Step>,
    /// All blocks that ever occur.
    blocks: Vec<Block>,
}

const DIR: &str = "archive";
const MIN_DEPTH: u64 = 5;

impl Story {
    fn new() -> Self {
        let trunk = trunk(24);
        let side = branch(&trunk, 9, 8);
        let (side, trunk) = (blocks(&side), blocks(&trunk));
        let range = |chain: &[Block], range: std::ops::Range<usize>| chain[range].to_vec();
        let steps = vec![
            Step::Append(range(&trunk, 0..1)),
            Step::Append(range(&trunk, 1..6)),
            Step::Stream(trunk[6].clone(), range(&trunk, 7..9)),
            Step::Abandon(trunk[9].clone(), 2, trunk[9].clone()),
            Step::Append(range(&trunk, 10..14)),
            Step::Rollback(9),
            Step::Stream(side[10].clone(), range(&side, 11..16)),
            Step::Abandon(trunk[16].clone(), 1, side[16].clone()),
            Step::Rollback(9),
            Step::Stream(trunk[10].clone(), range(&trunk, 11..18)),
            Step::Abandon(side[17].clone(), 2, trunk[18].clone()),
            Step::Append(range(&trunk, 19..24)),
            Step::Rollback(22),
            Step::Append(range(&trunk, 23..25)),
        ];
        Self { steps, blocks: [&trunk[..], &side[10..]].concat() }
    }

    /// A story drawn from a seed: chains that fork off each other, and back to one that was left.
    fn random(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut chains = vec![trunk(random.u32(5..20))];
        let (mut steps, mut current, mut next) = (vec![Step::Append(blocks(&chains[0])[..1].to_vec())], 0, 1);
        while steps.len() < 16 {
            let left = chains[current].blocks().len() - next;
            if left == 0 || random.u8(..4) == 0 {
                let other = random.usize(..=chains.len());
                if let Some(chain) = chains.get(other) {
                    let pairs = chain.blocks().iter().zip(chains[current].blocks()).take(next);
                    next = pairs.take_while(|(one, two)| one == two).count();
                } else {
                    next = next.saturating_sub(random.usize(..8)).max(1);
                    chains.push(branch(&chains[current], next as u64 - 1, random.u32(1..15)));
                }
                current = other;
                steps.push(Step::Rollback(next as u64 - 1));
                continue;
            }
            let blocks = blocks(&chains[current])[next..next + random.usize(1..=left.min(6))].to_vec();
            next += blocks.len();
            let first = blocks[0].clone();
            steps.push(match random.u8(..4) {
                0 => Step::Stream(first, blocks[1..].to_vec()),
                1 => {
                    next -= blocks.len() - 1;
                    Step::Abandon(blocks.last().unwrap_or(&first).clone(), random.usize(1..=2), first)
                }
                _ => Step::Append(blocks),
            });
        }
        let mut all: Vec<Block> = chains.iter().flat_map(blocks).collect();
        all.sort_by_key(|block| block.id);
        all.dedup_by_key(|block| block.id);
        Self { steps, blocks: all }
    }

    fn open(disk: &FaultyDisk) -> Result<Archive, StoreError> {
        let limits = Limits { max_bytes: None, max_depth: Some(8), min_depth: MIN_DEPTH, segment_size: 1500 };
        Archive::open_on(Arc::new(disk.clone()), Path::new(DIR), &Network::BTC_REGTEST, limits)
    }

    /// What the archive holds; fails if any of it is wrong.
    fn contents(&self, archive: &Archive, disk: &FaultyDisk) -> Contents {
        let best: Vec<BlockId> =
            (0..).map_while(|height| archive.by_height(height).unwrap()).map(|block| block.id).collect();
        assert_eq!(archive.cursor().unwrap(), best.last().copied(), "there is a gap");
        let mut known = Vec::new();
        for block in &self.blocks {
            let Some(found) = archive.by_hash(block.id.hash).unwrap() else { continue };
            assert_eq!((found.id, found.size), (block.id, block.size));
            if !found.is_pruned {
                assert_eq!(content(archive, &found), block.bytes(), "wrong bytes");
            }
            known.push(found);
        }
        for checked in archive.verify(&Network::BTC_REGTEST) {
            let checked = checked.unwrap();
            assert_eq!(checked.problem, None, "{checked}");
        }
        // Nothing but what is pointed to.
        let first = archive.ask(Snapshot::first).unwrap();
        let segments = (first..=archive.segments.end().0).map(segments::segment_name);
        let expected: Vec<_> =
            segments.chain(["index.redb".to_owned()]).map(|name| Path::new(DIR).join(name)).collect();
        assert_eq!(disk.files(), expected);
        let (number, end) = archive.segments.end();
        let last = segments::segment_path(Path::new(DIR), number);
        assert_eq!(disk.open(&last).unwrap().len().unwrap(), end, "a tail is left");
        Contents { best, known }
    }

    /// What is there before the first step and after each, and how many operations it took.
    fn expected(&self) -> (Vec<Contents>, u64) {
        let disk = FaultyDisk::default();
        let mut archive = Self::open(&disk).unwrap();
        let (mut expected, mut highest) = (vec![self.contents(&archive, &disk)], 0);
        for step in &self.steps {
            step.apply(&mut archive).unwrap();
            let contents = self.contents(&archive, &disk);
            highest = contents.best.last().map_or(highest, |tip| highest.max(tip.height));
            let pruned = contents.known.iter().filter(|block| block.is_pruned);
            assert!(pruned.map(|block| block.id.height).all(|height| height + MIN_DEPTH <= highest));
            expected.push(contents);
        }
        drop(archive);
        (expected, disk.operations())
    }

    /// Goes on from a step to the end, or to the first error. Returns how many steps are done.
    fn go_on(&self, archive: &mut Archive, from: usize) -> Result<(), usize> {
        for (done, step) in self.steps.iter().enumerate().skip(from) {
            step.apply(archive).map_err(|_| done)?;
        }
        Ok(())
    }
}

/// The best chain, and all blocks with their places.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Contents {
    best: Vec<BlockId>,
    known: Vec<ArchivedBlock>,
}

#[test]
fn the_story_has_all_that_can_happen() {
    let (expected, operations) = Story::new().expected();
    let last = expected.last().unwrap();
    assert!(
        last.known.iter().any(|block| block.is_pruned) && last.known.iter().any(|block| !block.is_pruned)
    );
    assert!(last.known.len() > last.best.len(), "blocks of another branch are known");
    assert!(last.known.last().unwrap().segment > 3);
    assert!(expected.windows(2).all(|two| two[0] != two[1]), "every step counts");
    println!("{operations} operations");
}

#[test]
fn a_crash_at_any_operation_leaves_what_was_applied() {
    let story = Story::new();
    let (expected, operations) = story.expected();
    for number in 0..operations {
        let random = (0..4).map(|n| Left::Parts(n * operations + number));
        story.crash(&expected, number, [Left::Nothing, Left::All].into_iter().chain(random));
    }
}

#[test]
fn an_error_at_any_operation_costs_nothing_but_the_call() {
    let story = Story::new();
    let (expected, operations) = story.expected();
    for number in 0..operations {
        story.fail(&expected, number, Fault::Fail);
        story.fail(&expected, number, Fault::Tear);
    }
}

/// `TIPWARD_FAULT_STORIES` sets how many, 30 unless set.
#[test]
fn so_it_is_in_any_story() {
    let stories =
        std::env::var("TIPWARD_FAULT_STORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    for seed in 0..stories {
        println!("story {seed}");
        let story = Story::random(seed);
        let (expected, operations) = story.expected();
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..10 {
            let left = (0..2).map(|_| Left::Parts(random.u64(..))).collect::<Vec<_>>();
            story.crash(&expected, random.u64(..operations), left.into_iter());
            story.fail(&expected, random.u64(..operations), Fault::Fail);
            story.fail(&expected, random.u64(..operations), Fault::Tear);
        }
    }
}

impl Story {
    /// Crashes at an operation, and looks at what is left, in each of these cases.
    fn crash(&self, expected: &[Contents], number: u64, cases: impl Iterator<Item = Left>) {
        let disk = FaultyDisk::with(number, Fault::Crash);
        let done = match Self::open(&disk) {
            Ok(mut archive) => self.go_on(&mut archive, 0).err().unwrap_or(self.steps.len()),
            Err(_) => 0,
        };
        for left in cases {
            let case = format!("a crash at operation {number}, {left:?}, {done} steps done");
            let disk = disk.crashed(left);
            let mut archive = Self::open(&disk).unwrap_or_else(|error| panic!("{case}: {error}"));
            let at = self.find(&archive, &disk, expected, done, &case);
            // And it can go on.
            assert_eq!(self.go_on(&mut archive, at), Ok(()), "{case}");
            assert_eq!(self.contents(&archive, &disk), *expected.last().unwrap(), "{case}");
        }
    }

    /// Lets an operation fail and goes on.
    fn fail(&self, expected: &[Contents], number: u64, fault: Fault) {
        let case = format!("{fault:?} at operation {number}");
        let disk = FaultyDisk::with(number, fault);
        let opened = Self::open(&disk).or_else(|_| Self::open(&disk));
        let mut archive = opened.unwrap_or_else(|error| panic!("{case}: {error}"));
        if let Err(done) = self.go_on(&mut archive, 0) {
            // The same call again, or, if the index wants that, with an archive that was opened again.
            if let Err(again) = self.go_on(&mut archive, done) {
                assert_eq!(again, done, "{case}");
                drop(archive);
                archive = Self::open(&disk).unwrap();
                let at = self.find(&archive, &disk, expected, done, &case);
                assert_eq!(self.go_on(&mut archive, at), Ok(()), "{case}");
            }
        }
        drop(archive);
        let archive = Self::open(&disk).unwrap();
        assert_eq!(self.contents(&archive, &disk), *expected.last().unwrap(), "{case}");
    }

    /// How many steps the archive has seen, which is as many as are done, or one more.
    fn find(
        &self,
        archive: &Archive,
        disk: &FaultyDisk,
        expected: &[Contents],
        done: usize,
        case: &str,
    ) -> usize {
        let found = self.contents(archive, disk);
        let at = (done..=done + 1).find(|at| expected.get(*at) == Some(&found));
        at.unwrap_or_else(|| panic!("{case}: {found:?}"))
    }
}
