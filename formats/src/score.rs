//! Size and accuracy, which travel together.

use serde::{Deserialize, Serialize};

/// How many bytes a model takes and what it does with them.
///
/// Training logs it (with projected bytes), `compress` optimises it, the artifact's manifest records it and `eval`
/// measures it again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// Size of the model's file or files in bytes (decimal; 1 MB is 1,000,000 bytes).
    pub bytes: u64,
    /// Mean negative log-likelihood per scored token, in nats.
    pub nats_per_token: f64,
    /// Bits per byte of text; `None` where no tokenizer says how many bytes a token stands for.
    pub bits_per_byte: Option<f64>,
}

impl Score {
    /// The score of `bytes` with sums over a text: `nats` over `tokens` scored targets standing for `text_bytes`.
    pub fn from_sums(bytes: u64, nats: f64, tokens: u64, text_bytes: Option<u64>) -> Self {
        let bits_per_byte = text_bytes.map(|b| nats / std::f64::consts::LN_2 / b as f64);
        Self { bytes, nats_per_token: nats / tokens as f64, bits_per_byte }
    }
}
