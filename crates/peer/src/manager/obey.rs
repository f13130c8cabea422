//! What the pool's task does for the user.

use tokio::sync::oneshot;

use super::{
    Command,
    task::{PoolTask, unix_now},
};
use crate::{RequestId, driver::now};

impl PoolTask {
    /// Does it, and answers.
    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Request { want, policy, answer } => match self.pool.request(want, policy, now()) {
                Ok(id) => {
                    self.requests.insert(id, answer);
                }
                Err(error) => {
                    answer.send(Err(error)).ok();
                }
            },
            Command::Broadcast { id, bytes, policy, answer } => {
                let (outcome, decided) = oneshot::channel();
                let submitted = self.pool.broadcast(id, bytes, policy, now());
                answer
                    .send(submitted.map(|submission| {
                        self.broadcasts.insert(submission, outcome);
                        decided
                    }))
                    .ok();
            }
            Command::Peers(answer) => {
                self.sample_peers();
                answer.send(self.pool.peers(now())).ok();
            }
            Command::Choose { want, answer } => {
                let chosen = self.pool.choose(&want, &[], now());
                answer.send(self.peer(chosen)).ok();
            }
            Command::Primary(answer) => {
                answer.send(self.peer(self.pool.primary())).ok();
            }
            Command::ForcePrimary { peer, force, answer } => {
                self.pool.force_primary(peer, force, now());
                answer.send(()).ok();
            }
            Command::SetTimings { change, answer } => {
                let result = self.pool.set_timings(change, now());
                if result.is_ok() {
                    self.options.pool.timings = self.pool.timings();
                    self.next_sample = now();
                }
                answer.send(result).ok();
            }
            Command::TimeOffset(answer) => {
                answer.send(self.pool.time().offset()).ok();
            }
            Command::Book(answer) => {
                answer.send(self.pool.book().counts(unix_now())).ok();
            }
            Command::Add { address, answer } => {
                self.pool.add(address, now());
                answer.send(()).ok();
            }
            Command::Ban { address, reason, answer } => {
                self.pool.ban_and_disconnect(&address, &reason, now());
                answer.send(()).ok();
            }
            Command::Unban { address, answer } => {
                self.pool.unban(&address);
                answer.send(()).ok();
            }
            Command::Misbehaved { peer, points, what, answer } => {
                self.pool.misbehaved(peer, points, &what, now());
                answer.send(()).ok();
            }
        }
        // Who asks no more is not answered.
        let gone: Vec<RequestId> =
            self.requests.iter().filter(|(_, answer)| answer.is_closed()).map(|(id, _)| *id).collect();
        for id in gone {
            self.requests.remove(&id);
            self.pool.cancel(id);
        }
    }
}
