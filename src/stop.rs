//! Ctrl-C and a request to terminate: work that can be gone on with ends in order, everything else at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};

/// The exit code of a program that a signal ended before its work was done.
pub(crate) const EXIT: u8 = 130;

/// The end of work that a signal stopped, as an error: whoever started it must not take it for done.
#[derive(Debug)]
pub(crate) struct Stopped;

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("stopped; to go on: the same command again")
    }
}

impl std::error::Error for Stopped {}

/// Whether work is under way that a signal should end in order; else a signal ends the program.
static BUSY: AtomicBool = AtomicBool::new(false);

/// Work that ends in order, from here to the end of the scope.
pub(crate) struct Busy(());

impl Busy {
    pub(crate) fn begin() -> Self {
        BUSY.store(true, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.store(false, Ordering::Relaxed);
    }
}

/// A flag that a signal sets. It is one flag for all work of the program, as signals have one handler; `notice` is what
/// is said to who sent the first one.
pub(crate) fn on_signal(notice: &'static str) -> Result<Arc<AtomicBool>> {
    static STOP: Mutex<Option<Arc<AtomicBool>>> = Mutex::new(None);
    let mut known = STOP.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(stop) = &*known {
        return Ok(Arc::clone(stop));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        // A second one does not wait.
        if !BUSY.load(Ordering::Relaxed) || flag.swap(true, Ordering::Relaxed) {
            std::process::exit(EXIT.into());
        }
        eprintln!("{notice}");
    })
    .context("cannot listen for Ctrl-C")?;
    *known = Some(Arc::clone(&stop));
    Ok(stop)
}
