//! Members that went, remembered for a while: what they said before is void, and who returns keeps its seniority.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// The latest departures.
#[derive(Debug)]
pub(crate) struct Departed<Id> {
    departures: BTreeMap<Id, Departure>,
    /// The most departures remembered.
    max: usize,
}

/// How a member went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Departure {
    pub(crate) at: Instant,
    /// What it said until then, by its clock in ms since the Unix epoch, is void.
    pub(crate) timestamp: u64,
    /// Its seniority, if it was in the table.
    pub(crate) connected_since: Option<u64>,
}

impl<Id: Ord + Clone> Departed<Id> {
    pub(crate) fn new(max: usize) -> Self {
        Self { departures: BTreeMap::new(), max }
    }

    /// How a member went, unless that is longer ago than `memory`.
    pub(crate) fn get(&self, id: &Id, now: Instant, memory: Duration) -> Option<Departure> {
        let is_remembered = |gone: &Departure| now.saturating_duration_since(gone.at) <= memory;
        self.departures.get(id).copied().filter(is_remembered)
    }

    /// Remembers a departure, if need be instead of the oldest.
    pub(crate) fn insert(&mut self, id: &Id, departure: Departure) {
        if !self.departures.contains_key(id) && self.departures.len() >= self.max {
            let oldest = self.departures.iter().min_by_key(|(_, gone)| gone.at).map(|(id, _)| id.clone());
            let Some(oldest) = oldest else { return };
            self.departures.remove(&oldest);
        }
        self.departures.insert(id.clone(), departure);
    }

    pub(crate) fn remove(&mut self, id: &Id) {
        self.departures.remove(id);
    }

    /// Forgets what is longer ago than `memory`.
    pub(crate) fn expire(&mut self, now: Instant, memory: Duration) {
        self.departures.retain(|_, gone| now.saturating_duration_since(gone.at) <= memory);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.departures.len()
    }
}
