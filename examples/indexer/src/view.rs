//! The index for those who ask. All that one [`View`] answers is of one state: what was committed last when it was taken.

use std::sync::Arc;

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableHandle};
use tipward_chain::wire::{BlockHash, Txid};

use crate::{
    index::{
        BLOCKS, CURSOR, HASHES, HISTORY, IDS, IndexError, OUTPUTS, TRANSACTIONS, UNDO, UNSPENT, history_key,
        unspent_key,
    },
    keys::{BlockRow, Cursor, Damaged, Fields, Place, ScriptKey, TransactionRow, five, join},
};

/// Reads the index while it is written.
#[derive(Clone)]
pub struct Reader(Arc<Database>);

impl Reader {
    pub(crate) fn new(database: Arc<Database>) -> Self {
        Self(database)
    }

    /// What was committed last.
    ///
    /// # Errors
    /// The database fails.
    pub fn view(&self) -> Result<View, IndexError> {
        Ok(View { transaction: self.0.begin_read()?, _database: self.0.clone() })
    }
}

/// One state of the index.
pub struct View {
    transaction: ReadTransaction,
    /// Open as long as it is read.
    _database: Arc<Database>,
}

/// Something that happened to a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// The transaction, and which of its inputs or outputs.
    pub place: Place,
    /// An input spends an output of the script; else an output pays to it.
    pub is_spent: bool,
    /// How much, in satoshi.
    pub value: u64,
}

impl View {
    /// Where the index is; `None` before genesis.
    ///
    /// # Errors
    /// The database fails.
    pub fn cursor(&self) -> Result<Option<Cursor>, IndexError> {
        let table = self.transaction.open_table(CURSOR)?;
        let cursor = table.get(())?;
        Ok(cursor.map(|cursor| Cursor::read(cursor.value())).transpose()?)
    }

    /// The block at a height.
    ///
    /// # Errors
    /// The database fails.
    pub fn block(&self, height: u64) -> Result<Option<BlockRow>, IndexError> {
        let Ok(height) = u32::try_from(height) else { return Ok(None) };
        let table = self.transaction.open_table(BLOCKS)?;
        let row = table.get(height)?;
        Ok(row.map(|row| BlockRow::read(row.value())).transpose()?)
    }

    /// The height of a block.
    ///
    /// # Errors
    /// The database fails.
    pub fn height(&self, hash: BlockHash) -> Result<Option<u64>, IndexError> {
        let table = self.transaction.open_table(HASHES)?;
        let height = table.get(hash.as_bytes())?;
        Ok(height.map(|height| height.value().into()))
    }

    /// The number of a transaction, and where it is. Of two with one id it is the later one (BIP 30).
    ///
    /// # Errors
    /// The database fails.
    pub fn transaction(&self, txid: Txid) -> Result<Option<(u64, TransactionRow)>, IndexError> {
        for number in numbers(&self.transaction.open_table(IDS)?, &txid)?.into_iter().rev() {
            let row = self.row(number)?;
            if row.txid == txid {
                return Ok(Some((number, row)));
            }
        }
        Ok(None)
    }

    /// Where the transaction with a number is.
    ///
    /// # Errors
    /// There is none, or the database fails.
    pub fn row(&self, number: u64) -> Result<TransactionRow, IndexError> {
        let table = self.transaction.open_table(TRANSACTIONS)?;
        let row = table.get(&five(number))?.ok_or(Damaged)?;
        Ok(TransactionRow::read(row.value())?)
    }

    /// Whether nobody has spent an output.
    ///
    /// # Errors
    /// The database fails.
    pub fn is_unspent(&self, place: Place) -> Result<bool, IndexError> {
        let table = self.transaction.open_table(OUTPUTS)?;
        Ok(table.get(&place.bytes())?.is_some())
    }

    /// What happened to a script, in the order of the chain: up to `limit` events from the first that is not before `from`.
    ///
    /// # Errors
    /// The database fails.
    pub fn history(&self, script: ScriptKey, from: Event, limit: usize) -> Result<Vec<Event>, IndexError> {
        let table = self.transaction.open_table(HISTORY)?;
        let (first, last) =
            (history_key(script, from.place, from.is_spent), join([&script.0[..], &[0xff; 10]]));
        let mut events = Vec::new();
        for entry in table.range(&first..=&last)?.take(limit) {
            let (key, value) = entry?;
            let mut fields = Fields(&key.value()[ScriptKey::LEN..]);
            let (transaction, [is_spent], index) = (fields.five()?, fields.array()?, fields.short()?);
            let place = Place { transaction, index };
            events.push(Event { place, is_spent: is_spent != 0, value: value.value() });
        }
        Ok(events)
    }

    /// The outputs that pay to a script and that nobody has spent, each with its value in satoshi, in the order of the chain: up
    /// to `limit` from the first that is not before `from`.
    ///
    /// # Errors
    /// The database fails.
    pub fn unspent(
        &self,
        script: ScriptKey,
        from: Place,
        limit: usize,
    ) -> Result<Vec<(Place, u64)>, IndexError> {
        let table = self.transaction.open_table(UNSPENT)?;
        let (first, last) = (unspent_key(script, from), join([&script.0[..], &[0xff; 9]]));
        let mut outputs = Vec::new();
        for entry in table.range(&first..=&last)?.take(limit) {
            let (key, value) = entry?;
            outputs.push((Fields(&key.value()[ScriptKey::LEN..]).place()?, value.value()));
        }
        Ok(outputs)
    }
}

/// Shows every entry of a table.
macro_rules! dump {
    ($view:expr, $each:expr, $($table:expr),*) => {$(
        for entry in $view.transaction.open_table($table)?.iter()? {
            let (key, value) = entry?;
            $each(format!("{} {:02x?} {:02x?}", $table.name(), key.value(), value.value()));
        }
    )*};
}

impl View {
    /// Shows every entry as a line, in a fixed order: two indexes of the same chain show the same.
    ///
    /// # Errors
    /// The database fails.
    pub fn dump(&self, mut each: impl FnMut(String)) -> Result<(), IndexError> {
        dump!(self, each, CURSOR, BLOCKS, HASHES, TRANSACTIONS, IDS, OUTPUTS, UNSPENT, HISTORY, UNDO);
        Ok(())
    }
}

/// The numbers of the transactions whose ids begin like this one: hardly ever more than one.
pub(crate) fn numbers(
    ids: &impl ReadableTable<&'static [u8; 13], ()>,
    txid: &Txid,
) -> Result<Vec<u64>, IndexError> {
    let start = &txid.as_bytes()[..8];
    let (first, last) = (join([start, &[0; 5]]), join([start, &[0xff; 5]]));
    let mut numbers = Vec::new();
    for entry in ids.range(&first..=&last)? {
        numbers.push(Fields(&entry?.0.value()[8..]).five()?);
    }
    Ok(numbers)
}
