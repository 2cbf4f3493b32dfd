//! The `.6pk` artifact: one self-sufficient file with everything that is needed to run a model.
//!
//! Byte layout; all numbers little-endian, all sizes in bytes:
//!
//! 1. bytes 0–7: magic `89 36 70 6B 0D 0A 1A 0A` (`\x896pk\r\n\x1a\n`: a transfer that changes line ends breaks it);
//! 2. bytes 8–9: version, the u16 2;
//! 3. bytes 10–11: number of sections `n`, a u16 from 1 to 64;
//! 4. bytes 12–19: size of the whole file, a u64;
//! 5. bytes 20–27: checksum of bytes 0–19 followed by the section table;
//! 6. bytes 28 to 28 + 28n: the section table, 28 bytes for each section, kinds increasing:
//!    - kind, a u16; - flags, a u8: bit 0 is "required", the others are 0; - codec, a u8 ([`Codec`]);
//!    - decoded size, a u64; - coded size, a u64; - checksum of the coded bytes, a u64;
//! 7. the coded sections, in the order of the table, each right after the one before; the last one ends the file.
//!
//! A checksum is the first eight bytes of the BLAKE3 hash. A reader skips a section of a kind it does not know, unless
//! the section is required. An empty section is left out, but for the first two.
//!
//! | kind | name | flags | decoded content |
//! |---|---|---|---|
//! | 1 | configuration | required | [`ModelConfig`](crate::ModelConfig) as JSON |
//! | 2 | tensor forms | required | two u8 for each row of the tensor table: `q_max` of its codes, 0 for f16; flags, 1 for column factors, 2 for paths of the [`trellis`](crate::trellis) |
//! | 3 | tokenizer | required | the SentencePiece model, as [`tokenizer::pack`](crate::tokenizer::pack) makes it |
//! | 4 | provenance | | [`Provenance`] as JSON |
//! | 5 | score | | 25 bytes: a u8 with bit 0 "measured" and bit 1 "has bits per byte"; the file's size, a u64; nats per token, an f64; bits per byte, an f64 |
//! | 16 | attention codes | required | codes of the attention matrices |
//! | 17 | MLP up codes | required | codes of `mlp.fc` |
//! | 18 | MLP down codes | required | codes of `mlp.proj` |
//! | 19 | table codes | required | codes of the embeddings and of everything else |
//! | 20 | scales | required | of each matrix of codes the f16 scales of its rows, then the factors of its columns if it has them |
//! | 21 | halves | required | the f16 tensors |
//!
//! Within a stream the tensors follow each other in the order of the tensor table; their shapes are derived from the
//! configuration. A code is one byte, two's complement. Matrices are row-major but for those of stream 18, which
//! are column-major. Streams 20 and 21 hold all even bytes (the low ones) before all odd ones.
//!
//! In the codec 4 ([`Codec::Context`](crate::Codec::Context)) a section of tensors is coded in another way, from the same
//! tensors in the same order, and its decoded size is that of the stream above. A section 16–19 has first the coded size
//! of each of its matrices, a u32, then the matrices as [`codec::matrix`](crate::codec::matrix) codes them, each for
//! itself. Sections 20 and 21 are coded by [`codec::halves`](crate::codec::halves): in 20 there are two lists for each
//! matrix, its row scales in class `Steps(0)` and its column factors, if any, in class `Steps(1)`; in 21 one list for
//! each tensor, in class `Values(r)` with `r` the place of a block's tensor in [`Part::ALL`](crate::Part::ALL), else 16
//! `tok_emb`, 17 `skip_weights`, 18 `skip_gates`, 19 `ve_shared.embed`, 20 `ve_shared.proj`, 21 `ve_shared.scale` and
//! `ve_layer_scales`, 22 `parallel_*_lambdas`. Empty lists are left out. The other sections have no such form.

mod container;
mod context;
mod jobs;
mod ledger;
mod read;
mod score;
mod streams;
mod tensors;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Model, Score};

pub use container::Kind;
pub use jobs::{Job, Run, one_by_one};
pub use ledger::{Ledger, SectionBytes, TensorBytes};
pub use score::set_score;
pub use write::{Contents, Written, encode, encode_with, write};

/// The limit of the challenge: everything needed to run the model in 16,000,000 bytes (decimal).
pub const LIMIT: u64 = 16_000_000;

/// What an artifact was made from and how. A key that a reader does not know is ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// Name and version of the program that wrote the artifact.
    pub tool: String,
    /// The training recipe, as text.
    pub recipe: String,
    /// The seed of training.
    pub seed: Option<u64>,
    /// Hash of the checkpoint's weights.
    pub checkpoint: Option<Digest>,
    /// Hashes of data by what they were used for: "training", "calibration".
    pub data: BTreeMap<String, Digest>,
    /// Anything else worth keeping: the quantisation scheme, its settings.
    pub notes: BTreeMap<String, String>,
}

/// An artifact in memory.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// The model; its size is that of the whole file.
    pub model: Model,
    /// Where it comes from.
    pub provenance: Provenance,
    /// What was measured on this very file, once it was.
    pub score: Option<Score>,
    /// What the bytes of the file are for.
    pub ledger: Ledger,
}
