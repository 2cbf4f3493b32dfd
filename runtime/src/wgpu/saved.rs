//! Compiled pipelines kept on disk, where a driver gives them: a cold start is mostly their compilation.
#![allow(unsafe_code, reason = "a driver takes what it gave before as it is; the digest says that it is that")]

use std::path::PathBuf;

use sixpack_formats::{Digest, atomic};

use super::kernel::kernels;
use super::special::Specialisations;

/// What was kept of a device's pipelines, to be used and kept again.
pub(super) struct Saved {
    cache: wgpu::PipelineCache,
    path: PathBuf,
    found: bool,
}

impl Saved {
    /// What there is for `device`; nothing where it cannot be kept.
    pub(super) fn open(device: &wgpu::Device, info: &wgpu::AdapterInfo, on: Specialisations) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let key = wgpu::util::pipeline_cache_key(info)?;
        // Other kernels or another driver are another file.
        let driver = [info.driver.clone(), info.driver_info.clone()];
        let sources: Vec<String> = kernels(on).map(|k| k.wgsl(on)).chain(driver).collect();
        let name = format!("{key}_{:016x}", Digest::of(sources.concat().as_bytes()).short());
        let path = dirs::cache_dir()?.join("sixpack").join(name);
        let file = std::fs::read(&path).ok();
        let data = file.as_deref().and_then(unwrap);
        // SAFETY: `data` is what `get_data` gave for this key, which its digest at the head of the file says.
        let cache = unsafe {
            device.create_pipeline_cache(&wgpu::PipelineCacheDescriptor {
                label: Some("kernels"),
                data,
                fallback: true,
            })
        };
        Some(Self { cache, path, found: data.is_some() })
    }

    pub(super) fn cache(&self) -> &wgpu::PipelineCache {
        &self.cache
    }

    /// Keeps the pipelines if they were not yet. A disk that takes nothing is no failure: next time they are compiled
    /// again.
    pub(super) fn keep(&self) {
        if let (false, Some(data), Some(folder)) = (self.found, self.cache.get_data(), self.path.parent()) {
            let kept = std::fs::create_dir_all(folder).map(|()| atomic::write(&self.path, &wrap(&data)));
            drop(kept);
        }
    }
}

/// The digest of `data`, and that.
fn wrap(data: &[u8]) -> Vec<u8> {
    [Digest::of(data).as_bytes(), data].concat()
}

/// What [`wrap`] was given, if nothing has changed it.
fn unwrap(file: &[u8]) -> Option<&[u8]> {
    let (digest, data) = file.split_at_checked(32)?;
    (Digest::of(data).as_bytes() == digest).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_kept_is_taken() {
        let file = wrap(b"pipelines");
        assert_eq!(unwrap(&file), Some(&b"pipelines"[..]));
        for end in 0..file.len() {
            assert_eq!(unwrap(&file[..end]), None, "{end} bytes");
        }
        for i in 0..file.len() {
            let mut changed = file.clone();
            changed[i] ^= 1;
            assert_eq!(unwrap(&changed), None, "byte {i}");
        }
    }
}
