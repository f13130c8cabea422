//! What the scheduler wanted, as one number: equal for equal runs, and different for any difference.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use tipward_sync::{
    Input, Output,
    peer::{Reply, Want, wire::BlockHash},
};

/// All outputs so far.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hasher: DefaultHasher,
    outputs: u64,
}

impl Trace {
    /// One more output.
    pub(crate) fn note(&mut self, at: Duration, output: &Output) {
        self.outputs += 1;
        at.hash(&mut self.hasher);
        std::mem::discriminant(output).hash(&mut self.hasher);
        match output {
            Output::Ask(peer, want) => {
                peer.hash(&mut self.hasher);
                self.want(want);
            }
            Output::Drop(peer, fault) | Output::Penalise(peer, fault) => {
                (peer, fault.to_string()).hash(&mut self.hasher);
            }
            Output::Hold(peer) | Output::Resume(peer) => peer.hash(&mut self.hasher),
            Output::Rollback(id) | Output::Abort(id) | Output::Skip(id) => id.hash(&mut self.hasher),
            Output::Apply(block) => (block.id, block.size, block.is_streamed).hash(&mut self.hasher),
            Output::ApplyPart(id, part) => (id, part.index, part.offset).hash(&mut self.hasher),
            Output::Event(event) => format!("{event:?}").hash(&mut self.hasher),
            Output::Headers(count) => count.hash(&mut self.hasher),
            Output::Stopped => {}
            Output::Failed(reason) => reason.to_string().hash(&mut self.hasher),
        }
    }

    fn want(&mut self, want: &Want) {
        std::mem::discriminant(want).hash(&mut self.hasher);
        let mut hashes = |hashes: &[BlockHash]| {
            hashes.len().hash(&mut self.hasher);
            hashes.iter().for_each(|hash| self.hasher.write(hash.as_bytes()));
        };
        match want {
            Want::HeadersAfter(locator) => hashes(locator),
            Want::BlocksAfter { locator, stop } => {
                hashes(locator);
                hashes(&[*stop]);
            }
            Want::Blocks(blocks) => hashes(blocks),
            other => format!("{other:?}").hash(&mut self.hasher),
        }
    }

    /// How many outputs there were, and which.
    pub(crate) fn finish(&self) -> (u64, u64) {
        (self.outputs, self.hasher.finish())
    }
}

/// An input in a few words.
pub(crate) fn input(input: &Input) -> String {
    match input {
        Input::Reply(peer, Reply::Part(part)) => format!("{peer}: part {} of {}", part.index, part.block),
        Input::Reply(peer, Reply::BlockEnd(end)) => {
            format!("{peer}: end of {}, {} bytes", end.block, end.size)
        }
        Input::Reply(peer, Reply::Headers { headers, more }) => {
            format!("{peer}: {} headers, more: {more}", headers.len())
        }
        other => format!("{other:?}"),
    }
}

/// An output in a few words.
pub(crate) fn output(output: &Output) -> String {
    match output {
        Output::Ask(peer, Want::HeadersAfter(locator)) => {
            format!("{peer}: headers after {:?}", locator.first())
        }
        Output::Apply(block) => format!("apply {} of {} bytes", block.id, block.size),
        Output::ApplyPart(id, part) => format!("apply part {} of {id}", part.index),
        other => format!("{other:?}"),
    }
}
