//! The program as a process of its own.
#![allow(dead_code, reason = "each of the tests uses some of it")]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

/// How long the program may take for what it is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Program {
    child: Child,
    url: String,
}

pub(crate) fn command(arguments: &[impl AsRef<str>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_indexer"));
    command.args(arguments.iter().map(AsRef::as_ref));
    command
}

/// Runs it where it can't run: what it says. That is one line, and the exit code is 1 or 2.
pub(crate) fn dead(arguments: &[&str]) -> String {
    let output = command(arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(matches!(output.status.code(), Some(1 | 2)), "{:?}: {said}", output.status);
    said
}

impl Program {
    /// Starts it, and waits until it answers.
    pub(crate) fn start(arguments: &[impl AsRef<str>]) -> Self {
        let mut command = command(arguments);
        let mut child = command.args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.by_ref().map(Result::unwrap).find(|line| line.starts_with("answering on "));
        let line = line.expect("it says where it answers");
        let url =
            line.strip_prefix("answering on ").and_then(|rest| rest.split_once(": ")).unwrap().0.to_owned();
        // It would wait if nobody read what it says.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }

    /// Where it answers.
    pub(crate) fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    fn ask(&self, route: &str) -> Result<minreq::Response, minreq::Error> {
        minreq::get(format!("{}{route}", self.url)).with_timeout(60).send()
    }

    pub(crate) fn answer(&self, route: &str) -> minreq::Response {
        self.ask(route).unwrap()
    }

    pub(crate) fn status(&self, route: &str) -> u16 {
        self.answer(route).status_code
    }

    pub(crate) fn text(&self, route: &str) -> String {
        let answer = self.answer(route);
        assert_eq!(answer.status_code, 200, "{route}: {:?}", answer.as_str());
        answer.as_str().unwrap().to_owned()
    }

    pub(crate) fn bytes(&self, route: &str) -> Vec<u8> {
        self.answer(route).into_bytes()
    }

    pub(crate) fn get(&self, route: &str) -> Value {
        serde_json::from_str(&self.text(route)).unwrap()
    }

    /// `None` while nothing is indexed.
    pub(crate) fn try_get(&self, route: &str) -> Option<Value> {
        let answer = self.ask(route).ok().filter(|answer| answer.status_code == 200)?;
        serde_json::from_str(answer.as_str().unwrap()).ok()
    }

    /// Waits until this block is the last one of the index.
    pub(crate) fn wait_for(&self, hash: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let tip = self.try_get("/tip");
            if tip.as_ref().is_some_and(|tip| tip["hash"] == hash) {
                return;
            }
            assert!(Instant::now() < deadline, "waited in vain for block {hash}; the index is at {tip:?}");
            sleep(Duration::from_millis(20));
        }
    }

    /// Kills it without warning.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn end_in_good_order(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
