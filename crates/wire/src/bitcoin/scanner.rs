//! Finds where transactions start and end while their bytes go by.
//!
//! The scanner is pushed slices of any size and keeps its place in between (a state, two counts and at most nine bytes of
//! an unfinished CompactSize), so a transaction may be of any size. Transactions that lie whole in a slice take a path
//! without state; the others are resumed. Serialization with witnesses: BIP 144.

use super::{
    compact_size::{compact_size_len, decode_compact_size},
    layout::Layout,
};

/// Finds the offsets of a block's transactions in reads of any size, without keeping the bytes.
///
/// This is the scanner alone, for those who have the bytes and want the places; [`BlockReader`](super::BlockReader) adds
/// parts and checks.
///
/// ```
/// use tipward_wire::bitcoin::{Network, TransactionScanner};
///
/// let block = Network::BTC.genesis_block();
/// // After the 80 bytes of the header and the one of the count.
/// let mut scanner = TransactionScanner::new(true, 81, 1, block.len() as u64);
/// let mut offsets = Vec::new();
/// for read in block[81..].chunks(7) {
///     scanner.push(read, &mut offsets)?;
/// }
/// scanner.finish()?;
/// assert_eq!(offsets, [81]);
/// # Ok::<(), tipward_wire::bitcoin::ScanError>(())
/// ```
#[derive(Debug, Clone)]
pub struct TransactionScanner {
    scanner: Scanner,
    offset: u64,
    end: u64,
    failed: Option<ScanError>,
}

/// Bytes that are not the transactions they were said to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: {problem}")]
pub struct ScanError {
    /// Where, in the offsets that the scanner counts.
    pub offset: u64,
    /// What is wrong there.
    pub problem: &'static str,
}

impl TransactionScanner {
    /// A scanner for `transactions` transactions between the bytes `offset` and `end` of whatever the caller counts in,
    /// such as a block or a file. `witnesses` tells whether transactions may have them: yes for BTC, no for BSV.
    #[must_use]
    pub fn new(witnesses: bool, offset: u64, transactions: u64, end: u64) -> Self {
        Self { scanner: Scanner::new(witnesses, transactions), offset, end, failed: None }
    }

    /// Takes the next bytes and appends the offset of each transaction that starts in them.
    ///
    /// # Errors
    /// The bytes are no transactions, or go on after the last. Every later call returns the same error.
    pub fn push(&mut self, bytes: &[u8], offsets: &mut Vec<u64>) -> Result<(), ScanError> {
        match &self.failed {
            Some(failed) => Err(failed.clone()),
            None => self.scan(bytes, offsets).inspect_err(|error| self.failed = Some(error.clone())),
        }
    }

    fn scan(&mut self, bytes: &[u8], offsets: &mut Vec<u64>) -> Result<(), ScanError> {
        let remaining = self.end.saturating_sub(self.offset);
        if bytes.len() as u64 > remaining {
            return Err(ScanError { offset: self.end, problem: "bytes follow the last transaction" });
        }
        let mut visitor = Offsets { base: self.offset, offsets };
        match self.scanner.push(bytes, remaining, &mut visitor) {
            Ok(_) => {
                self.offset += bytes.len() as u64;
                Ok(())
            }
            Err((at, problem)) => Err(ScanError { offset: self.offset + at as u64, problem }),
        }
    }

    /// Ends the scan.
    ///
    /// # Errors
    /// The last transaction is not whole, or transactions or bytes are missing.
    pub fn finish(&self) -> Result<(), ScanError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        if self.scanner.is_finished() && self.offset == self.end {
            return Ok(());
        }
        Err(ScanError { offset: self.offset, problem: TOO_FEW })
    }
}

struct Offsets<'a> {
    base: u64,
    offsets: &'a mut Vec<u64>,
}

impl Visitor for Offsets<'_> {
    fn start(&mut self, at: usize) {
        self.offsets.push(self.base + at as u64);
    }
}

/// Why bytes are no transaction.
pub(super) type Problem = &'static str;

pub(super) const TOO_FEW: Problem = "the block ends before its last transaction";
const NOT_SHORTEST: Problem = "a CompactSize is not in its shortest form";
/// As Bitcoin Core says: a second serialization of a transaction that has none.
const SUPERFLUOUS: Problem = "a flag for witnesses, and no witness";
const PAST_END: Problem = "a length reaches past the end";

/// Told of transactions as they pass. Positions are in the bytes being pushed.
pub(super) trait Visitor {
    /// A transaction starts.
    fn start(&mut self, at: usize);
    /// A transaction that lies whole in the bytes; it was not told by `start`.
    fn whole(&mut self, bytes: &[u8], layout: &Layout) {
        let _ = bytes;
        self.start(layout.start);
    }
    /// More bytes of the transaction that started last which count for its txid (BIP 141).
    fn body(&mut self, _bytes: &[u8]) {}
    /// More bytes of the transaction that started last, all of them; told after those of them that are its body.
    fn raw(&mut self, _bytes: &[u8]) {}
    /// The transaction that started last ends.
    fn end(&mut self) {}
}

/// What is due once the bytes to pass over have passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    /// The count of inputs, or the zero that marks a transaction with witnesses.
    InputCount,
    Flag,
    WitnessInputCount,
    InputScript,
    OutputCount,
    OutputScript,
    WitnessCount,
    WitnessItem,
    LockTime,
    End,
}

/// A transaction with more inputs or outputs is scanned by the machine at once, so that little is scanned twice.
const MOST_AT_ONCE: usize = 512;

#[derive(Debug, Clone)]
pub(super) struct Scanner {
    /// Whether a zero count of inputs announces witnesses.
    witnesses: bool,
    /// Transactions whose end is still to come.
    transactions: u64,
    state: State,
    /// Bytes to pass over before `state` is due.
    skip: u64,
    /// The first bytes of a CompactSize that was cut.
    stash: [u8; 9],
    stash_len: usize,
    /// Inputs, outputs or witness items still to come.
    left: u64,
    /// Witness stacks still to come, one an input.
    stacks: u64,
    segwit: bool,
    /// Whether one of the witness stacks so far has an item.
    has_items: bool,
    /// Whether the bytes passing count for the txid.
    in_body: bool,
}

impl Scanner {
    pub(super) fn new(witnesses: bool, transactions: u64) -> Self {
        Self {
            witnesses,
            transactions,
            state: State::Start,
            skip: 0,
            stash: [0; 9],
            stash_len: 0,
            left: 0,
            stacks: 0,
            segwit: false,
            has_items: false,
            in_body: false,
        }
    }

    /// Sets how many transactions are to come.
    pub(super) fn expect(&mut self, transactions: u64) {
        self.transactions = transactions;
    }

    /// Whether all transactions have passed.
    pub(super) fn is_finished(&self) -> bool {
        self.transactions == 0
    }

    /// Takes bytes and returns where the last transaction that ends in them ends. `remaining` is how many bytes the block
    /// has from the start of `bytes` on: a length that reaches further is refused at once. Errors come with their place.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        remaining: u64,
        visitor: &mut impl Visitor,
    ) -> Result<Option<usize>, (usize, Problem)> {
        let (mut at, mut last_end) = (0, None);
        while at < bytes.len() {
            if self.state == State::Start {
                let mut left = self.transactions;
                while left > 0 {
                    let Some(layout) = Layout::find(bytes, at, self.witnesses, MOST_AT_ONCE) else { break };
                    visitor.whole(bytes, &layout);
                    at = layout.end;
                    left -= 1;
                }
                if left < self.transactions {
                    last_end = Some(at);
                    self.transactions = left;
                }
                if at == bytes.len() {
                    break;
                }
                if left == 0 {
                    return Err((at, "bytes follow the last transaction"));
                }
                visitor.start(at);
                self.in_body = true;
                self.pass(4, State::InputCount);
            }
            let from = at;
            at = self.resume(bytes, at, remaining, visitor)?;
            visitor.raw(&bytes[from..at]);
            if self.state == State::End && self.skip == 0 {
                visitor.end();
                self.state = State::Start;
                self.transactions -= 1;
                last_end = Some(at);
            }
        }
        Ok(last_end)
    }

    /// Takes bytes from `at` up to the end of the transaction, or all.
    fn resume(
        &mut self,
        bytes: &[u8],
        mut at: usize,
        remaining: u64,
        visitor: &mut impl Visitor,
    ) -> Result<usize, (usize, Problem)> {
        // Where the run of bytes that count for the txid and were not yet told starts.
        let mut body = at;
        loop {
            if self.skip > remaining - at as u64 {
                return Err((at, PAST_END));
            }
            at += self.pass_over(bytes.len() - at);
            if self.skip > 0 || (at == bytes.len() && self.state != State::End) {
                break;
            }
            match self.state {
                State::End => break,
                State::LockTime => {
                    if !self.in_body {
                        (self.in_body, body) = (true, at);
                    }
                    self.pass(4, State::End);
                }
                State::InputCount if bytes[at] == 0 && self.witnesses && self.stash_len == 0 => {
                    visitor.body(&bytes[body..at]);
                    self.in_body = false;
                    self.state = State::Flag;
                    at += 1;
                }
                State::Flag if bytes[at] == 1 => {
                    self.state = State::WitnessInputCount;
                    at += 1;
                    (self.in_body, body) = (true, at);
                }
                State::Flag if bytes[at] == 0 => {
                    // Neither marker nor flag, but two counts.
                    visitor.body(&[0, 0]);
                    self.state = State::LockTime;
                    at += 1;
                }
                State::Flag => return Err((at, "a transaction without inputs")),
                State::WitnessCount if self.in_body => {
                    visitor.body(&bytes[body..at]);
                    self.in_body = false;
                }
                State::InputScript => at = self.short_scripts(bytes, at, 4 + 36),
                State::OutputScript => at = self.short_scripts(bytes, at, 8),
                _ => {}
            }
            if self.skip == 0 && at < bytes.len() && self.takes_compact_size() {
                at += self.compact_size(&bytes[at..]).map_err(|problem| (at, problem))?;
            }
        }
        if self.in_body {
            visitor.body(&bytes[body..at]);
        }
        Ok(at)
    }

    fn pass(&mut self, bytes: u64, then: State) {
        self.skip = bytes;
        self.state = then;
    }

    fn pass_over(&mut self, available: usize) -> usize {
        let step = usize::try_from(self.skip).map_or(available, |skip| skip.min(available));
        self.skip -= step as u64;
        step
    }

    /// Passes scripts of less than 253 bytes, but not the last one, each followed by `gap` bytes.
    fn short_scripts(&mut self, bytes: &[u8], mut at: usize, gap: usize) -> usize {
        if self.stash_len > 0 {
            return at;
        }
        while self.left > 1 {
            match bytes.get(at) {
                Some(&length) if length < 0xfd => at += 1 + usize::from(length) + gap,
                _ => break,
            }
            self.left -= 1;
        }
        self.skip = at.saturating_sub(bytes.len()) as u64;
        at.min(bytes.len())
    }

    fn takes_compact_size(&self) -> bool {
        !matches!(self.state, State::Start | State::Flag | State::LockTime | State::End)
    }

    /// Takes a CompactSize, or what there is of one, and acts on it. Returns how many bytes it took.
    fn compact_size(&mut self, bytes: &[u8]) -> Result<usize, Problem> {
        let (value, used) = if self.stash_len == 0 && bytes.len() >= compact_size_len(bytes[0]) {
            decode_compact_size(bytes).ok_or(NOT_SHORTEST)?
        } else {
            let first = if self.stash_len == 0 { bytes[0] } else { self.stash[0] };
            let used = bytes.len().min(compact_size_len(first) - self.stash_len);
            self.stash[self.stash_len..self.stash_len + used].copy_from_slice(&bytes[..used]);
            self.stash_len += used;
            if self.stash_len < compact_size_len(first) {
                return Ok(used);
            }
            let (value, _) = decode_compact_size(&self.stash[..self.stash_len]).ok_or(NOT_SHORTEST)?;
            self.stash_len = 0;
            (value, used)
        };
        self.enter(value)?;
        Ok(used)
    }

    fn enter(&mut self, value: u64) -> Result<(), Problem> {
        match self.state {
            State::InputCount | State::WitnessInputCount => {
                self.segwit = self.state == State::WitnessInputCount;
                self.has_items = false;
                if self.segwit && value == 0 {
                    return Err(SUPERFLUOUS);
                }
                self.left = value;
                self.stacks = if self.segwit { value } else { 0 };
                match value {
                    0 => self.state = State::OutputCount,
                    _ => self.pass(36, State::InputScript),
                }
            }
            State::InputScript => {
                self.left -= 1;
                // The script and the sequence, and the next input's outpoint.
                let (after, then) =
                    if self.left == 0 { (4, State::OutputCount) } else { (4 + 36, State::InputScript) };
                self.pass(value.checked_add(after).ok_or(PAST_END)?, then);
            }
            State::OutputCount => {
                self.left = value;
                match value {
                    0 => self.state = self.after_outputs(),
                    _ => self.pass(8, State::OutputScript),
                }
            }
            State::OutputScript => {
                self.left -= 1;
                // The script, and the next output's value.
                let (after, then) =
                    if self.left == 0 { (0, self.after_outputs()) } else { (8, State::OutputScript) };
                self.pass(value.checked_add(after).ok_or(PAST_END)?, then);
            }
            State::WitnessCount => {
                self.left = value;
                self.has_items |= value > 0;
                self.state = if value == 0 { self.after_stack() } else { State::WitnessItem };
                if self.state == State::LockTime && !self.has_items {
                    return Err(SUPERFLUOUS);
                }
            }
            State::WitnessItem => {
                self.left -= 1;
                let then = if self.left == 0 { self.after_stack() } else { State::WitnessItem };
                self.pass(value, then);
            }
            State::Start | State::Flag | State::LockTime | State::End => {}
        }
        Ok(())
    }

    fn after_outputs(&self) -> State {
        if self.stacks > 0 { State::WitnessCount } else { State::LockTime }
    }

    fn after_stack(&mut self) -> State {
        self.stacks -= 1;
        self.after_outputs()
    }
}
