//! Two ways to fail: what was asked makes no sense (exit code 2), or it could not be done (exit code 1).
//! An experiment that is stopped is a third.

use std::fmt;

use crate::stop::{self, Stopped};

/// An error of the one who typed, not of the machine or a file.
#[derive(Debug)]
pub(crate) struct Misuse(String);

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misuse {}

/// An error with exit code 2.
pub(crate) fn misuse(message: impl fmt::Display) -> anyhow::Error {
    Misuse(message.to_string()).into()
}

/// 2 for misuse, 1 for failure; what a signal stopped has its own.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<Stopped>() {
        return stop::EXIT;
    }
    if error.downcast_ref::<Misuse>().is_some() { 2 } else { 1 }
}

/// The error and its causes in one line; a cause that the message before it already gives is not repeated.
pub(crate) fn message(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| match cause.to_string() {
        cause if text.is_empty() => cause,
        cause if text.contains(&cause) => text,
        cause => format!("{text}: {cause}"),
    })
}
