//! How long work shows itself: a bar with rate and time left on a terminal, plain lines otherwise.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Between two plain lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Progress of one piece of work on standard error.
pub(crate) struct Progress {
    what: &'static str,
    total: u64,
    bar: Option<ProgressBar>,
    started: Instant,
    last_line: Instant,
}

impl Progress {
    /// Starts showing `what`; `unit` is what is counted ("tokens").
    pub(crate) fn new(what: &'static str, unit: &'static str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let template = format!(
                "{what:<12} {{bar:32}} {{percent:>3}}%  {{human_pos}}/{{human_len}} {unit}  {{per_sec}}  {{eta}} left"
            );
            let style = ProgressStyle::with_template(&template).expect("the template is a constant");
            ProgressBar::new(total).with_style(style)
        });
        let now = Instant::now();
        Self { what, total, bar, started: now, last_line: now }
    }

    /// `done` of the total is done.
    pub(crate) fn set(&mut self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            let share = done as f64 / self.total.max(1) as f64;
            let seconds = self.started.elapsed().as_secs_f64();
            let left = seconds / share.max(1e-9) - seconds;
            eprintln!("{}: {:.0}%, {seconds:.0} s, about {left:.0} s left", self.what, share * 100.0);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
