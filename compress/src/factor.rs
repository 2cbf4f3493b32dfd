//! The triangular factor that spreads rounding errors.

use nalgebra::DMatrix;

/// The upper triangular `U` with `UᵀU = H⁻¹` and a positive diagonal, `[n, n]` row-major, in f32; `None` if `h
/// [n, n]` is not positive definite.
///
/// With `J` the reversal of the order, `J H J = L Lᵀ` gives `H⁻¹ = (J L⁻¹ J)ᵀ (J L⁻¹ J)`: so one Cholesky
/// factorisation and a triangular inverse do, and `H⁻¹` itself is never formed.
pub(crate) fn inverse_upper(h: &[f64], n: usize) -> Option<Vec<f32>> {
    let reversed = DMatrix::from_fn(n, n, |i, j| h[(n - 1 - i) * n + (n - 1 - j)]);
    let lower = reversed.cholesky()?.unpack_dirty();
    if lower.diagonal().iter().any(|x| !x.is_normal()) {
        return None;
    }
    let mut inverse = DMatrix::identity(n, n);
    for j in 0..n {
        // Column j of the inverse starts at row j, so the rows above need no work.
        let below = lower.view((j, j), (n - j, n - j));
        below.solve_lower_triangular_mut(&mut inverse.view_mut((j, j), (n - j, 1)));
    }
    let mut upper = vec![0.0f32; n * n];
    for i in 0..n {
        for j in i..n {
            upper[i * n + j] = inverse[(n - 1 - i, n - 1 - j)] as f32;
        }
    }
    Some(upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_of_a_known_matrix() {
        // H⁻¹ of [[2, 1], [1, 1]] is [[1, -1], [-1, 2]] = UᵀU with U = [[1, -1], [0, 1]].
        assert_eq!(inverse_upper(&[2.0, 1.0, 1.0, 1.0], 2).unwrap(), [1.0, -1.0, 0.0, 1.0]);
    }

    #[test]
    fn u_transposed_u_is_the_inverse() {
        let n = 9;
        let x: Vec<f64> = (0..n * 20).map(|i| ((i * i + 3 * i) % 17) as f64 / 8.0 - 1.0).collect();
        let entry = |i, j| (0..20).map(|k| x[k * n + i] * x[k * n + j]).sum::<f64>() + f64::from(u8::from(i == j));
        let h: Vec<f64> = (0..n * n).map(|k| entry(k / n, k % n)).collect();
        let u = inverse_upper(&h, n).unwrap();
        for i in 0..n {
            for j in 0..n {
                let product: f64 = (0..n)
                    .map(|k| {
                        (0..n).map(|l| f64::from(u[l * n + i]) * f64::from(u[l * n + k])).sum::<f64>() * h[k * n + j]
                    })
                    .sum();
                assert!((product - f64::from(u8::from(i == j))).abs() < 1e-5, "[{i}, {j}]: {product}");
            }
        }
    }

    #[test]
    fn what_is_not_positive_definite_has_no_factor() {
        assert!(inverse_upper(&[1.0, 2.0, 2.0, 1.0], 2).is_none());
        assert!(inverse_upper(&[0.0], 1).is_none());
        assert!(inverse_upper(&[f64::NAN], 1).is_none());
    }
}
