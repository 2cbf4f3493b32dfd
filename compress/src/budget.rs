//! The most int6 matrices that fit a target.

use std::collections::BTreeMap;

use sixpack_formats::TensorId;

use crate::compress::{Compressed, Work};
use crate::error::Remedy;
use crate::{Error, Result};

/// Packs with `int6` matrices in int6, or as many as fit if that is not given.
///
/// # Errors
/// [`Error::OverBudget`] if that exceeds the target.
pub(crate) fn fit(target: u64, int6: Option<usize>, work: &mut Work<'_>) -> Result<Compressed> {
    let first = work.pack(int6.unwrap_or(usize::MAX))?;
    if size(&first) <= target {
        return Ok(first);
    }
    let over = |packed: &Compressed, remedy| Error::OverBudget {
        target,
        bytes: size(packed),
        int6: packed.report.int6,
        matrices: packed.report.matrices,
        remedy,
    };
    let smallest = if first.report.int6 == 0 { first.clone() } else { work.pack(0)? };
    if size(&smallest) > target {
        return Err(over(&smallest, Remedy::SmallerWeights));
    }
    let best = largest_that_fits(target, smallest, &first, work)?;
    match int6 {
        None => Ok(best),
        Some(_) => Err(over(&first, Remedy::FewerInt6 { int6: best.report.int6, bytes: size(&best) })),
    }
}

/// The artifact with the most int6 matrices that fits, between one that does and one that does not.
///
/// What a matrix costs in either width is known from the two ends, so that the first guess is close; each artifact
/// then packed corrects the next guess. Sizes are taken to grow with the number of int6 matrices.
fn largest_that_fits(
    target: u64,
    smallest: Compressed,
    too_large: &Compressed,
    work: &mut Work<'_>,
) -> Result<Compressed> {
    let predicted = predicted_sizes(&smallest, too_large, &work.ranking());
    let (mut best, mut above) = (smallest, too_large.report.int6);
    let mut correction = 0.0;
    while above - best.report.int6 > 1 {
        let (low, high) = (best.report.int6 + 1, above - 1);
        let fits = |&n: &usize| predicted[n] + correction <= target as f64;
        let guess = (low..=high).rev().find(fits).unwrap_or(low);
        let packed = work.pack(guess)?;
        correction = size(&packed) as f64 - predicted[guess];
        if size(&packed) <= target {
            best = packed;
        } else {
            above = guess;
        }
    }
    Ok(best)
}

/// Sizes for 0, 1, 2, … int6 matrices, by the shares in the ledgers of the two ends.
fn predicted_sizes(smallest: &Compressed, largest: &Compressed, ranking: &[TensorId]) -> Vec<f64> {
    let shares = |packed: &Compressed| -> BTreeMap<TensorId, f64> {
        packed.report.tensors.iter().map(|t| (t.id, t.coded_bytes as f64)).collect()
    };
    let (small, large) = (shares(smallest), shares(largest));
    let costs = ranking.iter().take(largest.report.int6).map(|id| large[id] - small[id]);
    let mut sizes = vec![size(smallest) as f64];
    for cost in costs {
        sizes.push(sizes[sizes.len() - 1] + cost);
    }
    sizes
}

fn size(packed: &Compressed) -> u64 {
    packed.file.len() as u64
}
