//! What a model is.

use serde::Serialize;
use sixpack_formats::Artifact;
use sixpack_runtime::count;

use crate::machine::Opened;

/// What the page says of a model.
#[derive(Debug, Serialize)]
pub(crate) struct About<'a> {
    /// Size of the file.
    bytes: u64,
    parameters: u64,
    /// As measured when it was packed, on text it was not trained on.
    bits_per_byte: Option<f64>,
    nats_per_token: Option<f64>,
    layers: usize,
    width: usize,
    vocabulary: usize,
    /// Tokens it sees at once.
    context: usize,
    /// Name and version of the program that packed it.
    tool: &'a str,
    /// Why it runs on what it runs on, where nobody asked for that.
    why: Option<&'a str>,
}

impl<'a> About<'a> {
    pub(crate) fn new(artifact: &'a Artifact, opened: &'a Opened) -> Self {
        let config = &artifact.model.config;
        Self {
            bytes: artifact.model.bytes,
            parameters: count::parameters(config),
            bits_per_byte: artifact.score.and_then(|s| s.bits_per_byte),
            nats_per_token: artifact.score.map(|s| s.nats_per_token),
            layers: config.num_layers,
            width: config.model_dim,
            vocabulary: config.vocab_size,
            context: config.train_seq_len,
            tool: &artifact.provenance.tool,
            why: opened.why.as_deref(),
        }
    }
}
