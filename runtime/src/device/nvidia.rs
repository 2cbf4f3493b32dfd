//! GPUs through CUDA, as candidates.

use sixpack_formats::Model;

use super::{check, probe};
use crate::cuda::{self, Cuda, Facts, Gpu, Kind, Settings};
use crate::{Result, Weights};

/// What activations and matrices are kept in when a model is read or written: arithmetic is in f32, and both are what the
/// model was trained with.
const STORAGE: Kind = Kind::Bf16;

/// What rounding to bf16 explains of a logit's difference, in tolerances of f32.
const ROUNDED: f32 = 64.0;

/// The GPUs that CUDA's driver has; none where it is missing.
pub(super) fn gpus() -> Vec<Facts> {
    match cuda::Libraries::find(&cuda::Places::usual()).why_not() {
        None => cuda::gpus().unwrap_or_default(),
        Some(_) => Vec::new(),
    }
}

/// An interpreter on a GPU that computes what the CPU does: in f32, and but for rounding as it will be used.
pub(super) async fn ready(index: usize, tolerance: f32) -> Result<Cuda> {
    let gpu = Gpu::open(index, Settings::default())?;
    checked(&mut Cuda::new(&gpu, Kind::F32), tolerance).await?;
    let mut interpreter = Cuda::new(&gpu, STORAGE);
    checked(&mut interpreter, ROUNDED * tolerance).await?;
    Ok(interpreter)
}

/// The largest difference of a logit from the plain interpreter's on a small model.
async fn checked(gpu: &mut Cuda, tolerance: f32) -> Result<f32> {
    check::check(gpu, tolerance, |gpu, config, w| gpu.bring_weights(config, w)).await
}

/// Tokens a second that a GPU decodes, and it with the model.
pub(super) async fn timed(model: &Model, index: usize, tolerance: f32) -> Result<(f64, Cuda, Weights<cuda::Weight>)> {
    let mut gpu = ready(index, tolerance).await?;
    let weights = gpu.load(model)?;
    let speed = probe::speed(&model.config, &weights, &mut gpu).await?;
    Ok((speed, gpu, weights))
}

/// The largest difference in f32 of a GPU, and an interpreter on it.
pub(super) async fn difference(index: usize) -> Result<(f32, Cuda)> {
    let gpu = Gpu::open(index, Settings::default())?;
    let worst = checked(&mut Cuda::new(&gpu, Kind::F32), check::TOLERANCE).await?;
    let mut interpreter = Cuda::new(&gpu, STORAGE);
    checked(&mut interpreter, ROUNDED * check::TOLERANCE).await?;
    Ok((worst, interpreter))
}
