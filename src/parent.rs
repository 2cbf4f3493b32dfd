//! A process that another one of this program started ends with it, however that one ends: standard input is a pipe
//! from it that nothing is ever written to, and that the system closes.

use std::io::Read;
use std::process::Command;

/// Set in the environment of a process that is to end with its standard input.
const VARIABLE: &str = "SIXPACK_END_WITH_STDIN";

/// Makes the process that a command will start end with this one.
pub(crate) fn bind(command: &mut Command) {
    command.env(VARIABLE, "1").stdin(std::process::Stdio::piped());
}

/// In a process that was started so: watches for the end of the other one.
pub(crate) fn watch() {
    if std::env::var_os(VARIABLE).is_none() {
        return;
    }
    std::thread::spawn(|| {
        let mut byte = [0];
        while std::io::stdin().read(&mut byte).is_ok_and(|n| n > 0) {}
        std::process::exit(crate::stop::EXIT.into());
    });
}
