//! Ctrl-C and a request to terminate: work that can be gone on with ends in order, everything else at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};

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
            std::process::exit(130);
        }
        eprintln!("{notice}");
    })
    .context("cannot listen for Ctrl-C")?;
    *known = Some(Arc::clone(&stop));
    Ok(stop)
}
