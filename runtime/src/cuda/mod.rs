//! The interpreter on NVIDIA's GPUs, forward and backward, and what of CUDA this machine has.
//!
//! One `.cu` for each operation, named as in [`cpu`](crate::cpu), where its plain twin is. The sources are part of the
//! program and compiled when it runs; the same sources run on the host in the tests, behind a driver that computes on
//! the processor. See the folder's README for how an operation is added, and what only a GPU can show.

mod act;
mod blas;
mod communicator;
pub mod compile;
mod driver;
mod feed;
mod gpu;
mod imagined;
mod interpreter;
mod kept;
mod kernels;
pub mod libraries;
mod memory;
mod nccl;
mod opened;
mod project_heads;
mod recompute;
mod remembered;
pub mod signature;
mod sources;
mod streams;
mod tape;
mod tokens;

pub use act::{Act, Weight};
pub use communicator::{Abort, Communicator};
pub use driver::{Facts, Stalls};
pub use feed::Feed;
pub use gpu::{Gpu, Recorded, Settings, gpus};
pub use interpreter::{Cuda, is_control};
pub use kernels::{Direction, Elsewhere, Group, Lengths, Moments, Product, Stack};
pub use libraries::{Libraries, Library, Places};
pub use memory::{Buffer, Kind};
pub use nccl::{unique_id, version as nccl_version};
pub use recompute::{Again, Recompute};
pub use sources::{HEADERS, SOURCES, Source};
pub use streams::{Event, Pinned, Stream};
