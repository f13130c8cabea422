//! Why a manager does not start, or does not do what it is asked.

use std::net::SocketAddr;

use crate::{BookFileError, BroadcastError, MalformedTransaction, RequestError, SubmitError};

/// Why a manager did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address book can't be read.
    #[error(transparent)]
    Book(#[from] BookFileError),
    /// An address can't be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// The manager has shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the manager has shut down")]
pub struct ShutDown;

/// Why a request to the manager has no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AskFailed {
    /// It was not taken.
    #[error(transparent)]
    NotTaken(#[from] SubmitError),
    /// Nobody answered it.
    #[error(transparent)]
    NotAnswered(#[from] RequestError),
    /// The manager has shut down.
    #[error(transparent)]
    ShutDown(#[from] ShutDown),
}

/// Why a transaction was not broadcast.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BroadcastFailed {
    /// It is no transaction. Nothing was sent.
    #[error(transparent)]
    Malformed(#[from] MalformedTransaction),
    /// It was not taken.
    #[error(transparent)]
    NotTaken(#[from] BroadcastError),
    /// The manager has shut down.
    #[error(transparent)]
    ShutDown(#[from] ShutDown),
}
