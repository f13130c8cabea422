//! Finds where transactions end while their bytes go by, and computes their ids on the way.
//!
//! The scanner is pushed slices of any size and keeps its place in between (a state, a count and at most nine bytes of an
//! unfinished CompactSize), so nothing is scanned twice and a transaction may be of any size.
//! Serialization with witnesses: BIP 144.

use bitcoin_hashes::{HashEngine as _, sha256d};

use super::compact_size::{compact_size_len, decode_compact_size};
use crate::Txid;

/// What is due once the bytes to pass over have passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Version,
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

/// What a push of bytes led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// All bytes belong to a transaction that goes on.
    More,
    /// A transaction ended after so many of the bytes.
    End { consumed: usize, txid: Txid },
}

/// Why bytes are no transaction.
pub(super) type Problem = &'static str;

pub(super) struct Scanner {
    /// Whether a zero count of inputs announces witnesses.
    witnesses: bool,
    state: State,
    /// Bytes to pass over before `state` is due, and whether they count for the txid.
    skip: u64,
    skip_is_hashed: bool,
    /// The first bytes of a CompactSize that was cut.
    stash: [u8; 9],
    stash_len: usize,
    /// Inputs, outputs or witness items still to come.
    left: u64,
    /// Witness stacks still to come, one an input.
    stacks: u64,
    segwit: bool,
    engine: sha256d::HashEngine,
}

impl Scanner {
    pub(super) fn new(witnesses: bool) -> Self {
        Self {
            witnesses,
            state: State::Version,
            skip: 0,
            skip_is_hashed: false,
            stash: [0; 9],
            stash_len: 0,
            left: 0,
            stacks: 0,
            segwit: false,
            engine: sha256d::HashEngine::new(),
        }
    }

    /// Takes bytes up to the end of the transaction, a new one if the last has ended. `remaining` is how many bytes the
    /// block has from the start of `bytes` on: a length that reaches further is refused at once.
    pub(super) fn push(&mut self, bytes: &[u8], remaining: u64) -> Result<Scan, Problem> {
        let mut at = 0;
        loop {
            at += self.pass_over(&bytes[at..]);
            if self.skip > 0 {
                return Ok(Scan::More);
            }
            match self.state {
                State::Version => self.pass(4, true, State::InputCount),
                State::LockTime => self.pass(4, true, State::End),
                State::End => {
                    let engine = std::mem::replace(self, Self::new(self.witnesses)).engine;
                    let txid = Txid::from_bytes(sha256d::Hash::from_engine(engine).to_byte_array());
                    return Ok(Scan::End { consumed: at, txid });
                }
                _ if at == bytes.len() => return Ok(Scan::More),
                State::Flag if bytes[at] == 1 => {
                    self.segwit = true;
                    self.state = State::WitnessInputCount;
                    at += 1;
                }
                State::Flag => return Err("a transaction without inputs"),
                _ => at += self.length_or_count(&bytes[at..])?,
            }
            if self.skip > remaining - at as u64 {
                return Err("a length reaches past the end of the block");
            }
        }
    }

    fn pass(&mut self, bytes: u64, hashed: bool, then: State) {
        self.skip = bytes;
        self.skip_is_hashed = hashed;
        self.state = then;
    }

    fn pass_over(&mut self, bytes: &[u8]) -> usize {
        let step = usize::try_from(self.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
        if self.skip_is_hashed {
            self.engine.input(&bytes[..step]);
        }
        self.skip -= step as u64;
        step
    }

    /// Takes a CompactSize, or what there is of one, and acts on it. Returns how many bytes it took.
    fn length_or_count(&mut self, bytes: &[u8]) -> Result<usize, Problem> {
        const NOT_SHORTEST: Problem = "a CompactSize is not in its shortest form";
        let (value, used) = if self.stash_len == 0 && bytes.len() >= compact_size_len(bytes[0]) {
            let (value, len) = decode_compact_size(bytes).ok_or(NOT_SHORTEST)?;
            self.hash_if_due(&bytes[..len], value);
            (value, len)
        } else {
            let first = if self.stash_len == 0 { bytes[0] } else { self.stash[0] };
            let used = bytes.len().min(compact_size_len(first) - self.stash_len);
            self.stash[self.stash_len..self.stash_len + used].copy_from_slice(&bytes[..used]);
            self.stash_len += used;
            if self.stash_len < compact_size_len(first) {
                return Ok(used);
            }
            let stash = self.stash;
            let (value, len) = decode_compact_size(&stash[..self.stash_len]).ok_or(NOT_SHORTEST)?;
            self.stash_len = 0;
            self.hash_if_due(&stash[..len], value);
            (value, used)
        };
        self.enter(value)?;
        Ok(used)
    }

    /// The marker and the witnesses are not part of a txid.
    fn hash_if_due(&mut self, compact_size: &[u8], value: u64) {
        let is_marker = self.state == State::InputCount && value == 0 && self.witnesses;
        if !is_marker && !matches!(self.state, State::WitnessCount | State::WitnessItem) {
            self.engine.input(compact_size);
        }
    }

    fn enter(&mut self, value: u64) -> Result<(), Problem> {
        match self.state {
            State::InputCount if value == 0 && self.witnesses => self.state = State::Flag,
            State::InputCount | State::WitnessInputCount => {
                self.left = value;
                self.stacks = if self.segwit { value } else { 0 };
                match value {
                    0 => self.state = State::OutputCount,
                    _ => self.pass(36, true, State::InputScript),
                }
            }
            State::InputScript => {
                self.left -= 1;
                // The script and the sequence, and the next input's outpoint.
                let (after, then) =
                    if self.left == 0 { (4, State::OutputCount) } else { (4 + 36, State::InputScript) };
                let skip = value.checked_add(after).ok_or("a script of 2^64 bytes")?;
                self.pass(skip, true, then);
            }
            State::OutputCount => {
                self.left = value;
                match value {
                    0 => self.state = self.after_outputs(),
                    _ => self.pass(8, true, State::OutputScript),
                }
            }
            State::OutputScript => {
                self.left -= 1;
                // The script, and the next output's value.
                let (after, then) =
                    if self.left == 0 { (0, self.after_outputs()) } else { (8, State::OutputScript) };
                let skip = value.checked_add(after).ok_or("a script of 2^64 bytes")?;
                self.pass(skip, true, then);
            }
            State::WitnessCount => {
                self.left = value;
                self.state = if value == 0 { self.after_stack() } else { State::WitnessItem };
            }
            State::WitnessItem => {
                self.left -= 1;
                let then = if self.left == 0 { self.after_stack() } else { State::WitnessItem };
                self.pass(value, false, then);
            }
            State::Version | State::Flag | State::LockTime | State::End => {}
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
