//! The parts that payloads are made of, parsed with nom. Counts are checked against their limit and against the bytes that
//! are there before anything is allocated.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use nom::{
    IResult, Parser,
    bytes::complete::take,
    error::{ErrorKind, ParseError},
    number::complete::le_u8,
};

use crate::{
    BlockHash, Txid,
    bitcoin::{
        BlockHeader, Transaction, compact_size::compact_size_len, decode_compact_size, encode_compact_size,
    },
};

/// The payload of a command.
pub(super) trait Payload: Sized {
    /// The longest payload that can be meant, in bytes; `None` if only the chain's own limit on messages holds. Where it is
    /// small there is room for fields to come.
    const LIMIT: Option<u64>;

    /// Parses it from the front of `input`, which lies in `payload`.
    fn parse<'a>(input: &'a [u8], payload: &Bytes) -> Parsed<'a, Self>;

    /// Appends it.
    fn serialize(&self, output: &mut BytesMut);
}

/// Text that a peer sent (`varstr`): any bytes, meant to be read by people.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct VarStr(Bytes);

impl VarStr {
    /// The bytes as they travel.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for VarStr {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<Bytes> for VarStr {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl PartialEq<str> for VarStr {
    fn eq(&self, text: &str) -> bool {
        self.0 == text.as_bytes()
    }
}

impl fmt::Display for VarStr {
    /// What is not UTF-8 or controls terminals is replaced.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for shown in String::from_utf8_lossy(&self.0).chars() {
            write!(f, "{}", if shown.is_control() { char::REPLACEMENT_CHARACTER } else { shown })?;
        }
        Ok(())
    }
}

impl fmt::Debug for VarStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

pub(super) type Parsed<'a, T> = IResult<&'a [u8], T, FieldError>;

/// Where parsing stopped, as bytes left, so that the offset can be told.
#[derive(Debug)]
pub(super) struct FieldError {
    pub(super) remaining: usize,
    pub(super) field: &'static str,
    pub(super) problem: &'static str,
}

const TRUNCATED: &str = "the payload ends inside it";
/// The name of what has none of its own.
const UNNAMED: &str = "payload";

impl ParseError<&[u8]> for FieldError {
    fn from_error_kind(input: &[u8], _kind: ErrorKind) -> Self {
        Self { remaining: input.len(), field: UNNAMED, problem: TRUNCATED }
    }

    fn append(_input: &[u8], _kind: ErrorKind, other: Self) -> Self {
        other
    }
}

pub(super) fn fail<T>(
    input: &[u8],
    field: &'static str,
    problem: &'static str,
) -> Result<T, nom::Err<FieldError>> {
    Err(nom::Err::Failure(FieldError { remaining: input.len(), field, problem }))
}

/// Runs `parser`; an error in it that has no name yet gets this field's, and this field's start.
pub(super) fn field<'a, T>(
    name: &'static str,
    input: &'a [u8],
    mut parser: impl Parser<&'a [u8], Output = T, Error = FieldError>,
) -> Parsed<'a, T> {
    parser.parse(input).map_err(|error| {
        error.map(|error| match error.field {
            UNNAMED => FieldError { remaining: input.len(), field: name, ..error },
            _ => error,
        })
    })
}

/// A counted list of at most `limit` entries that take at least `entry_size` bytes each.
pub(super) fn list<'a, T>(
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
    // An entry can take more room in memory than in the payload: no more is taken ahead than the payload itself takes.
    let mut entries = Vec::with_capacity(count.min(rest.len() / size_of::<T>().max(1) + 1));
    for _ in 0..count {
        let (after, value) = field(name, rest, &mut entry)?;
        entries.push(value);
        rest = after;
    }
    Ok((rest, entries))
}

pub(super) fn array<const N: usize>(input: &[u8]) -> Parsed<'_, [u8; N]> {
    let (input, taken) = take(N)(input)?;
    let mut bytes = [0; N];
    bytes.copy_from_slice(taken);
    Ok((input, bytes))
}

pub(super) fn block_hash(input: &[u8]) -> Parsed<'_, BlockHash> {
    array(input).map(|(input, hash)| (input, BlockHash::from_bytes(hash)))
}

pub(super) fn txid(input: &[u8]) -> Parsed<'_, Txid> {
    array(input).map(|(input, hash)| (input, Txid::from_bytes(hash)))
}

pub(super) fn header(input: &[u8]) -> Parsed<'_, BlockHeader> {
    array(input).map(|(input, bytes)| (input, BlockHeader::from_bytes(&bytes)))
}

/// A flag: nodes read any byte but zero as yes.
pub(super) fn flag(input: &[u8]) -> Parsed<'_, bool> {
    le_u8(input).map(|(input, byte)| (input, byte != 0))
}

pub(super) fn compact_size(input: &[u8]) -> Parsed<'_, u64> {
    match decode_compact_size(input) {
        Some((value, len)) => Ok((&input[len..], value)),
        None if input.first().is_none_or(|&first| input.len() < compact_size_len(first)) => {
            fail(input, UNNAMED, TRUNCATED)
        }
        None => fail(input, UNNAMED, "not in its shortest form"),
    }
}

/// Shorter fields are copied, so that one that is kept does not keep a connection's buffer.
const COPIED: usize = 1024;

/// Bytes with their length before them, at most `limit`.
pub(super) fn bytes<'a>(input: &'a [u8], payload: &Bytes, limit: usize) -> Parsed<'a, Bytes> {
    let (rest, length) = compact_size(input)?;
    match usize::try_from(length) {
        Ok(length) if length <= limit => {
            let (rest, taken) = take(length)(rest)?;
            Ok((rest, if limit <= COPIED { Bytes::copy_from_slice(taken) } else { slice(taken, payload) }))
        }
        _ => fail(input, UNNAMED, "longer than allowed"),
    }
}

/// Text of at most `limit` bytes.
pub(super) fn text<'a>(input: &'a [u8], payload: &Bytes, limit: usize) -> Parsed<'a, VarStr> {
    bytes(input, payload, limit).map(|(input, text)| (input, VarStr(text)))
}

/// A transaction, with or without witnesses.
pub(super) fn transaction<'a>(input: &'a [u8], payload: &Bytes) -> Parsed<'a, Transaction> {
    match Transaction::split_from(&mut slice(input, payload)) {
        Ok(transaction) => Ok((&input[transaction.as_bytes().len()..], transaction)),
        Err(error) => {
            let at = usize::try_from(error.offset).unwrap_or(usize::MAX).min(input.len());
            fail(&input[at..], "transaction", error.problem)
        }
    }
}

/// The piece of `payload` that `part` is.
pub(super) fn slice(part: &[u8], payload: &Bytes) -> Bytes {
    // An empty slice may point anywhere.
    if part.is_empty() { Bytes::new() } else { payload.slice_ref(part) }
}

pub(super) fn put_list<T>(entries: &[T], output: &mut BytesMut, mut put: impl FnMut(&T, &mut BytesMut)) {
    encode_compact_size(entries.len() as u64, output);
    entries.iter().for_each(|entry| put(entry, output));
}

pub(super) fn put_bytes(bytes: &[u8], output: &mut BytesMut) {
    encode_compact_size(bytes.len() as u64, output);
    output.put_slice(bytes);
}

pub(super) fn put_flag(flag: bool, output: &mut BytesMut) {
    output.put_u8(u8::from(flag));
}
