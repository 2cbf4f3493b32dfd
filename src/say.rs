//! Standard output, which may be closed (`| head`) or on a full disk: neither is a reason to panic.

use std::fmt;
use std::io::{ErrorKind, Write};
use std::sync::Mutex;

/// The first failure to write that was not a reader who has had enough.
static FAILED: Mutex<Option<std::io::Error>> = Mutex::new(None);

/// Writes to standard output at once. A reader that has gone is no failure; any other is kept for [`failure`].
pub(crate) fn write(text: fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_fmt(text).and_then(|()| out.flush())
        && error.kind() != ErrorKind::BrokenPipe
        && let Ok(mut failed) = FAILED.lock()
    {
        failed.get_or_insert(error);
    }
}

/// What went wrong with standard output, if anything did.
pub(crate) fn failure() -> Option<std::io::Error> {
    FAILED.lock().ok()?.take()
}

/// [`println!`] that does not panic.
macro_rules! say {
    ($($text:tt)*) => { $crate::say::write(format_args!("{}\n", format_args!($($text)*))) };
}

pub(crate) use say;
