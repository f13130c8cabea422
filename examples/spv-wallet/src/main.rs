//! A small SPV wallet on Tipward: arguments in, answers out. Read `wallet.rs` and `ledger.rs` for how blocks become a balance,
//! `node.rs` for how the node is started, `pay.rs` for how one pays.

mod address;
mod args;
mod checkpoint;
mod commands;
mod demo;
mod keys;
mod ledger;
mod measure;
mod node;
mod pay;
mod show;
mod store;
mod wallet;

use std::{fmt, io::Write as _, process::ExitCode};

use clap::Parser as _;

/// What ends a command early: one line for the user, and the exit code.
#[derive(Debug)]
enum Failure {
    /// Something could not be done; exit code 1.
    Failed(String),
    /// Something else must be asked for; exit code 2.
    Usage(String),
    /// Whoever read our output has had enough, which is no failure.
    Closed,
}

impl Failure {
    fn failed(error: impl fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    fn usage(error: impl fmt::Display) -> Self {
        Self::Usage(error.to_string())
    }
}

fn main() -> ExitCode {
    let (line, code) = match commands::run(args::Arguments::parse()) {
        Ok(()) | Err(Failure::Closed) => return ExitCode::SUCCESS,
        Err(Failure::Failed(line)) => (line, 1),
        Err(Failure::Usage(line)) => (line, 2),
    };
    eprintln!("error: {}", line.replace('\n', " "));
    ExitCode::from(code)
}

/// Prints a line of an answer.
fn print(line: impl fmt::Display) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{line}").map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::Failed(format!("cannot write to stdout: {error}")),
    })
}
