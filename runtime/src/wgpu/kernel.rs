//! A kernel: its WGSL, its parameters, what it binds.

use super::{
    attend, attention, back, cross_entropy, embed, exclude_self, front, head_norm_rope, linear, peak, pointwise,
    rms_norm, sample,
};

/// How a kernel uses a storage buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It reads.
    Read,
    /// It writes.
    Write,
}

/// A kernel. Binding 0 is its parameters in a uniform buffer, the storage buffers follow.
#[derive(Debug)]
pub(super) struct Kernel {
    /// Its name, which is that of its files.
    pub(super) name: &'static str,
    /// The module, with the entry point `main`.
    pub(super) wgsl: &'static str,
    /// Its storage buffers, bindings 1 and up.
    pub(super) buffers: &'static [Access],
    /// Size of its parameters, and each field's name, offset and size; for the test that WGSL has the same.
    #[cfg_attr(not(test), expect(dead_code, reason = "the layout is fixed when the crate is built"))]
    pub(super) params: (usize, &'static [Field]),
}

/// A field of a struct that Rust writes and WGSL reads: name, offset and size in bytes.
pub(super) type Field = (&'static str, usize, usize);

/// All of them, each a pipeline that is made when the machine is.
pub(super) const KERNELS: [&Kernel; 13] = [
    &embed::KERNEL,
    &rms_norm::KERNEL,
    &pointwise::KERNEL,
    &linear::KERNEL,
    &head_norm_rope::KERNEL,
    &attention::KERNEL,
    &exclude_self::KERNEL,
    &cross_entropy::KERNEL,
    &front::KERNEL,
    &attend::KERNEL,
    &back::KERNEL,
    &sample::KERNEL,
    &peak::KERNEL,
];

/// Parameters of a kernel: plain numbers in the layout of a uniform buffer.
pub(super) trait Params: bytemuck::Pod {
    /// Name, offset and size of each field.
    const FIELDS: &'static [Field];
}

/// Declares the parameters of a kernel as WGSL sees them.
macro_rules! params {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $ty:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
        #[repr(C)]
        pub(super) struct $name { $($(#[$field_doc])* pub(super) $field: $ty),* }

        impl $crate::wgpu::kernel::Params for $name {
            const FIELDS: &'static [$crate::wgpu::kernel::Field] =
                &[$((stringify!($field), std::mem::offset_of!($name, $field), size_of::<$ty>())),*];
        }
    };
}
pub(super) use params;

impl Kernel {
    /// A kernel with parameters `P`.
    pub(super) const fn new<P: Params>(name: &'static str, wgsl: &'static str, buffers: &'static [Access]) -> Self {
        Self { name, wgsl, buffers, params: (size_of::<P>(), P::FIELDS) }
    }
}

/// Workgroups in one dimension for `items`, `each` to a workgroup; kernels go on in steps of the grid where this is
/// fewer than there are.
pub(super) fn groups(items: usize, each: usize) -> u32 {
    items.div_ceil(each).min(65_535) as u32
}

#[cfg(test)]
mod tests {
    use naga::valid::{Capabilities, ValidationFlags, Validator};
    use naga::{AddressSpace, Module, ShaderStage, StorageAccess, TypeInner};

    use super::*;

    fn parse(kernel: &Kernel) -> Module {
        naga::front::wgsl::parse_str(kernel.wgsl)
            .unwrap_or_else(|e| panic!("{}", e.emit_to_string_with_path(kernel.wgsl, kernel.name)))
    }

    #[test]
    fn every_kernel_is_valid_without_any_capability() {
        assert!(KERNELS.len() <= 16, "a cold start compiles them all");
        for kernel in KERNELS {
            let module = parse(kernel);
            if let Err(error) = Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module) {
                panic!("{}", error.emit_to_string_with_path(kernel.wgsl, kernel.name));
            }
        }
    }

    #[test]
    fn kernels_stay_within_the_defaults_of_webgpu() {
        for kernel in KERNELS {
            let module = parse(kernel);
            let [entry] = &module.entry_points[..] else { panic!("{}: one entry point", kernel.name) };
            assert_eq!((entry.stage, &*entry.name), (ShaderStage::Compute, "main"), "{}", kernel.name);
            assert!(entry.workgroup_size.iter().product::<u32>() <= 256, "{}", kernel.name);
            assert!(kernel.buffers.len() <= 8, "{}: {} storage buffers", kernel.name, kernel.buffers.len());
            let layout = module.to_ctx();
            let shared: u32 = module
                .global_variables
                .iter()
                .filter(|(_, v)| v.space == AddressSpace::WorkGroup)
                .map(|(_, v)| module.types[v.ty].inner.size(layout))
                .sum();
            assert!(shared <= 16 << 10, "{}: {shared} bytes of workgroup storage", kernel.name);
        }
    }

    #[test]
    fn rust_and_wgsl_lay_parameters_out_alike() {
        for kernel in KERNELS {
            let module = parse(kernel);
            let layout = module.to_ctx();
            let (_, uniform) =
                module.global_variables.iter().find(|(_, v)| v.space == AddressSpace::Uniform).expect(kernel.name);
            let TypeInner::Struct { members, span } = &module.types[uniform.ty].inner else {
                panic!("{}: parameters are a struct", kernel.name)
            };
            let found: Vec<Field> = kernel.params.1.to_vec();
            let expected: Vec<(&str, usize, usize)> = members
                .iter()
                .map(|m| {
                    let size = module.types[m.ty].inner.size(layout) as usize;
                    (m.name.as_deref().expect("a name"), m.offset as usize, size)
                })
                .collect();
            assert_eq!(found, expected, "{}", kernel.name);
            assert_eq!(kernel.params.0, *span as usize, "{}", kernel.name);
            // Nested structs are matrices.
            for member in members {
                if let TypeInner::Struct { members, .. } = &module.types[member.ty].inner {
                    let names: Vec<_> =
                        members.iter().map(|m| (m.name.as_deref().expect("a name"), m.offset)).collect();
                    assert_eq!(names, [("values", 0), ("stride", 4), ("scales", 8), ("columns", 12)]);
                }
            }
        }
    }

    #[test]
    fn buffers_are_bound_as_declared() {
        for kernel in KERNELS {
            let module = parse(kernel);
            let mut found: Vec<(u32, Access)> = module
                .global_variables
                .iter()
                .filter_map(|(_, v)| match v.space {
                    AddressSpace::Storage { access } => {
                        let written = access.contains(StorageAccess::STORE);
                        let binding = v.binding.expect("a binding");
                        Some((binding.binding, if written { Access::Write } else { Access::Read }))
                    }
                    _ => None,
                })
                .collect();
            found.sort_by_key(|(binding, _)| *binding);
            let expected: Vec<_> = (1..).zip(kernel.buffers.iter().copied()).collect();
            assert_eq!(found, expected, "{}", kernel.name);
        }
    }
}
