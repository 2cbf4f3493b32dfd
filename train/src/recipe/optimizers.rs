//! `[optimizer]`: what is typed of the three groups, and what it means.

use serde::{Deserialize, Serialize};

use super::range;
use crate::optim::adamw::{betas, eps};
use crate::optim::{AdamW, Coefficients, Groups, Matrix, Muon, NorMuon};
use crate::{Error, Result};

/// The optimizers of the three groups, the clip and the average.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Optimizers {
    /// Largest global norm of the gradients.
    pub grad_clip: f64,
    /// Decay per step of the average of the weights, which is what is evaluated and exported.
    pub ema_decay: f64,
    /// Matrices of the blocks.
    pub matrix: Matrix,
    /// Embedding tables.
    pub token: AdamW,
    /// Control tensors.
    pub scalar: AdamW,
}

impl Optimizers {
    /// The settings of the three groups.
    pub fn groups(&self) -> Groups {
        Groups { matrix: self.matrix, token: self.token, scalar: self.scalar }
    }

    pub(super) fn validate(&self) -> Result<()> {
        let Self { grad_clip, ema_decay, matrix, token, scalar } = self;
        range("optimizer.grad_clip", *grad_clip, 1e-9, 1e9)?;
        range("optimizer.ema_decay", *ema_decay, 0.0, 0.999_999)?;
        range("optimizer.matrix.lr", matrix.lr(), 0.0, 1e3)?;
        range("optimizer.matrix.weight_decay", matrix.weight_decay(), 0.0, 1e3)?;
        matrix.newton_schulz()?;
        match matrix {
            Matrix::Muon(_) => {}
            Matrix::NorMuon(rule) => range("optimizer.matrix.beta2", rule.beta2, 0.0, 0.999_999)?,
            Matrix::AdamW(rule) => adamw("matrix", rule)?,
        }
        adamw("token", token)?;
        adamw("scalar", scalar)
    }
}

fn adamw(group: &str, rule: &AdamW) -> Result<()> {
    range(&format!("optimizer.{group}.lr"), rule.lr, 0.0, 1e3)?;
    range(&format!("optimizer.{group}.weight_decay"), rule.weight_decay, 0.0, 1e3)?;
    for beta in rule.betas {
        range(&format!("optimizer.{group}.betas"), beta, 0.0, 0.999_999)?;
    }
    range(&format!("optimizer.{group}.eps"), rule.eps, 1e-30, 1.0)
}

/// The same as it is typed.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Typed {
    grad_clip: f64,
    ema_decay: f64,
    matrix: TypedMatrix,
    token: AdamW,
    scalar: AdamW,
}

impl Default for Typed {
    /// The record's.
    fn default() -> Self {
        let adamw = AdamW { lr: 0.02, betas: betas(), eps: eps(), weight_decay: 0.02 };
        let Muon { lr, weight_decay, .. } = Muon::default();
        Self {
            grad_clip: 0.3,
            ema_decay: 0.997,
            matrix: TypedMatrix { lr, weight_decay, ..TypedMatrix::default() },
            token: AdamW { lr: 0.03, weight_decay: 0.09, ..adamw },
            scalar: adamw,
        }
    }
}

impl Typed {
    /// What it means.
    pub(super) fn resolve(&self) -> Result<Optimizers> {
        let Self { grad_clip, ema_decay, matrix, token, scalar } = *self;
        let resolved = Optimizers { grad_clip, ema_decay, matrix: matrix.resolve()?, token, scalar };
        resolved.validate()?;
        Ok(resolved)
    }
}

/// The rules of the matrix group by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Muon,
    NorMuon,
    AdamW,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Muon => "muon",
            Self::NorMuon => "normuon",
            Self::AdamW => "adamw",
        }
    }

    /// The keys of `[optimizer.matrix]` that mean something with this rule.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Muon => {
                &["kind", "lr", "weight_decay", "newton_schulz_steps", "coefficients", "row_equalisation", "cautious"]
            }
            Self::NorMuon => {
                &["kind", "lr", "weight_decay", "newton_schulz_steps", "coefficients", "beta2", "cautious"]
            }
            Self::AdamW => &["kind", "lr", "weight_decay", "betas", "eps"],
        }
    }
}

/// `[optimizer.matrix]` with the keys of all rules.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TypedMatrix {
    #[serde(default)]
    kind: Kind,
    lr: f64,
    weight_decay: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    newton_schulz_steps: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    coefficients: Option<Coefficients>,
    #[serde(skip_serializing_if = "Option::is_none")]
    row_equalisation: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    beta2: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cautious: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    betas: Option<[f64; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eps: Option<f64>,
}

impl TypedMatrix {
    /// The one rule, or an error that names a key it has no use for.
    fn resolve(&self) -> Result<Matrix> {
        let Self { kind, lr, weight_decay, .. } = *self;
        let typed = toml::Table::try_from(self).expect("plain numbers serialise");
        if let Some((key, value)) = typed.iter().find(|(key, _)| !kind.keys().contains(&key.as_str())) {
            let expected = format!("kind `{}` with its keys {}", kind.name(), kind.keys()[1..].join(", "));
            return Err(Error::recipe(format!("optimizer.matrix.{key}"), expected, value.to_string()));
        }
        Ok(match kind {
            Kind::Muon => {
                let usual = Muon::default();
                Matrix::Muon(Muon {
                    lr,
                    weight_decay,
                    newton_schulz_steps: self.newton_schulz_steps.unwrap_or(usual.newton_schulz_steps),
                    coefficients: self.coefficients.unwrap_or(usual.coefficients),
                    row_equalisation: self.row_equalisation.unwrap_or(usual.row_equalisation),
                    cautious: self.cautious.unwrap_or(usual.cautious),
                })
            }
            Kind::NorMuon => {
                let usual = NorMuon::default();
                Matrix::NorMuon(NorMuon {
                    lr,
                    weight_decay,
                    newton_schulz_steps: self.newton_schulz_steps.unwrap_or(usual.newton_schulz_steps),
                    coefficients: self.coefficients.unwrap_or(usual.coefficients),
                    beta2: self.beta2.unwrap_or(usual.beta2),
                    cautious: self.cautious.unwrap_or(usual.cautious),
                })
            }
            Kind::AdamW => Matrix::AdamW(AdamW {
                lr,
                betas: self.betas.unwrap_or_else(betas),
                eps: self.eps.unwrap_or_else(eps),
                weight_decay,
            }),
        })
    }
}
