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

pub(crate) fn copies(kernels: &Kernels) {
    assert!(is_caught(&orders(kernels, "late_wait", 1)));
    assert!(is_caught(&orders(kernels, "own_wait", 1)));
    let error = kernels.run("no_wait", 1, THREADS, 0).unwrap_err();
    assert_eq!(error, "a copy that nobody waits for");
    let error = kernels.run("half_a_chunk", 1, THREADS, 0).unwrap_err();
    assert!(error.contains("a copy from or to what is no multiple of 16 bytes"), "{error}");
}

/// A warp's product is the plain one, however its factors come to the lanes; one with a wrong layout is not.
pub(crate) fn fragments(kernels: &Kernels) {
    let of_a = |i: i32, j: i32| ((i * 7 + j * 3 + i * j) % 17 - 8) as f32;
    let of_b = |i: i32, j: i32| ((i * 5 + j * 11 + i * j) % 13 - 6) as f32;
    // Number `part` of a lane, as the layout of results says.
    let plain = |thread: i32| {
        let (lane, part) = (thread % 32, thread / 32);
        let (row, column) = (lane / 4 + part / 2 * 8, lane % 4 * 2 + part % 2);
        (0..16).map(|k| of_a(row, k) * of_b(k, column)).sum::<f32>()
    };
    let expected: Vec<f32> = (0..128).map(plain).collect();
    for seed in 0..2 {
        let run = |kernel: &str| kernels.run(kernel, 1, 128, seed).unwrap();
        for kernel in ["fragments_by_hand", "fragments_of_rows", "fragments_of_columns"] {
            assert_eq!(run(kernel), expected, "{kernel}");
        }
        assert_ne!(run("fragments_swapped"), expected);
    }
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
        for kernel in ["read_between", "write_between"] {
            let error = kernels.run(kernel, 1, THREADS, seed).unwrap_err();
            assert!(error.contains("16 bytes at once at what is no multiple of them"), "{kernel}: {error}");
        }
    }
}

/// What a GPU refuses, and what it does not but should never see.
pub(crate) fn streams(kernels: &Kernels) {
    let early = "pinned memory was written before the copy from it was waited for";
    let writes = "memory that another stream writes, and neither waits";
    let mistakes = [
        ("written_early", early),
        ("written_after_another_wait", early),
        ("freed_early", "freed pinned memory that a copy under way uses"),
        ("copy_not_waited_for", writes),
        ("marked_too_early", writes),
        ("branches_that_write_both", writes),
        ("written_before_it_was_read", "memory that another stream reads, and neither waits"),
        ("unjoined", "904 "),
        ("waits_for_what_is_not_captured", "905 "),
        ("waits_in_capture", "900 "),
        ("asks_in_capture", "900 "),
        ("pins_in_capture", "900 "),
        ("a_function_that_calls", "800 "),
    ];
    // Twice, as the order of streams changes from time to time.
    for ((name, expected), device) in mistakes.into_iter().flat_map(|m| [m, m]).zip(1..) {
        let found = kernels.misuse(name, device);
        assert!(found.contains(expected), "{name}: {found}");
    }
    assert!(kernels.misuse("read_early", 30).starts_with("-1 "));
    assert_eq!(kernels.misuse("none", 31), "");
}
