//! The next token, chosen where its logits are.

use super::kernel::{Access, Kernel, params, wgsl};
use super::{Act, Wgpu};
use crate::{Result, Sampler};

params! {
    /// As in `sample.wgsl`.
    Params { vocab: u32, temperature: f32, top_k: u32, top_p: f32, min_p: f32, share: f32 }
}

pub(super) static KERNEL: Kernel =
    Kernel::new::<Params>("sample", wgsl!("sample.wgsl"), &[Access::Read, Access::Write]);

/// A token for `logits [1, 1, V]`: only its id comes to the host.
pub(super) async fn sample(gpu: &mut Wgpu, logits: &Act, sampler: &mut Sampler) -> Result<u32> {
    let before = sampler.clone();
    let (sampling, share) = sampler.draw();
    let token = gpu.act(1, 1, 1);
    let params = Params {
        vocab: logits.cols as u32,
        temperature: sampling.temperature,
        top_k: u32::try_from(sampling.top_k).unwrap_or(u32::MAX),
        top_p: sampling.top_p,
        min_p: sampling.min_p,
        share: share as f32,
    };
    gpu.queue.dispatch(&KERNEL, &params, vec![logits.all(), token.all()], [1, 1, 1]);
    let bytes = match gpu.queue.read(token.buffer.buffer(), 4).await {
        Ok(bytes) => bytes,
        // Whoever goes on for a GPU that was lost draws this token's number.
        Err(e) => {
            *sampler = before;
            return Err(e);
        }
    };
    match bytemuck::pod_read_unaligned(&bytes) {
        // The host says what is wrong with them.
        u32::MAX => {
            *sampler = before;
            sampler.sample(&crate::ReadBack::read(gpu, logits).await?)
        }
        token => Ok(token),
    }
}
