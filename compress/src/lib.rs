//! What makes the numbers few: calibration, GPTQ, int5 and int6 by sensitivity, packing under a byte budget.
//!
//! [`gptq::quantize`] is the algorithm for one matrix. The functions here are free functions over plain data; what
//! the reference does, and nothing else, is [`Scheme::Reference`]. [`Scheme::Rd`] spends every byte of a whole model
//! where it buys the most loss.

#![deny(unsafe_code)]

mod budget;
pub mod codecs;
pub mod compress;
pub mod distortion;
pub mod error;
mod factor;
pub mod gptq;
pub mod hessian;
mod importance;
mod lattice;
pub mod matrix;
pub mod mixed;
mod plan;
mod planned;
pub mod predict;
mod product;
mod quantize;
pub mod report;
pub mod round;
pub mod scheme;
mod solve;
pub mod sweep;
pub mod yardstick;

pub use compress::{Compressed, Options, Progress, compress, compress_with, pack};
pub use error::{Error, Result};
pub use hessian::{Calibration, Hessians};
pub use matrix::Matrix;
pub use report::Report;
pub use scheme::Scheme;
