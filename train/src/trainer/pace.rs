//! How long a step takes, where several are begun before the first is done.

use std::collections::VecDeque;

/// Steps, or few of them that ended together, that are remembered.
const REMEMBERED: usize = 5;

/// The usual time of a step: the median of the last ones, so that a single slow one says nothing of those to come.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Since a step was last done.
    uncounted: f64,
    /// Seconds of a step each.
    recent: VecDeque<f64>,
}

impl Pace {
    /// Takes that seconds have gone by, in which so many steps were done.
    pub(super) fn tell(&mut self, seconds: f64, done: usize) {
        self.uncounted += seconds;
        if done > 0 {
            self.recent.push_back(self.uncounted / done as f64);
            self.uncounted = 0.0;
            if self.recent.len() > REMEMBERED {
                self.recent.pop_front();
            }
        }
    }

    /// Seconds that so many steps will take; none as long as nothing is known.
    pub(super) fn of(&self, steps: usize) -> f64 {
        let mut sorted: Vec<f64> = self.recent.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        steps as f64 * sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_are_only_begun_do_not_make_it_faster() {
        let mut pace = Pace::default();
        assert_eq!(pace.of(2), 0.0);
        // Two are begun at once, then one is done for each that is begun; at a line all are waited for.
        for (seconds, done) in [(0.0, 0), (0.0, 0), (1.0, 1), (1.0, 1), (2.0, 2), (0.0, 0), (0.0, 0)] {
            pace.tell(seconds, done);
        }
        assert_eq!(pace.of(2), 2.0);
        pace.tell(1.0, 1);
        assert_eq!(pace.of(1), 1.0);
    }

    #[test]
    fn one_slow_step_is_not_the_pace() {
        let mut pace = Pace::default();
        for seconds in [1.0, 1.0, 30.0, 1.0, 1.0] {
            pace.tell(seconds, 1);
        }
        assert_eq!(pace.of(3), 3.0);
        // Slower steps, as those with recurrence, are soon.
        for _ in 0..3 {
            pace.tell(2.0, 1);
        }
        assert_eq!(pace.of(1), 2.0);
    }
}
