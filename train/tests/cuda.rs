//! The CUDA engine against the CPU's, on a driver that computes on the processor: gradients, steps of every optimizer,
//! and a run whose losses follow. Where there is no C++ compiler the tests are ignored, and say so; with
//! `SIXPACK_REQUIRE_CXX=1` they fail.

#[path = "../../tests/golden/golden.rs"]
mod golden;
#[allow(dead_code, reason = "tests of the program start others in it")]
#[path = "../../runtime/tests/cuda/host.rs"]
mod host;

mod cuda {
    pub(crate) mod checks;
}

use std::process::ExitCode;
use std::sync::Arc;

use host::Failure;
use libtest_mimic::{Arguments, Completion, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let entered = match arguments.list {
        true => Err(Failure::NoCompiler("not needed to list".into())),
        // Kernels run in two orders in the runtime's tests.
        false => host::enter(1),
    };
    let entered = Arc::new(entered);
    let trials = cuda::checks::CHECKS.iter().chain(cuda::checks::ON_THE_HOST).map(|&(name, test)| {
        let entered = Arc::clone(&entered);
        Trial::ignorable_test(name, move || match &*entered {
            Ok(_) => {
                test();
                Ok(Completion::Completed)
            }
            Err(failure) => failure.conclude(),
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
