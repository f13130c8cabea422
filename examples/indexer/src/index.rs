//! The index: what is kept of every block, written and taken back.
//!
//! Transactions of the best chain are numbered from genesis on, and everything points to them by that number: five bytes instead
//! of 32, and whatever belongs to the last blocks has the highest keys. A script is known by the first 20 bytes of its SHA-256,
//! an id by its first eight, where whoever looks it up compares the rest. Numbers are big-endian; `n` is a transaction's number
//! (5 bytes), `i` that of an input or output in it (4).
//!
//! | table | key | value |
//! |---|---|---|
//! | `cursor` | - | height 8, hash 32, number of transactions 8 |
//! | `blocks` | height 4 | hash 32, time 4, first `n` 8, transactions 8, size 8, inputs 8, outputs 8, value in 8, value out 8, unknown inputs 8 |
//! | `hashes` | block hash 32 | height 4 |
//! | `transactions` | `n` | txid 32, height 4, offset in the block 5, size 5 |
//! | `ids` | the first 8 of a txid, `n` | - |
//! | `outputs` | `n` `i` of an output that is unspent | script 20, value 8 |
//! | `unspent` | script 20, `n` `i` | value 8 |
//! | `history` | script 20, `n`, 0 for received or 1 for spent, `i` | value 8 |
//! | `undo` | height 4, number of the piece 4 | the outputs that the block spends, as they were |
//!
//! All that is written until a commit is one transaction of the database, and the cursor is part of it: after a crash the index is
//! where it was at the last commit. A block that is larger than memory stays one transaction too; the database moves what does not
//! fit into its file, where nobody sees it before the commit.

mod block;
mod undo;

use std::{path::Path, sync::Arc, time::Instant};

use metrics::{counter, gauge, histogram};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use tipward_chain::sync::{
    BlockId,
    peer::wire::{
        Txid,
        bitcoin::{BlockHeader, Network},
    },
};

use crate::{
    keys::{BlockRow, Cursor, Damaged, Fields, Place, ScriptKey, TransactionRow, five, join},
    parse::Parsed,
    view::Reader,
};
use block::{Coins, OpenBlock, Pending};
use undo::take_back;

pub(crate) const CURSOR: TableDefinition<'static, (), &[u8]> = TableDefinition::new("cursor");
const NETWORK: TableDefinition<'static, (), &str> = TableDefinition::new("network");
pub(crate) const BLOCKS: TableDefinition<'static, u32, &[u8; 100]> = TableDefinition::new("blocks");
pub(crate) const HASHES: TableDefinition<'static, &[u8; 32], u32> = TableDefinition::new("hashes");
pub(crate) const TRANSACTIONS: TableDefinition<'static, &[u8; 5], &[u8; 46]> =
    TableDefinition::new("transactions");
pub(crate) const IDS: TableDefinition<'static, &[u8; 13], ()> = TableDefinition::new("ids");
pub(crate) const OUTPUTS: TableDefinition<'static, &[u8; 9], &[u8; 28]> = TableDefinition::new("outputs");
pub(crate) const UNSPENT: TableDefinition<'static, &[u8; 29], u64> = TableDefinition::new("unspent");
pub(crate) const HISTORY: TableDefinition<'static, &[u8; 30], u64> = TableDefinition::new("history");
pub(crate) const UNDO: TableDefinition<'static, (u32, u32), &[u8]> = TableDefinition::new("undo");

/// So many of the last blocks can be taken back.
pub const UNDO_DEPTH: u64 = 1000;
/// How many entries wait, at most, to be written in the order of their keys.
const MAX_PENDING: usize = 2_000_000;
/// A piece of a block's undo records is written when it has so many bytes.
const UNDO_PIECE: usize = 64 << 10;
/// The layout of the tables.
const LAYOUT: &str = "1";

/// Why the index can't be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The database fails.
    #[error("the index database: {0}")]
    Database(#[from] redb::Error),
    /// It holds what does not belong there.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// It belongs to another network, or another version of this program.
    #[error("{path} is an index of {found}, not of {expected}")]
    OtherIndex {
        /// The file.
        path: String,
        /// What it says it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// A reorg is deeper than what is kept to undo.
    #[error(
        "can't go back from {from} to {to}: only the last {UNDO_DEPTH} blocks can be undone; delete the index, and it is built anew"
    )]
    TooDeep {
        /// Where the index is.
        from: BlockId,
        /// Where it should go.
        to: BlockId,
    },
    /// What the sink was given does not add up.
    #[error("block {block}: {problem}")]
    Block {
        /// The block.
        block: BlockId,
        /// What is wrong.
        problem: String,
    },
}

macro_rules! database_errors {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for IndexError {
            fn from(error: redb::$error) -> Self {
                Self::Database(error.into())
            }
        }
    )*};
}
database_errors!(DatabaseError, TransactionError, TableError, StorageError, CommitError);

/// The index, to be written by one thread.
pub struct Index {
    database: Arc<Database>,
    /// The last complete block, committed or not.
    cursor: Option<Cursor>,
    /// The number of the next transaction.
    next: u64,
    /// What is written and not committed.
    transaction: Option<WriteTransaction>,
    pending: Pending,
    most_pending: usize,
    open: Option<OpenBlock>,
}

impl Index {
    /// Opens the index in this file, or creates it; `cache` is how much of it may be held in memory, in bytes.
    ///
    /// # Errors
    /// It can't be opened, or belongs to another network.
    pub fn open(path: &Path, network: &Network, cache: usize) -> Result<Self, IndexError> {
        if !path.exists() {
            create(path, network)?;
        }
        let database = Database::builder().set_cache_size(cache).open(path)?;
        let found = database.begin_read()?.open_table(NETWORK)?.get(())?.map(|name| name.value().to_owned());
        let (found, expected) = (found.unwrap_or_default(), name(network));
        if found != expected {
            return Err(IndexError::OtherIndex { path: path.display().to_string(), found, expected });
        }
        let mut index = Self {
            database: Arc::new(database),
            cursor: None,
            next: 0,
            transaction: None,
            pending: Pending::default(),
            most_pending: MAX_PENDING,
            open: None,
        };
        index.forget()?;
        Ok(index)
    }

    /// Lets so many entries wait in memory until they are written in the order of their keys, instead of 2,000,000: the more, the
    /// faster.
    #[must_use]
    pub fn with_most_pending(mut self, entries: usize) -> Self {
        self.most_pending = entries;
        self
    }

    /// The last block whose entries are complete, committed or not.
    #[must_use]
    pub fn cursor(&self) -> Option<BlockId> {
        self.cursor.map(|cursor| cursor.block)
    }

    /// For those who only read, and see what was committed last.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(self.database.clone())
    }

    /// Goes back to where the last commit was.
    ///
    /// # Errors
    /// The database fails.
    pub fn forget(&mut self) -> Result<(), IndexError> {
        if let Some(transaction) = self.transaction.take() {
            transaction.abort()?;
        }
        (self.pending, self.open) = (Pending::default(), None);
        self.cursor = self.reader().view()?.cursor()?;
        if let Some(cursor) = &self.cursor {
            gauge!("indexer_height").set(cursor.block.height as f64);
        }
        self.next = self.cursor.map_or(0, |cursor| cursor.transactions);
        Ok(())
    }

    /// Begins the next block.
    pub fn begin(&mut self, id: BlockId, header: &[u8; BlockHeader::SIZE]) {
        let time = BlockHeader::from_bytes(header).time;
        let row = BlockRow { hash: id.hash, time, first: self.next, ..BlockRow::default() };
        self.open = Some(OpenBlock::new(id, row));
    }

    /// Takes the next transactions of the block that was begun; without one, nothing.
    ///
    /// # Errors
    /// The database fails.
    pub fn add(&mut self, parsed: &Parsed) -> Result<(), IndexError> {
        let transaction = writing(&self.database, &mut self.transaction)?;
        let mut coins = Coins {
            outputs: transaction.open_table(OUTPUTS)?,
            ids: transaction.open_table(IDS)?,
            rows: transaction.open_table(TRANSACTIONS)?,
        };
        let Some(open) = &mut self.open else { return Ok(()) };
        let (mut inputs, mut outputs) = (&parsed.inputs[..], &parsed.outputs[..]);
        for part in &parsed.transactions {
            let (own_inputs, own_outputs);
            (own_inputs, inputs) = inputs.split_at(part.inputs);
            (own_outputs, outputs) = outputs.split_at(part.outputs);
            for outpoint in own_inputs {
                open.spend(self.next, *outpoint, &mut self.pending, &mut coins)?;
            }
            for output in own_outputs {
                open.receive(self.next, output, &mut self.pending);
            }
            if let Some((txid, offset, size)) = part.whole {
                let row = TransactionRow { txid, height: open.id.height as u32, offset, size };
                if open.outputs as usize > part.outputs || open.inputs as usize > part.inputs {
                    // It came in pieces. Some of its outputs may be written already, and are found by this.
                    coins.ids.insert(&id_key(&txid, five(self.next)), ())?;
                    coins.rows.insert(&five(self.next), &row.write())?;
                }
                open.complete(self.next, &row, &mut self.pending);
                self.next += 1;
            }
        }
        if open.undo.len() >= UNDO_PIECE {
            open.write_undo(transaction)?;
        }
        drop(coins);
        if self.pending.len() >= self.most_pending { self.spill() } else { Ok(()) }
    }

    /// The block that was begun is complete.
    ///
    /// # Errors
    /// It does not have as many transactions as it should, or the database fails.
    pub fn finish(&mut self, transactions: u64, size: u64) -> Result<(), IndexError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        if open.row.transactions != transactions {
            let problem = format!("{} of {transactions} transactions were parsed", open.row.transactions);
            return Err(IndexError::Block { block: open.id, problem });
        }
        open.row.size = size;
        let transaction = writing(&self.database, &mut self.transaction)?;
        open.write_undo(transaction)?;
        let height = open.id.height as u32;
        transaction.open_table(BLOCKS)?.insert(height, &open.row.write())?;
        transaction.open_table(HASHES)?.insert(open.id.hash.as_bytes(), height)?;
        if let Some(old) = open.id.height.checked_sub(UNDO_DEPTH) {
            let mut undo = transaction.open_table(UNDO)?;
            for piece in 0.. {
                if undo.remove((old as u32, piece))?.is_none() {
                    break;
                }
            }
        }
        if open.row.unknown_inputs > 0 {
            tracing::warn!(block = %open.id, inputs = open.row.unknown_inputs, "spends outputs that no block has");
        }
        self.cursor = Some(Cursor { block: open.id, transactions: self.next });
        counter!("indexer_blocks_total").increment(1);
        counter!("indexer_transactions_total").increment(transactions);
        Ok(())
    }

    /// Makes all complete blocks durable, and visible to readers. Not while one is open: that is committed with its end.
    ///
    /// # Errors
    /// The database fails; the index is then where the last commit was.
    pub fn commit(&mut self) -> Result<(), IndexError> {
        if self.open.is_some() {
            return Ok(());
        }
        let begun = Instant::now();
        self.spill()?;
        let Some(transaction) = self.transaction.take() else { return Ok(()) };
        if let Some(cursor) = &self.cursor {
            transaction.open_table(CURSOR)?.insert((), &cursor.write()[..])?;
            gauge!("indexer_height").set(cursor.block.height as f64);
        }
        transaction.commit()?;
        histogram!("indexer_commit_seconds").record(begun.elapsed().as_secs_f64());
        Ok(())
    }

    /// Moves what waits in memory into the database's transaction, in the order of its keys, which is what a B-tree likes best.
    fn spill(&mut self) -> Result<(), IndexError> {
        if self.pending.len() == 0 {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        counter!("indexer_entries_total").increment(pending.len() as u64);
        let transaction = writing(&self.database, &mut self.transaction)?;
        pending.write(transaction)
    }

    /// Takes back every block above `to`, and commits.
    ///
    /// # Errors
    /// They are too many, or the database fails.
    pub fn rollback(&mut self, to: BlockId) -> Result<(), IndexError> {
        self.spill()?;
        let Some(Cursor { block: from, .. }) = self.cursor else { return Ok(()) };
        if from.height > to.height + UNDO_DEPTH {
            return Err(IndexError::TooDeep { from, to });
        }
        let transaction = writing(&self.database, &mut self.transaction)?;
        for height in (to.height + 1..=from.height).rev() {
            self.next = take_back(transaction, height as u32)?;
        }
        self.cursor = Some(Cursor { block: to, transactions: self.next });
        self.commit()
    }
}

/// Makes an empty index. Until it is whole it has another name: half of one would be refused for ever.
fn create(path: &Path, network: &Network) -> Result<(), IndexError> {
    let new = path.with_extension("new");
    let io = |error: std::io::Error| IndexError::Database(redb::Error::Io(error));
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let database = Database::create(&new)?;
    let transaction = database.begin_write()?;
    transaction.open_table(NETWORK)?.insert((), &name(network)[..])?;
    transaction.open_table(CURSOR)?;
    transaction.open_table(BLOCKS)?;
    transaction.open_table(HASHES)?;
    transaction.open_table(TRANSACTIONS)?;
    transaction.open_table(IDS)?;
    transaction.open_table(OUTPUTS)?;
    transaction.open_table(UNSPENT)?;
    transaction.open_table(HISTORY)?;
    transaction.open_table(UNDO)?;
    transaction.commit()?;
    drop(database);
    std::fs::rename(&new, path).map_err(io)
}

/// What an index says it is of.
fn name(network: &Network) -> String {
    format!("{} (layout {LAYOUT})", network.name)
}

/// The transaction of the database that all is written in; begun if there is none.
fn writing<'a>(
    database: &Database,
    transaction: &'a mut Option<WriteTransaction>,
) -> Result<&'a WriteTransaction, IndexError> {
    if transaction.is_none() {
        *transaction = Some(database.begin_write()?);
    }
    Ok(transaction.as_ref().expect("it was begun"))
}

fn read_output(bytes: &[u8; 28]) -> Result<(ScriptKey, u64), Damaged> {
    let mut fields = Fields(bytes);
    Ok((fields.script()?, fields.number()?))
}

fn output_row(script: ScriptKey, value: u64) -> [u8; 28] {
    join([&script.0[..], &value.to_be_bytes()])
}

fn id_key(txid: &Txid, number: [u8; 5]) -> [u8; 13] {
    join([&txid.as_bytes()[..8], &number])
}

pub(crate) fn unspent_key(script: ScriptKey, place: Place) -> [u8; 29] {
    join([&script.0[..], &place.bytes()])
}

pub(crate) fn history_key(script: ScriptKey, place: Place, is_spent: bool) -> [u8; 30] {
    join([&script.0[..], &five(place.transaction), &[u8::from(is_spent)], &place.index.to_be_bytes()])
}
