//! Root mean square norm.

use crate::cpu::Mat;

/// `scale · x / sqrt(mean(x²) + eps)` over channels.
pub(super) fn rms_norm(x: &Mat, scale: f32) -> Mat {
    let mut y = x.clone();
    for row in y.data.chunks_exact_mut(x.cols) {
        let factor = f64::from(scale) * inverse_rms(row);
        row.iter_mut().for_each(|v| *v = (f64::from(*v) * factor) as f32);
    }
    y
}

/// `1 / sqrt(mean(x²) + eps)`, eps the machine epsilon of f32.
pub(super) fn inverse_rms(x: &[f32]) -> f64 {
    let mean = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / x.len() as f64;
    1.0 / (mean + f64::from(f32::EPSILON)).sqrt()
}
