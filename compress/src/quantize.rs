//! One tensor of a model, quantised as its class demands.

use half::f16;
use sixpack_formats::{QuantClass, QuantizedMatrix, TensorData, TensorSpec};

use crate::distortion::{hessian_error, mean_squared_error, trace};
use crate::gptq::Method;
use crate::report::{MatrixReport, TensorReport};
use crate::{Error, Matrix, Result, Scheme, gptq, round};

/// A tensor in the form an artifact keeps, and its row of the report, not priced yet.
#[derive(Clone, Debug)]
pub(crate) struct Quantized {
    pub(crate) data: TensorData,
    pub(crate) report: TensorReport,
}

/// An attention or MLP matrix with codes within ±`q_max`: by GPTQ if there is a Hessian, else by rounding.
pub(crate) fn matrix(
    spec: &TensorSpec,
    values: &[f32],
    hessian: Option<&[f32]>,
    scheme: Scheme,
    q_max: u8,
) -> Result<Quantized> {
    let name = spec.name();
    let w = Matrix::new(&name, [spec.shape[0], spec.shape[1]], values)?;
    let nearest = round::to_nearest(&w, scheme, q_max)?;
    let (q, matrix) = match hessian {
        None => {
            let sensitivity = sensitivity(spec, None);
            (nearest, MatrixReport { method: Method::Nearest, sensitivity, error: None, nearest_error: None })
        }
        Some(h) => {
            let (q, method) = gptq::quantize(&w, h, scheme, q_max)?;
            let error = Some(hessian_error(&w, &q, h)?);
            let nearest_error = Some(hessian_error(&w, &nearest, h)?);
            let sensitivity = sensitivity(spec, hessian);
            (q, MatrixReport { method, sensitivity, error, nearest_error })
        }
    };
    let (bits, error) = (q.bits(), mean_squared_error(&w, &q));
    Ok(quantized(spec, TensorData::Quantized(q), bits, error, Some(matrix)))
}

/// An embedding table in int8, or a tensor in f16.
pub(crate) fn other(spec: &TensorSpec, values: &[f32], scheme: Scheme) -> Result<Quantized> {
    if spec.class == QuantClass::Embedding {
        let name = spec.name();
        let w = Matrix::new(&name, [spec.shape[0], spec.shape[1]], values)?;
        let q = round::table(&w, scheme)?;
        let (bits, error) = (q.bits(), mean_squared_error(&w, &q));
        return Ok(quantized(spec, TensorData::Quantized(q), bits, error, None));
    }
    let halves: Vec<f16> = values.iter().map(|&x| f16::from_f32(x)).collect();
    if let Some(index) = halves.iter().position(|x| !x.is_finite()) {
        return Err(Error::NotHalf { tensor: spec.name(), index, found: values[index] });
    }
    let squares: f64 = values.iter().zip(&halves).map(|(&x, h)| f64::from(x - h.to_f32()).powi(2)).sum();
    let error = squares / values.len().max(1) as f64;
    Ok(quantized(spec, TensorData::F16(halves), 16, error, None))
}

/// `trace(H)`; without a Hessian, that of inputs which are uncorrelated and all alike.
pub(crate) fn sensitivity(spec: &TensorSpec, hessian: Option<&[f32]>) -> f64 {
    let cols = spec.shape[1];
    hessian.map_or(cols as f64, |h| trace(h, cols))
}

fn quantized(
    spec: &TensorSpec,
    data: TensorData,
    bits: u32,
    mean_squared_error: f64,
    matrix: Option<MatrixReport>,
) -> Quantized {
    let step = match &data {
        TensorData::Quantized(q) => Some(mean_step(q)),
        _ => None,
    };
    let report = TensorReport {
        id: spec.id,
        shape: spec.shape.clone(),
        class: spec.class,
        bits,
        coded_bytes: 0,
        mean_squared_error,
        step,
        loss: None,
        matrix,
    };
    Quantized { data, report }
}

/// Geometric mean of the steps.
pub(crate) fn mean_step(q: &QuantizedMatrix) -> f64 {
    let mean = |steps: &[f16]| steps.iter().map(|s| s.to_f64().log2()).sum::<f64>() / steps.len().max(1) as f64;
    (mean(&q.scales) + mean(&q.columns)).exp2()
}
