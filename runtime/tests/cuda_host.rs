//! Every kernel on the host, compiled by the C++ compiler and run as blocks of threads in several orders, against its
//! plain twin. Where there is no compiler its tests are ignored, and say so; with `SIXPACK_REQUIRE_CXX=1` they fail.

#[path = "suite/conformance.rs"]
mod conformance;
#[path = "../../tests/golden/golden.rs"]
mod golden;
#[allow(dead_code, reason = "there are no codes here")]
#[path = "suite/twins.rs"]
mod twins;

#[allow(dead_code, reason = "what is not stamped here is of models that are trained, and of other machines")]
#[path = "suite/session.rs"]
mod session;

mod cuda {
    pub(crate) mod communicator;
    pub(crate) mod documents;
    pub(crate) mod gradients;
    pub(crate) mod heads;
    #[allow(dead_code, reason = "tests of the program start others in it")]
    pub(crate) mod host;
    pub(crate) mod libraries;
    pub(crate) mod library;
    pub(crate) mod mistakes;
    pub(crate) mod packs;
    pub(crate) mod suite;
}

use std::process::ExitCode;
use std::sync::Arc;

use cuda::host::Failure;
use cuda::library::Kernels;
use cuda::{mistakes, suite};
use libtest_mimic::{Arguments, Completion, Trial};
use sixpack_runtime::cuda::{SOURCES, signature};

/// A test and its name.
type Test = (&'static str, fn(&Kernels));

/// Tests of what only the processor's driver has.
const TESTS: &[Test] = &[
    ("every_kernel_takes_what_is_read_from_its_source", every_kernel),
    ("libraries::are_found_where_they_are", |_| cuda::libraries::are_found_where_they_are()),
    ("communicator::waits", |_| cuda::communicator::waits()),
    ("mistakes::barriers", mistakes::barriers),
    ("mistakes::bounds", mistakes::bounds),
    ("mistakes::races", mistakes::races),
    ("mistakes::copies", mistakes::copies),
    ("mistakes::streams", mistakes::streams),
    ("fragments", mistakes::fragments),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let entered = match arguments.list {
        true => Err(Failure::NoCompiler("not needed to list".into())),
        // Each kernel runs in two orders.
        false => cuda::host::enter(2),
    };
    let kernels = Arc::new(entered.map(|folder| Kernels::load(&folder)));
    let trial = |name: &'static str, test: Box<dyn Fn(&Kernels) + Send>| {
        let kernels = Arc::clone(&kernels);
        Trial::ignorable_test(name, move || match &*kernels {
            Ok(kernels) => {
                test(kernels);
                Ok(Completion::Completed)
            }
            Err(failure) => failure.conclude(),
        })
    };
    let mut trials: Vec<Trial> = TESTS.iter().map(|&(name, test)| trial(name, Box::new(test))).collect();
    trials.extend(suite::CHECKS.iter().map(|&(name, check)| trial(name, Box::new(move |_| check()))));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn every_kernel(kernels: &Kernels) {
    for kernel in SOURCES.iter().flat_map(|source| source.kernels) {
        let read = signature::of(kernel).unwrap_or_else(|| panic!("{kernel}"));
        let read: Vec<String> = read.takes.iter().map(ToString::to_string).collect();
        assert_eq!(Some(read.join(", ")), kernels.signature(kernel), "{kernel}");
    }
}
