//! How far long work is: a line for each piece, with the rate and the time left.

use std::time::Instant;

/// Counts pieces of work.
pub(crate) struct Clock {
    /// What a piece is called.
    piece: &'static str,
    total: usize,
    done: usize,
    /// Pieces done by this process; those known before took no time.
    measured: usize,
    started: Instant,
}

impl Clock {
    pub(crate) fn new(piece: &'static str, total: usize) -> Self {
        Self { piece, total, done: 0, measured: 0, started: Instant::now() }
    }

    /// So many turned out to be the same as others.
    pub(crate) fn fewer(&mut self, pieces: usize) {
        self.total -= pieces;
    }

    /// One that was known already.
    pub(crate) fn skip(&mut self) {
        self.done += 1;
    }

    /// One that is done now.
    pub(crate) fn done(&mut self, what: &str) {
        (self.done, self.measured) = (self.done + 1, self.measured + 1);
        let seconds = self.started.elapsed().as_secs_f64() / self.measured as f64;
        let left = seconds * self.total.saturating_sub(self.done) as f64;
        eprintln!(
            "[{}/{}] {what}; {seconds:.0} s a {}, about {} left",
            self.done,
            self.total,
            self.piece,
            spoken(left)
        );
    }
}

fn spoken(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
