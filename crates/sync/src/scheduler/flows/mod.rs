//! The ways to find blocks, each a machine of the shape in [`flow`](super::flow).

mod headers;
