//! The operations of the model with hand-written gradients, as candle custom ops.
//!
//! Each file holds one operation: what it computes, its gradient, and the `CustomOp` that ties them together. All run
//! on the calling thread over contiguous f32, so a result depends on its inputs alone. Composed candle ops would be
//! right too, but spend most of their time in unfused element-wise passes.

pub(crate) mod attention;
pub(crate) mod average;
pub(crate) mod embed;
pub(crate) mod exclude_self;
pub(crate) mod head_norm_rope;
pub(crate) mod linear;
pub(crate) mod loss;
pub(crate) mod mix;
pub(crate) mod mlp;
pub(crate) mod rms_norm;
pub(crate) mod scaled;
pub(crate) mod skip;
pub(crate) mod tail;

use std::ops::{Deref, Range};

use candle_core::{CpuStorage, Device, Layout, Result, Shape, Storage, Tensor, bail};

/// The values of an argument of a forward pass.
pub(crate) fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    Ok(&storage.as_slice::<f32>()?[range(layout)?])
}

/// The values of a tensor, borrowed.
struct Values<'a> {
    /// The lock guard of the tensor's storage, whose type candle does not export.
    storage: Box<dyn Deref<Target = Storage> + 'a>,
    range: Range<usize>,
}

impl<'a> Values<'a> {
    fn of(tensor: &'a Tensor) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cpu(cpu) = &*storage else { bail!("expected a tensor on the CPU") };
        cpu.as_slice::<f32>()?;
        let range = range(layout)?;
        Ok(Self { storage: Box::new(storage), range })
    }
}

impl Deref for Values<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &**self.storage {
            Storage::Cpu(CpuStorage::F32(v)) => &v[self.range.clone()],
            _ => unreachable!("checked when it was borrowed"),
        }
    }
}

fn range(layout: &Layout) -> Result<Range<usize>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(start..end),
        None => bail!("expected a contiguous tensor, found strides {:?}", layout.stride()),
    }
}

/// The result of a forward pass.
fn result(data: Vec<f32>, shape: impl Into<Shape>) -> Result<(CpuStorage, Shape)> {
    Ok((CpuStorage::F32(data), shape.into()))
}

/// A gradient, in memory of its own and of the shape of what it is the gradient of.
fn gradient(data: Vec<f32>, of: &Tensor) -> Result<Option<Tensor>> {
    Tensor::from_vec(data, of.shape(), &Device::Cpu).map(Some)
}

/// The number of channels: the last dimension.
fn channels(layout: &Layout) -> Result<usize> {
    match layout.dims().last() {
        Some(&c) if c > 0 => Ok(c),
        _ => bail!("expected channels, found shape {:?}", layout.dims()),
    }
}
