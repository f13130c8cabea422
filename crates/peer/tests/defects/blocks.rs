//! Blocks come in parts before anybody knows whether they are good: what becomes of them is always told.

use std::sync::atomic::{AtomicUsize, Ordering};

use tipward_peer::{
    Answer, Checksum, DisconnectReason, PeerId, Penalty, Received, Reply, RequestPolicy, Want,
    wire::{BlockHash, Verdict},
};
use tipward_simnet::{ChainSpec, SimBlock, SimChain};

use super::*;

const CHECKSUMS: [Checksum; 2] = [Checksum::Inline, Checksum::Thread];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Loss,
    Checksum,
    MerkleRoot,
}

fn block() -> SimBlock {
    let chain = SimChain::generate(NETWORK, ChainSpec::new(120, 1));
    chain.blocks().iter().max_by_key(|block| block.raw.len()).unwrap().clone()
}

fn frame<S: Stream>(far: &Far<S>, block: &SimBlock, fault: Fault) -> BytesMut {
    let mut raw = BytesMut::from(&block.raw[..]);
    if fault == Fault::MerkleRoot {
        // The lock time of the last transaction.
        *raw.last_mut().unwrap() ^= 1;
    }
    let mut bytes = far.bytes(&[Message::Block(raw.freeze())]);
    match fault {
        Fault::Checksum => bytes[20] ^= 1,
        Fault::Loss => bytes.truncate(bytes.len() - 10),
        Fault::None | Fault::MerkleRoot => {}
    }
    bytes
}

fn in_parts(checksum: Checksum) -> LinkOptions {
    let mut options = in_clear();
    (options.part_size, options.checksum) = (1000, checksum);
    options
}

async fn hear_question<S: Stream>(far: &mut Far<S>, hash: BlockHash) {
    let Message::GetData(asked) = far.hear_until(|message| matches!(message, Message::GetData(_))).await
    else {
        return;
    };
    assert_eq!(asked[0].hash, *hash.as_bytes());
}

/// Downloads a block with a fault and tells how it ended. Two parts have to come before the last bytes are sent.
async fn download(checksum: Checksum, fault: Fault) -> Result<Verdict, DisconnectReason> {
    let block = block();
    let (mut client, mut far) = connected(in_parts(checksum), 1 << 20).await;
    client.ask(Want::Blocks(vec![block.hash])).unwrap();
    hear_question(&mut far, block.hash).await;
    let bytes = frame(&far, &block, fault);
    let (early, late) = bytes.split_at(bytes.len() * 3 / 4);
    far.stream.write_all(early).await.unwrap();
    let (mut parts, mut before, mut download) = (BytesMut::new(), 0, None);
    // Not until nothing comes any more: while a thread hashes, the tests' time stands still.
    while before < 2 {
        if let Received::Part(part) = client.receive().await.unwrap() {
            assert!(!part.bytes.is_empty());
            assert_eq!(*download.get_or_insert(part.download), part.download);
            before += 1;
            parts.extend_from_slice(&part.bytes);
        }
    }
    far.stream.write_all(late).await.unwrap();
    let _far = (fault != Fault::Loss).then_some(far);
    loop {
        match client.receive().await {
            Ok(Received::Part(part)) => parts.extend_from_slice(&part.bytes),
            Ok(Received::BlockEnd(end)) => {
                assert_eq!((end.block, Some(end.download)), (block.hash, download));
                assert_eq!(parts, block.raw);
                return Ok(end.checksum);
            }
            Ok(Received::BlockAborted(hash, aborted)) => {
                assert_eq!((hash, Some(aborted)), (block.hash, download));
                // The end of the connection, which says why, is next.
                return Err(client.receive().await.unwrap_err());
            }
            Ok(_) => {}
            Err(reason) => panic!("the parts are left without an end: {reason}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn parts_come_while_the_block_does_and_its_end_is_told() {
    for checksum in CHECKSUMS {
        let ended = download(checksum, Fault::None).await;
        assert_eq!(ended.unwrap(), Verdict::Verified);
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_that_fails_after_its_parts_is_told_to_be_void() {
    for checksum in CHECKSUMS {
        for fault in [Fault::Loss, Fault::Checksum, Fault::MerkleRoot] {
            let reason = download(checksum, fault).await.unwrap_err();
            let penalty = if fault == Fault::Loss { Penalty::None } else { Penalty::Ban };
            assert_eq!(reason.penalty(), penalty, "{checksum:?} {fault:?}: {reason}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn parts_have_an_end_whenever_the_connection_is_ended() {
    let block = block();
    // However many events were taken when the user ends it, and with an end that waits behind the parts.
    for taken in 0..40 {
        let (mut options, mut listeners) = pool(1, 1 << 20);
        options.link = in_parts(Checksum::Inline);
        let (manager, mut inbox) = manage(options, 1).await;
        let mut far = Far::accept(&mut listeners[0]).await;
        far.shake_hands().await;
        let peer = await_peer(&mut inbox).await;
        peer.ask(Want::Blocks(vec![block.hash])).unwrap();
        hear_question(&mut far, block.hash).await;
        far.stream.write_all(&frame(&far, &block, Fault::None)).await.unwrap();
        let mut open = None;
        let mut take = |event: PeerEvent| match event {
            PeerEvent::Reply { reply: Reply::Part(part), .. } => open = Some(part.download),
            PeerEvent::Reply { reply: Reply::BlockEnd(_), .. } => open = None,
            PeerEvent::Reply { reply: Reply::BlockAborted { download, .. }, .. } => {
                assert_eq!(open.take(), Some(download));
            }
            PeerEvent::Disconnected { .. } => assert_eq!(open, None, "after {taken} events"),
            _ => {}
        };
        for _ in 0..taken {
            if let Ok(event) = timeout(SOON, inbox.recv()).await {
                take(event.unwrap());
            }
        }
        sleep(SOON).await;
        peer.disconnect(DisconnectReason::ClosedByUs);
        let is_end = |event: &PeerEvent| matches!(event, PeerEvent::Disconnected { .. });
        loop {
            let event = inbox.recv().await.unwrap();
            let is_end = is_end(&event);
            take(event);
            if is_end {
                break;
            }
        }
        manager.shutdown().await;
    }
}

/// Serves the block with the fault if it is the first to be asked, else without; tells who was asked first.
async fn serve(mut far: Far, fault: Fault, asked: Arc<AtomicUsize>) {
    let block = block();
    hear_question(&mut far, block.hash).await;
    let fault = if asked.fetch_add(1, Ordering::Relaxed) == 0 { fault } else { Fault::None };
    let bytes = frame(&far, &block, fault);
    far.stream.write_all(&bytes).await.unwrap();
    if fault != Fault::Loss {
        far.live().await;
    }
}

#[tokio::test(start_paused = true)]
async fn work_of_a_lost_peer_is_asked_of_another() {
    for checksum in CHECKSUMS {
        for fault in [Fault::Loss, Fault::Checksum, Fault::MerkleRoot] {
            let (mut options, mut listeners) = pool(2, 1 << 20);
            options.link = in_parts(checksum);
            let (manager, mut inbox) = manage(options, 1024).await;
            let asked = Arc::new(AtomicUsize::new(0));
            for listener in &mut listeners {
                let mut far = Far::accept(listener).await;
                far.shake_hands().await;
                await_peer(&mut inbox).await;
                tokio::spawn(serve(far, fault, asked.clone()));
            }
            let start = Instant::now();
            let want = Want::Blocks(vec![block().hash]);
            let (by, answer) = manager.request(want, RequestPolicy::default()).await.unwrap();
            assert!(start.elapsed() < SOON, "a loss is known at once");
            assert_eq!(asked.load(Ordering::Relaxed), 2);
            let Answer::Block { bytes, .. } = answer else { panic!("{answer:?}") };
            assert_eq!(bytes, block().raw);
            let lost: PeerId = await_event(&mut inbox, |event| match event {
                PeerEvent::Disconnected { peer, .. } => Some(peer),
                _ => None,
            })
            .await;
            assert_ne!(by, lost, "{checksum:?} {fault:?}");
            manager.shutdown().await;
        }
    }
}
