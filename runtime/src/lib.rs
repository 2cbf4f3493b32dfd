//! What the numbers do: the model as one [`model::forward`] over [`Ops`], the machines that run it, sessions,
//! sampling, the metric.
//!
//! There is one description of the model. Weight format, device, calibration, counting and gradients are
//! interpreters or decorators of [`Ops`], never a second forward.

#![deny(unsafe_code)]
// In a browser a GPU belongs to its thread, and there is no other: elsewhere the same values are shared by several.
#![cfg_attr(target_family = "wasm", allow(clippy::arc_with_non_send_sync, reason = "written for all targets alike"))]

mod clock;
pub mod count;
pub mod cpu;
#[cfg(not(target_family = "wasm"))]
pub mod cuda;
pub mod device;
pub mod divergence;
pub mod engine;
mod error;
pub mod generate;
pub mod metric;
pub mod model;
mod once;
pub mod ops;
pub mod projection;
pub mod sampler;
pub mod scored;
pub mod session;
pub mod shared;
pub mod stream;
mod wait;
pub mod watch;
pub mod weights;
pub mod wgpu;

pub use count::Count;
pub use device::Device;
pub use engine::Engine;
pub use error::{Error, Result};
pub use model::{Pass, forward};
pub use ops::{Batch, Heads, Ops, ReadBack, Remember, Role, Rope, Site};
pub use projection::Projection;
pub use sampler::{Sampler, Sampling};
pub use scored::Scored;
pub use session::Session;
pub use stream::TextStream;
pub use wait::{now, turn};
pub use watch::{Calibrate, Trace};
pub use weights::Weights;
