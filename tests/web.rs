//! The page in a headless Chromium. Where that, or the target of the runtime's module, is missing the tests are ignored
//! and say so; with `SIXPACK_REQUIRE_WEB=1` they fail.

#[path = "browser/mod.rs"]
mod browser;
#[path = "../examples/web/build/bundle.rs"]
mod bundle;
#[path = "web/cases.rs"]
mod cases;
#[path = "../examples/web/build/server.rs"]
mod files;
#[path = "web/served.rs"]
mod served;
mod server;
#[path = "work/mod.rs"]
mod work;

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::browser::Browser;
use crate::cases::CASES;

/// What all tests share: the page, served, and a browser that has a GPU in software.
struct Stage {
    program: PathBuf,
    browser: Mutex<Browser>,
    url: String,
    /// Bytes of the page, models not counted.
    size: u64,
    work: work::Work,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One browser, and its GPU is the processor.
    arguments.test_threads = Some(1);
    let stage = Arc::new(OnceLock::new());
    let trials = CASES.iter().chain(served::CASES).map(|&(name, test)| {
        let stage = Arc::clone(&stage);
        Trial::ignorable_test(name, move || run(stage.get_or_init(set), test))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // The browser leaves with the stage, before the program does.
    drop(stage);
    conclusion.exit_code()
}

fn run(stage: &Result<Stage, String>, test: fn(&Stage)) -> Result<Completion, Failed> {
    match stage {
        Ok(stage) => {
            test(stage);
            Ok(Completion::Completed)
        }
        Err(reason) if std::env::var_os("SIXPACK_REQUIRE_WEB").is_some_and(|v| v == "1") => {
            Err(format!("SIXPACK_REQUIRE_WEB is 1, and {reason}").into())
        }
        Err(reason) => Ok(Completion::ignored_with(reason)),
    }
}

/// The stage, or why there is none.
fn set() -> Result<Stage, String> {
    let program = browser::program().ok_or("there is no Chromium on the path")?;
    if let Some(reason) = bundle::missing() {
        return Err(format!("there is {reason}"));
    }
    let work = work::Work::trained();
    work.run("compress checkpoint --data shards --out model.6pk --calibration-tokens 512 --no-sensitivity").ok();
    let page = work.at("page");
    let size = bundle::build(&page).expect("the page");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || files::serve(listener, &page).expect("a server"));
    let browser = Mutex::new(Browser::start(&program, &["--enable-unsafe-webgpu"]));
    Ok(Stage { program, browser, url, size, work })
}
