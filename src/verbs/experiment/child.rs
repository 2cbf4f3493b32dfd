//! A verb of this program in a process of its own: with a limit of time, its lines in files, and its memory watched.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::parent;

/// Between two looks at a process: its memory is a high-water mark, of which the last look misses only what was added
/// since.
const LOOK: Duration = Duration::from_millis(20);

/// A signal may reach a process before it reaches this one, where somebody stops all processes at once.
const SIGNAL_IS_LATE: Duration = Duration::from_millis(500);

/// A process to be started.
pub(super) struct Child<'a> {
    /// What the program is asked for.
    pub(super) arguments: Vec<OsString>,
    /// The GPU it may see.
    pub(super) gpu: Option<&'a str>,
    /// Gets standard output and standard error, in files named after the verb.
    pub(super) folder: &'a Path,
    /// When it is ended.
    pub(super) deadline: Instant,
    /// Set from outside, it ends the process.
    pub(super) stop: &'a AtomicBool,
}

/// How a process ended.
pub(super) enum Ended {
    /// Well: its standard output, and the most memory it had at once.
    Well { stdout: PathBuf, peak_memory: Option<u64> },
    /// Not well: why.
    Badly(String),
    /// It was stopped from outside.
    Stopped,
}

impl Child<'_> {
    /// Starts the process and waits for its end.
    pub(super) fn run(&self) -> Result<Ended> {
        let verb = self.arguments.first().map_or_else(String::new, |verb| verb.to_string_lossy().into_owned());
        let path = |end: &str| self.folder.join(format!("{verb}.{end}"));
        let create = |path: &Path| File::create(path).with_context(|| format!("cannot write {}", path.display()));
        let (stdout, stderr) = (path("out"), path("log"));
        let mut command = Command::new(std::env::current_exe().context("cannot find this program's file")?);
        command.args(&self.arguments).stdout(create(&stdout)?).stderr(Stdio::from(create(&stderr)?));
        command.envs(self.gpu.map(|gpu| ("CUDA_VISIBLE_DEVICES", gpu)));
        parent::bind(&mut command);
        // Ctrl-C at a terminal is for the experiment, which then ends its processes.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().with_context(|| format!("cannot start `sixpack {verb}`"))?;
        let mut peak_memory = None;
        let status = loop {
            peak_memory = memory(child.id()).or(peak_memory);
            if let Some(status) = child.try_wait().context("cannot wait for a process")? {
                break status;
            }
            let late = Instant::now() >= self.deadline;
            if late || self.stop.load(Ordering::Relaxed) {
                // It may have ended by itself meanwhile.
                let _ = child.kill();
                child.wait().context("cannot wait for a process")?;
                return Ok(if late { Ended::Badly(format!("{verb}: over the time limit")) } else { Ended::Stopped });
            }
            std::thread::sleep(LOOK);
        };
        // What it did until then may be a part.
        if self.stop.load(Ordering::Relaxed) || asked(status) && self.stopped() {
            return Ok(Ended::Stopped);
        }
        if status.success() {
            return Ok(Ended::Well { stdout, peak_memory });
        }
        Ok(Ended::Badly(format!("{verb}: {}", reason(status, &stderr))))
    }

    /// Whether everything is to stop, or is told to within a moment.
    pub(super) fn stopped(&self) -> bool {
        let until = Instant::now() + SIGNAL_IS_LATE;
        while !self.stop.load(Ordering::Relaxed) && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
        self.stop.load(Ordering::Relaxed)
    }
}

/// Whether it looks as if somebody asked a process to end: by a signal, or as this program ends by one.
fn asked(status: ExitStatus) -> bool {
    #[cfg(unix)]
    if std::os::unix::process::ExitStatusExt::signal(&status).is_some() {
        return true;
    }
    status.code() == Some(crate::stop::EXIT.into())
}

/// What a process said last, or how it was ended.
fn reason(status: ExitStatus, stderr: &Path) -> String {
    let said = std::fs::read(stderr).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    match said.lines().rev().find_map(|line| line.strip_prefix("sixpack: ")) {
        Some(message) => message.to_owned(),
        None => status.to_string(),
    }
}

/// The most resident memory a process has had, in bytes, where the system tells.
fn memory(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024 * kilobytes)
}
