//! What happened, as one number: equal for equal runs, and different for any difference.

use std::hash::{DefaultHasher, Hash, Hasher};

/// All that happened so far.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hasher: DefaultHasher,
    events: u64,
}

impl Trace {
    /// One more thing happened.
    pub(crate) fn note(&mut self, what: impl Hash) {
        what.hash(&mut self.hasher);
        self.events += 1;
    }

    /// How many things happened, and which.
    pub(crate) fn finish(&self) -> (u64, u64) {
        (self.events, self.hasher.finish())
    }
}
