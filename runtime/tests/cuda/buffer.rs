//! Memory of a kernel, with zones around it that nothing may write; what is read of them is no number.

/// Bytes of a zone.
const GUARD: usize = 256;

/// All bytes of a zone, and of memory that nothing was written to: no number, in f32 and in bf16.
const POISON: u8 = 0xff;

/// What elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    F32,
    Bf16,
    Int,
}

impl Kind {
    fn bytes(self) -> usize {
        if self == Self::Bf16 { 2 } else { 4 }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "float",
            Self::Bf16 => "bf16",
            Self::Int => "int",
        })
    }
}

/// Memory of a kernel.
#[derive(Clone, PartialEq)]
pub(crate) struct Buffer {
    kind: Kind,
    len: usize,
    /// In pieces that are aligned as a GPU's memory is.
    data: Vec<u128>,
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.len, self.kind)
    }
}

impl Buffer {
    /// Nothing written yet.
    pub(crate) fn empty(kind: Kind, len: usize) -> Self {
        let bytes = 2 * GUARD + (len * kind.bytes()).next_multiple_of(16);
        Self { kind, len, data: vec![u128::from_ne_bytes([POISON; 16]); bytes / 16] }
    }

    /// These values, rounded if they are kept in bf16.
    pub(crate) fn floats(kind: Kind, values: &[f32]) -> Self {
        let mut buffer = Self::empty(kind, values.len());
        let at = buffer.bytes_mut()[GUARD..].chunks_exact_mut(kind.bytes());
        for (at, &x) in at.zip(values) {
            match kind {
                Kind::Bf16 => at.copy_from_slice(&half::bf16::from_f32(x).to_bits().to_ne_bytes()),
                _ => at.copy_from_slice(&x.to_ne_bytes()),
            }
        }
        buffer
    }

    /// Token ids.
    pub(crate) fn ids(ids: &[u32]) -> Self {
        let bits: Vec<f32> = ids.iter().map(|&id| f32::from_bits(id)).collect();
        Self { kind: Kind::Int, ..Self::floats(Kind::F32, &bits) }
    }

    /// What is in it.
    pub(crate) fn values(&self) -> Vec<f32> {
        let bytes = self.bytes()[GUARD..].chunks_exact(self.kind.bytes()).take(self.len);
        bytes
            .map(|b| match *b {
                [a, b] => half::bf16::from_bits(u16::from_ne_bytes([a, b])).to_f32(),
                [a, b, c, d] => f32::from_ne_bytes([a, b, c, d]),
                _ => unreachable!("elements have 2 or 4 bytes"),
            })
            .collect()
    }

    /// Whether nothing was written outside of it.
    pub(crate) fn is_guarded(&self) -> bool {
        let all = self.bytes();
        let (before, rest) = all.split_at(GUARD);
        before.iter().chain(&rest[self.len * self.kind.bytes()..]).all(|&b| b == POISON)
    }

    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.data)
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.data)
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it begins.
    pub(crate) fn start(&self) -> *const u8 {
        self.bytes()[GUARD..].as_ptr()
    }

    /// Where it begins, to be written.
    pub(crate) fn start_mut(&mut self) -> *mut u8 {
        self.bytes_mut()[GUARD..].as_mut_ptr()
    }
}
