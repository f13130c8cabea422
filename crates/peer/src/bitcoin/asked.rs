//! What was asked for and has not come.

use std::collections::BTreeMap;

/// How many objects may be asked of one peer and not have come. Who asks for more is told so.
pub(super) const MAX_ASKED: usize = 4096;

/// How many times each object was asked for. The answer to a question that was given up is no offence, so only answers
/// remove one, and what was asked for twice may come twice.
#[derive(Debug)]
pub(super) struct Asked<K> {
    times: BTreeMap<K, usize>,
    /// The sum of these.
    open: usize,
}

impl<K> Default for Asked<K> {
    fn default() -> Self {
        Self { times: BTreeMap::new(), open: 0 }
    }
}

impl<K: Ord + Copy> Asked<K> {
    /// False, and nothing is noted, if that would be too many.
    pub(super) fn add(&mut self, objects: &[K]) -> bool {
        if self.open + objects.len() > MAX_ASKED {
            return false;
        }
        self.open += objects.len();
        objects.iter().for_each(|object| *self.times.entry(*object).or_default() += 1);
        true
    }

    pub(super) fn contains(&self, object: &K) -> bool {
        self.times.contains_key(object)
    }

    /// Takes one request for the object off the list; false if there is none.
    pub(super) fn answered(&mut self, object: &K) -> bool {
        let Some(times) = self.times.get_mut(object) else { return false };
        self.open -= 1;
        *times -= 1;
        if *times == 0 {
            self.times.remove(object);
        }
        true
    }
}
