//! A GPU, opened: its device, its queue and one pipeline for each kernel. Interpreters on it share them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::adapter::Adapter;
use super::kernel::{Access, Kernel, kernels};
use super::special::Specialisations;
use crate::{Error, Result};

/// A kernel, ready to be dispatched.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

/// A GPU, opened.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) info: wgpu::AdapterInfo,
    /// Bytes a binding can have.
    pub(super) limit: u64,
    /// What its kernels make use of.
    pub(super) on: Specialisations,
    pipelines: HashMap<&'static str, Pipeline>,
    failure: Arc<Mutex<Option<Failure>>>,
}

/// What the device told outside of any call.
#[derive(Clone, Debug)]
enum Failure {
    Lost(String),
    Error(String),
}

impl Machine {
    /// Opens `adapter`, with bindings of `limit` bytes at most and those of `wanted` that it has, and makes all
    /// pipelines.
    pub(super) async fn open(adapter: &Adapter, limit: Option<u64>, wanted: Specialisations) -> Result<Self> {
        let on = adapter.specialisations().and(wanted);
        let adapter = &adapter.inner;
        let info = adapter.get_info();
        let (most, base) = (adapter.limits(), wgpu::Limits::default());
        // More than the defaults of WebGPU only where it saves splitting: nothing is computed in another way.
        let required_limits = wgpu::Limits {
            max_storage_buffer_binding_size: most
                .max_storage_buffer_binding_size
                .max(base.max_storage_buffer_binding_size),
            max_buffer_size: most.max_buffer_size.max(base.max_buffer_size),
            ..base
        };
        let limit = limit.unwrap_or(u64::MAX).min(required_limits.max_storage_buffer_binding_size);
        let cannot = |reason: String| Error::Gpu { adapter: info.name.clone(), reason };
        let required_features = (adapter.features() & wgpu::Features::PIPELINE_CACHE) | on.features();
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("sixpack"),
            required_features,
            required_limits,
            memory_hints: wgpu::MemoryHints::Performance,
            ..Default::default()
        };
        let (device, queue) = adapter.request_device(&descriptor).await.map_err(|e| cannot(e.to_string()))?;
        let failure = watch(&device);
        #[cfg(not(target_family = "wasm"))]
        let saved = super::saved::Saved::open(&device, &info, on);
        #[cfg(not(target_family = "wasm"))]
        let cache = saved.as_ref().map(super::saved::Saved::cache);
        #[cfg(target_family = "wasm")]
        let cache = None;
        let pipelines = kernels(on).map(|kernel| (kernel.name, pipeline(&device, kernel, on, cache))).collect();
        #[cfg(not(target_family = "wasm"))]
        saved.iter().for_each(super::saved::Saved::keep);
        let machine = Self { device, queue, info, limit, on, pipelines, failure };
        machine.check()?;
        Ok(machine)
    }

    /// The pipeline of `kernel`.
    pub(super) fn pipeline(&self, kernel: &Kernel) -> &Pipeline {
        &self.pipelines[kernel.name]
    }

    /// How many pipelines there are.
    pub(super) fn pipelines(&self) -> usize {
        self.pipelines.len()
    }

    /// Whether the device still works.
    pub(super) fn check(&self) -> Result<()> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let adapter = self.info.name.clone();
        match failure {
            None => Ok(()),
            Some(Failure::Lost(reason)) => Err(Error::DeviceLost { adapter, reason }),
            Some(Failure::Error(reason)) => Err(Error::Gpu { adapter, reason }),
        }
    }

    /// That something is beyond this GPU.
    pub(super) fn cannot(&self, reason: String) -> Error {
        Error::Gpu { adapter: self.info.name.clone(), reason }
    }

    /// That values could not be read, which is the device's failure if it told one.
    pub(super) fn unreadable(&self, reason: &dyn std::fmt::Display) -> Error {
        let lost = || Error::DeviceLost { adapter: self.info.name.clone(), reason: reason.to_string() };
        self.check().err().unwrap_or_else(lost)
    }
}

/// Keeps the first failure the device tells.
fn watch(device: &wgpu::Device) -> Arc<Mutex<Option<Failure>>> {
    let failure = Arc::new(Mutex::new(None));
    let keep = |failure: &Mutex<Option<Failure>>, found: Failure| {
        let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_none() || matches!(found, Failure::Lost(_)) {
            *failure = Some(found);
        }
    };
    let errors = Arc::clone(&failure);
    device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| keep(&errors, Failure::Error(e.to_string()))));
    let losses = Arc::clone(&failure);
    device.set_device_lost_callback(move |reason, message| {
        let message = if message.is_empty() { format!("{reason:?}").to_lowercase() } else { message };
        keep(&losses, Failure::Lost(message));
    });
    failure
}

fn pipeline(
    device: &wgpu::Device,
    kernel: &Kernel,
    on: Specialisations,
    cache: Option<&wgpu::PipelineCache>,
) -> Pipeline {
    let entry = |binding: u32, ty| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: binding == 0, min_binding_size: None },
        count: None,
    };
    let storage = kernel.buffers.iter().map(|a| wgpu::BufferBindingType::Storage { read_only: *a == Access::Read });
    let types = std::iter::once(wgpu::BufferBindingType::Uniform).chain(storage);
    let entries: Vec<_> = (0..).zip(types).map(|(binding, ty)| entry(binding, ty)).collect();
    let label = Some(kernel.name);
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label,
        source: wgpu::ShaderSource::Wgsl(kernel.wgsl(on).into()),
    });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label,
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label,
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        },
        cache,
    });
    Pipeline { pipeline, layout }
}
