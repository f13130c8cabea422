//! Members on a bus in memory, with the clock in the test's hands.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::{advance, sleep};

use super::*;
use crate::connectivity::{Force, Status};

const MS: Duration = Duration::from_millis(1);

/// Brings every message to every member, its sender included.
#[derive(Default)]
struct Bus {
    members: Mutex<Vec<Cluster<&'static str>>>,
    sent: Mutex<Vec<Message<&'static str>>>,
}

/// One member's way to the bus, so that a bus does not keep its members alive by their own tasks.
struct Wire(std::sync::Weak<Bus>);

#[async_trait]
impl Heartbeat<&'static str> for Wire {
    async fn send(&self, message: Message<&'static str>) {
        let Some(bus) = self.0.upgrade() else { return };
        sleep(MS).await;
        bus.sent.lock().unwrap().push(message.clone());
        bus.members.lock().unwrap().iter().for_each(|member| member.receive(message.clone()));
    }
}

impl Bus {
    fn join(self: &Arc<Self>, id: &'static str) -> Cluster<&'static str> {
        let wire = Arc::new(Wire(Arc::downgrade(self)));
        let member = Cluster::spawn(MemberInfo::new(id), ConnectivityOptions::default(), wire).unwrap();
        self.members.lock().unwrap().push(member.clone());
        member
    }

    fn lose(&self, id: &str) {
        self.members.lock().unwrap().retain(|member| member.handle.shared.lock().machine.local().id != id);
    }
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

fn ids(member: &Cluster<&'static str>) -> Vec<&'static str> {
    member.members().iter().map(|member| member.id).collect()
}

#[tokio::test(start_paused = true)]
async fn members_find_each_other_and_elect_one() {
    let bus = Arc::new(Bus::default());
    let c = bus.join("c");
    sleep(1000 * MS).await;
    let (a, b) = (bus.join("a"), bus.join("b"));
    sleep(1000 * MS).await;
    for member in [&a, &b, &c] {
        assert_eq!((ids(member), member.master()), (vec!["a", "b", "c"], Some("c")));
    }
    a.force_master(Some(true));
    sleep(10 * MS).await;
    assert_eq!([&a, &b, &c].map(Cluster::master), [Some("a"); 3], "told at once");
    assert!(matches!(b.members()[0].force, Force::Master { .. }) && b.members()[0].is_master);
    sleep(60_000 * MS).await;
    assert!(c.members().iter().all(|member| member.status == Status::Healthy));
}

#[tokio::test(start_paused = true)]
async fn changes_come_once_each_removal_by_time_out_too() {
    let bus = Arc::new(Bus::default());
    let a = bus.join("a");
    let mut changes = a.changes();
    let ghost = Message::Status(Box::new(MemberInfo::new("b")));
    a.receive(ghost);
    let mut told = Vec::new();
    for _ in 0..5 {
        let change = changes.recv().await.unwrap().unwrap();
        told.push((change.added.len(), change.removed.len(), change.status.first().map(|(_, s)| *s)));
    }
    let [slow, warning, dead] = [Status::Slow, Status::Warning, Status::Dead].map(|s| (0, 0, Some(s)));
    assert_eq!(told, [(1, 0, None), slow, warning, dead, (0, 1, None)]);
    assert!(timeout(60_000 * MS, changes.recv()).await.is_err(), "no more");
}

#[tokio::test(start_paused = true)]
async fn shutdown_says_bye_and_leaves_no_task() {
    let bus = Arc::new(Bus::default());
    let (a, b) = (bus.join("a"), bus.join("b"));
    sleep(1000 * MS).await;
    assert_eq!((ids(&a), tasks()), (vec!["a", "b"], 2));
    let mut changes = b.changes();
    tokio::join!(b.shutdown(), b.shutdown());
    assert_eq!((ids(&a), tasks()), (vec!["a"], 1));
    assert!(matches!(bus.sent.lock().unwrap().last(), Some(Message::Bye { id: "b", .. })));
    assert_eq!(timeout(1000 * MS, changes.recv()).await, Ok(None), "the receiver learns of the end");
    assert!(b.changes().recv().await.is_none());
    b.receive(Message::Hello { id: "a" });
    // Without handles a member leaves as well.
    bus.lose("a");
    drop(a);
    sleep(10 * MS).await;
    assert_eq!(tasks(), 0);
    assert!(matches!(bus.sent.lock().unwrap().last(), Some(Message::Bye { id: "a", .. })));
}

#[tokio::test(start_paused = true)]
async fn a_lagging_receiver_is_told_and_stalls_nobody() {
    let bus = Arc::new(Bus::default());
    let a = bus.join("a");
    let (mut lagging, mut prompt) = (a.changes(), a.changes());
    for n in 0..CHANGES as u64 {
        let info = MemberInfo { timestamp: 2 * n + 1, ..MemberInfo::new("b") };
        a.receive(Message::Status(Box::new(info)));
        a.receive(Message::Bye { id: "b", timestamp: 2 * n + 1 });
        assert_eq!(prompt.recv().await.unwrap().unwrap().added, ["b"]);
        assert_eq!(prompt.recv().await.unwrap().unwrap().removed, ["b"]);
    }
    let missed = CHANGES as u64;
    assert_eq!(lagging.recv().await, Some(Err(Lagged { missed })));
    assert_eq!(lagging.recv().await.unwrap().unwrap().added, ["b"]);
}

/// Takes a message and never comes back.
#[derive(Default)]
struct Stuck(AtomicUsize);

#[async_trait]
impl Heartbeat<&'static str> for Stuck {
    async fn send(&self, _: Message<&'static str>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        std::future::pending::<()>().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stuck_heartbeat_stops_neither_checks_nor_shutdown() {
    let stuck = Arc::new(Stuck::default());
    let a = Cluster::spawn(MemberInfo::new("a"), ConnectivityOptions::default(), Arc::clone(&stuck) as _)
        .unwrap();
    a.heard(&"b");
    sleep(1300 * MS).await;
    assert_eq!(a.members()[1].status, Status::Slow);
    sleep(20_000 * MS).await;
    assert_eq!(ids(&a), ["a"]);
    assert_eq!(stuck.0.load(Ordering::Relaxed), 5, "one every 5 s");
    let began = now();
    a.shutdown().await;
    assert!(now() - began <= 2 * SEND_TIMEOUT);
    assert_eq!(tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn set_timings_wakes_the_task() {
    let bus = Arc::new(Bus::default());
    let a = bus.join("a");
    let set = |ms: u32| {
        let (send_alive, check) = (Some(MS * ms), Some(MS * ms));
        TimingsChange { send_alive, check, slow: check, warn: Some(MS * 100_000), ..TimingsChange::default() }
    };
    let slow = TimingsChange { dead: Some(MS * 200_000), remove: Some(MS * 300_000), ..set(90_000) };
    a.set_timings(slow).unwrap();
    sleep(95_000 * MS).await;
    let before = bus.sent.lock().unwrap().len();
    a.set_timings(set(10)).unwrap();
    for _ in 0..100 {
        advance(MS).await;
        tokio::task::yield_now().await;
    }
    let sent = bus.sent.lock().unwrap().len() - before;
    assert!((5..=11).contains(&sent), "{sent}");
    assert!(a.set_timings(set(0)).is_err());
    assert_eq!(a.timings().check, MS * 10);
}
