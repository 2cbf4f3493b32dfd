//! The kernels of a machine on NVIDIA's GPUs, and what of CUDA this machine has.
//!
//! One `.cu` for each operation, named as in [`cpu`](crate::cpu), where its plain twin is. The sources are part of the
//! program and compiled when it runs; the same sources run on the host in the tests. There is no interpreter yet: see
//! the folder's README for what is there, how an operation is added, and what only a GPU can show.

pub mod compile;
pub mod libraries;
mod opened;
mod sources;

pub use libraries::{Libraries, Library, Places};
pub use sources::{HEADERS, SOURCES, Source};
