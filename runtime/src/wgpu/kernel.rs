//! A kernel: its WGSL, its parameters, what it binds.

use super::special::Specialisations;
use super::{
    attend, attention, back, cross_entropy, embed, exclude_self, front, head_norm_rope, linear, narrow, peak,
    pointwise, rms_norm, sample,
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
    /// The module, with the entry point `main`, for any GPU.
    base: Files,
    /// The same for a GPU with these specialisations; where there are several that one has, the last is taken.
    special: &'static [(Specialisations, Files)],
    /// Specialisations without which there is no use for it.
    only_with: Specialisations,
    /// Its storage buffers, bindings 1 and up.
    pub(super) buffers: &'static [Access],
    /// Size of its parameters, and each field's name, offset and size; for the test that WGSL has the same.
    #[cfg_attr(not(test), expect(dead_code, reason = "the layout is fixed when the crate is built"))]
    pub(super) params: (usize, &'static [Field]),
}

/// A field of a struct that Rust writes and WGSL reads: name, offset and size in bytes.
pub(super) type Field = (&'static str, usize, usize);

/// All of them, each a pipeline that is made when the machine is.
const KERNELS: [&Kernel; 15] = [
    &embed::KERNEL,
    &rms_norm::KERNEL,
    &pointwise::KERNEL,
    &linear::KERNEL,
    &head_norm_rope::KERNEL,
    &attention::KERNEL,
    &attention::OVER_F16,
    &narrow::KERNEL,
    &exclude_self::KERNEL,
    &cross_entropy::KERNEL,
    &front::KERNEL,
    &attend::KERNEL,
    &back::KERNEL,
    &sample::KERNEL,
    &peak::KERNEL,
];

/// Those of a machine with `on`.
pub(super) fn kernels(on: Specialisations) -> impl Iterator<Item = &'static Kernel> {
    KERNELS.into_iter().filter(move |kernel| on.and(kernel.only_with) == kernel.only_with)
}

/// WGSL that follows one another: each file is in the program once, however many kernels it is part of.
pub(super) type Files = &'static [&'static str];

/// Names [`Files`].
macro_rules! wgsl {
    ($($file:literal),+ $(,)?) => { &[$(include_str!($file)),+] };
}
pub(super) use wgsl;

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
    pub(super) const fn new<P: Params>(name: &'static str, wgsl: Files, buffers: &'static [Access]) -> Self {
        let params = (size_of::<P>(), P::FIELDS);
        Self { name, base: wgsl, special: &[], only_with: Specialisations::NONE, buffers, params }
    }

    /// It in other words for GPUs with more.
    pub(super) const fn special(self, special: &'static [(Specialisations, Files)]) -> Self {
        Self { special, ..self }
    }

    /// It, where a machine has these only.
    pub(super) const fn only_with(self, only_with: Specialisations) -> Self {
        Self { only_with, ..self }
    }

    /// Its module on a machine with `on`.
    pub(super) fn wgsl(&self, on: Specialisations) -> String {
        let mut special = self.special.iter().rev();
        special.find(|(needs, _)| on.and(*needs) == *needs).map_or(self.base, |(_, files)| files).concat()
    }
}

/// Workgroups in one dimension for `items`, `each` to a workgroup; kernels go on in steps of the grid where this is
/// fewer than there are.
pub(super) fn groups(items: usize, each: usize) -> u32 {
    items.div_ceil(each).min(65_535) as u32
}

#[cfg(test)]
mod tests {
    use naga::valid::{Capabilities, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};
    use naga::{AddressSpace, Module, ShaderStage, StorageAccess, TypeInner};

    use super::*;

    /// All modules, and what each needs.
    fn modules() -> impl Iterator<Item = (&'static Kernel, Specialisations, String)> {
        KERNELS.into_iter().flat_map(|kernel| {
            let special = kernel.special.iter().map(move |&(needs, files)| (kernel, needs, files.concat()));
            special.chain([(kernel, kernel.only_with, kernel.base.concat())])
        })
    }

    fn parse(kernel: &Kernel, wgsl: &str) -> Module {
        naga::front::wgsl::parse_str(wgsl)
            .unwrap_or_else(|e| panic!("{}", e.emit_to_string_with_path(wgsl, kernel.name)))
    }

    #[test]
    fn every_kernel_is_valid_with_the_capabilities_it_needs_alone() {
        for (kernel, needs, wgsl) in modules() {
            let mut capabilities = Capabilities::empty();
            capabilities.set(Capabilities::SUBGROUP, needs.subgroups);
            capabilities.set(Capabilities::SHADER_FLOAT16, needs.f16);
            let valid = |capabilities| {
                let mut validator = Validator::new(ValidationFlags::all(), capabilities);
                validator
                    .subgroup_stages(ShaderStages::COMPUTE)
                    .subgroup_operations(SubgroupOperationSet::all())
                    .validate(&parse(kernel, &wgsl))
                    .map_err(Box::new)
            };
            if let Err(error) = valid(capabilities) {
                panic!("{}", error.emit_to_string_with_path(&wgsl, kernel.name));
            }
            // What is special makes use of it.
            assert!(capabilities.is_empty() || valid(Capabilities::empty()).is_err(), "{}: {needs:?}", kernel.name);
            assert_eq!(wgsl.contains("dot4I8Packed"), needs.packed_dots, "{}", kernel.name);
        }
    }

    #[test]
    fn a_machine_takes_the_most_special_it_has() {
        assert!(kernels(Specialisations::ALL).count() <= 16, "a cold start compiles them all");
        assert_eq!(kernels(Specialisations::NONE).count(), 13);
        for (kernel, needs, wgsl) in modules() {
            assert_eq!(kernel.wgsl(needs), wgsl, "{}: {needs:?}", kernel.name);
            let of_all = modules().filter(|(k, ..)| std::ptr::eq(*k, kernel)).map(|(_, needs, _)| needs);
            let most = of_all.max_by_key(|needs| needs.names().len()).expect("its base at least");
            assert_eq!(kernel.wgsl(Specialisations::ALL), kernel.wgsl(most), "{}", kernel.name);
        }
    }

    #[test]
    fn kernels_stay_within_the_defaults_of_webgpu() {
        for (kernel, _, wgsl) in modules() {
            let module = parse(kernel, &wgsl);
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
        for (kernel, _, wgsl) in modules() {
            let module = parse(kernel, &wgsl);
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
        for (kernel, _, wgsl) in modules() {
            let module = parse(kernel, &wgsl);
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
