//! Plain files of headers: those of the best chain, one after the other as they travel, with nothing between.
//!
//! That is what other tools read and write, such as header files that SPV wallets ship with. On Bitcoin a header has 80 bytes.

use std::io::{self, BufWriter, Read, Write};

use bytes::Bytes;
use tipward_sync::{Chain, RefusedHeaders};

use super::{HeaderChain, HeaderReader};
use crate::{Coin, HeaderError, StoreError};

/// How many headers are taken at a time.
const BATCH: usize = 2000;

/// Why a file of headers can't be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderFileError {
    /// The system reported an error.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The store can't be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A header is none.
    #[error("header number {number} of the file: {error}")]
    Header {
        /// Its number, from 0 on.
        number: u64,
        /// What is wrong.
        error: HeaderError,
    },
    /// Headers break a rule, or link to nothing that is known.
    #[error("headers number {first} to {last} of the file: {reason}")]
    Refused {
        /// The number of the first, from 0 on.
        first: u64,
        /// The number of the last.
        last: u64,
        /// What is wrong.
        reason: RefusedHeaders,
    },
}

/// What an import has brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    /// How many whole headers there were.
    pub headers: u64,
    /// How many of them were new.
    pub added: u64,
    /// How many bytes at the end were no whole header, and were left.
    pub torn: u64,
}

impl HeaderChain {
    /// Takes the headers of a file, checked by the full rules. The first is genesis or another known one, or the child of a
    /// known one. A torn tail is left out. They need not be shown twice, since no peer has given them.
    ///
    /// # Errors
    /// The file can't be read; a header breaks a rule, or can't be stored. What came before it stays.
    pub fn import(&mut self, coin: &dyn Coin, file: impl Read) -> Result<Imported, HeaderFileError> {
        let presync = self.presync.take();
        let imported = self.take_all(coin, file);
        self.presync = presync;
        imported
    }

    fn take_all(&mut self, coin: &dyn Coin, mut file: impl Read) -> Result<Imported, HeaderFileError> {
        let size = coin.genesis_header().raw.len();
        let mut imported = Imported::default();
        loop {
            let mut bytes = Vec::with_capacity(size * BATCH);
            (&mut file).take((size * BATCH) as u64).read_to_end(&mut bytes)?;
            let mut bytes = Bytes::from(bytes);
            let mut headers = Vec::with_capacity(BATCH);
            while bytes.len() >= size {
                let number = imported.headers + headers.len() as u64;
                let header = coin.parse_header(bytes.split_to(size));
                headers.push(header.map_err(|error| HeaderFileError::Header { number, error })?);
            }
            let (first, count) = (imported.headers, headers.len() as u64);
            if count > 0 {
                let last = first + count - 1;
                let accepted = self.accept(&headers);
                let accepted = accepted.map_err(|reason| HeaderFileError::Refused { first, last, reason })?;
                imported.added += accepted.added as u64;
            }
            imported.headers += count;
            imported.torn = bytes.len() as u64;
            if count < BATCH as u64 {
                break;
            }
        }
        self.store()?.flush()?;
        Ok(imported)
    }
}

impl HeaderReader {
    /// Writes the headers of the best chain, from the first that is known: genesis, or that of a checkpoint. Returns how many.
    ///
    /// # Errors
    /// The store can't be read, or the file not written.
    pub fn export(&self, file: impl Write) -> Result<u64, HeaderFileError> {
        let mut file = BufWriter::new(file);
        let mut written: io::Result<u64> = Ok(0);
        let mut put = |position: usize, raw: &[u8]| {
            // Parents came before their children, so the order of arrival is that of the chain.
            if let Ok(count) = &mut written
                && self.tree().is_best_position(position)
            {
                *count += 1;
                if let Err(error) = file.write_all(raw) {
                    written = Err(error);
                }
            }
        };
        self.given.iter().enumerate().for_each(|(position, header)| put(position, &header.raw));
        self.stored.load(|first, run| {
            let first = self.given.len() + first as usize;
            run.iter().enumerate().for_each(|(at, raw)| put(first + at, raw));
            Ok(())
        })?;
        let count = written?;
        file.flush()?;
        Ok(count)
    }
}
