//! One suite for every backend on the CPU: the golden vectors of the reference implementation. A backend is stamped
//! into it with the macro; a GPU is in `wgpu.rs`.

#[path = "../../tests/golden/golden.rs"]
mod golden;
#[path = "suite/conformance.rs"]
mod suite;

use sixpack_runtime::cpu::{Fast, Reference};

macro_rules! conformance {
    ($name:ident, $new:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn goldens() {
                for case in golden::CASES {
                    let mut ops = $new;
                    let model = golden::model(case);
                    let weights = ops.load(&model);
                    suite::goldens(case, &model.config, &weights, &mut ops);
                    suite::narrowed(case, &model.config, &weights, &mut ops);
                }
            }

            #[test]
            fn refuses_foreign_tokens() {
                let mut ops = $new;
                let model = golden::model("tiny");
                let weights = ops.load(&model);
                suite::refuses_foreign_tokens(&model.config, &weights, &mut ops);
            }
        }
    };
}

conformance!(reference, Reference::new());
conformance!(fast_on_one_thread, Fast::new(1).unwrap());
conformance!(fast_on_two_threads, Fast::new(2).unwrap());
