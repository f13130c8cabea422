use std::sync::Mutex;

use bytes::Bytes;
use tipward_sync::peer::wire::{BlockPart, DownloadId};

use super::*;
use crate::density::{LedgerError, SlotBound};

/// The bytes of a block are its number, its parent's, its slot, and whether it is valid by itself and on its parent.
#[derive(Debug, Clone, Copy)]
struct Draft {
    n: u8,
    parent: u8,
    slot: u8,
    is_valid: bool,
    fits: bool,
}

fn draft(n: u8, parent: u8, slot: u8) -> Draft {
    Draft { n, parent, slot, is_valid: true, fits: true }
}

fn id(n: u8) -> BlockHash {
    BlockHash::from_bytes([n; 32])
}

fn header(draft: Draft) -> Header {
    let Draft { n, parent, slot, is_valid, fits } = draft;
    let raw = vec![n, parent, slot, u8::from(is_valid), u8::from(fits)];
    Header { hash: id(n), parent: id(parent), raw: Bytes::from(raw) }
}

fn headers(drafts: &[Draft]) -> Vec<Header> {
    drafts.iter().copied().map(header).collect()
}

#[derive(Debug, thiserror::Error)]
#[error("no good")]
struct NoGood;

#[derive(Debug, Default)]
struct Seen {
    checked: Vec<(u8, BlockHash)>,
    forgotten: Vec<BlockHash>,
    present: Option<u64>,
    must_wait: bool,
}

#[derive(Debug, Clone, Default)]
struct Rules(Arc<Mutex<Seen>>);

impl SlotRules for Rules {
    fn read_head(&self, start: &[u8]) -> Option<BlockHead> {
        let &[n, parent, slot, ..] = start else { return None };
        let header = Header { hash: id(n), parent: id(parent), raw: Bytes::copy_from_slice(start) };
        Some(BlockHead { header, parents: vec![id(parent)], index: Some(slot.into()) })
    }

    fn read(&self, header: &Header) -> Result<u64, LedgerError> {
        if header.raw[3] == 0 { Err(NoGood.into()) } else { Ok(header.raw[2].into()) }
    }

    fn check(&mut self, header: &Header, slot: u64, parent: &SlotBlock) -> Result<(), LedgerError> {
        assert_eq!((slot, parent.id.hash), (u64::from(header.raw[2]), header.parent));
        self.0.lock().unwrap().checked.push((header.raw[0], parent.id.hash));
        if header.raw[4] == 0 { Err(NoGood.into()) } else { Ok(()) }
    }

    fn forget(&mut self, blocks: &[BlockHash]) {
        self.0.lock().unwrap().forgotten.extend(blocks);
    }

    fn present(&self) -> u64 {
        self.0.lock().unwrap().present.unwrap_or(u64::MAX)
    }

    fn may_be_online(&self) -> bool {
        !self.0.lock().unwrap().must_wait
    }
}

fn block(height: u64, draft: Draft) -> Block {
    let bytes = header(draft).raw;
    let part = BlockPart {
        block: id(draft.n),
        download: DownloadId(0),
        block_size: bytes.len() as u64,
        index: 0,
        offset: 0,
        first_transaction: 0,
        transactions: vec![0],
        bytes: bytes.clone(),
        ends_inside_transaction: false,
    };
    Block {
        id: BlockId { height, hash: id(draft.n) },
        parts: vec![part],
        transactions: 1,
        size: bytes.len() as u64,
        served_by: None,
        is_streamed: false,
    }
}

fn options(security: u64) -> DensityOptions {
    DensityOptions { security, window: 100, bound: SlotBound::Exclusive, max_forks: 10, max_side_blocks: 100 }
}

fn chain(security: u64) -> (SlotChain, Rules) {
    let rules = Rules::default();
    let chain = SlotChain::new(block(0, draft(0, 0, 0)), 0, options(security), Box::new(rules.clone()));
    (chain, rules)
}

fn accept(chain: &mut SlotChain, drafts: &[Draft]) -> Result<Accepted, String> {
    chain.accept(&headers(drafts)).map_err(|error| error.to_string())
}

#[test]
fn headers_are_checked_and_the_best_branch_is_told() {
    let (mut chain, rules) = chain(1);
    let update =
        |keep, append: &[u8]| Some(Update { keep, append: append.iter().copied().map(id).collect() });
    let accepted = accept(&mut chain, &[draft(1, 0, 1), draft(2, 1, 2)]).unwrap();
    assert_eq!(accepted, Accepted { added: 2, last: Some(id(2)), update: update(1, &[1, 2]) });
    let accepted = accept(&mut chain, &[draft(2, 1, 2), draft(3, 2, 3)]).unwrap();
    assert_eq!(accepted, Accepted { added: 1, last: Some(id(3)), update: update(3, &[3]) });
    let accepted = accept(&mut chain, &[draft(1, 0, 1)]).unwrap();
    assert_eq!(accepted, Accepted { added: 0, last: Some(id(1)), update: None }, "known");
    let accepted = accept(&mut chain, &[draft(13, 2, 4), draft(14, 13, 5)]).unwrap();
    assert_eq!(accepted, Accepted { added: 2, last: Some(id(14)), update: update(3, &[13, 14]) });
    let checked = [(1, 0), (2, 1), (3, 2), (13, 2), (14, 13)].map(|(n, parent)| (n, id(parent)));
    assert_eq!(rules.0.lock().unwrap().checked, checked);
    assert_eq!((chain.slot(id(14)), chain.slot(id(15)), chain.tip().height), (Some(5), None, 4));
    assert_eq!(chain.local_block(BlockId { height: 0, hash: id(0) }).unwrap().id.hash, id(0));
    assert!(chain.local_block(chain.tip()).is_none());
}

#[test]
fn all_of_a_run_is_taken_or_nothing() {
    let (mut chain, rules) = chain(1);
    let unfit = Draft { fits: false, ..draft(3, 2, 3) };
    let error = accept(&mut chain, &[draft(1, 0, 1), draft(2, 1, 2), unfit, draft(4, 3, 4)]).unwrap_err();
    assert_eq!(error, format!("block {}: no good", id(3)));
    assert_eq!((chain.tip().height, chain.tree().len()), (0, 1));
    assert_eq!(rules.0.lock().unwrap().forgotten, [id(1), id(2)]);
    let invalid = Draft { is_valid: false, ..draft(5, 0, 3) };
    assert_eq!(accept(&mut chain, &[invalid]).unwrap_err(), format!("block {}: no good", id(5)));
    let error = accept(&mut chain, &[draft(1, 0, 3), draft(2, 1, 3)]).unwrap_err();
    assert_eq!(error, format!("block {} is in slot 3, its parent in 3", id(2)));
    let error = accept(&mut chain, &[draft(7, 0, 3), draft(9, 8, 4)]).unwrap_err();
    assert_eq!(error, format!("block {} does not follow the one before it", id(9)));
    let refused = chain.accept(&headers(&[draft(11, 10, 3)])).unwrap_err();
    assert!(matches!(refused, RefusedHeaders::UnknownParent { parent } if parent == id(10)));
    assert_eq!(chain.tree().len(), 1);
}

#[test]
fn what_was_rejected_is_not_taken_again_nor_what_builds_on_it() {
    let (mut chain, rules) = chain(10);
    accept(&mut chain, &[draft(1, 0, 1), draft(2, 1, 2), draft(3, 2, 3)]).unwrap();
    accept(&mut chain, &[draft(12, 1, 2)]).unwrap();
    let rejection = chain.give_up(id(2)).unwrap();
    assert_eq!(rejection.gone, [id(2), id(3)]);
    assert_eq!(rejection.update, Some(Update { keep: 2, append: vec![id(12)] }));
    assert_eq!(rules.0.lock().unwrap().forgotten, [id(2), id(3)]);
    assert_eq!(chain.reject(id(2), "again").unwrap(), None);
    let error = chain.reject(id(0), "why").unwrap_err().to_string();
    assert_eq!(error, format!("block {} can't be given up (why): it is irreversible, or unknown", id(0)));
    assert_eq!((chain.ancestor(id(12), 1), chain.ancestor(id(2), 1)), (Some(id(1)), None));
    for again in [draft(2, 1, 2), draft(3, 2, 3), draft(4, 3, 4), draft(5, 4, 5)] {
        let error = accept(&mut chain, &[again]).unwrap_err();
        assert_eq!(error, format!("block {}, or what it builds on, was rejected", id(again.n)));
    }
    let unfit = Draft { fits: false, ..draft(20, 12, 3) };
    accept(&mut chain, &[unfit]).unwrap_err();
    assert!(
        accept(&mut chain, &[draft(21, 20, 4)]).unwrap_err().contains("was rejected"),
        "refused is rejected"
    );
    assert_eq!(chain.tip().hash, id(12));
}

#[test]
fn blocks_of_the_future_are_passed_over_until_their_time_comes() {
    let (mut chain, rules) = chain(1);
    rules.0.lock().unwrap().present = Some(5);
    let accepted = accept(&mut chain, &[draft(1, 0, 5), draft(2, 1, 6), draft(3, 2, 7)]).unwrap();
    assert_eq!((accepted.added, accepted.last), (1, Some(id(1))));
    let accepted = accept(&mut chain, &[draft(2, 1, 6)]).unwrap();
    assert_eq!(accepted, Accepted { added: 0, last: Some(id(1)), update: None });
    rules.0.lock().unwrap().present = Some(6);
    assert_eq!(accept(&mut chain, &[draft(2, 1, 6)]).unwrap().added, 1);
}

#[test]
fn at_the_tip_what_is_deep_gets_irreversible_and_other_branches_go() {
    let (mut chain, rules) = chain(1);
    accept(&mut chain, &[draft(1, 0, 1), draft(2, 1, 2), draft(3, 2, 3)]).unwrap();
    accept(&mut chain, &[draft(12, 1, 2)]).unwrap();
    rules.0.lock().unwrap().must_wait = true;
    chain.caught_up();
    assert_eq!((chain.irreversible(), chain.tree().len()), (0, 5));
    rules.0.lock().unwrap().must_wait = false;
    chain.caught_up();
    assert_eq!((chain.irreversible(), chain.tree().len()), (2, 4));
    assert_eq!(rules.0.lock().unwrap().forgotten, [id(12)]);
    let refused = chain.accept(&headers(&[draft(13, 1, 3)])).unwrap_err();
    assert!(matches!(refused, RefusedHeaders::TooDeep(_)), "nobody need be at fault");
    let error = refused.to_string();
    assert!(error.contains("forks off below the irreversible block"), "{error}");
    assert!(chain.reject(id(2), "too late").is_err());
    chain.set_mode(DensityMode::Bootstrapping);
    assert_eq!(chain.tree().mode(), DensityMode::Bootstrapping);
}

/// Blocks of the past, as they came.
type Taken = Arc<Mutex<Vec<Block>>>;

/// A chain of blocks 1 to 4 in slots 10 to 40, of which the last is trusted at a height, and what its sink was given.
fn trusting(height: u64) -> Result<(SlotChain, Taken, Rules), SlotError> {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let given = Arc::clone(&taken);
    let past = Box::new(move |block: Block| {
        if block.id.hash == id(66) {
            return Err(NoGood.into());
        }
        given.lock().unwrap().push(block);
        Ok(())
    });
    let checkpoint = SlotCheckpoint { height, header: header(draft(4, 3, 40)), past };
    let (genesis, rules) = (block(0, draft(0, 0, 0)), Rules::default());
    let chain = SlotChain::above(checkpoint, genesis, 0, options(1), Box::new(rules.clone()))?;
    Ok((chain, taken, rules))
}

fn past(chain: &mut SlotChain, draft: Draft) -> Result<(), String> {
    let header = header(draft);
    let wanted = chain.wanted_past().unwrap();
    let head = BlockHead { parents: vec![header.parent], header, index: Some(draft.slot.into()) };
    chain.accept_past(&head, block(wanted.of.height - 1, draft)).map_err(|error| error.to_string())
}

#[test]
fn the_past_of_a_trusted_block_is_gone_through_downwards() {
    let (mut chain, taken, rules) = trusting(4).unwrap();
    assert_eq!((chain.tip(), chain.irreversible()), (BlockId { height: 4, hash: id(4) }, 4));
    accept(&mut chain, &[draft(5, 4, 50)]).unwrap();
    assert_eq!(chain.wanted_past(), Some(Past { of: BlockId { height: 4, hash: id(4) }, parent: id(3) }));
    for (n, slot) in [(3, 30), (2, 20), (1, 10)] {
        past(&mut chain, draft(n, n - 1, slot)).unwrap();
    }
    assert_eq!(chain.wanted_past(), None);
    let taken: Vec<_> = taken.lock().unwrap().iter().map(|block| block.id).collect();
    assert_eq!(taken, [3_u8, 2, 1].map(|n| BlockId { height: n.into(), hash: id(n) }));
    let checked = [(5, 4), (4, 3), (3, 2), (2, 1), (1, 0)].map(|(n, parent)| (n, id(parent)));
    assert_eq!(rules.0.lock().unwrap().checked, checked, "every block on its parent");
}

#[test]
fn a_past_that_breaks_a_rule_is_refused() {
    let refusal = |draft: Draft| past(&mut trusting(4).unwrap().0, draft).unwrap_err();
    assert_eq!(refusal(draft(3, 2, 40)), format!("block {} is in slot 40, its parent in 40", id(4)));
    assert_eq!(refusal(Draft { is_valid: false, ..draft(3, 2, 30) }), format!("block {}: no good", id(3)));
    assert_eq!(refusal(draft(9, 2, 30)), format!("block {} does not follow the one before it", id(9)));
    // It ends too early: the trusted block has not the height that it is said to have.
    let error = refusal(draft(3, 0, 30));
    assert_eq!(error, format!("block {} at height 3 builds on {}; genesis is {1}", id(3), id(0)));
    // Or too late.
    let (mut chain, ..) = trusting(2).unwrap();
    assert!(
        past(&mut chain, draft(3, 2, 30)).unwrap_err().starts_with(&format!("block {} at height 1", id(3)))
    );
    // On its parent a block may be invalid that is valid by itself.
    let (mut chain, ..) = trusting(4).unwrap();
    past(&mut chain, Draft { fits: false, ..draft(3, 2, 30) }).unwrap();
    assert_eq!(past(&mut chain, draft(2, 1, 20)).unwrap_err(), format!("block {}: no good", id(3)));
    let (mut chain, ..) = trusting(2).unwrap();
    let error = past(&mut chain, Draft { fits: false, ..draft(3, 0, 30) }).unwrap_err();
    assert_eq!(error, format!("block {}: no good", id(3)), "on genesis");
}

#[test]
fn a_trusted_block_has_to_be_able_to_be_one() {
    assert!(matches!(trusting(0), Err(SlotError::OtherGenesis { height: 0, .. })));
    assert!(matches!(trusting(1), Err(SlotError::OtherGenesis { height: 1, .. })));
}

#[test]
fn a_past_that_can_t_be_kept_is_nobody_s_fault() {
    let (chain, ..) = trusting(4).unwrap();
    let mut chain = chain;
    chain.past.as_mut().unwrap().header.parent = id(66);
    let head = BlockHead { header: header(draft(66, 2, 30)), parents: vec![id(2)], index: Some(30) };
    let refused = chain.accept_past(&head, block(3, draft(66, 2, 30))).unwrap_err();
    assert!(matches!(refused, RefusedHeaders::Store(_)));
    assert_eq!(chain.wanted_past().map(|past| past.of.height), Some(4), "it is wanted as before");
}
