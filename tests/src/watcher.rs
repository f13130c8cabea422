//! A sink that looks for scripts, as a wallet does.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use tipward_chain::sync::{
    Block, BlockId, BlockSink, SinkError, WatchSet, async_trait,
    peer::wire::{
        Txid,
        bitcoin::{self, OutPoint},
    },
};

/// What a [`Watcher`] has found. Clones share it, and it outlives the node.
#[derive(Debug, Clone, Default)]
pub struct Found(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    cursor: Option<BlockId>,
    /// The block and what it has for us, in the order of the calls.
    found: Vec<(BlockId, Txid)>,
    /// Our outputs, with the height of their block.
    coins: BTreeMap<(Txid, u32), u64>,
    applied: Vec<BlockId>,
    skips: u64,
    rollbacks: Vec<u64>,
}

impl Found {
    /// The transactions that pay or spend what is watched, with their blocks, in the order of the chain.
    #[must_use]
    pub fn transactions(&self) -> Vec<(BlockId, Txid)> {
        self.state().found.clone()
    }

    /// The blocks that were given and not undone.
    #[must_use]
    pub fn applied(&self) -> Vec<BlockId> {
        self.state().applied.clone()
    }

    /// How often blocks were skipped.
    #[must_use]
    pub fn skips(&self) -> u64 {
        self.state().skips
    }

    /// The heights that were gone back to.
    #[must_use]
    pub fn rollbacks(&self) -> Vec<u64> {
        self.state().rollbacks.clone()
    }

    /// A sink that goes on where the last one was.
    #[must_use]
    pub fn sink(&self, watch: WatchSet, derive: impl FnMut(&[u8]) + Send + 'static) -> Watcher {
        Watcher { found: self.clone(), watch, derive: Box::new(derive) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics with it")
    }
}

/// The sink. It holds every call to the order of the chain.
pub struct Watcher {
    found: Found,
    watch: WatchSet,
    /// Is told of each watched script that is paid, and may watch more.
    derive: Box<dyn FnMut(&[u8]) + Send>,
}

#[async_trait]
impl BlockSink for Watcher {
    async fn cursor(&mut self) -> Result<Option<BlockId>, SinkError> {
        Ok(self.found.state().cursor)
    }

    async fn apply(&mut self, block: Block) -> Result<(), SinkError> {
        let parsed = bitcoin::Block::new(block.bytes())?;
        let mut paid = Vec::new();
        let mut state = self.found.state();
        check(&state, block.id)?;
        if state
            .cursor
            .is_some_and(|at| at.height + 1 == block.id.height && parsed.header().parent != at.hash)
        {
            return Err(format!("{} does not build on {:?}", block.id, state.cursor).into());
        }
        for transaction in parsed.transactions() {
            let txid = transaction.txid();
            let spends = |OutPoint { txid, index }| (txid, index);
            let mut is_ours = transaction
                .inputs()
                .filter(|input| state.coins.contains_key(&spends(input.outpoint())))
                .count()
                > 0;
            for (index, output) in (0..).zip(transaction.outputs()) {
                let script = output.script().as_bytes();
                if self.watch.contains(script) {
                    is_ours = true;
                    state.coins.insert((txid, index), block.id.height);
                    paid.push(script.to_vec());
                }
            }
            if is_ours {
                state.found.push((block.id, txid));
            }
        }
        state.applied.push(block.id);
        state.cursor = Some(block.id);
        drop(state);
        paid.iter().for_each(|script| (self.derive)(script));
        Ok(())
    }

    async fn skip(&mut self, to: BlockId) -> Result<(), SinkError> {
        let mut state = self.found.state();
        check(&state, to)?;
        (state.cursor, state.skips) = (Some(to), state.skips + 1);
        Ok(())
    }

    async fn rollback(&mut self, to: BlockId) -> Result<(), SinkError> {
        let mut state = self.found.state();
        if state.cursor.is_none_or(|at| at.height <= to.height) {
            return Err(format!("a rollback to {to} from {:?}", state.cursor).into());
        }
        state.found.retain(|(block, _)| block.height <= to.height);
        state.applied.retain(|block| block.height <= to.height);
        state.coins.retain(|_, height| *height <= to.height);
        state.rollbacks.push(to.height);
        state.cursor = Some(to);
        Ok(())
    }
}

fn check(state: &State, next: BlockId) -> Result<(), SinkError> {
    match state.cursor {
        Some(at) if next.height <= at.height => Err(format!("{next} comes after {at}").into()),
        _ => Ok(()),
    }
}
