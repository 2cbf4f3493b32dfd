//! How many bytes a checkpoint will take, by quantising it on a little calibration text.
//!
//! What GPTQ adds to the spread of codes depends on the inputs, but a few thousand tokens show it well enough: on the
//! checkpoints of `LOG.md` the classes come within 1% of what full calibration gives.

use sixpack_formats::artifact::Provenance;
use sixpack_formats::estimate::Sizes;
use sixpack_formats::{Codec, Model};

use crate::{Calibration, Options, Result, Scheme, compress};

/// Calibration tokens that are used, in whole sequences and at least one.
pub const TOKENS: usize = 8192;

/// The sizes of an artifact of `model` in scheme `reference`, all matrices in int6, calibrated on the first of `tokens`.
/// Its tokenizer is not counted.
///
/// # Errors
/// A weight that cannot be quantised, and fewer tokens than one sequence.
pub fn sizes(model: &Model, tokens: &[u16], threads: usize) -> Result<Sizes> {
    let seq_len = model.config.train_seq_len;
    // Short sequences together, for efficient products.
    let sequences = (1024 / seq_len).max(1);
    let calibration = Calibration { tokens, seq_len, batches: (TOKENS / seq_len / sequences).max(1), sequences };
    let provenance = Provenance::default();
    let options = Options {
        scheme: Scheme::Reference,
        sensitivity: None,
        int6_layers: None,
        target_bytes: None,
        codec: Codec::Context,
        provenance: &provenance,
        threads,
    };
    let model = Model { tokenizer: None, ..model.clone() };
    let compressed = compress(&model, Some(&calibration), &options, &|_| {})?;
    let mut sizes = Sizes::default();
    for (spec, row) in model.config.tensors().iter().zip(&compressed.report.tensors) {
        *sizes.of(spec) += row.coded_bytes as f64;
    }
    sizes.frame = compressed.file.len() as f64 - sizes.total() as f64;
    Ok(sizes)
}
