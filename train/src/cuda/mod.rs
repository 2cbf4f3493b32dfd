//! The CUDA engine: weights, gradients and the optimizers' state stay on the GPU, and a step runs there as a whole.
//!
//! All tensors lie in one piece of memory, in an order ([`layout`]) that makes one kernel of what is done to many: the
//! matrices of one shape are a stack that Newton–Schulz goes through at once, and each group of AdamW's is one range.
//! [`Learner`] runs batches forward and backward ([`learner`]) and updates ([`update`]); from the third time on both are
//! recorded work that is queued at once. The host is a step ahead: it waits for none but the one before the last. [`ranks`]
//! give each other gradients and weights by NCCL, or by way of the host. [`memory`] tells before what a run takes.

mod layout;
mod learner;
pub mod memory;
mod ranks;
mod update;

pub use learner::{IN_FLIGHT, Learner, Outcome, Rules};
pub use ranks::{Bucket, Ranks};
