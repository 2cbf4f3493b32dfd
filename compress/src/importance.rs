//! What an error in each row of a matrix costs: the other half, beside the Hessian of the inputs, of the loss that
//! rounding a matrix causes.
//!
//! To second order, and with the outputs of a layer taken as independent of each other and of its inputs, the loss
//! rises by `½ Σ_i g_i E_i H E_iᵀ` nats a token if row `i` is off by `E_i`. For a layer that runs once, `g_i` is the mean
//! square of the loss gradient at output `i` and `H` the mean of `xᵀx`. For one that runs `n` times the sum over passes
//! of the product of both is taken as the product of the sums over `n`: passes have different inputs and gradients,
//! but only the sums are known.

use sixpack_formats::sensitivity::{Lookup, Sensitivity};
use sixpack_formats::{Model, Part, TensorId, TensorSpec};

use crate::product::{View, ViewMut, add_product};
use crate::{Hessians, Result};

/// Least cost of a row, relative to the mean of its matrix: no row may be given up for a sample's sake.
const FLOOR: f64 = 1e-3;

/// What rounding a matrix costs, up to its Hessian.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Importance {
    /// `g_i`, for the Hessian as [`Importance::hessian`] has it, `[rows]`; all above 0.
    pub(crate) rows: Vec<f64>,
    /// Where the Hessian is not that of the inputs alone: `H [cols, cols]`.
    pub(crate) hessian: Option<Vec<f32>>,
}

/// All that is known of what errors in a model's tensors cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs<'a> {
    model: &'a Model,
    hessians: Option<&'a Hessians>,
    sensitivity: Option<&'a Sensitivity>,
}

impl<'a> Costs<'a> {
    /// Checks that the sensitivity, if there is one, is of a model like this.
    ///
    /// # Errors
    /// Those of [`Sensitivity::validate`].
    pub(crate) fn new(
        model: &'a Model,
        hessians: Option<&'a Hessians>,
        sensitivity: Option<&'a Sensitivity>,
    ) -> Result<Self> {
        if let Some(sensitivity) = sensitivity {
            sensitivity.validate(&model.config)?;
        }
        // Without Hessians there is nothing that gradients at outputs could be multiplied with.
        Ok(Self { model, hessians, sensitivity: sensitivity.filter(|_| hessians.is_some()) })
    }

    /// Whether costs are in nats a token.
    pub(crate) fn in_nats(&self) -> bool {
        self.sensitivity.is_some()
    }

    /// The Hessian of a matrix's inputs.
    pub(crate) fn hessian(&self, id: TensorId) -> Option<&'a [f32]> {
        self.hessians.and_then(|h| h.get(id))
    }

    /// What rounding a matrix costs.
    pub(crate) fn matrix(&self, spec: &TensorSpec) -> Importance {
        match (self.sensitivity, self.hessian(spec.id)) {
            (Some(s), Some(h)) if spec.id == TensorId::TokenEmbedding => {
                self.token_embedding(&s.lookups[&spec.id], &s.outputs[&spec.id], h)
            }
            (Some(s), Some(_)) => Importance { rows: self.outputs(spec, s), hessian: None },
            (Some(s), None) => lookup(&s.lookups[&spec.id]),
            (None, hessian) => self.estimated(spec, hessian),
        }
    }

    /// What an error in each element of a tensor that is no matrix costs: `½ f e²` nats a token.
    pub(crate) fn elements(&self, id: TensorId) -> Option<Vec<f64>> {
        let sampled = self.sensitivity?.elements.get(&id)?;
        // An element's sample is small: it is taken as far as the mean of all elements.
        let mean = mean(sampled);
        Some(sampled.iter().map(|&f| 0.5 * (f64::from(f) + mean)).collect())
    }

    /// Passes of the layer of a tensor.
    fn passes(&self, id: TensorId) -> usize {
        let TensorId::Block(layer, _) = id else { return 1 };
        self.model.config.virtual_layers(true).into_iter().filter(|&l| l == usize::from(layer)).count()
    }

    fn tokens_per_batch(&self) -> f64 {
        self.hessians.map_or(1.0, Hessians::tokens_per_batch)
    }

    fn outputs(&self, spec: &TensorSpec, sensitivity: &Sensitivity) -> Vec<f64> {
        let scale = 1.0 / (self.passes(spec.id) as f64 * self.tokens_per_batch());
        floored(sensitivity.outputs[&spec.id].iter().map(|&g| f64::from(g) * scale).collect())
    }

    /// The tied embedding is a head, with gradients `G` at the logits and a Hessian `H` of its inputs, and a table,
    /// with gradients `F` at what was looked up: row `v` costs `E_v (G_v H + F_v diag f) E_vᵀ`, `f` the profile of `F`
    /// over columns. Both `G_v` and `F_v` follow how frequent a token is, so that one matrix `H + κ diag f` with
    /// `κ = ΣF / ΣG` is close to that of every row; what is left of the difference goes into the row's weight.
    fn token_embedding(&self, lookup: &Lookup, logits: &[f32], head: &[f32]) -> Importance {
        let tokens = self.tokens_per_batch();
        let cols = lookup.columns.len();
        let profile = profile(lookup);
        let kappa = mean(&lookup.rows) / mean(logits).max(f64::MIN_POSITIVE);
        let mut hessian: Vec<f32> = head.iter().map(|&h| (f64::from(h) / tokens) as f32).collect();
        let mut share = 0.0;
        for (j, f) in profile.iter().enumerate() {
            let entry = &mut hessian[j * cols + j];
            let as_table = kappa * f;
            share += as_table / (as_table + f64::from(*entry)).max(f64::MIN_POSITIVE) / cols as f64;
            *entry += as_table as f32;
        }
        let row =
            |(&g, &f): (&f32, &f32)| f64::from(g) * (1.0 - share) + share * f64::from(f) / kappa.max(f64::MIN_POSITIVE);
        Importance { rows: floored(logits.iter().zip(&lookup.rows).map(row).collect()), hessian: Some(hessian) }
    }

    /// Costs without gradients: every tensor may add the same share of noise to what it gives, weighed by what that
    /// share is known to cost in trained models. Errors at the logits cost `p (1 − p)` each, and tokens count by how
    /// frequent they are.
    fn estimated(&self, spec: &TensorSpec, hessian: Option<&[f32]>) -> Importance {
        let values = self.model.tensors[&spec.id].to_f32();
        let (rows, cols) = (spec.shape[0], spec.shape[1]);
        let shares = self.hessians.map_or(vec![1.0 / rows as f64; rows], |h| h.frequencies(rows));
        let energies: Vec<f64> =
            values.chunks_exact(cols).map(|row| row.iter().map(|&w| f64::from(w).powi(2)).sum()).collect();
        let energy = || shares.iter().zip(&energies).map(|(f, e)| f * e).sum::<f64>().max(f64::MIN_POSITIVE);
        let table = |noise: f64| Lookup {
            rows: shares.iter().map(|f| (f * noise / energy()) as f32).collect(),
            columns: vec![1.0; cols],
        };
        match (spec.id, hessian) {
            (TensorId::ValueEmbedding, _) => lookup(&table(VALUE_NOISE)),
            (TensorId::TokenEmbedding, Some(head)) => {
                let logits: Vec<f32> = shares.iter().map(|&f| (LOGIT_NOISE * f) as f32).collect();
                self.token_embedding(&table(EMBEDDING_NOISE), &logits, head)
            }
            (_, Some(h)) => {
                let cost = layer_noise(spec.id) / output_energy(&values, h, rows, cols).max(f64::MIN_POSITIVE);
                Importance { rows: vec![cost; rows], hessian: None }
            }
            (_, None) => {
                let energy: f64 = energies.iter().sum();
                Importance { rows: vec![1.0 / energy.max(f64::MIN_POSITIVE); rows], hessian: None }
            }
        }
    }
}

/// What noise of the strength of a layer's output would add to the loss, in units of `½` nat a token: the sums of
/// `G_i E[y_i²]` in models trained by the reference and here, to the nearest power of two.
fn layer_noise(id: TensorId) -> f64 {
    match id {
        TensorId::Block(_, Part::Query | Part::Key) => 0.25,
        TensorId::Block(_, Part::MlpUp | Part::MlpDown) => 2.0,
        _ => 1.0,
    }
}

/// The same for what is looked up in the value embedding.
const VALUE_NOISE: f64 = 0.25;
/// The same for what is looked up in the token embedding.
const EMBEDDING_NOISE: f64 = 2.0;
/// Mean of `1 − p` where a token of probability `p` is the next one.
const LOGIT_NOISE: f64 = 0.7;

/// `trace(W H Wᵀ)`: the squared outputs of a layer, summed.
fn output_energy(w: &[f32], hessian: &[f32], rows: usize, cols: usize) -> f64 {
    let mut product = vec![0.0f32; rows * cols];
    let h = View::row_major(hessian, cols, cols);
    add_product(&mut ViewMut::row_major(&mut product, rows, cols), 1.0, View::row_major(w, rows, cols), h);
    w.iter().zip(&product).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// A table that rows are only looked up in: `F_i F_j / mean F`.
fn lookup(lookup: &Lookup) -> Importance {
    let profile = profile(lookup);
    let cols = profile.len();
    let mut hessian = vec![0.0; cols * cols];
    profile.iter().enumerate().for_each(|(j, &f)| hessian[j * cols + j] = f as f32);
    let rows = lookup.rows.iter().map(|&f| f64::from(f)).collect();
    Importance { rows: floored(rows), hessian: Some(hessian) }
}

/// The squared gradients by column, relative to their mean, none below the floor.
fn profile(lookup: &Lookup) -> Vec<f64> {
    let columns = floored(lookup.columns.iter().map(|&f| f64::from(f)).collect());
    let mean = columns.iter().sum::<f64>() / columns.len().max(1) as f64;
    columns.iter().map(|f| f / mean).collect()
}

/// None of the costs below the floor; all 1 if all are 0.
fn floored(mut costs: Vec<f64>) -> Vec<f64> {
    let mean = costs.iter().sum::<f64>() / costs.len().max(1) as f64;
    let least = if mean > 0.0 { FLOOR * mean } else { 1.0 };
    costs.iter_mut().for_each(|c| *c = c.max(least));
    costs
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|&x| f64::from(x)).sum::<f64>() / values.len().max(1) as f64
}
