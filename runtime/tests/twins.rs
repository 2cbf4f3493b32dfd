//! Each operation of a backend on the CPU against its plain twin. A GPU is in `wgpu.rs`.

#[path = "suite/twins.rs"]
mod suite;

use sixpack_runtime::cpu::{Dense, Fast, Mat, Weight};
use suite::Backend;

fn on_host(ops: Fast, weight: fn(&Dense) -> Weight) -> Backend<Fast> {
    Backend {
        ops,
        weight: Box::new(weight),
        matrix: Box::new(weight),
        act: Box::new(Mat::clone),
        kept: Mat::clone,
        tolerance: suite::f32_tolerance,
    }
}

macro_rules! twins {
    ($name:ident, $backend:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn residual() {
                suite::residual($backend);
            }

            #[test]
            fn attention() {
                suite::attention($backend);
            }

            #[test]
            fn products() {
                suite::products($backend);
            }

            #[test]
            fn steps() {
                suite::steps($backend);
            }

            #[test]
            fn remembered() {
                suite::remembered($backend);
            }
        }
    };
}

twins!(fast_on_one_thread, on_host(Fast::new(1).unwrap(), suite::dense));
twins!(fast_on_two_threads, on_host(Fast::new(2).unwrap(), suite::dense));
twins!(fast_on_three_threads_with_codes, on_host(Fast::new(3).unwrap(), suite::codes));
