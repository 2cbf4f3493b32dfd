//! What makes the numbers few: calibration, GPTQ, int5 and int6 by sensitivity, packing under a byte budget.
//!
//! [`gptq::quantize`] is the algorithm for one matrix. The functions here are free functions over plain data; what
//! the reference does, and nothing else, is [`Scheme::Reference`].

pub mod distortion;
pub mod error;
mod factor;
pub mod gptq;
pub mod hessian;
pub mod matrix;
mod product;
pub mod round;
pub mod scheme;

pub use error::{Error, Result};
pub use hessian::{Calibration, Hessians};
pub use matrix::Matrix;
pub use scheme::Scheme;
