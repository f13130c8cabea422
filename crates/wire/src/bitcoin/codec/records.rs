//! The messages inside an encrypted connection (BIP 324, "v2 P2P message structure"), as plain records.
//!
//! A record is the length of the contents as u32, little-endian, and the contents: the message type, which is one byte for
//! the usual commands or a zero byte and the twelve of the command, and the payload. Encryption frames and authenticates
//! the contents, so there is neither magic nor checksum. The one-byte types are those of the table in BIP 324, with
//! `feature` as Bitcoin Core assigns it.

use bytes::{Buf, BufMut, BytesMut};

use super::Codec;
use crate::{WireError, bitcoin::Command};

/// The size of a record's length field in bytes.
const LENGTH: usize = 4;
/// The longest message type in bytes: a zero and a command.
const LONG_TYPE: usize = 13;

/// The commands with a type of one byte.
const SHORT_IDS: [(u8, &str); 29] = [
    (1, "addr"),
    (2, "block"),
    (3, "blocktxn"),
    (4, "cmpctblock"),
    (5, "feefilter"),
    (6, "filteradd"),
    (7, "filterclear"),
    (8, "filterload"),
    (9, "getblocks"),
    (10, "getblocktxn"),
    (11, "getdata"),
    (12, "getheaders"),
    (13, "headers"),
    (14, "inv"),
    (15, "mempool"),
    (16, "merkleblock"),
    (17, "notfound"),
    (18, "ping"),
    (19, "pong"),
    (20, "sendcmpct"),
    (21, "tx"),
    (22, "getcfilters"),
    (23, "cfilter"),
    (24, "getcfheaders"),
    (25, "cfheaders"),
    (26, "getcfcheckpt"),
    (27, "cfcheckpt"),
    (28, "addrv2"),
    (37, "feature"),
];

impl Codec {
    /// Takes a record's length and message type; `false` if they are not all there.
    pub(super) fn read_record_header(&mut self, input: &mut BytesMut) -> Result<bool, WireError> {
        let Some(length) = input.first_chunk().map(|length| u32::from_le_bytes(*length)) else {
            return Ok(false);
        };
        if length == 0 {
            return Err(WireError::NoType { length });
        }
        let Some(&id) = input.get(LENGTH) else { return Ok(false) };
        let (command, type_length) = if id == 0 {
            if (length as usize) < LONG_TYPE {
                return Err(WireError::NoType { length });
            }
            let Some(name) = input.get(LENGTH + 1..).and_then(<[u8]>::first_chunk) else { return Ok(false) };
            (Command::from_bytes(*name)?, LONG_TYPE)
        } else {
            (command(id).ok_or(WireError::ShortId { found: id })?, 1)
        };
        input.advance(LENGTH + type_length);
        self.begin(command, u64::from(length) - type_length as u64, None)?;
        Ok(true)
    }
}

/// Appends a record.
pub(super) fn put_record(command: Command, payload: &[u8], output: &mut BytesMut) {
    output.reserve(LENGTH + LONG_TYPE + payload.len());
    put_record_start(command, payload.len() as u64, output);
    output.put_slice(payload);
}

/// Appends a record up to its payload of so many bytes.
pub(super) fn put_record_start(command: Command, size: u64, output: &mut BytesMut) {
    let id = short_id(command);
    let type_length = if id.is_some() { 1 } else { LONG_TYPE };
    let length = u32::try_from(type_length as u64 + size);
    output.put_u32_le(length.expect("no message of a chain with BIP 324 reaches 4 GiB"));
    match id {
        Some(id) => output.put_u8(id),
        None => {
            output.put_u8(0);
            output.put_slice(command.as_bytes());
        }
    }
}

fn command(id: u8) -> Option<Command> {
    let (_, name) = SHORT_IDS.into_iter().find(|(known, _)| *known == id)?;
    Command::new(name)
}

fn short_id(command: Command) -> Option<u8> {
    let (id, _) = SHORT_IDS.into_iter().find(|(_, name)| *name == command.as_str())?;
    Some(id)
}

#[cfg(test)]
mod tests;
