//! Handlers that fail, panic, or are slow.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use tipward_peer::{
    BoxError, CallError, Context, DisconnectReason, HandlerError, HandlerResult, OnError, PeerHandler,
};
use tokio::sync::Notify;

use super::*;

/// Does by the number in a message what the tests want.
#[derive(Default)]
struct Script {
    heard: Mutex<Vec<(String, u32)>>,
    ended: Mutex<Vec<String>>,
    released: Notify,
    stuck: AtomicUsize,
}

const FAIL: u32 = 1000;
const PANIC: u32 = 1001;
const WAIT: u32 = 1002;
const SEND: u32 = 1003;
const REQUEST: u32 = 1004;
const ASK_MANAGER: u32 = 1005;
const SLEEP: u32 = 1006;

#[async_trait]
impl PeerHandler<Message> for Script {
    async fn message(&self, context: &Context, message: Message) -> HandlerResult {
        let Some(number) = number(&message) else { return Ok(()) };
        let begun = (context.peer.address().to_string(), number);
        match number {
            FAIL => return Err(BoxError::from("no good")),
            PANIC => panic!("on purpose"),
            WAIT => {
                self.stuck.fetch_add(1, Ordering::Relaxed);
                self.released.notified().await;
            }
            SEND => {
                // Long enough for the queue to fill up.
                sleep(Duration::from_secs(1)).await;
                context.peer.send(other(77, 4)).await?;
            }
            REQUEST => {
                sleep(Duration::from_secs(1)).await;
                let failed = context.peer.request(Message::GetAddr).await.unwrap_err();
                assert_eq!(failed, CallError::TimedOut);
            }
            ASK_MANAGER => {
                self.stuck.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_secs(1)).await;
                context.manager.peers().await?;
            }
            SLEEP => sleep(Duration::from_secs(1)).await,
            _ => sleep(Duration::from_millis(u64::from(number * 7919 % 50))).await,
        }
        self.heard.lock().unwrap().push(begun);
        Ok(())
    }

    async fn disconnected(&self, _: &Context, reason: &DisconnectReason) -> HandlerResult {
        self.ended.lock().unwrap().push(reason.to_string());
        Ok(())
    }
}

impl Script {
    fn heard(&self) -> Vec<u32> {
        self.heard.lock().unwrap().iter().map(|(_, number)| *number).collect()
    }

    async fn await_heard(&self, count: usize) {
        let all = async {
            while self.heard().len() < count {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(120), all).await.expect("the handler goes on");
    }
}

async fn handled(
    options: ManagerOptions,
    places: usize,
) -> (Manager, Arc<Script>, mpsc::Receiver<PeerEvent>) {
    let (events, inbox) = mpsc::channel(places);
    let script = Arc::new(Script::default());
    let manager =
        Manager::spawn_with_handler(Bitcoin::new(NETWORK), options, script.clone(), events).await.unwrap();
    (manager, script, inbox)
}

fn failed(event: PeerEvent) -> Option<HandlerError> {
    if let PeerEvent::HandlerFailed(error) = event { Some(error) } else { None }
}

#[tokio::test(start_paused = true)]
async fn a_handlers_error_or_panic_is_returned_and_the_connection_goes_on_if_told_so() {
    for (fault, text) in [(FAIL, "no good"), (PANIC, "it panicked: on purpose")] {
        let (mut options, mut listeners) = pool(1, 1 << 16);
        options.on_handler_error = OnError::Continue;
        let (manager, script, mut inbox) = handled(options, 64).await;
        let mut far = Far::accept(&mut listeners[0]).await;
        far.shake_hands().await;
        far.say(&[other(1, 4), other(fault, 4)]).await;
        let error = await_event(&mut inbox, failed).await;
        assert_eq!((error.source.to_string(), error.address), (text.to_owned(), address(1)));
        far.say(&[other(2, 4)]).await;
        script.await_heard(2).await;
        assert_eq!(script.heard(), [1, 2]);
        manager.shutdown().await;
        assert_eq!(script.ended.lock().unwrap().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handlers_error_or_panic_ends_the_connection_unless_told_otherwise() {
    for fault in [FAIL, PANIC] {
        let (options, mut listeners) = pool(1, 1 << 16);
        let (manager, script, mut inbox) = handled(options, 64).await;
        let mut far = Far::accept(&mut listeners[0]).await;
        far.shake_hands().await;
        far.say(&[other(fault, 4)]).await;
        await_event(&mut inbox, failed).await;
        // The peer itself says nothing more.
        assert!(far.is_closed().await);
        sleep(SOON).await;
        let ended = script.ended.lock().unwrap().clone();
        assert!(ended.len() == 1 && ended[0].starts_with("the handler failed"), "{ended:?}");
        // It is our fault: the peer is dialled again.
        timeout(Duration::from_secs(120), Far::accept(&mut listeners[0])).await.unwrap().shake_hands().await;
        manager.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_handler_keeps_the_order_of_a_peer() {
    let (options, mut listeners) = pool(1, 1 << 12);
    let (manager, script, _inbox) = handled(options, 64).await;
    let mut far = Far::accept(&mut listeners[0]).await;
    far.shake_hands().await;
    far.say(&(0..300).map(|n| other(n, 100)).collect::<Vec<_>>()).await;
    script.await_heard(300).await;
    assert_eq!(script.heard(), (0..300).collect::<Vec<_>>());
    manager.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_handler_slows_its_own_peer_only() {
    let (options, mut listeners) = pool(2, 1 << 12);
    let (manager, script, _inbox) = handled(options, 64).await;
    let mut stuck = Far::accept(&mut listeners[0]).await;
    stuck.shake_hands().await;
    let mut quick = Far::accept(&mut listeners[1]).await;
    quick.shake_hands().await;
    let flood: Vec<Message> = (0..300).map(|n| other(n, 100)).collect();
    let flood = stuck.bytes(&flood);
    stuck.say(&[other(WAIT, 4)]).await;
    // It is not read without bounds.
    timeout(SOON, stuck.stream.write_all(&flood)).await.unwrap_err();
    quick.say(&(0..200).map(|n| other(n, 100)).collect::<Vec<_>>()).await;
    script.await_heard(200).await;
    assert!(script.heard.lock().unwrap().iter().all(|(at, _)| *at == address(2).to_string()));
    // Nor does its silence, which is ours, cost the first one its connection.
    tokio::spawn(quick.live());
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(manager.peers().await.unwrap().len(), 2);
    script.released.notify_one();
    script.await_heard(201).await;
    manager.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_sends_or_asks_while_its_queue_is_full_goes_on() {
    for first in [SEND, REQUEST] {
        let (options, mut listeners) = pool(1, 1 << 16);
        let (manager, script, _inbox) = handled(options, 64).await;
        let mut far = Far::accept(&mut listeners[0]).await;
        far.shake_hands().await;
        let mut messages = vec![other(first, 4)];
        messages.extend((0..100).map(|n| other(n, 4)));
        far.say(&messages).await;
        script.await_heard(101).await;
        if first == SEND {
            assert_eq!(number(&far.hear_until(|message| number(message).is_some()).await), Some(77));
        }
        manager.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_a_slow_handler_and_not_for_a_stuck_one() {
    let before = tasks();
    for (first, slow) in [(SLEEP, true), (ASK_MANAGER, true), (WAIT, false)] {
        let (options, mut listeners) = pool(1, 1 << 16);
        let (manager, script, _inbox) = handled(options, 64).await;
        let mut far = Far::accept(&mut listeners[0]).await;
        far.shake_hands().await;
        far.say(&[other(first, 4)]).await;
        sleep(SOON).await;
        let start = Instant::now();
        manager.shutdown().await;
        let limit = Duration::from_secs(if slow { 2 } else { 6 });
        assert!(start.elapsed() < limit, "{first} took {:?}", start.elapsed());
        assert_eq!(script.ended.lock().unwrap().len(), usize::from(slow), "{first}");
        assert!(far.is_closed().await);
        assert_eq!(tasks(), before);
    }
}
