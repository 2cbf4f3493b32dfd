//! The points that no other beats.

/// Indices of the points `(bytes, loss)` for which no other has at most the bytes and at most the loss and less of one
/// of them, by increasing bytes. Of equal points the first is kept; those with a NaN never are.
pub fn front(points: &[(f64, f64)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..points.len()).filter(|&i| !points[i].0.is_nan() && !points[i].1.is_nan()).collect();
    let key = |i: usize| points[i];
    order.sort_by(|&a, &b| key(a).0.total_cmp(&key(b).0).then(key(a).1.total_cmp(&key(b).1)).then(a.cmp(&b)));
    let mut best = f64::INFINITY;
    order.retain(|&i| {
        let better = points[i].1 < best;
        best = best.min(points[i].1);
        better
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_other_beats_is_kept() {
        let points = [(3.0, 1.0), (1.0, 3.0), (2.0, 2.0), (2.0, 2.5), (2.5, 2.0), (3.0, 1.0), (f64::NAN, 0.0)];
        assert_eq!(front(&points), [1, 2, 0]);
        assert_eq!(front(&[]), [0usize; 0]);
        assert_eq!(front(&[(1.0, f64::NAN)]), [0usize; 0]);
    }

    /// By the definition, over all pairs.
    #[test]
    fn agrees_with_the_definition() {
        let points: Vec<(f64, f64)> = (0..200u32).map(|i| (f64::from(i * 37 % 23), f64::from(i * 53 % 29))).collect();
        let found = front(&points);
        for (i, p) in points.iter().enumerate() {
            let beaten = points.iter().any(|q| q.0 <= p.0 && q.1 <= p.1 && q != p);
            let first = points.iter().position(|q| q == p) == Some(i);
            assert_eq!(found.contains(&i), !beaten && first, "point {i}");
        }
        assert!(found.windows(2).all(|w| points[w[0]].0 < points[w[1]].0 && points[w[0]].1 > points[w[1]].1));
    }
}
