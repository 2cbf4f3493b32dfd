//! A model made ready to be quantised at any step: all that does not depend on how fine the steps are.
//!
//! One number, the knob, then makes all steps of the model coarser or finer together: the constant of the
//! rate–distortion rule, or a factor on the `k` of SDClip.

mod basis;
mod halves;
mod matrix;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use sixpack_formats::{Model, QuantClass, TensorData, TensorId, TensorSpec};

use self::basis::Basis;
use self::halves::Halves;
pub(crate) use self::matrix::MatrixPlan;
use crate::hessian::Input;
use crate::importance::Costs;
use crate::{Result, Scheme};

/// A model ready for any knob.
pub(crate) struct Plan<'a> {
    /// By tensor, in the order of the tensor table.
    pub(crate) tensors: Vec<(TensorSpec, TensorPlan<'a>)>,
    /// Whether what errors cost is known in nats.
    pub(crate) in_nats: bool,
}

/// One tensor of it.
pub(crate) enum TensorPlan<'a> {
    /// Quantised.
    Matrix(MatrixPlan<'a>),
    /// Kept in f16.
    Halves(Halves<'a>),
}

/// The bases of a model's matrices: one for each input of the model's layers, and `None` for the value embedding's.
type Bases<'a> = BTreeMap<Option<Input>, Option<Arc<Basis<'a>>>>;

impl<'a> Plan<'a> {
    /// Prepares `model` for `scheme`, on the current thread pool. `progress` is told how many Hessians of how many are
    /// factored.
    ///
    /// # Errors
    /// A weight or a Hessian that is not finite, or a weight that f16 cannot hold, named.
    pub(crate) fn new(
        model: &'a Model,
        costs: &Costs<'a>,
        scheme: Scheme,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Self> {
        let table = model.config.tensors();
        let bases = bases(&table, costs, scheme, progress);
        let plan = |spec: TensorSpec| {
            let values = model.tensors[&spec.id].to_f32();
            let basis = || bases.get(&Input::of(spec.id)).cloned().flatten();
            let plan = match scheme {
                Scheme::Rd(rd) if is_matrix(spec.id) => {
                    let importance = costs.matrix(&spec).rows;
                    TensorPlan::Matrix(MatrixPlan::rate_distortion(&spec, values, basis(), &importance, rd)?)
                }
                Scheme::SdClip(k) if spec.class != QuantClass::Half => {
                    TensorPlan::Matrix(MatrixPlan::sd_clip(&spec, values, basis(), k)?)
                }
                Scheme::Rd(_) => TensorPlan::Halves(Halves::new(&spec, values, costs.elements(spec.id))?),
                _ => TensorPlan::Halves(Halves::new(&spec, values, None)?),
            };
            Ok((spec, plan))
        };
        let tensors = table.into_par_iter().map(plan).collect::<Result<_>>()?;
        Ok(Self { tensors, in_nats: costs.in_nats() })
    }

    /// All tensors quantised at a knob, on the current thread pool.
    pub(crate) fn quantize(
        &self,
        knob: f64,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> BTreeMap<TensorId, TensorData> {
        let (count, of) = (AtomicUsize::new(0), self.tensors.len());
        let one = |(spec, plan): &(TensorSpec, TensorPlan<'_>)| {
            let data = match plan {
                TensorPlan::Matrix(plan) => TensorData::Quantized(plan.quantize(knob)),
                TensorPlan::Halves(plan) => TensorData::F16(plan.round(knob)),
            };
            progress(count.fetch_add(1, Ordering::Relaxed) + 1, of);
            (spec.id, data)
        };
        self.tensors.par_iter().map(one).collect()
    }

    /// Bits that the codes of all matrices are expected to take at a knob, on the current thread pool.
    pub(crate) fn predicted_bits(&self, knob: f64) -> f64 {
        let matrices: Vec<_> = self.matrices().collect();
        let bits: Vec<f64> = matrices.into_par_iter().map(|matrix| matrix.predicted_bits(knob)).collect();
        // Summed in order, so that threads do not change the last digit.
        bits.iter().sum()
    }

    /// Weights that are quantised.
    pub(crate) fn weights(&self) -> usize {
        self.matrices().map(MatrixPlan::len).sum()
    }

    fn matrices(&self) -> impl Iterator<Item = &MatrixPlan<'a>> {
        self.tensors.iter().filter_map(|(_, plan)| match plan {
            TensorPlan::Matrix(matrix) => Some(matrix),
            TensorPlan::Halves(_) => None,
        })
    }
}

/// Whether rate–distortion quantisation takes this tensor: all that is multiplied with or looked up in.
fn is_matrix(id: TensorId) -> bool {
    Input::of(id).is_some() || id == TensorId::ValueEmbedding
}

/// Factors the Hessian of each input once.
fn bases<'a>(
    table: &[TensorSpec],
    costs: &Costs<'a>,
    scheme: Scheme,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Bases<'a> {
    let mut first = BTreeMap::new();
    for spec in table.iter().filter(|spec| is_matrix(spec.id)) {
        first.entry(Input::of(spec.id)).or_insert(spec);
    }
    let (count, of) = (AtomicUsize::new(0), first.len());
    let basis = |(input, spec): (Option<Input>, &TensorSpec)| {
        let own = match scheme {
            Scheme::Rd(_) => costs.matrix(spec).hessian,
            _ => None,
        };
        let hessian = own.map(Cow::Owned).or_else(|| costs.hessian(spec.id).map(Cow::Borrowed));
        let basis = hessian.and_then(|h| Basis::new(h, spec.shape[1], scheme));
        progress(count.fetch_add(1, Ordering::Relaxed) + 1, of);
        (input, basis.map(Arc::new))
    };
    first.into_par_iter().map(basis).collect()
}
