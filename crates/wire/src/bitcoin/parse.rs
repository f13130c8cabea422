//! Payloads to messages, with nom. Counts are checked against their limit and against the bytes that are there before
//! anything is allocated.

use bytes::Bytes;
use nom::{
    IResult, Parser,
    bytes::complete::take,
    error::{ErrorKind, ParseError},
    number::complete::{be_u16, le_i32, le_i64, le_u8, le_u32, le_u64},
};

use super::{
    BlockHeader, Command, Inventory, InventoryKind, Locator, MAX_HEADERS, MAX_INVENTORY, MAX_LOCATOR,
    Message, NetworkAddress, Protoconf, Reject, Services, Version, compact_size::compact_size_len,
    decode_compact_size,
};
use crate::{BlockHash, WireError};

/// Parses a whole payload. Bytes after the last known field are ignored, as nodes do.
pub(super) fn message(command: Command, payload: Bytes) -> Result<Message, WireError> {
    let input = &payload[..];
    let parsed = match command.as_str() {
        "version" => version(input).map(|(_, v)| Message::Version(v)),
        "verack" => Ok(Message::Verack),
        "ping" => nonce(input).map(|(_, v)| Message::Ping(v)),
        "pong" => nonce(input).map(|(_, v)| Message::Pong(v)),
        "getheaders" => locator(input).map(|(_, v)| Message::GetHeaders(v)),
        "getblocks" => locator(input).map(|(_, v)| Message::GetBlocks(v)),
        "headers" => headers(input).map(|(_, v)| Message::Headers(v)),
        "inv" => inventory(input).map(|(_, v)| Message::Inv(v)),
        "getdata" => inventory(input).map(|(_, v)| Message::GetData(v)),
        "notfound" => inventory(input).map(|(_, v)| Message::NotFound(v)),
        "sendheaders" => Ok(Message::SendHeaders),
        "protoconf" => protoconf(input).map(|(_, v)| Message::Protoconf(v)),
        "reject" => reject(input).map(|(_, v)| Message::Reject(v)),
        _ => return Ok(Message::Other { command, payload }),
    };
    parsed.map_err(|error| {
        let FieldError { remaining, field, problem } = match error {
            nom::Err::Error(error) | nom::Err::Failure(error) => error,
            nom::Err::Incomplete(_) => FieldError { remaining: 0, field: "payload", problem: TRUNCATED },
        };
        WireError::Malformed {
            command: command.as_str().to_owned(),
            field,
            offset: input.len() - remaining,
            problem,
        }
    })
}

const TRUNCATED: &str = "the payload ends inside it";

type Parsed<'a, T> = IResult<&'a [u8], T, FieldError>;

/// Where parsing stopped, as bytes left, so that the offset can be told.
#[derive(Debug)]
struct FieldError {
    remaining: usize,
    field: &'static str,
    problem: &'static str,
}

impl ParseError<&[u8]> for FieldError {
    fn from_error_kind(input: &[u8], _kind: ErrorKind) -> Self {
        Self { remaining: input.len(), field: "payload", problem: TRUNCATED }
    }

    fn append(_input: &[u8], _kind: ErrorKind, other: Self) -> Self {
        other
    }
}

fn fail<T>(input: &[u8], field: &'static str, problem: &'static str) -> Result<T, nom::Err<FieldError>> {
    Err(nom::Err::Failure(FieldError { remaining: input.len(), field, problem }))
}

/// Runs `parser` and gives its error the field's name and the field's own start.
fn field<'a, T>(
    name: &'static str,
    input: &'a [u8],
    mut parser: impl Parser<&'a [u8], Output = T, Error = FieldError>,
) -> Parsed<'a, T> {
    parser.parse(input).map_err(|error| {
        error.map(|error| FieldError { remaining: input.len(), field: name, problem: error.problem })
    })
}

fn version(input: &[u8]) -> Parsed<'_, Version> {
    let (input, protocol) = field("version", input, le_i32)?;
    let (input, services) = field("services", input, le_u64)?;
    let (input, time) = field("timestamp", input, le_i64)?;
    let (input, receiver) = field("addr_recv", input, address)?;
    let (input, sender) = field("addr_from", input, address)?;
    let (input, nonce) = field("nonce", input, le_u64)?;
    let (input, user_agent) = field("user_agent", input, |i| string(i, 256))?;
    let (input, start_height) = field("start_height", input, le_i32)?;
    // Absent from old nodes, which want everything relayed.
    let (input, relay) = match input.split_first() {
        Some((flag, rest)) => (rest, *flag != 0),
        None => (input, true),
    };
    let services = Services(services);
    let version =
        Version { protocol, services, time, receiver, sender, nonce, user_agent, start_height, relay };
    Ok((input, version))
}

fn address(input: &[u8]) -> Parsed<'_, NetworkAddress> {
    let (input, services) = le_u64(input)?;
    let (input, ip) = array::<16>(input)?;
    let (input, port) = be_u16(input)?;
    Ok((input, NetworkAddress { services: Services(services), ip: ip.into(), port }))
}

fn nonce(input: &[u8]) -> Parsed<'_, u64> {
    field("nonce", input, le_u64)
}

fn locator(input: &[u8]) -> Parsed<'_, Locator> {
    let (input, protocol) = field("version", input, le_u32)?;
    let (input, hashes) = list("hashes", input, MAX_LOCATOR, 32, block_hash)?;
    let (input, stop) = field("hash_stop", input, block_hash)?;
    Ok((input, Locator { protocol, hashes, stop }))
}

fn headers(input: &[u8]) -> Parsed<'_, Vec<BlockHeader>> {
    list("headers", input, MAX_HEADERS, 81, |input| {
        let (input, header) = array::<80>(input)?;
        let (input, _transactions) = compact_size(input)?;
        Ok((input, BlockHeader::from_bytes(&header)))
    })
}

fn inventory(input: &[u8]) -> Parsed<'_, Vec<Inventory>> {
    list("inventory", input, MAX_INVENTORY, 36, |input| {
        let (input, kind) = le_u32(input)?;
        let (input, hash) = array::<32>(input)?;
        Ok((input, Inventory { kind: InventoryKind::from_u32(kind), hash }))
    })
}

fn protoconf(input: &[u8]) -> Parsed<'_, Protoconf> {
    let start = input;
    let (input, fields) = field("fields", input, compact_size)?;
    if fields == 0 {
        return fail(start, "fields", "at least one is needed");
    }
    let (input, max_receive_payload) = field("max_receive_payload", input, le_u32)?;
    let (input, stream_policies) = if fields > 1 {
        let (input, policies) = field("stream_policies", input, |i| string(i, 650))?;
        (input, Some(policies))
    } else {
        (input, None)
    };
    Ok((input, Protoconf { max_receive_payload, stream_policies }))
}

fn reject(input: &[u8]) -> Parsed<'_, Reject> {
    let (input, message) = field("message", input, |i| string(i, 12))?;
    let (input, code) = field("code", input, le_u8)?;
    let (input, reason) = field("reason", input, |i| string(i, 111))?;
    // A malformed transaction is refused without a hash.
    let (input, hash) = match array::<32>(input) {
        Ok((rest, hash)) => (rest, Some(hash)),
        Err(_) => (input, None),
    };
    Ok((input, Reject { message, code, reason, hash }))
}

/// A counted list whose entries take at least `entry_size` bytes each.
fn list<'a, T>(
    name: &'static str,
    input: &'a [u8],
    limit: usize,
    entry_size: usize,
    mut entry: impl FnMut(&'a [u8]) -> Parsed<'a, T>,
) -> Parsed<'a, Vec<T>> {
    let (mut rest, count) = field(name, input, compact_size)?;
    let count = match usize::try_from(count) {
        Ok(count) if count <= limit => count,
        _ => return fail(input, name, "more entries than allowed"),
    };
    if rest.len() / entry_size < count {
        return fail(input, name, "more entries than the payload has room for");
    }
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let (after, value) = field(name, rest, &mut entry)?;
        entries.push(value);
        rest = after;
    }
    Ok((rest, entries))
}

fn block_hash(input: &[u8]) -> Parsed<'_, BlockHash> {
    let (input, hash) = array::<32>(input)?;
    Ok((input, BlockHash::from_bytes(hash)))
}

fn array<const N: usize>(input: &[u8]) -> Parsed<'_, [u8; N]> {
    let (input, taken) = take(N)(input)?;
    let mut bytes = [0; N];
    bytes.copy_from_slice(taken);
    Ok((input, bytes))
}

fn compact_size(input: &[u8]) -> Parsed<'_, u64> {
    match decode_compact_size(input) {
        Some((value, len)) => Ok((&input[len..], value)),
        None if input.first().is_none_or(|&first| input.len() < compact_size_len(first)) => {
            fail(input, "count", TRUNCATED)
        }
        None => fail(input, "count", "not in its shortest form"),
    }
}

/// Text of at most `limit` bytes. What is not UTF-8 is replaced: it is shown to people and compared with nothing.
fn string(input: &[u8], limit: usize) -> Parsed<'_, String> {
    let (rest, len) = compact_size(input)?;
    match usize::try_from(len) {
        Ok(len) if len <= limit => {
            let (rest, text) = take(len)(rest)?;
            Ok((rest, String::from_utf8_lossy(text).into_owned()))
        }
        _ => fail(input, "text", "longer than allowed"),
    }
}
