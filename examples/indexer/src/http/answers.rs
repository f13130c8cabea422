//! The answers. Each is made from one [`View`], whose end `cursor` is.

use std::{collections::HashMap, io::Read};

use hex_conservative::{DisplayHex, decode_to_array};
use serde_json::{Value, json};
use tipward_chain::{
    ArchivedBlock,
    sync::{
        BlockId,
        peer::wire::{BlockHash, Txid, bitcoin::Transaction, bytes::Bytes},
    },
};

use super::{Api, Body, Problem};
use crate::{
    index::IndexError,
    keys::{BlockRow, Cursor, Fields, Place, ScriptKey, TransactionRow, five, join},
    view::{Event, View},
};

/// How many entries a page has unless asked otherwise, and at most. A transaction is told with so many inputs and outputs.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;
/// A larger transaction is not given out, in bytes.
const MAX_TRANSACTION: u64 = 16 << 20;

type Parameters = HashMap<String, String>;

/// Tells a block.
fn id(block: BlockId) -> Value {
    json!({"height": block.height, "hash": block.hash.to_string()})
}

pub(super) fn tip(api: &Api, view: &View, cursor: Cursor) -> Result<Value, Problem> {
    let progress = api.control.progress();
    let row = view.block(cursor.block.height)?;
    Ok(json!({
        "height": cursor.block.height,
        "hash": cursor.block.hash.to_string(),
        "time": row.map(|row| row.time),
        "transactions": cursor.transactions,
        "header_height": progress.header_tip.map(|tip| tip.height),
        "synced": progress.synced,
    }))
}

pub(super) fn status(api: &Api) -> Value {
    let progress = api.control.progress();
    let indexed = api.reader.view().and_then(|view| view.cursor()).ok().flatten();
    let peers = progress.shares.iter().map(|peer| {
        json!({
            "address": peer.address.to_string(),
            "user_agent": peer.user_agent,
            "blocks": peer.share.blocks,
            "bytes": peer.share.bytes,
            "bytes_per_second": peer.share.rate,
            "in_flight": peer.share.in_flight,
        })
    });
    let (at, tip) = (indexed.map(|cursor| cursor.block), progress.header_tip);
    let done = at.zip(tip).map(|(at, tip)| (at.height + 1) as f64 / (tip.height + 1) as f64);
    json!({
        "network": api.network.name,
        "state": if progress.synced { "synced" } else { "syncing" },
        "indexed": at.map(id),
        "headers": tip.map(id),
        "progress": done.map(|done| done.min(1.0)),
        "transactions": indexed.map(|cursor| cursor.transactions),
        "bytes_per_second": progress.bytes_per_second,
        "blocks_per_second": progress.blocks_per_second,
        "seconds_left": progress.eta.map(|eta| eta.as_secs()),
        "received": {
            "headers": progress.headers,
            "blocks": progress.blocks,
            "transactions": progress.transactions,
            "bytes": progress.bytes,
        },
        "reorgs": progress.reorgs,
        "peers": peers.collect::<Value>(),
    })
}

pub(super) fn block(
    api: &Api,
    view: &View,
    cursor: Cursor,
    text: &str,
    parameters: &Parameters,
) -> Result<Value, Problem> {
    let height = match (text.parse::<BlockHash>(), text.parse::<u64>()) {
        // 64 decimal digits are a hash.
        (Ok(hash), _) => view.height(hash)?,
        (_, Ok(height)) => Some(height),
        (Err(_), Err(_)) => {
            let line = format!("'{}' is neither a height nor a hash of 64 hexadecimal digits", brief(text));
            return Err(Problem::bad(line));
        }
    };
    let row = height.map(|height| view.block(height)).transpose()?.flatten();
    let (Some(height), Some(row)) = (height, row) else {
        return Err(unknown(&format!("block {}", brief(text)), api, cursor));
    };
    let (limit, from) = page::<5>(parameters)?;
    let mut position = Fields(&from).five().map_err(IndexError::Damaged)?;
    let mut txids = Vec::new();
    while position < row.transactions && txids.len() < limit {
        txids.push(view.row(row.first + position)?.txid.to_string());
        position += 1;
    }
    let BlockRow {
        hash, transactions, size, time, inputs, outputs, value_in, value_out, unknown_inputs, ..
    } = row;
    Ok(json!({
        "height": height,
        "hash": hash.to_string(),
        "confirmations": cursor.block.height + 1 - height,
        "time": time,
        "size": size,
        "transactions": transactions,
        "inputs": inputs,
        "outputs": outputs,
        "value_in": value_in,
        "value_out": value_out,
        "unknown_inputs": unknown_inputs,
        "txids": txids,
        "next": (position < transactions).then(|| five(position).to_lower_hex_string()),
    }))
}

/// A transaction that is in the index.
struct Found {
    txid: Txid,
    number: u64,
    row: TransactionRow,
    block: BlockRow,
}

fn find(api: &Api, view: &View, cursor: Cursor, text: &str) -> Result<Found, Problem> {
    let txid: Txid = text.parse().map_err(|_| {
        Problem::bad(format!("'{}' is not a transaction id: 64 hexadecimal digits are needed", brief(text)))
    })?;
    let (number, row) =
        view.transaction(txid)?.ok_or_else(|| unknown(&format!("transaction {txid}"), api, cursor))?;
    let block = view.block(row.height.into())?.ok_or(IndexError::Damaged(crate::keys::Damaged))?;
    Ok(Found { txid, number, row, block })
}

fn archived(api: &Api, found: &Found) -> Result<ArchivedBlock, Problem> {
    let hash = found.block.hash;
    let block = api.archive.by_hash(hash)?;
    block.ok_or_else(|| Problem::internal(format!("block {hash} is not in the archive")))
}

pub(super) fn transaction(
    api: &Api,
    view: &View,
    cursor: Cursor,
    text: &str,
    parameters: &Parameters,
) -> Result<Body, Problem> {
    let found = find(api, view, cursor, text)?;
    let TransactionRow { height, offset, size, .. } = found.row;
    let is_wanted = |name| parameters.contains_key(name);
    if size > MAX_TRANSACTION && (is_wanted("raw") || is_wanted("hex")) {
        let line =
            format!("the transaction has {size} bytes, and no more than {MAX_TRANSACTION} are given out");
        return Err(Problem::too_large(line));
    }
    let bytes = if size > MAX_TRANSACTION { None } else { Some(read(api, &found)?) };
    match bytes {
        Some(bytes) if is_wanted("raw") => return Ok(Body::Bytes(bytes.to_vec())),
        Some(bytes) if is_wanted("hex") => return Ok(Body::Text(bytes.to_lower_hex_string())),
        _ => {}
    }
    let mut answer = json!({
        "txid": found.txid.to_string(),
        "block": found.block.hash.to_string(),
        "height": height,
        "position": found.number - found.block.first,
        "confirmations": cursor.block.height + 1 - u64::from(height),
        "time": found.block.time,
        "offset": offset,
        "size": size,
    });
    if let Some(bytes) = bytes {
        let parsed = Transaction::new(bytes).map_err(|error| Problem::internal(error.to_string()))?;
        describe(&mut answer, &parsed, view, &found)?;
    }
    Ok(Body::Json(answer))
}

/// The bytes of a transaction, which are those of its id.
fn read(api: &Api, found: &Found) -> Result<Bytes, Problem> {
    let TransactionRow { offset, size, .. } = found.row;
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    api.archive.read_range(&archived(api, found)?, offset..offset + size)?.read_to_end(&mut bytes)?;
    let bytes = Bytes::from(bytes);
    match Transaction::new(bytes.clone()) {
        Ok(transaction) if transaction.txid() == found.txid => Ok(bytes),
        _ => Err(Problem::internal(format!(
            "the archive is damaged: transaction {} is not where it was",
            found.txid
        ))),
    }
}

fn describe(
    answer: &mut Value,
    transaction: &Transaction,
    view: &View,
    found: &Found,
) -> Result<(), Problem> {
    let inputs = transaction.inputs().take(MAX_PAGE).map(|input| {
        let spent = input.outpoint();
        if spent.is_null() {
            return json!({"coinbase": input.script().to_string()});
        }
        json!({"txid": spent.txid.to_string(), "output": spent.index, "sequence": input.sequence()})
    });
    answer["version"] = transaction.version().into();
    answer["lock_time"] = transaction.lock_time().into();
    answer["weight"] = transaction.weight().into();
    answer["inputs"] = inputs.collect();
    answer["input_count"] = transaction.inputs().len().into();
    let mut outputs = Vec::new();
    for (index, output) in (0..).zip(transaction.outputs().take(MAX_PAGE)) {
        let script = output.script().as_bytes();
        let place = Place { transaction: found.number, index };
        outputs.push(json!({
            "value": output.value(),
            "script": script.to_lower_hex_string(),
            "script_hash": script_hash(script),
            "unspent": view.is_unspent(place)?,
        }));
    }
    answer["outputs"] = outputs.into();
    answer["output_count"] = transaction.outputs().len().into();
    Ok(())
}

fn script_hash(script: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    let hash: [u8; 32] = Sha256::digest(script).into();
    hash.to_lower_hex_string()
}

pub(super) fn proof(api: &Api, view: &View, cursor: Cursor, text: &str) -> Result<Value, Problem> {
    let found = find(api, view, cursor, text)?;
    let proof = api.archive.prove(api.network, &archived(api, &found)?, &[found.txid])?;
    Ok(json!({
        "txid": found.txid.to_string(),
        "block": found.block.hash.to_string(),
        "height": found.row.height,
        "position": found.number - found.block.first,
        "proof": proof.to_bytes().to_lower_hex_string(),
    }))
}

/// Which page is asked for: how many entries, and from where.
fn page<const N: usize>(parameters: &Parameters) -> Result<(usize, [u8; N]), Problem> {
    let limit = parameters.get("limit").map_or(Ok(PAGE), |text| {
        let limit = text.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit));
        limit.ok_or_else(|| {
            Problem::bad(format!("limit '{}' is not a number from 1 to {MAX_PAGE}", brief(text)))
        })
    })?;
    let from = parameters.get("from").map_or(Ok([0; N]), |text| {
        let line = || format!("from '{}' is not what 'next' of another page was", brief(text));
        decode_to_array(text).map_err(|_| Problem::bad(line()))
    })?;
    Ok((limit, from))
}

fn script(text: &str) -> Result<ScriptKey, Problem> {
    brief(text).parse().map_err(|error: crate::keys::NoScriptHash| Problem::bad(error.to_string()))
}

/// Where entries are, which share blocks and transactions with their neighbours.
struct Located<'a>(&'a View, Option<(u64, Value)>);

impl Located<'_> {
    /// The fields that every entry has.
    fn fields(&mut self, number: u64) -> Result<Value, Problem> {
        if let Some((known, fields)) = &self.1
            && *known == number
        {
            return Ok(fields.clone());
        }
        let row = self.0.row(number)?;
        let block = self.0.block(row.height.into())?.ok_or(IndexError::Damaged(crate::keys::Damaged))?;
        let fields =
            json!({"txid": row.txid.to_string(), "height": row.height, "position": number - block.first});
        self.1 = Some((number, fields.clone()));
        Ok(fields)
    }
}

pub(super) fn history(
    view: &View,
    cursor: Cursor,
    text: &str,
    parameters: &Parameters,
) -> Result<Value, Problem> {
    let (script, (limit, from)) = (script(text)?, page::<10>(parameters)?);
    let mut fields = Fields(&from);
    let read = |error| Problem::from(IndexError::Damaged(error));
    let transaction = fields.five().map_err(read)?;
    let [is_spent] = fields.array().map_err(read)?;
    let place = Place { transaction, index: fields.short().map_err(read)? };
    let from = Event { place, is_spent: is_spent != 0, value: 0 };
    let mut events = view.history(script, from, limit + 1)?;
    let next = events.drain(limit.min(events.len())..).next().map(|Event { place, is_spent, .. }| {
        let token: [u8; 10] = join([&place.bytes()[..5], &[u8::from(is_spent)], &place.index.to_be_bytes()]);
        token.to_lower_hex_string()
    });
    let (mut located, mut entries) = (Located(view, None), Vec::new());
    for Event { place, is_spent, value } in events {
        let mut entry = located.fields(place.transaction)?;
        entry[if is_spent { "input" } else { "output" }] = place.index.into();
        entry[if is_spent { "spent" } else { "received" }] = value.into();
        entries.push(entry);
    }
    Ok(json!({"tip": id(cursor.block), "entries": entries, "next": next}))
}

pub(super) fn utxos(
    view: &View,
    cursor: Cursor,
    text: &str,
    parameters: &Parameters,
) -> Result<Value, Problem> {
    let (script, (limit, from)) = (script(text)?, page::<9>(parameters)?);
    let from = Fields(&from).place().map_err(IndexError::Damaged)?;
    let mut outputs = view.unspent(script, from, limit + 1)?;
    let next = outputs.drain(limit.min(outputs.len())..).next();
    let next = next.map(|(place, _)| place.bytes().to_lower_hex_string());
    let (mut located, mut entries) = (Located(view, None), Vec::new());
    for (place, value) in outputs {
        let mut entry = located.fields(place.transaction)?;
        entry["output"] = place.index.into();
        entry["value"] = value.into();
        entries.push(entry);
    }
    Ok(json!({"tip": id(cursor.block), "entries": entries, "next": next}))
}

/// What is not there may come yet.
fn unknown(what: &str, api: &Api, cursor: Cursor) -> Problem {
    let tip = api.control.progress().header_tip.map_or(0, |tip| tip.height);
    let at = cursor.block.height;
    let behind = if tip > at { format!(", which is at height {at} of {tip}") } else { String::new() };
    Problem::not_found(format!("{what} is not in the index{behind}"))
}

/// The start of what somebody has sent.
fn brief(text: &str) -> &str {
    text.char_indices().nth(80).map_or(text, |(end, _)| &text[..end])
}
