#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use tipward_peer::wire::BlockHash;

use super::*;

fn at(height: u64) -> BlockId {
    BlockId { height, hash: BlockHash::from_bytes([height as u8; 32]) }
}

fn tally(options: &SyncOptions) -> Tally {
    let mut tally = Tally::new(options, None, at(0));
    tally.progress().header_tip = Some(at(999));
    tally
}

/// So many blocks of a size come and are applied.
fn apply(tally: &mut Tally, blocks: u64, size: u64) {
    let reached = tally.progress().applied.map_or(0, |applied| applied.height + 1) + blocks - 1;
    tally.received((blocks * size) as usize);
    tally.delivered(&Delivered {
        commands: blocks as usize,
        rejected: None,
        reached: Some(at(reached)),
        blocks,
        transactions: 3 * blocks,
        bytes: blocks * size,
    });
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn rates_are_those_of_the_last_ten_seconds() {
    let (start, mut tally) = (Instant::now(), tally(&SyncOptions::default()));
    // Headers take their time; that is not the blocks'.
    assert_eq!(tally.at(start).bytes_per_second, 0);
    assert_eq!(tally.at(start + 60 * SECOND).bytes_per_second, 0);
    let start = start + 60 * SECOND;
    for second in 1..=30 {
        apply(&mut tally, 5, 2000);
        let progress = tally.at(start + second * SECOND);
        assert_eq!((progress.bytes_per_second, progress.blocks_per_second), (10_000, 5.0), "{second}");
    }
    assert_eq!((tally.progress().blocks, tally.progress().bytes), (150, 300_000));
    assert_eq!(tally.progress().transactions, 450);
    // Half of the window is empty, then all of it.
    assert_eq!(tally.at(start + 35 * SECOND).bytes_per_second, 5000);
    assert!(!tally.is_still());
    assert_eq!(tally.at(start + 40 * SECOND).bytes_per_second, 0);
    assert!(tally.is_still());
    assert!(tally.meter.samples.len() <= 11);
}

#[test]
fn many_looks_keep_few_samples() {
    let (start, mut tally) = (Instant::now(), tally(&SyncOptions::default()));
    for tenth in 0..1000 {
        apply(&mut tally, 1, 100);
        tally.at(start + tenth * SECOND / 10);
    }
    assert!(tally.meter.samples.len() <= 12, "{}", tally.meter.samples.len());
    assert_eq!(tally.progress().bytes_per_second, 1000);
}

#[test]
fn parts_of_a_block_count_before_it_is_applied() {
    let (start, mut tally) = (Instant::now(), tally(&SyncOptions::default()));
    tally.received(1);
    tally.at(start);
    tally.received(1000);
    let progress = tally.at(start + SECOND);
    assert_eq!((progress.bytes_per_second, progress.bytes), (1000, 0));
}

#[test]
fn the_rest_is_told_in_bytes() {
    let (start, mut tally) = (Instant::now(), tally(&SyncOptions::default()));
    assert_eq!(tally.at(start).eta, None, "nothing is known");
    apply(&mut tally, 200, 1000);
    // 800 blocks of 1000 bytes at 100,000 bytes a second.
    assert_eq!(tally.at(start + 2 * SECOND).eta, Some(8 * SECOND));
    // A block that is still arriving is worth its bytes.
    tally.received(200_000);
    assert_eq!(tally.at(start + 2 * SECOND).eta, Some(4 * SECOND));
    tally.progress().paused = true;
    assert_eq!(tally.at(start + 2 * SECOND).eta, None);
    tally.progress().paused = false;
    // Nothing comes any more.
    (3..60).for_each(|second| {
        tally.at(start + second * SECOND);
    });
    assert_eq!(tally.at(start + 60 * SECOND).eta, None);
    apply(&mut tally, 800, 1000);
    assert_eq!(tally.at(start + 90 * SECOND).eta, Some(Duration::ZERO));
}

#[test]
fn the_rest_ends_where_the_sync_does() {
    let start = Instant::now();
    let options = [
        SyncOptions { stop_at: Some(499), ..SyncOptions::default() },
        SyncOptions { stay_behind: 500, ..SyncOptions::default() },
        SyncOptions { headers_only: true, ..SyncOptions::default() },
    ];
    let etas = options.map(|options| {
        let mut tally = tally(&options);
        apply(&mut tally, 100, 1000);
        tally.at(start);
        apply(&mut tally, 100, 1000);
        tally.at(start + SECOND).eta
    });
    assert_eq!(etas, [Some(3 * SECOND), Some(3 * SECOND), None]);
}

#[test]
fn the_average_size_follows_the_blocks() {
    let mut average = AverageSize::default();
    assert_eq!(average.bytes(), None);
    average.add(0, 0);
    assert_eq!(average.bytes(), None, "a rollback has no size");
    average.add(1, 1000);
    average.add(3, 9000);
    assert_eq!(average.bytes(), Some(2500.0), "few are averaged as they are");
    for _ in 0..5000 {
        average.add(1, 100_000);
    }
    assert!(average.bytes().unwrap() > 99_000.0, "{average:?}");
    average.add(2000, 2000);
    assert_eq!(average.bytes(), Some(1.0), "more than it runs over");
}

#[test]
fn a_rollback_takes_the_height_back() {
    let mut tally = tally(&SyncOptions::default());
    apply(&mut tally, 100, 1000);
    tally.delivered(&Delivered { commands: 1, reached: Some(at(90)), ..Delivered::default() });
    assert_eq!((tally.progress().applied, tally.progress().blocks), (Some(at(90)), 100));
    tally.delivered(&Delivered { commands: 3, ..Delivered::default() });
    assert_eq!(tally.progress().applied, Some(at(90)), "parts reach nothing");
}
