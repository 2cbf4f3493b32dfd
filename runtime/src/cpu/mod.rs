//! Interpreters on the CPU: the plain [`Reference`], the twin of everything, and its activations and weights.

mod cache;
mod dense;
mod mat;
mod reference;

pub use dense::Dense;
pub use mat::Mat;
pub use reference::Reference;
