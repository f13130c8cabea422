//! Whatever the disk does at whatever moment: a file that is opened again has what was in it up to some point, which is not
//! before the last call that succeeded.

use tipward_sync::peer::wire::bitcoin::Network;

use super::*;
use crate::disk::faulty::{Fault, FaultyDisk, Left};

const PATH: &str = "headers.redb";

/// What is done to the store.
#[derive(Debug)]
enum Step {
    /// So many headers, which are durable then.
    Append(u8),
    /// Removes every header whose number is a multiple of this.
    Remove(usize),
    Reject(u8),
}

/// What is in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Contents {
    headers: Vec<Bytes>,
    rejected: Vec<(BlockHash, String)>,
}

fn steps() -> Vec<Step> {
    use Step::{Append, Reject, Remove};
    vec![Append(1), Append(30), Reject(1), Remove(7), Append(20), Append(1), Remove(3), Append(40), Reject(2)]
}

impl Step {
    /// `number` makes the headers differ from those of other steps.
    fn apply(&self, number: usize, store: &mut HeaderStore) -> Result<(), StoreError> {
        match self {
            Self::Append(count) => {
                let headers: Vec<Bytes> =
                    (0..*count).map(|n| Bytes::from(vec![number as u8, n, 3, 4, 5])).collect();
                store.append(headers.iter())?;
                store.flush()
            }
            Self::Remove(every) => {
                let stays: Vec<bool> = (0..store.next as usize).map(|n| !n.is_multiple_of(*every)).collect();
                store.retain(&stays)
            }
            Self::Reject(block) => store.reject(BlockHash::from_bytes([*block; 32]), "no"),
        }
    }
}

fn open(disk: &FaultyDisk) -> Result<HeaderStore, StoreError> {
    HeaderStore::open_on(disk, Path::new(PATH), &Network::BTC_REGTEST, BlockHash::ZERO)
}

fn contents(store: &HeaderStore) -> Contents {
    let mut headers = Vec::new();
    let snapshot = store.snapshot().unwrap();
    let read = snapshot.load(|first, run| {
        assert_eq!(first, headers.len() as u64);
        headers.extend(run);
        Ok(())
    });
    read.unwrap();
    for (number, header) in headers.iter().enumerate() {
        assert_eq!(store.get(number as u64).unwrap().as_ref(), Some(header));
    }
    assert_eq!((store.next, store.get(store.next).unwrap()), (headers.len() as u64, None));
    Contents { headers, rejected: snapshot.rejected().unwrap() }
}

/// Does all steps from one on, up to the first error; returns how many are done.
fn go_on(store: &mut HeaderStore, from: usize) -> usize {
    let steps = steps();
    let rest = steps.iter().enumerate().skip(from);
    rest.take_while(|(number, step)| step.apply(*number, store).is_ok()).count() + from
}

/// What is there before the first step and after each, and how many operations it took.
fn expected() -> (Vec<Contents>, u64) {
    let disk = FaultyDisk::default();
    let mut store = open(&disk).unwrap();
    let mut expected = vec![contents(&store)];
    for (number, step) in steps().iter().enumerate() {
        step.apply(number, &mut store).unwrap();
        expected.push(contents(&store));
    }
    drop(store);
    (expected, disk.operations())
}

#[test]
fn whatever_the_disk_does_at_any_operation_nothing_durable_is_lost() {
    let (expected, operations) = expected();
    assert!(expected.windows(2).all(|two| two[0] != two[1]), "every step counts");
    for (number, fault) in (0..operations)
        .flat_map(|number| [Fault::Fail, Fault::Tear, Fault::Crash].map(|fault| (number, fault)))
    {
        let disk = FaultyDisk::with(number, fault);
        let done = open(&disk).map_or(0, |mut store| go_on(&mut store, 0));
        let crashed = [Left::Nothing, Left::All, Left::Parts(number), Left::Parts(operations + number)]
            .map(|left| disk.crashed(left));
        // After an error the process may also just open it again.
        let alive = (fault != Fault::Crash).then(|| disk.clone());
        for disk in alive.into_iter().chain(crashed) {
            let mut store =
                open(&disk).unwrap_or_else(|error| panic!("operation {number}, {fault:?}: {error}"));
            let found = contents(&store);
            let at = expected.iter().rposition(|contents| *contents == found);
            let at = at.unwrap_or_else(|| panic!("operation {number}, {fault:?}: {found:?}"));
            assert!((done..=done + 1).contains(&at), "operation {number}, {fault:?}: {at} of {done} steps");
            assert_eq!(go_on(&mut store, at), expected.len() - 1);
            assert_eq!(contents(&store), *expected.last().unwrap());
        }
    }
}
