//! The rules, and whether all members elect the same, over a bus whose messages overtake each other.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;
use crate::connectivity::{Connectivity, ConnectivityOptions, Message, Output};

fn member(id: u8, connected_since: u64, force: Force, status: Status) -> MemberInfo<u8> {
    MemberInfo { force, connected_since, status, ..MemberInfo::new(id) }
}

fn elected(members: &[MemberInfo<u8>]) -> Option<u8> {
    elect(members.iter()).map(|master| master.id)
}

#[test]
fn the_most_senior_candidate_wins_then_the_smaller_id() {
    let free = |id, since, status| member(id, since, Force::None, status);
    let mut members =
        vec![free(4, 30, Status::Warning), free(3, 30, Status::Healthy), free(2, 40, Status::Slow)];
    assert_eq!(elected(&members), Some(3));
    members.push(free(5, 20, Status::Dead));
    assert_eq!(elected(&members), Some(3), "the dead are no candidates");
    members.push(free(6, 29, Status::Warning));
    assert_eq!(elected(&members), Some(6));
    members.push(member(1, 1, Force::NotMaster, Status::Healthy));
    assert_eq!(elected(&members), Some(6));
}

#[test]
fn the_last_forced_wins_then_the_smaller_id_never_a_free_one() {
    let forced = |id, since, at| member(id, since, Force::Master { at }, Status::Healthy);
    let mut members = vec![member(1, 1, Force::None, Status::Healthy), forced(9, 90, 5)];
    assert_eq!(elected(&members), Some(9));
    members.extend([forced(8, 2, 7), forced(7, 3, 7)]);
    assert_eq!(elected(&members), Some(7), "the tie is not broken by seniority");
    members[3].status = Status::Dead;
    assert_eq!(elected(&members), Some(8));
    members.truncate(2);
    members[1].status = Status::Dead;
    assert_eq!(elected(&members), Some(1), "a forced one that is dead is no candidate");
}

#[test]
fn no_candidate_is_none() {
    assert_eq!(elected(&[]), None);
    let dead = member(1, 1, Force::None, Status::Dead);
    assert_eq!(elected(&[dead, member(2, 1, Force::NotMaster, Status::Healthy)]), None);
}

#[derive(Debug, Clone, Copy)]
enum Action {
    /// Starts a member whose clock is off by so many ms.
    Join(i64),
    Bye,
    Crash,
    Force(Option<bool>),
}

/// Members on a bus. Each message takes its own time to each member.
struct World {
    start: Instant,
    now: u64,
    machines: BTreeMap<u8, Connectivity<u8>>,
    mail: BTreeMap<(u64, u64), (u8, Message<u8>)>,
    posted: u64,
    random: fastrand::Rng,
}

impl World {
    /// The longest way of a message, in ms.
    const MAX_DELAY: u64 = 100;

    fn new(seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let (machines, mail) = (BTreeMap::new(), BTreeMap::new());
        Self { start: Instant::now(), now: 0, machines, mail, posted: 0, random }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.now)
    }

    fn act(&mut self, id: u8, action: Action) {
        let now = self.now();
        match (action, self.machines.get_mut(&id)) {
            (Action::Join(skew), None) => {
                let clock = (1_700_000_000_000 + self.now).checked_add_signed(skew).unwrap();
                let options = ConnectivityOptions::default();
                let machine = Connectivity::new(MemberInfo::new(id), options, clock, now).unwrap();
                self.machines.insert(id, machine);
            }
            (Action::Bye, Some(machine)) => {
                let bye = machine.leave(now);
                self.machines.remove(&id);
                self.post(&bye);
            }
            (Action::Crash, Some(_)) => {
                self.machines.remove(&id);
            }
            (Action::Force(force), Some(machine)) => machine.force_master(force, now),
            (Action::Join(_), Some(_)) | (_, None) => {}
        }
        self.send();
    }

    fn post(&mut self, message: &Message<u8>) {
        for &to in self.machines.keys() {
            self.posted += 1;
            let at = self.now + self.random.u64(0..=Self::MAX_DELAY);
            self.mail.insert((at, self.posted), (to, message.clone()));
        }
    }

    fn send(&mut self) {
        for id in self.machines.keys().copied().collect::<Vec<_>>() {
            while let Some(output) = self.machines.get_mut(&id).and_then(Connectivity::poll) {
                if let Output::Send(message) = output {
                    self.post(&message);
                }
            }
        }
    }

    fn run_to(&mut self, end: u64) {
        while self.now < end {
            self.now += 1;
            let now = self.now();
            for machine in self.machines.values_mut().filter(|machine| machine.deadline() <= now) {
                machine.timeout(now);
            }
            self.send();
            while let Some(entry) = self.mail.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (to, message) = entry.remove();
                if let Some(machine) = self.machines.get_mut(&to) {
                    machine.receive(message, now);
                }
                self.send();
            }
        }
    }

    /// Whom the members elect, each once.
    fn masters(&self) -> Vec<Option<u8>> {
        let mut masters: Vec<_> = self.machines.values().map(|machine| machine.master().copied()).collect();
        masters.sort_unstable();
        masters.dedup();
        masters
    }
}

fn skew() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), -50..50_i64, -86_400_000..86_400_000_i64]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => skew().prop_map(Action::Join),
        1 => Just(Action::Bye),
        1 => Just(Action::Crash),
        2 => prop::option::of(any::<bool>()).prop_map(Action::Force),
    ]
}

proptest! {
    // They are slow: a quarter of what is asked for.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn all_converge_to_the_same_master(
        seed: u64,
        mut script in prop::collection::vec((0..15_000_u64, 0..6_u8, action()), 1..25),
    ) {
        let mut world = World::new(seed);
        script.sort_by_key(|(at, ..)| *at);
        for (at, id, action) in script {
            world.run_to(at);
            world.act(id, action);
        }
        // Until who crashed, and what their departure left behind, is forgotten.
        world.run_to(world.now + 15_000);
        let masters = world.masters();
        prop_assert!(masters.len() <= 1, "{masters:?}");
        let all: Vec<MemberInfo<u8>> = world.machines.values().map(Connectivity::local).collect();
        for machine in world.machines.values() {
            let seen = machine.members();
            prop_assert!(seen.iter().map(|m| m.id).eq(all.iter().map(|m| m.id)));
        }
        let claims: Vec<Option<u8>> = all.iter().filter(|m| m.is_master).map(|m| Some(m.id)).collect();
        prop_assert!(all.is_empty() || masters == claims || (masters == [None] && claims.is_empty()));
        let forced: Vec<&MemberInfo<u8>> =
            all.iter().filter(|m| matches!(m.force, Force::Master { .. })).collect();
        prop_assert!(forced.is_empty() || forced.iter().any(|m| masters == [Some(m.id)]));
    }

    #[test]
    fn the_longest_running_wins_whatever_its_clock(seed: u64, skews in prop::collection::vec(skew(), 2..6)) {
        let mut world = World::new(seed);
        for (n, skew) in skews.iter().enumerate() {
            world.act(9 - n as u8, Action::Join(*skew));
            // A newcomer takes nobody's place, not for a moment, in the eyes of those who are there.
            for _ in 0..1000 {
                world.run_to(world.now + 1);
                let first = world.machines[&9].master();
                prop_assert_eq!(first, Some(&9));
            }
        }
        for n in 0..skews.len() as u8 {
            prop_assert_eq!(world.masters(), [Some(9 - n)], "the next in the order of joining");
            world.act(9 - n, Action::Bye);
            world.run_to(world.now + 300);
        }
    }

    #[test]
    fn the_one_forced_last_wins_whatever_its_clock(seed: u64, order in prop::collection::vec((0..4_u8, skew()), 1..8)) {
        let mut world = World::new(seed);
        (0..4).for_each(|id| world.act(id, Action::Join(order[id as usize % order.len()].1)));
        world.run_to(2000);
        for (id, _) in order {
            world.act(id, Action::Force(Some(true)));
            world.run_to(world.now + 1000);
            prop_assert_eq!(world.masters(), [Some(id)]);
        }
        (0..4).for_each(|id| world.act(id, Action::Force(Some(false))));
        world.run_to(world.now + 1000);
        prop_assert_eq!(world.masters(), [None]);
        world.act(2, Action::Force(None));
        world.run_to(world.now + 1000);
        prop_assert_eq!(world.masters(), [Some(2)]);
    }
}
