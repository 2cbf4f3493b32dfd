//! One measured artifact.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use sixpack_formats::{Digest, Score};

/// How a checkpoint was compressed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Settings {
    /// Name of the scheme.
    pub scheme: String,
    /// Name of the codec.
    pub codec: String,
    /// Matrices asked for in int6, if that was fixed.
    pub int6_layers: Option<u64>,
    /// The target, if there was one.
    pub target_bytes: Option<u64>,
}

/// What points must share to be compared: the text, the windows, the calibration and the program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Measure {
    /// Name and version of the program.
    pub tool: String,
    /// Hash of what is scored.
    pub text: Digest,
    /// Window length.
    pub seq_len: u64,
    /// Distance of sliding windows, `None` for plain ones.
    pub stride: Option<u64>,
    /// Most tokens scored.
    pub max_tokens: Option<u64>,
    /// Hash of the calibration data.
    pub calibration: Digest,
    /// Most tokens of calibration.
    pub calibration_tokens: u64,
}

/// Everything that decides a point.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Hash of the checkpoint's weights.
    pub checkpoint: Digest,
    /// How it was compressed.
    pub settings: Settings,
    /// How it was measured.
    pub measure: Measure,
}

/// One artifact, scored as re-read from disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// What decides it.
    #[serde(flatten)]
    pub key: Key,
    /// Name of the checkpoint, for people.
    pub name: String,
    /// Weight decay of the matrices in training, where the checkpoint says it.
    pub weight_decay: Option<f64>,
    /// Parameters of the model.
    pub parameters: u64,
    /// Matrices in int6, where the scheme has such widths.
    pub int6: Option<u64>,
    /// The checkpoint in full precision.
    pub float: Score,
    /// The artifact.
    pub packed: Score,
    /// Standard error of the artifact's bits per byte over documents.
    pub stderr: Option<f64>,
}

/// A combination that cannot be had, such as a target below what the scheme can reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// What decides it.
    #[serde(flatten)]
    pub key: Key,
    /// Name of the checkpoint, for people.
    pub name: String,
    /// Weight decay of the matrices in training, where the checkpoint says it.
    pub weight_decay: Option<f64>,
    /// Why there is no artifact.
    pub reason: String,
}

impl Point {
    /// Bits of the whole file for each parameter.
    pub fn bits_per_weight(&self) -> f64 {
        8.0 * self.packed.bytes as f64 / self.parameters as f64
    }

    /// The loss that is compared: bits per byte, or nats per token where there is no tokenizer.
    pub fn loss(&self) -> f64 {
        loss(&self.packed)
    }

    /// What compression costs in the unit of [`Point::loss`].
    pub fn gap(&self) -> f64 {
        loss(&self.packed) - loss(&self.float)
    }

    /// The order of points in files: weight decay, checkpoint, then how they were compressed and measured.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        order((self.weight_decay, &self.name, &self.key), (other.weight_decay, &other.name, &other.key))
    }
}

impl Refused {
    /// As that of points.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        order((self.weight_decay, &self.name, &self.key), (other.weight_decay, &other.name, &other.key))
    }
}

fn loss(score: &Score) -> f64 {
    score.bits_per_byte.unwrap_or(score.nats_per_token)
}

fn order(a: (Option<f64>, &str, &Key), b: (Option<f64>, &str, &Key)) -> Ordering {
    let decay = |d: Option<f64>| d.unwrap_or(-1.0);
    decay(a.0).total_cmp(&decay(b.0)).then_with(|| a.1.cmp(b.1)).then_with(|| a.2.cmp(b.2))
}
