use super::*;

const UNIX_MS: u64 = 1_700_000_000_000;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Member 0's table; `options` by default those of the specification's timeline.
struct Table {
    machine: Connectivity<u32>,
    start: Instant,
}

impl Table {
    fn new() -> Self {
        Self::with(ConnectivityOptions { timings: timeline(), ..ConnectivityOptions::default() })
    }

    fn with(options: ConnectivityOptions) -> Self {
        let start = Instant::now();
        Self { machine: Connectivity::new(MemberInfo::new(0), options, UNIX_MS, start).unwrap(), start }
    }

    fn at(&self, at: u64) -> Instant {
        self.start + ms(at)
    }

    /// Lets time pass as a driver does.
    fn run_to(&mut self, at: u64) -> Vec<Output<u32>> {
        let end = self.at(at);
        let mut outputs = self.outputs();
        while self.machine.deadline() <= end {
            self.machine.timeout(self.machine.deadline());
            outputs.extend(self.outputs());
        }
        outputs
    }

    fn outputs(&mut self) -> Vec<Output<u32>> {
        std::iter::from_fn(|| self.machine.poll()).collect()
    }

    fn changes_to(&mut self, at: u64) -> Vec<Change<u32>> {
        changes(self.run_to(at))
    }

    fn sent_to(&mut self, at: u64) -> Vec<Message<u32>> {
        let outputs = self.run_to(at).into_iter();
        outputs.filter_map(|o| if let Output::Send(message) = o { Some(message) } else { None }).collect()
    }

    fn ids(&self) -> Vec<u32> {
        self.machine.members().iter().map(|member| member.id).collect()
    }
}

fn timeline() -> Timings {
    let timings = Timings::lan();
    Timings { check: ms(125), slow: ms(500), warn: ms(1000), dead: ms(2000), remove: ms(3000), ..timings }
}

fn changes(outputs: Vec<Output<u32>>) -> Vec<Change<u32>> {
    let changes = outputs.into_iter();
    changes.filter_map(|o| if let Output::Changed(change) = o { Some(change) } else { None }).collect()
}

fn added(id: u32) -> Change<u32> {
    Change { added: vec![id], removed: vec![], status: vec![] }
}

fn removed(id: u32) -> Change<u32> {
    Change { added: vec![], removed: vec![id], status: vec![] }
}

fn now_is(id: u32, status: Status) -> Change<u32> {
    Change { added: vec![], removed: vec![], status: vec![(id, status)] }
}

/// What a member tells `up` ms after it was started at `since` by its clock.
fn info(id: u32, since: u64, up: u64) -> MemberInfo<u32> {
    MemberInfo {
        timestamp: since + up,
        connected_since: since,
        up_time: ms(up),
        status: Status::Dead,
        ..MemberInfo::new(id)
    }
}

#[test]
fn timeline_to_pass() {
    for phase in [0, 1, 60, 124] {
        let mut table = Table::new();
        table.run_to(phase);
        table.machine.status(info(1, 5, 0), table.at(phase));
        let mut told = table.changes_to(phase);
        let expected = [
            (50, Some(Status::Healthy)),
            (750, Some(Status::Slow)),
            (1500, Some(Status::Warning)),
            (2500, Some(Status::Dead)),
            (3200, None),
        ];
        for (at, status) in expected {
            told.extend(table.changes_to(phase + at));
            assert_eq!(table.machine.status_of(&1), status, "{at} ms, phase {phase}");
        }
        let [slow, warning, dead] = [Status::Slow, Status::Warning, Status::Dead].map(|s| now_is(1, s));
        assert_eq!(told, [added(1), slow, warning, dead, removed(1)], "each once");
        // The remote beats again after 5 s.
        table.machine.status(info(1, 5, 5000), table.at(phase + 5000));
        assert_eq!(table.changes_to(phase + 5000), [added(1)]);
        assert_eq!(table.machine.status_of(&1), Some(Status::Healthy));
    }
}

#[test]
fn timeline_is_quantised_to_the_check_interval() {
    let mut table = Table::new();
    table.machine.heard(&1, table.start);
    for (limit, until, after) in [
        (500, Some(Status::Healthy), Some(Status::Slow)),
        (1000, Some(Status::Slow), Some(Status::Warning)),
        (2000, Some(Status::Warning), Some(Status::Dead)),
        (3000, Some(Status::Dead), None),
    ] {
        table.run_to(limit + 124);
        assert_eq!(table.machine.status_of(&1), until, "{limit}");
        table.run_to(limit + 125);
        assert_eq!(table.machine.status_of(&1), after, "{limit}");
    }
}

#[test]
fn checks_keep_to_their_grid_unless_one_is_missed() {
    let mut table = Table::new();
    table.machine.insert(&1, table.start);
    let mut change = TimingsChange { send_alive: Some(ms(60_000)), ..TimingsChange::default() };
    change.check = Some(ms(100));
    table.machine.timeout(table.at(125)); // the first status, and a check
    table.machine.set_timings(change, table.at(200)).unwrap();
    for at in [300, 400, 500] {
        assert_eq!(table.machine.deadline(), table.at(at));
        table.machine.timeout(table.at(at + 30)); // a driver is always a little late
    }
    table.machine.timeout(table.at(1010));
    assert_eq!(table.machine.deadline(), table.at(1110), "nothing to catch up with");
}

#[test]
fn any_jump_is_allowed_and_one_heartbeat_restores() {
    let mut table = Table::new();
    table.machine.heard(&1, table.start);
    table.outputs();
    table.machine.timeout(table.at(2500));
    assert_eq!(changes(table.outputs()), [now_is(1, Status::Dead)]);
    table.machine.heard(&1, table.at(2510));
    assert_eq!(changes(table.outputs()), [now_is(1, Status::Healthy)]);
    table.machine.timeout(table.at(9000));
    assert_eq!(changes(table.outputs()), [removed(1)]);
}

#[test]
fn skew_does_not_look_like_death() {
    let mut table = Table::new();
    for (at, clock) in [(0, 1), (400, u64::MAX), (800, 7)] {
        table.run_to(at);
        let info = MemberInfo { timestamp: clock, ..info(1, clock, 0) };
        table.machine.status(info, table.at(at));
        table.run_to(at + 390);
        assert_eq!(table.machine.status_of(&1), Some(Status::Healthy), "{clock}");
    }
}

#[test]
fn the_local_member_is_always_in_the_table_and_cannot_die() {
    let mut table = Table::new();
    table.machine.remove(&0, table.start);
    table.machine.bye(&0, u64::MAX, table.start);
    table.machine.status(info(0, 1, 1 << 40), table.start);
    table.machine.heard(&0, table.start);
    assert_eq!(table.changes_to(60_000), []);
    assert_eq!((table.ids(), table.machine.master()), (vec![0], Some(&0)));
    assert_eq!(table.machine.members()[0].connected_since, UNIX_MS);
    assert_eq!(table.machine.status_of(&0), Some(Status::Healthy));
}

#[test]
fn hello_comes_first_then_heartbeats_every_send_alive() {
    let mut table = Table::new();
    let sent = table.sent_to(0);
    assert_eq!(sent, [Message::Hello { id: 0 }]);
    let at = |message: &Message<u32>| match message {
        Message::Status(info) => (info.timestamp - UNIX_MS, info.up_time.as_millis(), info.is_master),
        other => panic!("{other:?}"),
    };
    let sent = table.sent_to(1700);
    let times: Vec<_> = sent.iter().map(at).collect();
    assert_eq!(times, [(125, 125, true), (625, 625, true), (1125, 1125, true), (1625, 1625, true)]);
}

#[test]
fn hello_is_answered_at_once() {
    let mut table = Table::new();
    table.sent_to(200);
    table.machine.hello(&1, table.at(200));
    table.machine.hello(&2, table.at(200));
    let sent = table.sent_to(200);
    assert!(matches!(&sent[..], [Message::Status(info)] if info.id == 0), "one for both: {sent:?}");
    assert_eq!(table.ids(), [0], "who says hello is let in by its status");
    table.machine.hello(&0, table.at(200));
    assert_eq!(table.sent_to(200), [], "our own comes back");
}

#[test]
fn bye_removes_at_once() {
    let mut table = Table::new();
    table.machine.status(info(1, 100, 10), table.start);
    table.outputs();
    table.machine.receive(Message::Bye { id: 1, timestamp: 120 }, table.start);
    assert_eq!(changes(table.outputs()), [removed(1)]);
    table.machine.bye(&1, 120, table.start);
    assert_eq!(table.outputs(), []);
}

#[test]
fn a_late_status_after_bye_does_not_resurrect() {
    let mut table = Table::new();
    table.machine.bye(&1, 120, table.start); // may even overtake the first status
    table.machine.status(info(1, 100, 20), table.at(10));
    table.machine.heard(&1, table.at(10));
    assert_eq!((table.changes_to(10), table.ids()), (vec![], vec![0]));
    table.machine.bye(&1, 90, table.at(10)); // repeated out of order
    table.machine.status(info(1, 100, 15), table.at(10));
    assert_eq!(table.ids(), [0]);
    table.machine.status(info(1, 100, 21), table.at(20));
    assert_eq!(table.changes_to(20), [added(1)]);
    table.machine.bye(&1, 120, table.at(30));
    assert_eq!(table.ids(), [0, 1], "the same bye again, late");
}

#[test]
fn tombstones_expire_and_are_bounded() {
    let options = ConnectivityOptions { timings: timeline(), max_members: 3 };
    let mut table = Table::with(options);
    (1..=10).for_each(|id| table.machine.bye(&id, 120, table.at(id.into())));
    assert_eq!(table.machine.departed.len(), 3);
    table.machine.status(info(9, 100, 20), table.at(20));
    assert_eq!(table.ids(), [0], "the latest are kept");
    table.run_to(3250);
    assert_eq!(table.machine.departed.len(), 0);
    table.machine.status(info(9, 100, 20), table.at(3250));
    assert_eq!(table.ids(), [0, 9]);
}

#[test]
fn members_are_bounded() {
    let mut table = Table::with(ConnectivityOptions { timings: timeline(), max_members: 3 });
    assert!((1..=3).all(|id| table.machine.insert(&id, table.start)));
    assert!(!table.machine.insert(&4, table.start));
    table.machine.heard(&5, table.start);
    table.machine.status(info(6, 1, 1), table.start);
    assert_eq!(table.ids(), [0, 1, 2, 3]);
    table.machine.remove(&1, table.start);
    assert!(table.machine.insert(&4, table.start) && table.machine.insert(&4, table.start));
}

#[test]
fn a_reconnect_within_remove_keeps_up_time() {
    let since = |table: &Table| {
        table.machine.members().iter().find(|member| member.id == 1).unwrap().connected_since - UNIX_MS
    };
    let mut table = Table::new();
    table.machine.insert(&1, table.at(100));
    table.run_to(2500);
    table.machine.heard(&1, table.at(2500));
    assert_eq!(since(&table), 100, "was dead");
    table.machine.remove(&1, table.at(2600));
    table.machine.heard(&1, table.at(2700));
    assert_eq!(table.ids(), [0], "a message read late is no reconnect");
    table.run_to(5600);
    table.machine.insert(&1, table.at(5600));
    assert_eq!(since(&table), 100, "was disconnected");
    table.machine.remove(&1, table.at(5600));
    table.machine.insert(&1, table.at(8601));
    assert_eq!(since(&table), 8601, "was away for longer than remove");
    // One that tells about itself is as senior as it says, whatever happened in between.
    table.machine.bye(&2, 150, table.at(8700));
    table.machine.status(info(2, 100, 60), table.at(8700));
    let members = table.machine.members();
    assert_eq!(members.iter().find(|member| member.id == 2).unwrap().connected_since, 100);
}

#[test]
fn set_timings_changes_running_timers_at_once() {
    let mut table = Table::new();
    table.machine.heard(&1, table.start);
    table.changes_to(450);
    let mut change = TimingsChange { slow: Some(ms(300)), ..TimingsChange::default() };
    table.machine.set_timings(change, table.at(450)).unwrap();
    assert_eq!(changes(table.outputs()), [now_is(1, Status::Slow)], "no need to wait for a check");
    (change.check, change.send_alive) = (Some(ms(10)), Some(ms(20)));
    table.machine.set_timings(change, table.at(451)).unwrap();
    assert!(table.machine.deadline() <= table.at(461));
    assert_eq!(table.sent_to(500).len(), 3, "since 125 ms: 460 ms, 481 ms, and no backlog");
    change.slow = Some(ms(5));
    let before = table.machine.timings();
    assert!(matches!(
        table.machine.set_timings(change, table.at(500)),
        Err(InvalidTimings::CheckAboveSlow { .. })
    ));
    assert_eq!(table.machine.timings(), before);
}

#[test]
fn endless_timings_do_not_panic() {
    let remove = Duration::MAX;
    let dead = remove - ms(1);
    let timings = Timings { send_alive: Duration::MAX, check: Duration::MAX, ..Timings::lan() };
    let [slow, warn] = [dead - ms(2), dead - ms(1)];
    let options = ConnectivityOptions {
        timings: Timings { check: slow, slow, warn, dead, remove, ..timings },
        ..ConnectivityOptions::default()
    };
    let mut table = Table::with(options);
    table.machine.heard(&1, table.start);
    table.machine.timeout(table.machine.deadline());
    assert_eq!(table.ids(), [0, 1]);
}

#[test]
fn what_is_undone_before_a_poll_is_not_told() {
    let mut table = Table::new();
    table.machine.insert(&1, table.start);
    table.machine.remove(&1, table.start);
    assert_eq!(changes(table.outputs()), []);
}

#[test]
fn leaving_ends_what_was_to_be_sent() {
    let mut table = Table::new();
    table.machine.hello(&1, table.start);
    assert_eq!(table.machine.leave(table.at(7)), Message::Bye { id: 0, timestamp: UNIX_MS + 7 });
    assert_eq!(table.outputs(), []);
}
