//! What the matrices of one input share: its Hessian made ready, and the column factors that follow from it.

use std::borrow::Cow;

use half::f16;

use crate::Scheme;
use crate::gptq::{Order, Prepared};
use crate::lattice;

/// A Hessian made ready and the factors of its columns.
#[derive(Debug)]
pub(crate) struct Basis<'a> {
    /// The Hessian as it was measured.
    pub(crate) hessian: Cow<'a, [f32]>,
    /// The Hessian, damped, ordered, factored.
    pub(crate) prepared: Prepared,
    /// Factors of the columns on the [`lattice`], of geometric mean 1 as near as that goes; none where all are 1.
    pub(crate) columns: Vec<f16>,
    /// Mean over columns of `log2(d_j / factor_j)`: the steps of all columns are finer by it than `d_j` wants.
    pub(crate) shift: f64,
}

impl<'a> Basis<'a> {
    /// Of `hessian [cols, cols]`; `None` if it is not positive definite after damping.
    ///
    /// Where factors follow the noise, no order of columns is better than another: they are taken as they stand, which
    /// is what the trellis wants.
    pub(crate) fn new(hessian: Cow<'a, [f32]>, cols: usize, scheme: Scheme) -> Option<Self> {
        if hessian.iter().any(|h| !h.is_finite()) {
            return None;
        }
        let Scheme::Rd(_) = scheme else {
            let prepared = Prepared::new(&hessian, cols, Order::Activation)?;
            return Some(Self { hessian, prepared, columns: Vec::new(), shift: 0.0 });
        };
        let prepared = Prepared::new(&hessian, cols, Order::Natural)?;
        let logs: Vec<f64> = prepared.noise().iter().map(|&d| f64::from(d).log2()).collect();
        let mean = logs.iter().sum::<f64>() / cols as f64;
        let middle = lattice::nearest(mean);
        let exponents: Vec<i32> = logs.iter().map(|&log| lattice::nearest(log) - middle).collect();
        let rounded = exponents.iter().map(|&e| lattice::log2(e)).sum::<f64>() / cols as f64;
        let shift = mean - rounded;
        let columns = exponents.iter().map(|&e| f16::from_f64(lattice::log2(e).exp2())).collect();
        Some(Self { hessian, prepared, columns, shift })
    }
}
