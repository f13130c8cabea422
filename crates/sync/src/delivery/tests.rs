#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use tipward_peer::{
    PeerId,
    wire::{BlockHash, DownloadId},
};
use tokio::{task::JoinHandle, time::sleep};

use super::*;

fn id(height: u64) -> BlockId {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&height.to_le_bytes());
    BlockId { height, hash: BlockHash::from_bytes(hash) }
}

fn part(height: u64, index: u32) -> BlockPart {
    BlockPart {
        block: id(height).hash,
        download: DownloadId(1),
        block_size: 1000,
        index,
        offset: u64::from(index) * 10,
        first_transaction: 0,
        transactions: Vec::new(),
        bytes: Bytes::from_static(b"0123456789"),
        ends_inside_transaction: false,
    }
}

fn block(height: u64) -> Block {
    Block {
        id: id(height),
        parts: vec![part(height, 0)],
        transactions: 2,
        size: 10,
        served_by: Some(PeerId(1)),
        is_streamed: false,
    }
}

/// The end of a block whose parts went before.
fn streamed(height: u64, parts: u64) -> SinkCommand {
    SinkCommand::Apply(Block { parts: Vec::new(), size: 10 * parts, is_streamed: true, ..block(height) })
}

/// Writes down its calls.
#[derive(Default)]
struct Log {
    calls: Arc<Mutex<Vec<String>>>,
    takes_parts: bool,
    /// How long a call takes.
    slow: Duration,
    /// What happens at a call.
    surprises: BTreeMap<&'static str, Surprise>,
}

#[derive(Clone, Copy)]
enum Surprise {
    Error,
    Panic,
    Reject,
}

impl Log {
    async fn note(&self, call: String) -> Result<(), SinkError> {
        if !self.slow.is_zero() {
            sleep(self.slow).await;
        }
        let surprise = self.surprises.get(&call[..]).copied();
        self.calls.lock().unwrap().push(call);
        match surprise {
            None => Ok(()),
            Some(Surprise::Error) => Err("the disk is full".into()),
            Some(Surprise::Panic) => panic!("a bug"),
            Some(Surprise::Reject) => Err(BlockRejected { reason: "it is bad".to_owned() }.into()),
        }
    }
}

#[async_trait]
impl BlockSink for Log {
    async fn cursor(&mut self) -> Result<Option<BlockId>, SinkError> {
        Ok(None)
    }

    async fn apply(&mut self, block: Block) -> Result<(), SinkError> {
        let how = if block.is_streamed { "streamed" } else { "whole" };
        self.note(format!("apply {} {how} of {} parts", block.id.height, block.parts.len())).await
    }

    fn takes_parts(&self) -> bool {
        self.takes_parts
    }

    async fn apply_part(&mut self, block: BlockId, part: BlockPart) -> Result<(), SinkError> {
        self.note(format!("part {} of {}", part.index, block.height)).await
    }

    async fn abort(&mut self, block: BlockId) -> Result<(), SinkError> {
        self.note(format!("abort {}", block.height)).await
    }

    async fn rollback(&mut self, to: BlockId) -> Result<(), SinkError> {
        self.note(format!("rollback {}", to.height)).await
    }

    async fn flush(&mut self) -> Result<(), SinkError> {
        self.note("flush".to_owned()).await
    }
}

struct Running {
    commands: mpsc::UnboundedSender<SinkCommand>,
    acks: mpsc::Receiver<Delivered>,
    events: broadcast::Receiver<Event>,
    calls: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<Result<(), SinkError>>,
}

impl Running {
    fn start(sink: Log, before: impl IntoIterator<Item = SinkCommand>) -> Self {
        Self::start_with(sink, before, true)
    }

    fn start_with(sink: Log, before: impl IntoIterator<Item = SinkCommand>, may_reject: bool) -> Self {
        let (commands, inbox) = mpsc::unbounded_channel();
        before.into_iter().for_each(|command| commands.send(command).unwrap());
        let ((done, acks), (told, events)) = (mpsc::channel(1000), broadcast::channel(1000));
        let calls = sink.calls.clone();
        let task = tokio::spawn(deliver(Box::new(sink), inbox, done, told, may_reject));
        Self { commands, acks, events, calls, task }
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    /// Lets it come to its end: its acknowledgements, its calls, and its result.
    async fn end(self) -> (Vec<Delivered>, Vec<String>, Result<(), String>) {
        let Self { commands, mut acks, events, calls, task } = self;
        drop((commands, events));
        let mut all = Vec::new();
        while let Some(delivered) = acks.recv().await {
            all.push(delivered);
        }
        let result = match task.await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(panic) => Err(panic.to_string()),
        };
        let calls = calls.lock().unwrap().clone();
        (all, calls, result)
    }
}

fn sum(acks: &[Delivered]) -> Delivered {
    acks.iter().fold(Delivered::default(), |sum, ack| Delivered {
        commands: sum.commands + ack.commands,
        rejected: ack.rejected.clone().or(sum.rejected),
        reached: ack.reached.or(sum.reached),
        blocks: sum.blocks + ack.blocks,
        transactions: sum.transactions + ack.transactions,
        bytes: sum.bytes + ack.bytes,
    })
}

/// Two whole blocks, one in parts that breaks off and comes again, and a step back.
fn mixed() -> Vec<SinkCommand> {
    vec![
        SinkCommand::Apply(Block { served_by: None, ..block(0) }),
        SinkCommand::Apply(block(1)),
        SinkCommand::ApplyPart(id(2), part(2, 0)),
        SinkCommand::Abort(id(2)),
        SinkCommand::ApplyPart(id(2), part(2, 0)),
        SinkCommand::ApplyPart(id(2), part(2, 1)),
        streamed(2, 2),
        SinkCommand::Rollback(id(1)),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_takes_parts_gets_every_call_in_order() {
    let (acks, calls, result) =
        Running::start(Log { takes_parts: true, ..Log::default() }, mixed()).end().await;
    assert_eq!(result, Ok(()));
    let expected = [
        "apply 0 whole of 1 parts",
        "apply 1 whole of 1 parts",
        "part 0 of 2",
        "abort 2",
        "part 0 of 2",
        "part 1 of 2",
        "apply 2 streamed of 0 parts",
        "rollback 1",
        "flush",
    ];
    assert_eq!(calls, expected);
    // Genesis counts as done, and is not one that was received.
    let all = Delivered {
        commands: 8,
        rejected: None,
        reached: Some(id(1)),
        blocks: 2,
        transactions: 4,
        bytes: 30,
    };
    assert_eq!(sum(&acks), all);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_takes_no_parts_gets_the_block_whole() {
    let (acks, calls, result) = Running::start(Log::default(), mixed()).end().await;
    assert_eq!(result, Ok(()));
    let expected = [
        "apply 0 whole of 1 parts",
        "apply 1 whole of 1 parts",
        "apply 2 whole of 2 parts",
        "rollback 1",
        "flush",
    ];
    assert_eq!(calls, expected);
    // Parts are done when they are kept, or the rest of a block larger than the budget would never come.
    assert_eq!(sum(&acks).commands, 8);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_is_not_finished_is_aborted_before_the_end() {
    let commands = || [SinkCommand::Apply(block(0)), SinkCommand::ApplyPart(id(1), part(1, 0))];
    let sink = Log { takes_parts: true, ..Log::default() };
    let (_, calls, result) = Running::start(sink, commands()).end().await;
    assert_eq!(result, Ok(()));
    assert_eq!(calls, ["apply 0 whole of 1 parts", "part 0 of 1", "abort 1", "flush"]);
    let (_, calls, _) = Running::start(Log::default(), commands()).end().await;
    assert_eq!(calls, ["apply 0 whole of 1 parts", "flush"], "there is nothing to forget");
}

#[tokio::test(start_paused = true)]
async fn an_error_ends_it_and_what_was_done_before_is_told() {
    for failing in ["part 0 of 2", "abort 2", "apply 2 streamed of 0 parts", "rollback 1", "flush"] {
        let surprises = BTreeMap::from([(failing, Surprise::Error)]);
        let sink = Log { takes_parts: true, surprises, ..Log::default() };
        let (acks, calls, result) = Running::start(sink, mixed()).end().await;
        assert_eq!(result, Err("the disk is full".to_owned()), "{failing}");
        assert_eq!(calls.last().map(String::as_str), Some(failing), "no call after it");
        assert_eq!(sum(&acks).commands, calls.len() - 1, "{failing}");
    }
}

/// What builds on a refused block is passed over up to where the sink is to go back below it, whatever that is.
#[tokio::test(start_paused = true)]
async fn a_refused_block_takes_with_it_what_builds_on_it() {
    let rejects = |call| Log {
        takes_parts: true,
        surprises: BTreeMap::from([(call, Surprise::Reject)]),
        ..Log::default()
    };
    let apply = |height| SinkCommand::Apply(block(height));
    let follow_up = |to| {
        [
            apply(3),
            SinkCommand::ApplyPart(id(4), part(4, 0)),
            SinkCommand::Abort(id(4)),
            SinkCommand::Rollback(id(3)),
            SinkCommand::Rollback(id(2)),
            SinkCommand::Rollback(id(to)),
            apply(2),
        ]
    };
    for (to, last) in
        [(1, &["apply 2 whole of 1 parts"][..]), (0, &["rollback 0", "apply 2 whole of 1 parts"])]
    {
        let streamed = [SinkCommand::ApplyPart(id(2), part(2, 0)), streamed(2, 1)];
        let commands = [apply(0), apply(1)].into_iter().chain(streamed).chain(follow_up(to));
        let running = Running::start(rejects("apply 2 streamed of 0 parts"), commands);
        let (acks, calls, result) = running.end().await;
        assert_eq!(result, Ok(()));
        let before = [
            "apply 0 whole of 1 parts",
            "apply 1 whole of 1 parts",
            "part 0 of 2",
            "apply 2 streamed of 0 parts",
            "abort 2",
        ];
        assert_eq!(calls, [&before[..], last, &["flush"]].concat());
        // Told at once, so that the driver knows what the sink has passed over since.
        let (told, after) = acks.split_at(acks.iter().position(|ack| ack.rejected.is_some()).unwrap() + 1);
        assert_eq!((sum(told).commands, sum(after).commands), (4, 7));
        assert_eq!(sum(told).rejected, Some((id(2), "it is bad".to_owned())));
        assert_eq!((sum(told).reached, sum(after).reached), (Some(id(1)), Some(id(2))));
        assert_eq!((sum(told).blocks, sum(after).blocks), (2, 1));
    }
    let log = rejects("apply 1 whole of 1 parts");
    let (_, calls, result) = Running::start_with(log, (0..3).map(apply), false).end().await;
    assert_eq!((calls.len(), result), (2, Err("the block breaks the rules: it is bad".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_error() {
    let surprises = BTreeMap::from([("apply 1 whole of 1 parts", Surprise::Panic)]);
    let (_, calls, result) = Running::start(Log { surprises, ..Log::default() }, mixed()).end().await;
    assert!(result.unwrap_err().contains("a bug"));
    assert_eq!(calls.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn many_small_blocks_are_acknowledged_together() {
    let commands = (0..10_000).map(|height| SinkCommand::Apply(block(height)));
    let (acks, _, _) = Running::start(Log::default(), commands).end().await;
    assert_eq!((sum(&acks).commands, sum(&acks).blocks), (10_000, 10_000));
    assert!(acks.len() < 500, "{} acknowledgements", acks.len());
    // Yet not so many together that the driver has nothing to follow them up with.
    assert!(acks.iter().all(|ack| ack.commands <= MAX_UNTOLD));
}

#[tokio::test(start_paused = true)]
async fn a_slow_sink_tells_of_every_block_at_once() {
    let sink = Log { slow: Duration::from_secs(1), ..Log::default() };
    let mut running = Running::start(sink, (0..100).map(|height| SinkCommand::Apply(block(height))));
    let start = now();
    for height in 0..100 {
        let ack = running.acks.recv().await.unwrap();
        assert_eq!((ack.commands, ack.reached), (1, Some(id(height))));
    }
    // A flush after each takes another second.
    assert!(now() - start <= Duration::from_secs(200));
}

#[tokio::test(start_paused = true)]
async fn flushes_follow_the_first_call_by_a_quarter_of_a_second() {
    let running = Running::start(Log::default(), []);
    sleep(10 * FLUSH_INTERVAL).await;
    assert!(running.calls().is_empty(), "there is nothing to flush");
    for height in 0..3 {
        running.commands.send(SinkCommand::Apply(block(height))).unwrap();
        sleep(FLUSH_INTERVAL / 3).await;
    }
    sleep(Duration::from_millis(1)).await;
    assert_eq!(running.calls().len(), 4);
    assert_eq!(running.calls()[3], "flush");
    sleep(10 * FLUSH_INTERVAL).await;
    assert_eq!(running.calls().len(), 4, "once");
    // In the midst of many calls, too.
    let sink = Log { slow: FLUSH_INTERVAL / 2, ..Log::default() };
    let running = Running::start(sink, (0..10).map(|height| SinkCommand::Apply(block(height))));
    sleep(100 * FLUSH_INTERVAL).await;
    let calls = running.calls();
    let flushes = calls.iter().filter(|call| *call == "flush").count();
    assert!((4..=6).contains(&flushes), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn events_are_told_before_the_acknowledgement() {
    let mut running = Running::start(Log::default(), mixed());
    let mut count = 0;
    while count < 8 {
        count += running.acks.recv().await.unwrap().commands;
    }
    for height in 0..3 {
        let Ok(Event::Applied { block, .. }) = running.events.try_recv() else { panic!("block {height}") };
        assert_eq!(block, id(height));
    }
    assert!(running.events.try_recv().is_err());
}
