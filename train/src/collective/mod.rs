//! What the ranks of a run tell each other: sums of gradients, weights that one of them updated, small values that all
//! must agree on.
//!
//! Every rank calls the same operations in the same order. An operation is started and waited for apart, so that the
//! sums of some gradients travel while others are still computed. Sums are taken in the order of the ranks, so every
//! rank gets the same bits.
//!
//! [`Tcp`] has buckets in memory. Ranks on GPUs have buckets there ([`crate::cuda::Bucket`]), where waiting makes a stream
//! wait and not the host, and keep a [`Tcp`] for what is small: to meet, to agree, to notice who was lost.

pub mod launch;
mod tcp;

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Result;
use crate::loader::Rank;

pub use launch::Launch;
pub use tcp::{Limits, Tcp};

/// The ranks of a run, seen from one of them. `Bucket` is where the numbers lie: in memory, or on a device.
pub trait Collective<Bucket = Vec<f32>>: fmt::Debug + Send + Sync {
    /// This rank, and how many there are.
    fn rank(&self) -> Rank;

    /// Starts the sum of one bucket of each rank, all of one length. A mean is the sum of what was divided before, which
    /// costs nothing where gradients are computed.
    ///
    /// # Errors
    /// If a rank was lost.
    fn sum(&self, bucket: Bucket) -> Result<Pending<Bucket>>;

    /// Starts to give one rank's bucket to all; those of the others say only how long it is.
    ///
    /// # Errors
    /// If a rank was lost.
    fn broadcast(&self, from: usize, bucket: Bucket) -> Result<Pending<Bucket>>;

    /// Starts to give every rank's bucket to all: they are in the order of the ranks, and those of the others say only how
    /// long they are.
    ///
    /// # Errors
    /// If a rank was lost.
    fn gather(&self, of_ranks: Vec<Bucket>) -> Result<Pending<Vec<Bucket>>>;

    /// A few bytes of every rank, in the order of the ranks; returns when all have called it.
    ///
    /// # Errors
    /// If a rank was lost.
    fn exchange(&self, value: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// Tells the others why this rank ends before the run is over, so that they need not find out.
    fn leave(&self, reason: &str);

    /// Has `hear` told at once when a rank is lost, from another thread: which one, and why. Where nothing runs that must
    /// be ended then, the next operation says it too.
    fn on_loss(&self, hear: Hear);
}

/// Hears which rank was lost, and why.
pub type Hear = Box<dyn FnOnce(usize, &str) + Send>;

/// Something that was started.
pub struct Pending<T = Vec<f32>>(Box<dyn FnOnce() -> Result<T> + Send>);

impl<T> Pending<T> {
    /// What `wait` waits for.
    pub fn new(wait: impl FnOnce() -> Result<T> + Send + 'static) -> Self {
        Self(Box::new(wait))
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// If a rank was lost in the meantime.
    pub fn wait(self) -> Result<T> {
        (self.0)()
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pending")
    }
}

/// A run of a single process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl<Bucket: Send + 'static> Collective<Bucket> for Alone {
    fn rank(&self) -> Rank {
        Rank::ALONE
    }

    fn sum(&self, bucket: Bucket) -> Result<Pending<Bucket>> {
        Ok(Pending::new(|| Ok(bucket)))
    }

    fn broadcast(&self, _: usize, bucket: Bucket) -> Result<Pending<Bucket>> {
        Ok(Pending::new(|| Ok(bucket)))
    }

    fn gather(&self, of_ranks: Vec<Bucket>) -> Result<Pending<Vec<Bucket>>> {
        Ok(Pending::new(|| Ok(of_ranks)))
    }

    fn exchange(&self, value: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(vec![value.to_vec()])
    }

    fn leave(&self, _: &str) {}

    fn on_loss(&self, _: Hear) {}
}

/// A value of every rank, in the order of the ranks.
///
/// # Errors
/// If a rank was lost, or sent something else.
pub(crate) fn exchange<T: Serialize + DeserializeOwned, Bucket>(
    all: &dyn Collective<Bucket>,
    mine: &T,
) -> Result<Vec<T>> {
    let mine = serde_json::to_vec(mine).expect("plain values serialise");
    let values = all.exchange(&mine)?.into_iter().enumerate();
    let read = |(rank, value): (usize, Vec<u8>)| serde_json::from_slice(&value).map_err(|e| tcp::nonsense(rank, e));
    values.map(read).collect()
}
