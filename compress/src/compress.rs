//! A whole model: calibrated, quantised, packed, and fitted to a target if there is one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::ThreadPool;
use rayon::prelude::*;
use sixpack_formats::artifact::{self, Contents, Ledger, Provenance};
use sixpack_formats::{Codec, Model, QuantClass, Sensitivity, TensorId, TensorSpec, atomic};

use crate::hessian::thread_pool;
use crate::mixed::widths;
use crate::quantize::{Quantized, matrix, other, sensitivity};
use crate::report::Report;
use crate::{Calibration, Hessians, Result, Scheme, budget, planned};

/// How to compress.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// How steps are chosen.
    pub scheme: Scheme,
    /// What errors in each layer's outputs cost, for [`Scheme::Rd`]. Without it all layers may add the same share of
    /// noise to their outputs.
    pub sensitivity: Option<&'a Sensitivity>,
    /// For [`Scheme::Reference`]: how many matrices get int6, the most sensitive first; the others get int5. `None` for
    /// all, or with a target for as many as fit.
    pub int6_layers: Option<usize>,
    /// Most bytes the artifact may have, all of it counted.
    pub target_bytes: Option<u64>,
    /// How streams are coded.
    pub codec: Codec,
    /// What the artifact says of where it comes from.
    pub provenance: &'a Provenance,
    /// Threads to use.
    pub threads: usize,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress {
    /// Batches of calibration text run.
    Calibrating {
        /// So many.
        done: usize,
        /// Of so many.
        of: usize,
    },
    /// Tensors quantised. Starts again if other widths are tried to meet a target.
    Quantizing {
        /// So many.
        done: usize,
        /// Of so many.
        of: usize,
    },
    /// The artifact is being coded.
    Packing {
        /// With so many matrices in int6.
        int6: usize,
    },
    /// Hessians factored.
    Factoring {
        /// So many.
        done: usize,
        /// Of so many.
        of: usize,
    },
    /// The artifact was coded once more on the way to its target.
    Packed {
        /// Its size.
        bytes: u64,
        /// The knob; see [`crate::report::Solved::knob`].
        knob: f64,
    },
}

/// A packed model.
#[derive(Clone, Debug)]
pub struct Compressed {
    /// The artifact, byte for byte.
    pub file: Vec<u8>,
    /// What its bytes are for.
    pub ledger: Ledger,
    /// What was done to each tensor.
    pub report: Report,
}

/// Compresses `model`. Without calibration text, weights are rounded to their nearest codes.
///
/// The result does not depend on the number of threads. `progress` is called from several of them.
///
/// # Errors
/// [`crate::Error::OverBudget`] or [`crate::Error::TooSmall`] if the artifact exceeds the target, saying what would fit;
/// a weight that cannot be quantised, named; a sensitivity that is not of this model; and whatever [`Hessians::measure`] and packing can fail with.
pub fn compress(
    model: &Model,
    calibration: Option<&Calibration<'_>>,
    options: &Options<'_>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Compressed> {
    let measure =
        |c| Hessians::measure(model, c, options.threads, &|done, of| progress(Progress::Calibrating { done, of }));
    let needed = options.scheme != Scheme::Reference || model.config.tensors().iter().any(is_matrix);
    let hessians = calibration.filter(|_| needed).map(measure).transpose()?;
    compress_with(model, hessians.as_ref(), options, progress)
}

/// [`compress`] with Hessians that were measured before.
///
/// # Errors
/// Those of [`compress`].
pub fn compress_with(
    model: &Model,
    hessians: Option<&Hessians>,
    options: &Options<'_>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Compressed> {
    if options.scheme != Scheme::Reference {
        return planned::compress(model, hessians, options, progress);
    }
    let mut work = Work::new(model, hessians, options, progress)?;
    match options.target_bytes {
        None => work.pack(options.int6_layers.unwrap_or(usize::MAX)),
        Some(target) => budget::fit(target, options.int6_layers, &mut work),
    }
}

/// Writes the artifact, atomically. Its score is not measured yet: read it again, evaluate it, and call
/// [`artifact::set_score`].
///
/// # Errors
/// The system's, with the path.
pub fn pack(path: impl AsRef<Path>, compressed: &Compressed) -> Result<()> {
    Ok(atomic::write(path, &compressed.file)?)
}

/// A model being compressed: tensors are quantised when a width is first asked for.
pub(crate) struct Work<'a> {
    model: &'a Model,
    hessians: Option<&'a Hessians>,
    options: &'a Options<'a>,
    progress: &'a (dyn Fn(Progress) + Sync),
    pool: ThreadPool,
    table: Vec<TensorSpec>,
    sensitivities: Vec<(TensorId, f64)>,
    /// By tensor and `q_max`; 0 stands for what has no choice of width.
    done: BTreeMap<(TensorId, u8), Quantized>,
}

impl<'a> Work<'a> {
    fn new(
        model: &'a Model,
        hessians: Option<&'a Hessians>,
        options: &'a Options<'a>,
        progress: &'a (dyn Fn(Progress) + Sync),
    ) -> Result<Self> {
        let table = model.config.tensors();
        let hessian = |id| hessians.and_then(|h| h.get(id));
        let matrices = table.iter().filter(|spec| is_matrix(spec));
        let sensitivities = matrices.map(|spec| (spec.id, sensitivity(spec, hessian(spec.id)))).collect();
        let pool = thread_pool(options.threads)?;
        Ok(Self { model, hessians, options, progress, pool, table, sensitivities, done: BTreeMap::new() })
    }

    /// The matrices that have a choice between int5 and int6, the most sensitive first.
    pub(crate) fn ranking(&self) -> Vec<TensorId> {
        crate::mixed::ranking(&self.sensitivities)
    }

    /// The artifact with the `int6` most sensitive matrices in int6.
    pub(crate) fn pack(&mut self, int6: usize) -> Result<Compressed> {
        let int6 = int6.min(self.sensitivities.len());
        let widths = widths(&self.sensitivities, int6);
        let keys = self.table.iter().map(|spec| (spec.id, widths.get(&spec.id).copied().unwrap_or(0)));
        let keys: Vec<(TensorId, u8)> = keys.collect();
        self.quantize(&keys)?;
        (self.progress)(Progress::Packing { int6 });
        let chosen = || keys.iter().map(|key| &self.done[key]);
        let tensors = chosen().map(|q| (q.report.id, q.data.clone())).collect();
        let model = Model::new(self.model.config.clone(), tensors, self.model.tokenizer.clone(), 0)?;
        let contents = Contents { model: &model, provenance: self.options.provenance };
        let (file, ledger) = artifact::encode(&contents, self.options.codec)?;
        let rows = chosen().map(|q| q.report.clone()).collect();
        let matrices = self.sensitivities.len();
        let mut report = Report { scheme: self.options.scheme, int6, matrices, solved: None, tensors: rows };
        report.price(&ledger);
        Ok(Compressed { file, ledger, report })
    }

    /// Quantises what was not yet, in parallel over tensors.
    fn quantize(&mut self, keys: &[(TensorId, u8)]) -> Result<()> {
        let missing: Vec<_> = self.table.iter().zip(keys).filter(|(_, key)| !self.done.contains_key(key)).collect();
        let (count, of) = (AtomicUsize::new(0), missing.len());
        let one = |(spec, key): (&TensorSpec, &(TensorId, u8))| {
            let values = self.model.tensors[&spec.id].to_f32();
            let hessian = self.hessians.and_then(|h| h.get(spec.id));
            let quantized = match key.1 {
                0 => other(spec, &values, self.options.scheme)?,
                q_max => matrix(spec, &values, hessian, self.options.scheme, q_max)?,
            };
            let done = count.fetch_add(1, Ordering::Relaxed) + 1;
            (self.progress)(Progress::Quantizing { done, of });
            Ok((*key, quantized))
        };
        let new: Vec<_> = self.pool.install(|| missing.into_par_iter().map(one).collect::<Result<_>>())?;
        self.done.extend(new);
        Ok(())
    }
}

fn is_matrix(spec: &TensorSpec) -> bool {
    matches!(spec.class, QuantClass::Attention | QuantClass::Mlp)
}
