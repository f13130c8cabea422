//! How a block is taken back: by the records of what it has spent, and by its numbers, which are the highest.

use redb::{ReadableTable, WriteTransaction};

use super::{
    BLOCKS, HASHES, HISTORY, IDS, IndexError, OUTPUTS, TRANSACTIONS, UNDO, UNSPENT, history_key, id_key,
    output_row, read_output, unspent_key,
};
use crate::keys::{BlockRow, Damaged, Fields, TransactionRow, Undo, five};

/// Takes the last block back; returns the number of its first transaction.
pub(super) fn take_back(transaction: &WriteTransaction, height: u32) -> Result<u64, IndexError> {
    take_back_spends(transaction, height)?;
    let mut blocks = transaction.open_table(BLOCKS)?;
    let row = BlockRow::read(blocks.remove(height)?.ok_or(Damaged)?.value())?;
    let first = five(row.first);
    let mut outputs = transaction.open_table(OUTPUTS)?;
    let mut unspent = transaction.open_table(UNSPENT)?;
    let mut history = transaction.open_table(HISTORY)?;
    // What the block has spent of its own is unspent again by now, so this is all that it has paid.
    loop {
        let last = outputs.last()?.map(|(key, value)| (*key.value(), *value.value()));
        let Some((key, value)) = last.filter(|(key, _)| key[..5] >= first[..]) else { break };
        let ((script, _), place) = (read_output(&value)?, Fields(&key).place()?);
        unspent.remove(&unspent_key(script, place))?;
        history.remove(&history_key(script, place, false))?;
        outputs.remove(&key)?;
    }
    let mut rows = transaction.open_table(TRANSACTIONS)?;
    let mut ids = transaction.open_table(IDS)?;
    loop {
        let last = rows.last()?.map(|(key, value)| (*key.value(), *value.value()));
        let Some((number, row)) = last.filter(|(number, _)| *number >= first) else { break };
        ids.remove(&id_key(&TransactionRow::read(&row)?.txid, number))?;
        rows.remove(&number)?;
    }
    transaction.open_table(HASHES)?.remove(row.hash.as_bytes())?;
    Ok(row.first)
}

fn take_back_spends(transaction: &WriteTransaction, height: u32) -> Result<(), IndexError> {
    let mut outputs = transaction.open_table(OUTPUTS)?;
    let mut unspent = transaction.open_table(UNSPENT)?;
    let mut history = transaction.open_table(HISTORY)?;
    let mut undo = transaction.open_table(UNDO)?;
    loop {
        let last = undo.range((height, 0)..=(height, u32::MAX))?.next_back().transpose()?;
        let Some((key, piece)) = last.map(|(key, piece)| (key.value(), piece.value().to_vec())) else {
            break;
        };
        for record in Undo::read_all(&piece)?.into_iter().rev() {
            match record {
                Undo::Spent { input, output, script, value } => {
                    outputs.insert(&output.bytes(), &output_row(script, value))?;
                    unspent.insert(&unspent_key(script, output), value)?;
                    history.remove(&history_key(script, input, true))?;
                }
                Undo::Unspendable { output, script } => {
                    history.remove(&history_key(script, output, false))?;
                }
            }
        }
        undo.remove(key)?;
    }
    Ok(())
}
