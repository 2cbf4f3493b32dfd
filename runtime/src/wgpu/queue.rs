//! Commands on their way to the GPU: recorded one after another, sent when the host needs a value.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::kernel::{Kernel, Params};
use super::machine::Machine;
use super::pool::{GUARD, Pool, ZONE};
use crate::Result;

/// Distance of parameters in the uniform buffer, which WebGPU prescribes.
const STRIDE: usize = 256;

/// Dispatches of a submission, at most: a pass over many tokens is sent in parts, a step never is.
const DISPATCHES: usize = 1024;

/// Bind groups kept.
const GROUPS: usize = 4096;

/// A part of a buffer, as a kernel binds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Slice {
    pub(super) buffer: wgpu::Buffer,
    pub(super) offset: u64,
    pub(super) size: u64,
}

impl Slice {
    pub(super) fn whole(buffer: &wgpu::Buffer) -> Self {
        Self { buffer: buffer.clone(), offset: 0, size: buffer.size() }
    }
}

/// Commands that were recorded and not sent yet.
#[derive(Debug)]
pub(super) struct Queue {
    machine: Arc<Machine>,
    pool: Arc<Mutex<Pool>>,
    // The pass refers to the encoder, and is ended before it.
    pass: Option<wgpu::ComputePass<'static>>,
    encoder: Option<wgpu::CommandEncoder>,
    uniforms: Vec<u8>,
    uniform_buffer: wgpu::Buffer,
    uploads: Vec<u32>,
    upload_buffer: wgpu::Buffer,
    staging: Option<wgpu::Buffer>,
    groups: HashMap<(&'static str, Vec<Slice>), wgpu::BindGroup>,
    counts: Counts,
}

/// What was sent since the interpreter was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Kernels started.
    pub dispatches: u64,
    /// Times commands were sent.
    pub submissions: u64,
    /// Bytes read back.
    pub read: u64,
}

impl Queue {
    pub(super) fn new(machine: Arc<Machine>, pool: Arc<Mutex<Pool>>) -> Self {
        let uniform_buffer = buffer(&machine, "parameters", (STRIDE * DISPATCHES) as u64, wgpu::BufferUsages::UNIFORM);
        let upload_buffer = buffer(&machine, "uploads", 64 << 10, wgpu::BufferUsages::STORAGE);
        Self {
            machine,
            pool,
            pass: None,
            encoder: None,
            uniforms: Vec::new(),
            uniform_buffer,
            uploads: Vec::new(),
            upload_buffer,
            staging: None,
            groups: HashMap::new(),
            counts: Counts::default(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Puts numbers where a kernel can read them; gives the buffer and the index of the first. They stay there for the
    /// next `dispatches`.
    pub(super) fn upload(&mut self, words: &[u32], dispatches: usize) -> (Slice, u32) {
        let room = self.upload_buffer.size() as usize / 4 - self.uploads.len();
        if words.len() > room || self.uniforms.len() / STRIDE + dispatches > DISPATCHES {
            self.submit();
        }
        if words.len() as u64 * 4 > self.upload_buffer.size() {
            let size = (words.len() as u64 * 4).next_power_of_two();
            self.upload_buffer = buffer(&self.machine, "uploads", size, wgpu::BufferUsages::STORAGE);
        }
        let first = self.uploads.len() as u32;
        self.uploads.extend_from_slice(words);
        (Slice::whole(&self.upload_buffer), first)
    }

    /// Records a dispatch of `kernel` over `grid` workgroups.
    pub(super) fn dispatch<P: Params>(
        &mut self,
        kernel: &'static Kernel,
        params: &P,
        slices: Vec<Slice>,
        grid: [u32; 3],
    ) {
        assert_eq!(slices.len(), kernel.buffers.len(), "{}", kernel.name);
        if self.uniforms.len() == STRIDE * DISPATCHES {
            self.submit();
        }
        let offset = self.uniforms.len() as u32;
        self.uniforms.extend_from_slice(bytemuck::bytes_of(params));
        self.uniforms.resize(offset as usize + STRIDE, 0);
        let (machine, uniform) = (&self.machine, &self.uniform_buffer);
        let key = (kernel.name, slices);
        let group = match self.groups.get(&key) {
            Some(group) => group,
            None => {
                let group = bind(machine, kernel, uniform, &key.1);
                self.groups.entry(key).or_insert(group)
            }
        };
        let encoder = self.encoder.get_or_insert_with(|| machine.device.create_command_encoder(&Default::default()));
        let pass = self.pass.get_or_insert_with(|| encoder.begin_compute_pass(&Default::default()).forget_lifetime());
        pass.set_pipeline(&machine.pipeline(kernel).pipeline);
        pass.set_bind_group(0, group, &[offset]);
        pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
        self.counts.dispatches += 1;
    }

    /// Records a copy of `size` bytes.
    pub(super) fn copy(&mut self, from: (&wgpu::Buffer, u64), to: (&wgpu::Buffer, u64), size: u64) {
        self.pass = None;
        let device = &self.machine.device;
        let encoder = self.encoder.get_or_insert_with(|| device.create_command_encoder(&Default::default()));
        encoder.copy_buffer_to_buffer(from.0, from.1, to.0, to.1, size);
    }

    /// Sends what was recorded.
    pub(super) fn submit(&mut self) {
        self.pass = None;
        if let Some(encoder) = self.encoder.take() {
            let queue = &self.machine.queue;
            if !self.uniforms.is_empty() {
                queue.write_buffer(&self.uniform_buffer, 0, &self.uniforms);
            }
            if !self.uploads.is_empty() {
                queue.write_buffer(&self.upload_buffer, 0, bytemuck::cast_slice(&self.uploads));
            }
            queue.submit([encoder.finish()]);
            self.counts.submissions += 1;
        }
        self.uniforms.clear();
        self.uploads.clear();
        if Pool::trim(&self.pool) || self.groups.len() > GROUPS {
            self.groups.clear();
        }
    }

    /// Sends what was recorded and waits for the first `bytes` of `buffer`.
    ///
    /// # Panics
    /// If something was written behind the values of any guarded buffer since the last call.
    pub(super) async fn read(&mut self, buffer: &wgpu::Buffer, bytes: u64) -> Result<Vec<u8>> {
        let guarded = Pool::to_check(&self.pool);
        let all = bytes + ZONE * guarded.len() as u64;
        let staging = match self.staging.take() {
            Some(staging) if staging.size() >= all => staging,
            _ => self.machine.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("read back"),
                size: all.next_power_of_two(),
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            }),
        };
        self.copy((buffer, 0), (&staging, 0), bytes);
        for (zone, at) in guarded.iter().zip((bytes..).step_by(ZONE as usize)) {
            self.copy((&zone.buffer, zone.room), (&staging, at), ZONE);
        }
        self.submit();
        self.counts.read += bytes;
        let slice = staging.slice(..all);
        let (sender, receiver) = futures_channel::oneshot::channel();
        slice.map_async(wgpu::MapMode::Read, move |mapped| {
            // Nobody waits any more if the reader was dropped.
            let _ = sender.send(mapped);
        });
        // In a browser this returns at once, and the event loop brings the values.
        self.machine.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| self.machine.unreadable(&e))?;
        receiver.await.map_err(|e| self.machine.unreadable(&e))?.map_err(|e| self.machine.unreadable(&e))?;
        let mut values = slice.get_mapped_range().map_err(|e| self.machine.unreadable(&e))?.to_vec();
        staging.unmap();
        self.staging = Some(staging);
        self.machine.check()?;
        for (zone, found) in guarded.iter().zip(values[bytes as usize..].chunks_exact(ZONE as usize)) {
            let intact = found.chunks_exact(4).all(|word| word == GUARD.to_le_bytes());
            assert!(intact, "a kernel wrote behind the {} bytes of an activation", zone.room);
        }
        values.truncate(bytes as usize);
        Ok(values)
    }
}

fn buffer(machine: &Machine, label: &str, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
    let usage = usage | wgpu::BufferUsages::COPY_DST;
    machine.device.create_buffer(&wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false })
}

fn bind(machine: &Machine, kernel: &Kernel, uniform: &wgpu::Buffer, slices: &[Slice]) -> wgpu::BindGroup {
    let entry = |binding, buffer, offset, size| wgpu::BindGroupEntry {
        binding,
        resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer,
            offset,
            size: std::num::NonZeroU64::new(size),
        }),
    };
    let params = entry(0, uniform, 0, STRIDE as u64);
    let storage = (1..).zip(slices).map(|(binding, s)| entry(binding, &s.buffer, s.offset, s.size));
    let entries: Vec<_> = std::iter::once(params).chain(storage).collect();
    machine.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(kernel.name),
        layout: &machine.pipeline(kernel).layout,
        entries: &entries,
    })
}
