//! Who is asked next.

use std::{collections::BTreeMap, time::Instant};

use super::{Choice, Member};
use crate::{PeerId, Want};

/// The speed, in bytes a second, that is taken for peers of a pool in which none was measured.
const UNKNOWN_SPEED: f64 = 100_000.0;

pub(super) struct Chooser<'a> {
    members: &'a BTreeMap<PeerId, Member>,
    random: &'a mut fastrand::Rng,
    choice: Choice,
    /// Who was asked last.
    last: u64,
    now: Instant,
}

impl<'a> Chooser<'a> {
    pub(super) fn new(
        members: &'a BTreeMap<PeerId, Member>,
        random: &'a mut fastrand::Rng,
        choice: Choice,
        last: u64,
        now: Instant,
    ) -> Self {
        Self { members, random, choice, last, now }
    }

    /// A ready peer that can answer and was not asked yet.
    pub(super) fn choose(&mut self, want: &Want, tried: &[PeerId]) -> Option<PeerId> {
        let suits = |member: &Member| {
            member.ready().is_some_and(|ready| match want {
                Want::Transactions(_) => ready.info.relays_transactions,
                _ => true,
            })
        };
        let candidates: Vec<PeerId> = self
            .members
            .iter()
            .filter(|(id, member)| suits(member) && !tried.contains(id))
            .map(|(id, _)| *id)
            .collect();
        match self.choice {
            Choice::RoundRobin => {
                let next = candidates.iter().find(|id| id.0 > self.last).or(candidates.first()).copied()?;
                self.last = next.0;
                Some(next)
            }
            Choice::Weighted => self.by_weight(&candidates),
        }
    }

    fn by_weight(&mut self, candidates: &[PeerId]) -> Option<PeerId> {
        let ready = |id: &PeerId| self.members.get(id).and_then(Member::ready);
        let speeds: Vec<f64> =
            candidates.iter().filter_map(|id| ready(id)?.figures.and_then(|figures| figures.speed)).collect();
        let typical =
            if speeds.is_empty() { UNKNOWN_SPEED } else { speeds.iter().sum::<f64>() / speeds.len() as f64 };
        let weights: Vec<f64> = candidates
            .iter()
            .map(|id| ready(id).map_or(0.0, |ready| ready.weight(typical, self.now)))
            .collect();
        let mut at = self.random.f64() * weights.iter().sum::<f64>();
        for (id, weight) in candidates.iter().zip(&weights) {
            at -= weight;
            if at <= 0.0 {
                return Some(*id);
            }
        }
        candidates.last().copied()
    }
}
