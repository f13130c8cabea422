//! The program as its users meet it, on simulated nodes and on `bitcoind`.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod errors;
mod mirror;
mod missed;
mod privacy;
mod simulated;

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

/// How long the program may take for what it ends by itself.
const PATIENCE: Duration = Duration::from_secs(180);

/// A data directory, and whom to connect to.
struct Wallet {
    dir: TempDir,
    connect: Vec<SocketAddr>,
    /// None if empty.
    mode: &'static str,
}

impl Wallet {
    /// A wallet of new keys.
    fn create(network: &str, connect: &[SocketAddr], mode: &'static str) -> Self {
        let wallet = Self::at(connect, mode);
        let secret = wallet.secret();
        wallet.answer(&["init", "--network", network, "--new-secret", secret.to_str().unwrap()]);
        wallet
    }

    /// A wallet that is made as these arguments say.
    fn without_keys(init: &[&str], connect: &[SocketAddr], mode: &'static str) -> Self {
        let wallet = Self::at(connect, mode);
        wallet.answer(init);
        wallet
    }

    fn at(connect: &[SocketAddr], mode: &'static str) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), connect: connect.to_vec(), mode }
    }

    /// The file of the private descriptors.
    fn secret(&self) -> PathBuf {
        self.dir.path().join("secret")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spv-wallet"));
        command.arg("--json").arg("--data-dir").arg(self.dir.path().join("data")).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The same, for those commands that connect.
    fn connecting(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        for address in &self.connect {
            command.arg("--connect").arg(address.to_string());
        }
        if !self.mode.is_empty() {
            command.args(["--mode", self.mode]);
        }
        command
    }

    /// What a command prints, which must not fail: a JSON value for each line.
    fn answer(&self, arguments: &[&str]) -> Vec<Value> {
        lines(&finish(self.command(arguments)))
    }

    fn sync(&self) -> Vec<Value> {
        lines(&finish(self.connecting(&["sync", "--until-synced"])))
    }

    fn address(&self, arguments: &[&str]) -> String {
        self.answer(&[&["address"], arguments].concat())[0]["address"].as_str().unwrap().to_owned()
    }
}

/// Runs a command to its end, which comes in time or not at all.
fn finish(mut command: Command) -> Output {
    let shown = format!("{command:?}");
    let child = command.spawn().unwrap();
    let id = child.id().to_string();
    let (ended, end) = std::sync::mpsc::channel();
    thread::spawn(move || ended.send(child.wait_with_output()));
    end.recv_timeout(PATIENCE).map_or_else(
        |_| {
            Command::new("kill").args(["-9", &id]).status().ok();
            panic!("{shown} does not end")
        },
        Result::unwrap,
    )
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

/// A process that is killed by its id when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
