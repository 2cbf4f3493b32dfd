//! How far a sweep is: a line for each point, with the rate and the time left.

use std::time::Instant;

/// Counts the points of a sweep.
pub(super) struct Clock {
    total: usize,
    done: usize,
    /// Points measured by this run; those known before took no time.
    measured: usize,
    started: Instant,
}

impl Clock {
    pub(super) fn new(total: usize) -> Self {
        Self { total, done: 0, measured: 0, started: Instant::now() }
    }

    /// So many turned out to be the same as others.
    pub(super) fn fewer(&mut self, points: usize) {
        self.total -= points;
    }

    /// One that was known already.
    pub(super) fn skip(&mut self) {
        self.done += 1;
    }

    /// One that was measured.
    pub(super) fn done(&mut self, what: &str) {
        (self.done, self.measured) = (self.done + 1, self.measured + 1);
        let seconds = self.started.elapsed().as_secs_f64() / self.measured as f64;
        let left = seconds * self.total.saturating_sub(self.done) as f64;
        eprintln!("[{}/{}] {what}; {seconds:.0} s a point, about {} left", self.done, self.total, spoken(left));
    }
}

fn spoken(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
