//! The official Python client against the server.
//!
//! It needs Python with the package `openai`: `python3`, or what `SIXPACK_PYTHON` names. Without, the test is shown as
//! ignored with the reason, unless `SIXPACK_REQUIRE_OPENAI` is `1`, as in CI: then it fails.

mod server;
mod work;

use std::process::Command;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use server::Server;

fn main() {
    let client = Trial::ignorable_test("the_official_client_is_content", || {
        let python = std::env::var("SIXPACK_PYTHON").unwrap_or_else(|_| "python3".into());
        let required = std::env::var("SIXPACK_REQUIRE_OPENAI").is_ok_and(|value| value == "1");
        match missing(&python) {
            Some(reason) if required => Err(reason.into()),
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => the_official_client_is_content(&python).map(|()| Completion::Completed),
        }
    });
    libtest_mimic::run(&Arguments::from_args(), vec![client]).exit();
}

/// Why the client cannot run, if it cannot.
fn missing(python: &str) -> Option<String> {
    match Command::new(python).args(["-c", "import openai"]).output() {
        Ok(output) if output.status.success() => None,
        Ok(_) => Some(format!("{python} has no package `openai`")),
        Err(error) => Some(format!("no {python}: {error}")),
    }
}

fn the_official_client_is_content(python: &str) -> Result<(), Failed> {
    let server = Server::start("--threads 1");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openai_client.py");
    let output = Command::new(python).args([script, &server.url("/v1")]).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    server.wait_for("sixpack_requests_running", 0.0);
    assert_eq!(server.metric("sixpack_completions_total{end=\"failed\"}"), 0.0);
    Ok(())
}
