//! The model's configuration: the fields of the reference under its own names, validated; derived numbers computed.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What a model is, as `config.json` has it. An absent key takes the record's value; an unknown one is an error.
///
/// Dimension names used throughout: `V` vocabulary, `d` model width, `H` query heads, `K` key/value heads,
/// `D = d / H` head width, `m` hidden width of the MLP, `N` physical layers, `S` skips.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Pieces of the vocabulary, `V`.
    pub vocab_size: usize,
    /// Physical blocks, `N`.
    pub num_layers: usize,
    /// Model width, `d`.
    pub model_dim: usize,
    /// Query heads, `H`.
    pub num_heads: usize,
    /// Key/value heads, `K`; divides `H`.
    pub num_kv_heads: usize,
    /// `m / d`.
    pub mlp_mult: f64,
    /// Rotated dimensions of each head; 0 means the whole head.
    pub rope_dims: usize,
    /// Base of the rotary frequencies.
    pub rope_base: f64,
    /// Sequence length of training; longer sequences rescale `rope_base`.
    pub train_seq_len: usize,
    /// Sequence length of evaluation.
    pub eval_seq_len: usize,
    /// `c` in `c · tanh(logits / c)`.
    pub logit_softcap: f64,
    /// Start value of each query head's gain.
    pub qk_gain_init: f64,
    /// Exclusive self-attention in the last so many layers.
    pub xsa_last_n: usize,
    /// Whether the norm output of block `i` is scaled by `1/sqrt(i + 1)`.
    pub ln_scale: bool,
    /// Whether U-Net skips are gated.
    pub skip_gates: bool,
    /// Layers whose values get the shared value embedding.
    pub ve_layers: Vec<usize>,
    /// Width of the value embedding.
    pub ve_dim: usize,
    /// Whether the head is the token embedding; the only form the reference has.
    pub tie_embeddings: bool,
    /// Standard deviation of the token embedding at the start.
    pub tied_embed_init_std: f64,
    /// Layers that run a second time.
    pub recur_layers: Vec<usize>,
    /// Training step at which recurrence is switched on.
    pub recur_start_step: usize,
    /// Two-lane residual from `parallel_start_layer` on.
    pub parallel_residual: bool,
    /// First layer with two lanes.
    pub parallel_start_layer: usize,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self::record()
    }
}

impl ModelConfig {
    /// The record of openai/parameter-golf pull request 1285: 34.4 M parameters.
    pub fn record() -> Self {
        Self {
            vocab_size: 4096,
            num_layers: 11,
            model_dim: 512,
            num_heads: 8,
            num_kv_heads: 4,
            mlp_mult: 4.0,
            rope_dims: 16,
            rope_base: 10_000.0,
            train_seq_len: 2048,
            eval_seq_len: 2048,
            logit_softcap: 30.0,
            qk_gain_init: 4.0,
            xsa_last_n: 11,
            ln_scale: true,
            skip_gates: true,
            ve_layers: vec![9, 10],
            ve_dim: 128,
            tie_embeddings: true,
            tied_embed_init_std: 0.005,
            recur_layers: vec![4, 5],
            recur_start_step: 3000,
            parallel_residual: false,
            parallel_start_layer: 7,
        }
    }

    /// A model that a laptop's CPU trains in minutes: the record's features, about 1.4 M parameters at 1024 pieces.
    pub fn small() -> Self {
        Self {
            vocab_size: 1024,
            num_layers: 4,
            model_dim: 160,
            num_heads: 5,
            num_kv_heads: 5,
            train_seq_len: 256,
            eval_seq_len: 256,
            xsa_last_n: 4,
            ve_layers: vec![2, 3],
            ve_dim: 32,
            recur_layers: vec![1, 2],
            ..Self::record()
        }
    }

    /// The names [`ModelConfig::preset`] knows.
    pub const PRESETS: [&'static str; 2] = ["record", "small"];

    /// A named preset: `record` or `small`.
    pub fn preset(name: &str) -> Result<Self> {
        match name {
            "record" => Ok(Self::record()),
            "small" => Ok(Self::small()),
            _ => Err(wrong("preset", format!("one of {:?}", Self::PRESETS), name)),
        }
    }

    /// Reads and validates `config.json`.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let config: Self = crate::json::object("model configuration", json)?;
        config.validate()?;
        Ok(config)
    }

    /// The content of `config.json`.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a plain struct of numbers serialises");
        text.push('\n');
        text
    }

    /// Head width, `D`.
    pub fn head_dim(&self) -> usize {
        self.model_dim / self.num_heads
    }

    /// Width of keys and values, `K · D`.
    pub fn kv_dim(&self) -> usize {
        self.num_kv_heads * self.head_dim()
    }

    /// Hidden width of the MLP, `m`.
    pub fn mlp_hidden(&self) -> usize {
        (self.mlp_mult * self.model_dim as f64) as usize
    }

    /// Number of skip connections with parameters of their own, `S = min(E, N − E)` with `E = N / 2`.
    pub fn skips(&self) -> usize {
        (self.num_layers / 2).min(self.num_layers - self.num_layers / 2)
    }

    /// Rotated dimensions of a head, with 0 resolved.
    pub fn rotary_dims(&self) -> usize {
        if self.rope_dims == 0 { self.head_dim() } else { self.rope_dims }
    }

    /// Base of the rotary frequencies for sequences of `len`: rescaled past the training length.
    pub fn rotary_base(&self, len: usize) -> f64 {
        if len <= self.train_seq_len {
            return self.rope_base;
        }
        let r = self.rotary_dims() as f64;
        self.rope_base * (len as f64 / self.train_seq_len as f64).powf(r / (r - 2.0))
    }

    /// Whether block `layer` has exclusive self-attention.
    pub fn has_xsa(&self, layer: usize) -> bool {
        layer + self.xsa_last_n >= self.num_layers
    }

    /// Factor on the norm output of block `layer`.
    pub fn norm_scale(&self, layer: usize) -> f32 {
        if self.ln_scale { (1.0 / ((layer + 1) as f64).sqrt()) as f32 } else { 1.0 }
    }

    /// Physical layers in the order they run.
    pub fn virtual_layers(&self, recurrence: bool) -> Vec<usize> {
        let cut = match self.recur_layers.iter().max() {
            Some(last) if recurrence => last + 1,
            _ => return (0..self.num_layers).collect(),
        };
        (0..cut).chain(self.recur_layers.iter().copied()).chain(cut..self.num_layers).collect()
    }

    /// Refuses values the model cannot have, naming the field.
    pub fn validate(&self) -> Result<()> {
        let n = self.num_layers;
        // Caps far above any model of this kind, so that sizes computed from a hostile file cannot overflow.
        within("vocab_size", self.vocab_size, 1, 65_536)?;
        within("num_layers", n, 1, 1024)?;
        within("model_dim", self.model_dim, 1, 1 << 16)?;
        within("num_heads", self.num_heads, 1, self.model_dim)?;
        within("num_kv_heads", self.num_kv_heads, 1, self.num_heads)?;
        within("train_seq_len", self.train_seq_len, 1, 1 << 24)?;
        within("eval_seq_len", self.eval_seq_len, 1, 1 << 24)?;
        within("ve_dim", self.ve_dim, 1, 1 << 16)?;
        within("xsa_last_n", self.xsa_last_n, 0, n)?;
        if !self.model_dim.is_multiple_of(self.num_heads) {
            return Err(wrong("model_dim", format!("a multiple of num_heads {}", self.num_heads), self.model_dim));
        }
        if !self.num_heads.is_multiple_of(self.num_kv_heads) {
            return Err(wrong("num_kv_heads", format!("a divisor of num_heads {}", self.num_heads), self.num_kv_heads));
        }
        let r = self.rotary_dims();
        if !r.is_multiple_of(2) || r < 4 || r > self.head_dim() {
            let expected = format!("0 or an even number from 4 to the head width {}", self.head_dim());
            return Err(wrong("rope_dims", expected, self.rope_dims));
        }
        positive("mlp_mult", self.mlp_mult, 64.0)?;
        within("mlp_mult", self.mlp_hidden(), 1, 1 << 22)?;
        positive("rope_base", self.rope_base, 1e12)?;
        positive("logit_softcap", self.logit_softcap, 1e6)?;
        positive("tied_embed_init_std", self.tied_embed_init_std, 1e3)?;
        if !self.qk_gain_init.is_finite() {
            return Err(wrong("qk_gain_init", "a finite number", self.qk_gain_init));
        }
        if !self.tie_embeddings {
            return Err(wrong("tie_embeddings", "true (an untied head is not supported)", false));
        }
        layers("ve_layers", &self.ve_layers, n)?;
        layers("recur_layers", &self.recur_layers, n)?;
        if n == 1 && !self.recur_layers.is_empty() {
            return Err(wrong(
                "recur_layers",
                "no recurrence in a model of one layer",
                format!("{:?}", self.recur_layers),
            ));
        }
        if self.parallel_residual {
            // Skips are single streams, so the lanes must part after the last skip was taken.
            for order in [self.virtual_layers(false), self.virtual_layers(true)] {
                let first = order.iter().position(|&p| p >= self.parallel_start_layer).unwrap_or(order.len());
                if first < order.len() / 2 {
                    return Err(wrong(
                        "parallel_start_layer",
                        "a layer of the decoder half",
                        self.parallel_start_layer,
                    ));
                }
            }
        }
        Ok(())
    }
}

fn wrong(field: &'static str, expected: impl Into<String>, found: impl ToString) -> Error {
    Error::Config { field, expected: expected.into(), found: found.to_string() }
}

fn within(field: &'static str, value: usize, low: usize, high: usize) -> Result<()> {
    if (low..=high).contains(&value) { Ok(()) } else { Err(wrong(field, format!("{low} to {high}"), value)) }
}

fn positive(field: &'static str, value: f64, high: f64) -> Result<()> {
    if value > 0.0 && value <= high { Ok(()) } else { Err(wrong(field, format!("above 0, at most {high}"), value)) }
}

fn layers(field: &'static str, list: &[usize], n: usize) -> Result<()> {
    if list.is_sorted_by(|a, b| a < b) && list.iter().all(|&l| l < n) {
        return Ok(());
    }
    Err(wrong(field, format!("increasing layer numbers below {n}"), format!("{list:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_order_of_the_record() {
        let record = ModelConfig::record();
        assert_eq!(record.virtual_layers(true), [0, 1, 2, 3, 4, 5, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(record.virtual_layers(false), (0..11).collect::<Vec<_>>());
        assert_eq!(record.skips(), 5);
    }

    #[test]
    fn json_round_trip_and_refusals() {
        for name in ModelConfig::PRESETS {
            let config = ModelConfig::preset(name).unwrap();
            assert_eq!(ModelConfig::from_json(config.to_json().as_bytes()).unwrap(), config);
        }
        assert_eq!(ModelConfig::from_json(b"{}").unwrap(), ModelConfig::record());
        let message = |json: &str| ModelConfig::from_json(json.as_bytes()).unwrap_err().to_string();
        assert!(message(r#"{"modeldim": 3}"#).contains("unknown field `modeldim`"));
        assert!(
            message(r#"{"num_kv_heads": 3}"#).contains("`num_kv_heads`: expected a divisor of num_heads 8, found 3")
        );
        assert!(message("[]").contains("expected an object in braces"));
        assert!(message(r#"{"rope_dims": 7}"#).contains("rope_dims"));
        assert!(message(r#"{"recur_layers": [5, 4]}"#).contains("recur_layers"));
        assert!(message(r#"{"tie_embeddings": false}"#).contains("tie_embeddings"));
        assert!(message(r#"{"parallel_residual": true, "parallel_start_layer": 2}"#).contains("parallel_start_layer"));
    }
}
