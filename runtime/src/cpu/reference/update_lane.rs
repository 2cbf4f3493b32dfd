//! The two-lane residual.

use crate::cpu::Mat;

/// `keep · lane + post · y`.
pub(super) fn update_lane(keep: f32, post: f32, lane: &Mat, y: &Mat) -> Mat {
    assert_eq!(lane.shape(), y.shape(), "update_lane");
    lane.like(lane.cols, lane.data.iter().zip(&y.data).map(|(lane, y)| keep * lane + post * y).collect())
}
