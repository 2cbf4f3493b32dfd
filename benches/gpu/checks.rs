//! The checks of the tests, on a real GPU.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};

use serde_json::{Value, json};

use crate::{Bench, cuda, engine};

/// Every check of the interpreter and of the training engine.
pub(crate) fn run(_: &Bench) -> Result<Value, String> {
    let checks = cuda::suite::CHECKS.iter().chain(engine::CHECKS);
    // A check that fails panics with what it found; that is told below.
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let mut failures = Vec::new();
    let (mut passed, mut names) = (0, Vec::new());
    for (name, check) in checks {
        names.push(*name);
        match catch_unwind(AssertUnwindSafe(check)) {
            Ok(()) => {
                passed += 1;
                println!("  {name}: ok");
            }
            Err(panic) => {
                let said = panic.downcast_ref::<String>().cloned();
                let said = said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
                println!("  {name}: FAILED: {said}");
                failures.push(format!("{name}: {said}"));
            }
        }
    }
    set_hook(hook);
    match failures.is_empty() {
        true => Ok(json!({ "passed": passed, "checks": names })),
        false => Err(failures.join("; ")),
    }
}
