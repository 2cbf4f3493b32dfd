//! Parameters in the GPU's memory, quantised ones as their codes.

use std::collections::BTreeMap;
use std::sync::Arc;

use sixpack_formats::{Model, ModelConfig, OptimizerGroup, TensorData, TensorId, TensorSpec};

use super::machine::Machine;
use super::queue::Slice;
use crate::{Result, Weights, cpu};

/// That a matrix has no scales or no factors.
const NONE: u32 = u32::MAX;

/// A parameter: in one chunk, or its rows in several where it is larger than a binding can be.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Outputs.
    pub(super) rows: usize,
    /// Inputs.
    pub(super) cols: usize,
    pub(super) parts: Vec<Part>,
}

/// Rows of a parameter that lie in one chunk.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) chunk: Slice,
    /// The first row.
    pub(super) first: usize,
    pub(super) rows: usize,
    pub(super) matrix: Matrix,
}

/// Where a matrix lies in its chunk, as `weight.wgsl` has it.
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Matrix {
    /// First vec4 of the values.
    pub(super) values: u32,
    /// vec4s of a row.
    pub(super) stride: u32,
    /// First f32 of the rows' scales.
    pub(super) scales: u32,
    /// First f32 of the columns' factors.
    pub(super) columns: u32,
}

impl Weight {
    /// The only part of a small parameter.
    pub(super) fn only(&self) -> &Part {
        assert_eq!(self.parts.len(), 1, "a parameter in one chunk");
        &self.parts[0]
    }
}

/// Rows of a parameter on their way: values or codes and what they are multiplied by.
struct Rows<'a> {
    cols: usize,
    values: Values<'a>,
}

enum Values<'a> {
    F32(&'a [f32]),
    Int8 { codes: &'a [i8], scales: &'a [f32], columns: &'a [f32] },
}

/// Puts parameters into chunks, one after another.
#[derive(Debug)]
pub(super) struct Loader {
    machine: Arc<Machine>,
    /// The chunk that is filled, and the bytes of it that are used.
    open: Option<(wgpu::Buffer, u64)>,
    /// Bytes a new chunk should have, if it can.
    chunk: u64,
}

impl Loader {
    /// A loader that makes chunks of about `chunk` bytes.
    pub(super) fn new(machine: Arc<Machine>, chunk: u64) -> Self {
        Self { machine, open: None, chunk }
    }

    /// All tensors of a model.
    pub(super) fn model(machine: &Arc<Machine>, model: &Model) -> Result<Weights<Weight>> {
        let bytes = |spec: &TensorSpec| bytes_of(&model.tensors[&spec.id], spec.shape.last());
        Self::all(machine, &model.config, bytes, |spec| cpu::Weight::load(spec, &model.tensors[&spec.id]))
    }

    /// All tensors of `config`, which take so many bytes. The small ones come first, so that those used together are in
    /// one chunk, and all are where they fit.
    pub(super) fn all(
        machine: &Arc<Machine>,
        config: &ModelConfig,
        bytes: impl Fn(&TensorSpec) -> u64,
        weight: impl Fn(&TensorSpec) -> cpu::Weight,
    ) -> Result<Weights<Weight>> {
        let specs = config.tensors();
        let (small, large): (Vec<_>, Vec<_>) = specs.iter().partition(|spec| spec.group == OptimizerGroup::Scalar);
        let ordered: Vec<_> = small.into_iter().chain(large).collect();
        let bytes: u64 = ordered.iter().map(|spec| bytes(spec)).sum();
        let widest = ordered.iter().filter_map(|spec| spec.shape.last()).max().copied().unwrap_or(1);
        if 32 * widest as u64 > machine.limit {
            return Err(machine.cannot(format!("rows of {widest} weights, a binding has {} bytes", machine.limit)));
        }
        let mut loader = Self::new(Arc::clone(machine), bytes);
        let mut weights: BTreeMap<TensorId, Weight> =
            ordered.iter().map(|spec| (spec.id, loader.weight(&weight(spec)))).collect();
        Weights::build(config, |spec| Ok(weights.remove(&spec.id).expect("each tensor was loaded")))
    }

    /// One parameter.
    pub(super) fn weight(&mut self, weight: &cpu::Weight) -> Weight {
        let (rows, cols) = (weight.rows(), weight.cols());
        let codes;
        let values = match weight {
            cpu::Weight::Dense(w) => Values::F32(&w.data),
            cpu::Weight::Int8(w) => {
                codes = w.codes();
                Values::Int8 { codes: &codes, scales: w.scales(), columns: w.columns() }
            }
        };
        let all = Rows { cols, values };
        // As many rows to a part as a chunk can hold.
        let each = (self.machine.limit.saturating_sub(all.bytes(0)) / (all.bytes(1) - all.bytes(0)).max(1)) as usize;
        assert!(each > 0, "a row of {cols} values is larger than a binding of {} bytes", self.machine.limit);
        let part = |first: usize| {
            let rows = each.min(rows - first);
            self.part(&all, first, rows)
        };
        let parts = (0..rows.max(1)).step_by(each).map(part).collect();
        Weight { rows, cols, parts }
    }

    fn part(&mut self, all: &Rows<'_>, first: usize, rows: usize) -> Part {
        let words = all.pack(first, rows);
        let bytes = words.len() as u64 * 4;
        let limit = self.machine.limit;
        let room = |open: &Option<(wgpu::Buffer, u64)>| open.as_ref().map_or(0, |(chunk, used)| chunk.size() - used);
        if room(&self.open) < bytes {
            let size = self.chunk.clamp(bytes, limit.max(bytes)).next_multiple_of(16);
            let chunk = self.machine.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("weights"),
                size,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            self.open = Some((chunk, 0));
        }
        let (chunk, used) = self.open.as_mut().expect("a chunk is open");
        self.machine.queue.write_buffer(chunk, *used, bytemuck::cast_slice(&words));
        let matrix = all.matrix(*used, rows);
        *used += bytes;
        self.chunk = self.chunk.saturating_sub(bytes);
        Part { chunk: Slice::whole(chunk), first, rows, matrix }
    }
}

/// Bytes a parameter of the CPU's will take.
pub(super) fn size(weight: &cpu::Weight) -> u64 {
    let values = match weight {
        cpu::Weight::Dense(_) => Values::F32(&[]),
        cpu::Weight::Int8(w) => Values::Int8 { codes: &[], scales: &[], columns: w.columns() },
    };
    Rows { cols: weight.cols(), values }.bytes(weight.rows())
}

/// Bytes a tensor will take, as [`Rows::bytes`] has it.
fn bytes_of(data: &TensorData, cols: Option<&usize>) -> u64 {
    let cols = cols.copied().unwrap_or(1);
    let rows = data.len() / cols.max(1);
    let values = match data {
        TensorData::Quantized(q) => {
            Values::Int8 { codes: &[], scales: &[], columns: if q.columns.is_empty() { &[] } else { &[1.0] } }
        }
        _ => Values::F32(&[]),
    };
    Rows { cols, values }.bytes(rows)
}

impl Rows<'_> {
    /// vec4s of a row.
    fn stride(&self) -> usize {
        match self.values {
            Values::F32(_) => self.cols.div_ceil(4),
            Values::Int8 { .. } => self.cols.div_ceil(16),
        }
    }

    /// vec4s of `rows` scales and of the factors.
    fn extra(&self, rows: usize) -> [usize; 2] {
        match self.values {
            Values::F32(_) => [0, 0],
            Values::Int8 { columns: [], .. } => [rows.div_ceil(4), 0],
            // A kernel may read the factors of the whole of the last vec4 of codes.
            Values::Int8 { .. } => [rows.div_ceil(4), self.cols.div_ceil(16) * 4],
        }
    }

    fn bytes(&self, rows: usize) -> u64 {
        let [scales, columns] = self.extra(rows);
        16 * (rows * self.stride() + scales + columns) as u64
    }

    fn matrix(&self, offset: u64, rows: usize) -> Matrix {
        let values = (offset / 16) as u32;
        let stride = self.stride() as u32;
        let [scales, columns] = self.extra(rows);
        let first_scale = values + rows as u32 * stride;
        let index = |present: usize, vec4: u32| if present > 0 { 4 * vec4 } else { NONE };
        Matrix {
            values,
            stride,
            scales: index(scales, first_scale),
            columns: index(columns, first_scale + scales as u32),
        }
    }

    /// The words of rows `first ..`: values, scales, factors, each from a new vec4 on.
    fn pack(&self, first: usize, rows: usize) -> Vec<u32> {
        let mut words = Vec::with_capacity(self.bytes(rows) as usize / 4);
        let range = first * self.cols..(first + rows) * self.cols;
        let pad = |words: &mut Vec<u32>| words.resize(words.len().next_multiple_of(4), 0);
        match &self.values {
            Values::F32(values) => {
                for row in values[range].chunks_exact(self.cols) {
                    words.extend(row.iter().map(|x| x.to_bits()));
                    pad(&mut words);
                }
            }
            Values::Int8 { codes, scales, columns } => {
                for row in codes[range].chunks_exact(self.cols) {
                    words.extend(
                        row.chunks(4)
                            .map(|codes| codes.iter().rev().fold(0, |word, &code| word << 8 | u32::from(code as u8))),
                    );
                    pad(&mut words);
                }
                words.extend(scales[first..first + rows].iter().map(|x| x.to_bits()));
                pad(&mut words);
                words.extend(columns.iter().map(|x| x.to_bits()));
                words.resize(self.bytes(rows) as usize / 4, 0);
            }
        }
        words
    }
}
