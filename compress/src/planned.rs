//! Schemes with one knob for the whole model: `sdclip` and `rd`.

use rayon::prelude::*;
use sixpack_formats::artifact::{self, Contents};
use sixpack_formats::{Model, TensorData, TensorSpec};

use crate::compress::Progress;
use crate::distortion::{hessian_error, mean_squared_error, trace};
use crate::gptq::Method;
use crate::hessian::thread_pool;
use crate::importance::Costs;
use crate::plan::{MatrixPlan, Plan, TensorPlan};
use crate::quantize::mean_step;
use crate::report::{MatrixReport, Report, Solved, TensorReport};
use crate::solve::solve;
use crate::{Compressed, Error, Hessians, Options, Result, Scheme};

/// Compresses `model`, to the target if there is one.
///
/// # Errors
/// Those of [`crate::compress_with`].
pub(crate) fn compress(
    model: &Model,
    hessians: Option<&Hessians>,
    options: &Options<'_>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Compressed> {
    if options.int6_layers.is_some() {
        return Err(Error::NoInt6 { scheme: options.scheme.name() });
    }
    let costs = Costs::new(model, hessians, options.sensitivity)?;
    let pool = thread_pool(options.threads)?;
    pool.install(|| {
        let plan = Plan::new(model, &costs, options.scheme, &|done, of| progress(Progress::Factoring { done, of }))?;
        Work { model, costs, options, progress, plan }.run()
    })
}

/// A model being compressed.
struct Work<'a> {
    model: &'a Model,
    costs: Costs<'a>,
    options: &'a Options<'a>,
    progress: &'a (dyn Fn(Progress) + Sync),
    plan: Plan<'a>,
}

impl Work<'_> {
    fn run(&self) -> Result<Compressed> {
        let Some(target) = self.options.target_bytes else {
            let knob = self.default_knob();
            let (packed, _) = self.pack(knob)?;
            return Ok(self.finish(packed, knob, 1));
        };
        // What does not depend on the knob is known once something was packed; at first nothing of it is.
        let fixed = self.model.tokenizer.as_ref().map_or(0, Vec::len) as f64 / 4.0;
        let predict = |knob: f64| fixed + self.plan.predicted_bits(knob) / 8.0;
        let finest = match self.options.scheme {
            // Finer steps would only clip more of the weights.
            Scheme::SdClip(_) => 0.2,
            _ => 1e-9,
        };
        let solved = solve(target, finest, &predict, &mut |knob| {
            let (packed, bytes) = self.pack(knob)?;
            (self.progress)(Progress::Packed { bytes, knob });
            Ok((packed, bytes))
        })?;
        let bytes = solved.packed.0.len() as u64;
        if bytes > target {
            return Err(Error::TooSmall { target, bytes });
        }
        Ok(self.finish(solved.packed, solved.knob, solved.passes))
    }

    /// The knob where nothing is asked for: for `rd` the one of the loss that may be lost, or three bits a weight where
    /// costs are not in nats.
    fn default_knob(&self) -> f64 {
        let Scheme::Rd(rd) = self.options.scheme else { return 1.0 };
        let weights = self.plan.weights() as f64;
        if self.plan.in_nats {
            return (24.0 * rd.loss / weights).sqrt();
        }
        crate::solve::invert(&|log| self.plan.predicted_bits(log.exp2()), 3.0 * weights, -40.0, 40.0).exp2()
    }

    fn pack(&self, knob: f64) -> Result<(Packed, u64)> {
        let tensors = self.plan.quantize(knob, &|done, of| (self.progress)(Progress::Quantizing { done, of }));
        let model = Model::new(self.model.config.clone(), tensors, self.model.tokenizer.clone(), 0)?;
        let contents = Contents { model: &model, provenance: self.options.provenance };
        let (file, ledger) = artifact::encode(&contents, self.options.codec)?;
        let bytes = file.len() as u64;
        Ok(((file, ledger, model), bytes))
    }

    /// The report is made once, of what is kept.
    fn finish(&self, (file, ledger, model): Packed, knob: f64, passes: usize) -> Compressed {
        let row = |(spec, plan): &(TensorSpec, TensorPlan<'_>)| self.row(spec, plan, &model.tensors[&spec.id], knob);
        let tensors: Vec<TensorReport> = self.plan.tensors.par_iter().map(row).collect();
        let matrices = tensors.iter().filter(|t| t.matrix.is_some()).count();
        // Of ½ c² / 12 nats a weight, a bit takes three quarters: 2 ln 2 times that by the slope.
        let slope = |_| 8.0 * std::f64::consts::LN_2 * knob * knob / 12.0;
        let nats_per_byte = Some(()).filter(|()| self.plan.in_nats).map(slope);
        let solved = Some(Solved { knob, passes, nats_per_byte });
        let mut report = Report { scheme: self.options.scheme, int6: 0, matrices, solved, tensors };
        report.price(&ledger);
        Compressed { file, ledger, report }
    }

    fn row(&self, spec: &TensorSpec, plan: &TensorPlan<'_>, data: &TensorData, knob: f64) -> TensorReport {
        let mut report = TensorReport {
            id: spec.id,
            shape: spec.shape.clone(),
            class: spec.class,
            bits: 16,
            coded_bytes: 0,
            mean_squared_error: 0.0,
            step: None,
            loss: None,
            matrix: None,
        };
        match (plan, data) {
            (TensorPlan::Matrix(plan), TensorData::Quantized(q)) => {
                report.bits = q.bits();
                report.mean_squared_error = mean_squared_error(&plan.weights(), q);
                report.step = Some(mean_step(q));
                report.loss = self.plan.in_nats.then(|| plan.cost(q));
                report.matrix = self.matrix(spec, plan, data, knob);
            }
            (TensorPlan::Halves(plan), TensorData::F16(values)) => {
                report.mean_squared_error = plan.mean_squared_error(values);
                report.loss = plan.cost(values);
            }
            _ => unreachable!("a plan makes what it plans"),
        }
        report
    }

    fn matrix(&self, spec: &TensorSpec, plan: &MatrixPlan<'_>, data: &TensorData, knob: f64) -> Option<MatrixReport> {
        let TensorData::Quantized(q) = data else { return None };
        let hessian = self.costs.hessian(spec.id);
        let error = |q| hessian.and_then(|h| hessian_error(&plan.weights(), q, h).ok());
        Some(MatrixReport {
            method: if plan.has_hessian() { Method::Gptq } else { Method::Nearest },
            sensitivity: hessian.map_or(spec.shape[1] as f64, |h| trace(h, spec.shape[1])),
            error: error(q),
            nearest_error: error(&plan.nearest(knob)),
        })
    }
}

/// An artifact, its ledger and the model in it.
type Packed = (Vec<u8>, artifact::Ledger, Model);
