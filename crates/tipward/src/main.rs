//! The command line: arguments in, progress and answers out. What is done is done by the crates.

mod archive;
mod args;
mod block;
mod headers;
mod inspect;
mod peers;
mod proof;
mod report;
mod simnet;
mod sync;
mod transport;

use std::{fmt, io::Write, process::ExitCode};

use clap::Parser;

use args::{Arguments, Command};

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
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Sync(arguments) => sync::run(&arguments),
        Command::Peers(arguments) => peers::run(&arguments),
        Command::Block(arguments) => block::run(&arguments),
        Command::Headers(arguments) => headers::run(&arguments),
        Command::Proof(arguments) => proof::run(&arguments),
        Command::Archive(command) => archive::run(&command),
        Command::Simnet(arguments) => simnet::run(&arguments),
        Command::Inspect { file } => inspect::run(&file),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(Failure::Failed(line)) => {
            eprintln!("error: {line}");
            ExitCode::from(1)
        }
        Err(Failure::Usage(line)) => {
            eprintln!("error: {line}");
            ExitCode::from(2)
        }
    }
}

/// Prints a line of an answer.
fn print(line: impl fmt::Display) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{line}").map_err(|error| unwritten(&error))
}

/// What it means that output can't be written.
fn unwritten(error: &std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::Failed(format!("cannot write to stdout: {error}")),
    }
}

/// Turns `tracing` on, to stderr.
fn trace(verbosity: u8) {
    let level = match verbosity {
        0 => return,
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(format!("warn,tipward={level},tipward_peer={level},tipward_sync={level},tipward_chain={level},tipward_simnet={level}")));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// The runtime for a command.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::failed)
}

/// Waits for Ctrl-C or a request to terminate. A second Ctrl-C ends the process at once.
async fn interrupted() {
    #[cfg(unix)]
    {
        let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
        if let Ok(mut terminate) = terminate {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        } else {
            tokio::signal::ctrl_c().await.ok();
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.ok();
    tokio::spawn(async {
        tokio::signal::ctrl_c().await.ok();
        std::process::exit(130);
    });
}
