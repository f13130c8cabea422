//! The block that is being indexed: what it spends and pays waits here until it is written in the order of its keys.

use std::collections::HashMap;

use redb::{ReadableTable, Table, WriteTransaction};
use tipward_chain::sync::{
    BlockId,
    peer::wire::{Txid, bitcoin::OutPoint},
};

use super::{
    HISTORY, IDS, IndexError, OUTPUTS, TRANSACTIONS, UNDO, UNSPENT, history_key, id_key, output_row,
    read_output, unspent_key,
};
use crate::{
    keys::{BlockRow, Place, ScriptKey, TransactionRow, Undo, five},
    parse::ParsedOutput,
    view::numbers,
};

/// What waits to be written, each table in the order of its keys.
#[derive(Default)]
pub(super) struct Pending {
    transactions: Vec<([u8; 5], [u8; 46])>,
    ids: Vec<[u8; 13]>,
    history: Vec<([u8; 30], u64)>,
    /// Outputs that nobody has spent yet. Many are spent soon, and then the database never hears of them.
    outputs: HashMap<(Txid, u32), Output>,
    /// What is not unspent any more.
    spent: Vec<[u8; 29]>,
    /// Those of a transaction whose id is not known yet.
    unnamed: Vec<Output>,
    /// Those of a transaction whose id a later one has too.
    nameless: Vec<Output>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    place: Place,
    script: ScriptKey,
    value: u64,
}

/// The block that is being indexed.
pub(super) struct OpenBlock {
    pub(super) id: BlockId,
    pub(super) row: BlockRow,
    pub(super) undo: Vec<u8>,
    pieces: u32,
    /// How many inputs and outputs the present transaction has had so far.
    pub(super) inputs: u32,
    pub(super) outputs: u32,
}

/// Where outputs are found that are not pending.
pub(super) struct Coins<'a> {
    pub(super) outputs: Table<'a, &'static [u8; 9], &'static [u8; 28]>,
    pub(super) ids: Table<'a, &'static [u8; 13], ()>,
    pub(super) rows: Table<'a, &'static [u8; 5], &'static [u8; 46]>,
}

impl Coins<'_> {
    /// Takes an output out of those that are unspent.
    fn take(&mut self, outpoint: OutPoint) -> Result<Option<Output>, IndexError> {
        let candidates = numbers(&self.ids, &outpoint.txid)?;
        let are_many = candidates.len() > 1;
        // Of two transactions with one id the later one counts (BIP 30).
        for number in candidates.into_iter().rev() {
            let is_it = !are_many || {
                let row = self.rows.get(&five(number))?;
                row.is_some_and(|row| row.value().starts_with(outpoint.txid.as_bytes()))
            };
            let place = Place { transaction: number, index: outpoint.index };
            if is_it && let Some(output) = self.outputs.remove(&place.bytes())? {
                let (script, value) = read_output(output.value())?;
                return Ok(Some(Output { place, script, value }));
            }
        }
        Ok(None)
    }
}

impl OpenBlock {
    pub(super) fn new(id: BlockId, row: BlockRow) -> Self {
        Self { id, row, undo: Vec::new(), pieces: 0, inputs: 0, outputs: 0 }
    }

    pub(super) fn spend(
        &mut self,
        number: u64,
        outpoint: OutPoint,
        pending: &mut Pending,
        coins: &mut Coins<'_>,
    ) -> Result<(), IndexError> {
        let input = Place { transaction: number, index: self.inputs };
        self.inputs += 1;
        if outpoint.is_null() {
            return Ok(());
        }
        let output = match pending.outputs.remove(&(outpoint.txid, outpoint.index)) {
            Some(output) => output,
            None => match coins.take(outpoint)? {
                Some(output) => {
                    pending.spent.push(unspent_key(output.script, output.place));
                    output
                }
                None => {
                    self.row.unknown_inputs += 1;
                    return Ok(());
                }
            },
        };
        self.row.inputs += 1;
        self.row.value_in = self.row.value_in.saturating_add(output.value);
        pending.history.push((history_key(output.script, input, true), output.value));
        let Output { place, script, value } = output;
        Undo::Spent { input, output: place, script, value }.append(&mut self.undo);
        Ok(())
    }

    pub(super) fn receive(&mut self, number: u64, output: &ParsedOutput, pending: &mut Pending) {
        let place = Place { transaction: number, index: self.outputs };
        self.outputs += 1;
        self.row.outputs += 1;
        self.row.value_out = self.row.value_out.saturating_add(output.value);
        let ParsedOutput { script, value, is_unspendable } = *output;
        pending.history.push((history_key(script, place, false), value));
        // Nodes do not let anyone spend what genesis pays.
        if is_unspendable || self.id.height == 0 {
            Undo::Unspendable { output: place, script }.append(&mut self.undo);
        } else {
            pending.unnamed.push(Output { place, script, value });
        }
    }

    /// All of a transaction was seen, so that its id is known.
    pub(super) fn complete(&mut self, number: u64, row: &TransactionRow, pending: &mut Pending) {
        let number = five(number);
        pending.transactions.push((number, row.write()));
        pending.ids.push(id_key(&row.txid, number));
        let outputs = pending.unnamed.drain(..);
        // Of an earlier transaction with the same id: found no more, and unspent for good (BIP 30).
        let replaced = outputs.filter_map(|it| pending.outputs.insert((row.txid, it.place.index), it));
        let replaced: Vec<Output> = replaced.collect();
        pending.nameless.extend(replaced);
        (self.inputs, self.outputs) = (0, 0);
        self.row.transactions += 1;
    }

    pub(super) fn write_undo(&mut self, transaction: &WriteTransaction) -> Result<(), IndexError> {
        if !self.undo.is_empty() {
            transaction.open_table(UNDO)?.insert((self.id.height as u32, self.pieces), &self.undo[..])?;
            self.pieces += 1;
            self.undo.clear();
        }
        Ok(())
    }
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.transactions.len()
            + self.history.len()
            + self.spent.len()
            + self.outputs.len()
            + self.unnamed.len()
            + self.nameless.len()
    }

    pub(super) fn write(mut self, transaction: &WriteTransaction) -> Result<(), IndexError> {
        let outputs = self.outputs.into_values().chain(self.unnamed).chain(self.nameless);
        let mut outputs: Vec<Output> = outputs.collect();
        let mut table = transaction.open_table(TRANSACTIONS)?;
        for (number, row) in &self.transactions {
            table.insert(number, row)?;
        }
        let mut table = transaction.open_table(IDS)?;
        self.ids.sort_unstable();
        for id in &self.ids {
            table.insert(id, ())?;
        }
        let mut table = transaction.open_table(HISTORY)?;
        self.history.sort_unstable();
        for (key, value) in &self.history {
            table.insert(key, value)?;
        }
        let mut table = transaction.open_table(UNSPENT)?;
        self.spent.sort_unstable();
        for key in &self.spent {
            table.remove(key)?;
        }
        outputs.sort_unstable_by_key(|output| (output.script, output.place));
        for output in &outputs {
            table.insert(&unspent_key(output.script, output.place), output.value)?;
        }
        let mut table = transaction.open_table(OUTPUTS)?;
        outputs.sort_unstable_by_key(|output| output.place);
        for output in &outputs {
            table.insert(&output.place.bytes(), &output_row(output.script, output.value))?;
        }
        Ok(())
    }
}
