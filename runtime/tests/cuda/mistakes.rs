//! The host's checks find what they are for: kernels with a mistake each.

use super::buffer::{Buffer, Kind};
use super::library::{Arg, Kernels};

/// The kernels of `mistakes.cu`.
pub(crate) const NAMES: &[&str] = &[
    "no_barrier",
    "no_second_barrier",
    "half_a_barrier",
    "two_barriers",
    "lost_lane",
    "past_the_end",
    "past_the_shared_end",
    "never_written",
    "too_much",
    "blocks_in_order",
];

/// Two warps.
const THREADS: u32 = 64;

fn run(kernels: &Kernels, kernel: &str, blocks: usize, seed: u64) -> Result<Vec<f32>, String> {
    let out = Arg::Out(Buffer::empty(Kind::F32, blocks * THREADS as usize));
    Ok(kernels.launch(kernel, [blocks, 1, 1], THREADS, seed, &[out])?[0].values())
}

/// What each order gives.
fn orders(kernels: &Kernels, kernel: &str, blocks: usize) -> Vec<Vec<f32>> {
    (0..4).map(|seed| run(kernels, kernel, blocks, seed).unwrap()).collect()
}

/// Orders differ, or there are values that are no numbers.
fn is_caught(found: &[Vec<f32>]) -> bool {
    found.iter().any(|f| f != &found[0] || f.iter().any(|x| x.is_nan()))
}

pub(crate) fn races(kernels: &Kernels) {
    assert!(is_caught(&orders(kernels, "no_barrier", 1)));
    assert!(is_caught(&orders(kernels, "no_second_barrier", 1)));
    assert!(is_caught(&orders(kernels, "never_written", 1)));
    let blocks = orders(kernels, "blocks_in_order", 5);
    assert!(!is_caught(&blocks[..1]) && is_caught(&blocks));
}

pub(crate) fn barriers(kernels: &Kernels) {
    for seed in 0..4 {
        for kernel in ["half_a_barrier", "two_barriers", "lost_lane"] {
            let error = run(kernels, kernel, 1, seed).unwrap_err();
            assert!(error.contains("a barrier that not all reach: thread "), "{kernel}: {error}");
        }
        // One that failed leaves nothing behind.
        assert!(run(kernels, "too_much", 1, seed).unwrap_err().contains("52000 bytes of 49152 that there are"));
        assert!(run(kernels, "blocks_in_order", 1, seed).is_ok());
    }
}

pub(crate) fn bounds(kernels: &Kernels) {
    for seed in 0..4 {
        let error = run(kernels, "past_the_end", 1, seed).unwrap_err();
        assert_eq!(error, "past_the_end wrote outside of its argument 0");
        let error = run(kernels, "past_the_shared_end", 1, seed).unwrap_err();
        assert_eq!(error, "a write outside of shared memory");
    }
}

pub(crate) fn arguments(kernels: &Kernels) {
    let wrong = |kernel: &str, args: &[Arg<'_>]| kernels.launch(kernel, [1, 1, 1], THREADS, 0, args).unwrap_err();
    assert_eq!(wrong("nothing", &[]), "there is no kernel nothing");
    let expected = "no_barrier takes (float *), found [Int(3)]";
    assert_eq!(wrong("no_barrier", &[Arg::Int(3)]), expected);
    let read = Buffer::empty(Kind::F32, 64);
    assert_eq!(wrong("no_barrier", &[Arg::In(&read)]), "no_barrier takes (float *), found [In(64 float)]");
    let error = kernels.launch("no_barrier", [1, 1, 1], 33, 0, &[Arg::Out(read)]).unwrap_err();
    assert_eq!(error, "a block of 33 threads, which is no number of warps");
}
