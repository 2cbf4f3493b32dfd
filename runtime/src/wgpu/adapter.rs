//! The GPUs of this machine.

/// A GPU that is there; opened by [`Wgpu::new`](super::Wgpu::new).
#[derive(Clone, Debug)]
pub struct Adapter {
    pub(super) inner: wgpu::Adapter,
}

/// All GPUs that can be used through WebGPU, in the system's order; in a browser the one it gives.
pub async fn adapters() -> Vec<Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let found = if cfg!(target_family = "wasm") {
        let options = wgpu::RequestAdapterOptions::default();
        instance.request_adapter(&options).await.into_iter().collect()
    } else {
        instance.enumerate_adapters(wgpu::Backends::all()).await
    };
    found.into_iter().map(|inner| Adapter { inner }).collect()
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
}
