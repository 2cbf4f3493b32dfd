//! The MLP's activation.

use crate::cpu::Mat;

/// `leaky_relu(x, 0.5)²`.
pub(super) fn leaky_relu_squared(x: &Mat) -> Mat {
    let leaky = |x: f32| if x > 0.0 { x } else { 0.5 * x };
    x.like(x.cols, x.data.iter().map(|&x| leaky(x) * leaky(x)).collect())
}
