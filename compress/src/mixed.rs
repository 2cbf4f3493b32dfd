//! Mixed precision: which matrices are worth a bit more.

use std::collections::BTreeMap;

use sixpack_formats::TensorId;

/// `q_max` of int6.
pub const INT6: u8 = 31;
/// `q_max` of int5.
pub const INT5: u8 = 15;

/// The `q_max` of each matrix when the `int6` most sensitive of them get 6 bits and the others 5.
///
/// Sensitivity is the trace of the Hessian, as in the reference; matrices of equal sensitivity go by their order in
/// `sensitivities`.
pub fn widths(sensitivities: &[(TensorId, f64)], int6: usize) -> BTreeMap<TensorId, u8> {
    let ranked = ranking(sensitivities);
    ranked.into_iter().enumerate().map(|(rank, id)| (id, if rank < int6 { INT6 } else { INT5 })).collect()
}

/// The matrices, the most sensitive first.
pub fn ranking(sensitivities: &[(TensorId, f64)]) -> Vec<TensorId> {
    let mut ranked = sensitivities.to_vec();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked.into_iter().map(|(id, _)| id).collect()
}

#[cfg(test)]
mod tests {
    use sixpack_formats::Part;

    use super::*;

    #[test]
    fn the_most_sensitive_get_six_bits() {
        let [a, b, c] = [Part::Query, Part::MlpUp, Part::MlpDown].map(|part| TensorId::block(0, part));
        let sensitivities = [(a, 1.0), (b, 3.0), (c, 1.0)];
        assert_eq!(ranking(&sensitivities), [b, a, c]);
        assert_eq!(widths(&sensitivities, 0), BTreeMap::from([(a, INT5), (b, INT5), (c, INT5)]));
        assert_eq!(widths(&sensitivities, 2), BTreeMap::from([(a, INT6), (b, INT6), (c, INT5)]));
        assert_eq!(widths(&sensitivities, 9), BTreeMap::from([(a, INT6), (b, INT6), (c, INT6)]));
    }
}
