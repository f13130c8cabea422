//! What a wallet looks for.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;

/// Scripts to be found in the filters of blocks. Clones share one set, so a sink can add to it what a block made it derive, and
/// the blocks after that are looked through for it.
///
/// Nothing is ever removed: what was paid once may be paid again. It stays in the process; no peer is told of it.
#[derive(Debug, Clone, Default)]
pub struct WatchSet(Arc<RwLock<Scripts>>);

#[derive(Debug, Default)]
struct Scripts {
    /// In the order in which they were added.
    list: Vec<Bytes>,
    known: HashSet<Bytes>,
}

impl WatchSet {
    /// A set of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an output script; false if it is there, or is empty, which no filter has.
    pub fn insert(&self, script: impl Into<Bytes>) -> bool {
        let script = script.into();
        let mut scripts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = !script.is_empty() && scripts.known.insert(script.clone());
        if is_new {
            scripts.list.push(script);
        }
        is_new
    }

    /// Whether a script is watched.
    #[must_use]
    pub fn contains(&self, script: &[u8]) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).known.contains(script)
    }

    /// How many scripts there are. It only grows, so it tells one state of the set from another.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).list.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Looks at all but the first `known` scripts, in the order in which they were added. Who adds one meanwhile waits.
    pub fn after<T>(&self, known: usize, look: impl FnOnce(&[Bytes]) -> T) -> T {
        let scripts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        look(scripts.list.get(known..).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_what_is_added_once_and_in_order() {
        let set = WatchSet::new();
        let other = set.clone();
        assert!(set.insert(&b"one"[..]) && other.insert(&b"two"[..]));
        assert!(!other.insert(&b"one"[..]) && !set.insert(Bytes::new()));
        assert!(set.contains(b"two") && !set.contains(b"three"));
        assert_eq!(set.len(), 2);
        assert_eq!(set.after(1, <[Bytes]>::to_vec), [Bytes::from_static(b"two")]);
        assert!(set.after(9, <[Bytes]>::is_empty));
    }
}
