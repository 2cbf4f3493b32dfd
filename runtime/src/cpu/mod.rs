//! Interpreters on the CPU: the plain [`Reference`] and the [`Fast`] one, its twin; their activations and weights.

mod cache;
mod dense;
mod fast;
mod mat;
mod reference;

pub use dense::Dense;
pub use fast::{Fast, Int8, Weight};
pub use mat::Mat;
pub use reference::Reference;
