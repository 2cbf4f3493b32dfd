//! What the numbers are: model configuration, the tensor table, token shards, tokenizer, checkpoint, quantised
//! tensors and the `.6pk` artifact.
//!
//! Nothing here knows a device or starts a thread. Parsers take `&[u8]`, cap every count before they allocate and
//! name what was expected and what was found; writers are atomic and deterministic.
#![deny(unsafe_code)]

pub mod artifact;
pub mod atomic;
pub mod checkpoint;
pub mod codec;
pub mod codes;
pub mod config;
pub mod corpus;
pub mod dataset;
pub mod digest;
pub mod error;
pub mod estimate;
mod json;
pub mod mapped;
pub mod model;
pub mod quant;
pub mod score;
pub mod sensitivity;
pub mod shard;
pub mod state_dict;
pub mod tensor;
pub mod tokenizer;
pub mod trellis;

pub use artifact::Artifact;
pub use codec::Codec;
pub use config::ModelConfig;
pub use dataset::Dataset;
pub use digest::Digest;
pub use error::{Error, Result};
pub use model::{Model, TensorData};
pub use quant::QuantizedMatrix;
pub use score::Score;
pub use sensitivity::Sensitivity;
pub use tensor::{Init, OptimizerGroup, Part, QuantClass, TensorId, TensorSpec};
