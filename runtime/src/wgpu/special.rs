//! Specialisations: kernels in other words, where a GPU has more than WebGPU promises everywhere.
//!
//! They are chosen when a GPU is opened, by what it has. All of them conform to what the base does, on a driver that
//! computes on the CPU; no GPU has timed them yet.

/// Specialisations of kernels, on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Specialisations {
    /// Sums over a workgroup go by subgroups, of whatever size: fewer barriers. Not in a browser, where an invocation
    /// cannot ask which subgroup it is in.
    pub subgroups: bool,
    /// A decoding step multiplies four codes at once with inputs in fixed point, which keeps what f32 has.
    pub packed_dots: bool,
    /// Keys and values of a session are f16, in half the bytes. It moves logits by some 1e-3, and bits per byte of
    /// trained models by less than 1e-4, which a test asserts.
    pub f16: bool,
}

impl Default for Specialisations {
    /// Those that round no more than f32 does: with [`Specialisations::f16`] greedy text of another machine is likely
    /// the same, and not certainly.
    fn default() -> Self {
        Self { f16: false, ..Self::ALL }
    }
}

impl Specialisations {
    /// The base alone.
    pub const NONE: Self = Self { subgroups: false, packed_dots: false, f16: false };

    /// All there are.
    pub const ALL: Self = Self { subgroups: true, packed_dots: true, f16: true };

    /// Those in both.
    pub fn and(self, other: Self) -> Self {
        Self {
            subgroups: self.subgroups && other.subgroups,
            packed_dots: self.packed_dots && other.packed_dots,
            f16: self.f16 && other.f16,
        }
    }

    /// Their names.
    pub fn names(self) -> Vec<&'static str> {
        let all = [(self.subgroups, "subgroups"), (self.packed_dots, "packed_dots"), (self.f16, "f16")];
        all.into_iter().filter_map(|(on, name)| on.then_some(name)).collect()
    }

    /// What a device must be asked for.
    pub(super) fn features(self) -> wgpu::Features {
        let mut features = wgpu::Features::empty();
        features.set(wgpu::Features::SUBGROUP, self.subgroups);
        features.set(wgpu::Features::SHADER_F16, self.f16);
        features
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_have_is_on() {
        let some = Specialisations { subgroups: true, ..Specialisations::NONE };
        assert_eq!(Specialisations::ALL.and(some), some);
        assert_eq!(Specialisations::default().and(Specialisations::NONE), Specialisations::NONE);
        assert_eq!(Specialisations::ALL.names(), ["subgroups", "packed_dots", "f16"]);
    }
}
