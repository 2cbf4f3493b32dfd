//! The GPUs of this machine.

use super::special::Specialisations;

/// A GPU that is there; opened by [`Wgpu::new`](super::Wgpu::new).
#[derive(Clone, Debug)]
pub struct Adapter {
    pub(super) inner: wgpu::Adapter,
    /// Whether its WGSL has products of four bytes at once.
    packed_dots: bool,
}

/// What a GPU says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// Through what it is reached: `vulkan`, `metal`, `dx12` or `webgpu`.
    pub backend: String,
    /// What it is: `discrete`, `integrated`, `virtual`, `software` or `unknown`.
    pub kind: String,
    /// Its driver and that one's version.
    pub driver: String,
    /// Whether it is a program that plays a GPU on the CPU.
    pub software: bool,
    /// Bytes of a storage buffer that a kernel can see.
    pub max_binding_bytes: u64,
    /// Invocations of a workgroup.
    pub max_workgroup_size: u32,
    /// Bytes a workgroup shares.
    pub max_workgroup_bytes: u32,
    /// Fewest and most invocations of a subgroup.
    pub subgroup_size: [u32; 2],
    /// Of the features that matter to numbers those it has: `shader_f16`, `subgroup`, `pipeline_cache`,
    /// `timestamp_query`.
    pub features: Vec<String>,
    /// Those of its specialisations that are on if nobody says otherwise.
    pub specialisations: Vec<String>,
}

/// All GPUs that can be used through WebGPU, in the system's order; in a browser the one it gives.
///
/// On a Linux machine without a display one of Mesa's layers prints `error: XDG_RUNTIME_DIR is invalid`: wgpu asks for
/// Wayland surfaces and does not let anyone leave them out. `NODEVICE_SELECT=1` in the environment switches the layer off.
pub async fn adapters() -> Vec<Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let found = if cfg!(target_family = "wasm") {
        let options = wgpu::RequestAdapterOptions::default();
        instance.request_adapter(&options).await.into_iter().collect()
    } else {
        instance.enumerate_adapters(wgpu::Backends::all()).await
    };
    let packed_dots =
        instance.wgsl_language_features().contains(wgpu::WgslLanguageFeatures::Packed4x8IntegerDotProduct);
    found.into_iter().map(|inner| Adapter { inner, packed_dots }).collect()
}

impl Adapter {
    /// Its name.
    pub fn name(&self) -> String {
        self.inner.get_info().name
    }

    /// Whether it is a program that plays a GPU on the CPU, for tests.
    pub fn is_software(&self) -> bool {
        self.inner.get_info().device_type == wgpu::DeviceType::Cpu
    }

    /// Those it has.
    pub fn specialisations(&self) -> Specialisations {
        let has = self.inner.features();
        Specialisations {
            subgroups: has.contains(wgpu::Features::SUBGROUP) && !cfg!(target_family = "wasm"),
            packed_dots: self.packed_dots,
            f16: has.contains(wgpu::Features::SHADER_F16),
        }
    }

    /// What it says of itself.
    pub fn facts(&self) -> Facts {
        let (info, limits, has) = (self.inner.get_info(), self.inner.limits(), self.inner.features());
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete",
            wgpu::DeviceType::IntegratedGpu => "integrated",
            wgpu::DeviceType::VirtualGpu => "virtual",
            wgpu::DeviceType::Cpu => "software",
            wgpu::DeviceType::Other => "unknown",
        };
        let features = [
            ("shader_f16", wgpu::Features::SHADER_F16),
            ("subgroup", wgpu::Features::SUBGROUP),
            ("pipeline_cache", wgpu::Features::PIPELINE_CACHE),
            ("timestamp_query", wgpu::Features::TIMESTAMP_QUERY),
        ];
        let features = features.iter().filter(|(_, f)| has.contains(*f)).map(|(name, _)| (*name).to_owned()).collect();
        Facts {
            name: info.name,
            backend: info.backend.to_str().to_owned(),
            kind: kind.to_owned(),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            software: self.is_software(),
            max_binding_bytes: limits.max_storage_buffer_binding_size,
            max_workgroup_size: limits.max_compute_invocations_per_workgroup,
            max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
            subgroup_size: [info.subgroup_min_size, info.subgroup_max_size],
            features,
            specialisations: self
                .specialisations()
                .and(Specialisations::default())
                .names()
                .into_iter()
                .map(str::to_owned)
                .collect(),
        }
    }
}
