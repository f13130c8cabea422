//! What happens to the peers, and where it is shown: above a table that is redrawn in place, in lines, or in JSON.

use std::{collections::VecDeque, fmt, io::IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tipward_chain::sync::peer::PeerEvent;

use super::{snapshot::Snapshot, snapshot::transport, table::agent};
use crate::{Failure, args::PeersArguments, print};

/// How many events a JSON line tells at most.
const MAX_EVENTS: usize = 256;

/// Something that happened.
pub(super) struct Happened {
    line: String,
    json: Value,
}

impl Happened {
    /// `None` if the table tells it, or nobody wants to know.
    pub(super) fn new(event: &PeerEvent) -> Option<Self> {
        let (name, address, reason, line) = match event {
            PeerEvent::Connected(peer) => {
                let (address, info) = (peer.address().to_string(), peer.info());
                let (agent, via) = (agent(&info.user_agent), transport(peer.is_encrypted()));
                let line = format!("connected to {address} ({agent}, height {}, {via})", info.claimed_height);
                ("connected", address, String::new(), line)
            }
            PeerEvent::Disconnected { address, reason, .. } => {
                ("disconnected", address.to_string(), reason.to_string(), format!("lost {address}: {reason}"))
            }
            PeerEvent::ConnectFailed { address, reason } => {
                let line = format!("cannot connect to {address}: {reason}");
                ("connect_failed", address.to_string(), reason.to_string(), line)
            }
            PeerEvent::ResolveFailed { seed, reason } => {
                let line = format!("cannot resolve {seed}: {reason}");
                ("resolve_failed", seed.clone(), reason.clone(), line)
            }
            PeerEvent::Banned { address, reason } => {
                ("banned", address.to_string(), reason.clone(), format!("banned {address}: {reason}"))
            }
            PeerEvent::BookDamaged { problem, aside } => {
                let line = format!("the address book is damaged ({problem}): it is now {}", aside.display());
                ("book_damaged", aside.display().to_string(), problem.to_string(), line)
            }
            PeerEvent::BookNotWritten(error) => {
                ("book_not_written", String::new(), error.to_string(), error.to_string())
            }
            _ => return None,
        };
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let json = json!({"event": name, "address": some(address), "reason": some(reason)});
        // A reason may repeat what a peer said.
        Some(Self { line: crate::report::printable(&line), json })
    }
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

/// Where things are shown.
pub(super) enum Display {
    /// A table on a terminal.
    Table(ProgressBar),
    Lines,
    /// With what happened since the last line.
    Json(VecDeque<Value>),
}

impl Display {
    /// JSON when asked, a table on a terminal that nothing else writes to, else lines.
    pub(super) fn choose(arguments: &PeersArguments) -> Self {
        if arguments.json {
            return Self::Json(VecDeque::new());
        }
        let is_terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        if arguments.verbose > 0 || !is_terminal {
            return Self::Lines;
        }
        let style = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        Self::Table(ProgressBar::no_length().with_style(style))
    }

    /// A line for people.
    pub(super) fn line(&self, line: &str) -> Result<(), Failure> {
        match self {
            Self::Table(table) => table.println(line),
            Self::Lines => print(line)?,
            Self::Json(_) => {}
        }
        Ok(())
    }

    pub(super) fn happened(&mut self, happened: Happened) -> Result<(), Failure> {
        if let Self::Json(events) = self {
            if events.len() == MAX_EVENTS {
                events.pop_front();
            }
            events.push_back(happened.json);
            return Ok(());
        }
        self.line(&happened.line)
    }

    pub(super) fn snapshot(&mut self, snapshot: &Snapshot) -> Result<(), Failure> {
        match self {
            Self::Table(table) => {
                table.set_message(snapshot.lines().join("\n"));
                Ok(())
            }
            Self::Lines => snapshot.lines().iter().try_for_each(print),
            Self::Json(events) => {
                let line = snapshot.json(events.make_contiguous());
                events.clear();
                print(line)
            }
        }
    }

    /// Leaves the table as it is.
    pub(super) fn close(&self) {
        if let Self::Table(table) = self {
            table.abandon();
        }
    }
}
