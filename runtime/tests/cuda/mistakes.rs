//! The host's checks find what they are for: kernels with a mistake each.

use super::library::Kernels;

/// Two warps.
const THREADS: u32 = 64;

/// What each order gives.
fn orders(kernels: &Kernels, kernel: &str, blocks: u32) -> Vec<Vec<f32>> {
    (0..4).map(|seed| kernels.run(kernel, blocks, THREADS, seed).unwrap()).collect()
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
        let run = |kernel: &str, threads: u32| kernels.run(kernel, 1, threads, seed);
        for kernel in ["half_a_barrier", "two_barriers", "lost_lane"] {
            let error = run(kernel, THREADS).unwrap_err();
            assert!(error.contains("a barrier that not all reach: thread "), "{kernel}: {error}");
        }
        // One that failed leaves nothing behind.
        assert!(run("too_much", THREADS).unwrap_err().contains("52000 bytes of 49152 that there are"));
        assert!(run("blocks_in_order", THREADS).is_ok());
        assert_eq!(run("no_barrier", 33).unwrap_err(), "a block of 33 threads, which is no number of warps");
    }
}

pub(crate) fn bounds(kernels: &Kernels) {
    for seed in 0..4 {
        let error = kernels.run("past_the_end", 1, THREADS, seed).unwrap_err();
        assert_eq!(error, "past_the_end wrote outside of its memory");
        let error = kernels.run("past_the_shared_end", 1, THREADS, seed).unwrap_err();
        assert_eq!(error, "a write outside of shared memory");
    }
}
