//! Where a value is on a picture, and which values are worth a line.

/// What an axis counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Bytes, in thousands or millions.
    Bytes,
    /// A plain number.
    Number,
}

/// Values of one direction of a picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    log: bool,
    unit: Unit,
    /// Coordinates of the two ends.
    ends: (f64, f64),
}

/// A range this many times as high as low is shown in logarithms.
const WIDE: f64 = 10.0;

/// Share of the range that is left free at either end.
const MARGIN: f64 = 0.05;

impl Axis {
    /// An axis for these values between two coordinates; with `may_be_log` logarithmic if they span much.
    pub(super) fn new(values: impl Iterator<Item = f64>, unit: Unit, may_be_log: bool, ends: (f64, f64)) -> Self {
        let wide = |(low, high): (f64, f64), x: f64| (low.min(x), high.max(x));
        let (mut low, mut high) = values.filter(|x| x.is_finite()).fold((f64::INFINITY, f64::NEG_INFINITY), wide);
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let log = may_be_log && low > 0.0 && high / low >= WIDE;
        if log {
            let margin = (high / low).powf(MARGIN);
            return Self { low: low / margin, high: high * margin, log, unit, ends };
        }
        let span = if high > low { high - low } else { (high.abs() * 0.1).max(1e-6) };
        Self { low: low - MARGIN * span, high: high + MARGIN * span, log, unit, ends }
    }

    /// An axis from 0 to the largest value.
    pub(super) fn from_zero(high: f64, unit: Unit, ends: (f64, f64)) -> Self {
        Self { low: 0.0, high: if high > 0.0 { high } else { 1.0 }, log: false, unit, ends }
    }

    /// The coordinate of a value.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = if self.log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.ends.0 + share * (self.ends.1 - self.ends.0)
    }

    /// Values for lines and labels, with the labels; about `want` of them.
    pub(super) fn ticks(&self, want: usize) -> Vec<(f64, String)> {
        let (values, step) = if self.log { self.decades() } else { self.steps(want) };
        let scale = self.scale().0;
        let decimals = (-(step / scale).log10().floor()).clamp(0.0, 6.0) as usize;
        // A step of 0.25 needs one more than one of 0.2.
        let exact = |d: usize| {
            let shifted = step / scale * 10f64.powi(d as i32);
            (shifted - shifted.round()).abs() < 1e-6
        };
        let decimals = if exact(decimals) { decimals } else { decimals + 1 };
        values.into_iter().map(|x| (x, format!("{:.decimals$}", x / scale))).collect()
    }

    /// The label of the axis with its unit.
    pub(super) fn label(&self, what: &str) -> String {
        match self.scale().1 {
            "" => what.to_owned(),
            unit => format!("{what} ({unit}{})", if self.log { ", logarithmic" } else { "" }),
        }
    }

    fn scale(&self) -> (f64, &'static str) {
        match self.unit {
            Unit::Number => (1.0, ""),
            Unit::Bytes if self.high >= 1e6 => (1e6, "MB"),
            Unit::Bytes if self.high >= 1e3 => (1e3, "kB"),
            Unit::Bytes => (1.0, "bytes"),
        }
    }

    /// Multiples of a round step.
    fn steps(&self, want: usize) -> (Vec<f64>, f64) {
        let rough = (self.high - self.low) / want.max(1) as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|f| f * power).into_iter().find(|&s| s >= rough * 0.999);
        let step = step.unwrap_or(power * 10.0);
        let (first, last) = ((self.low / step - 1e-9).ceil() as i64, (self.high / step + 1e-9).floor() as i64);
        ((first..=last).map(|i| i as f64 * step).collect(), step)
    }

    /// 1, 2 and 5 times powers of ten.
    fn decades(&self) -> (Vec<f64>, f64) {
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let all = decades.flat_map(|d| [1.0, 2.0, 5.0].map(|f| f * 10f64.powi(d)));
        let values: Vec<f64> = all.filter(|x| (self.low..=self.high).contains(x)).collect();
        let step = values.first().copied().unwrap_or(1.0);
        (values, step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64, unit: Unit) -> Vec<String> {
        Axis { low, high, log: false, unit, ends: (0.0, 1.0) }.ticks(5).into_iter().map(|t| t.1).collect()
    }

    #[test]
    fn ticks_are_round_and_tell_their_decimals() {
        assert_eq!(labels(0.0, 10.0, Unit::Number), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(labels(2.003, 2.019, Unit::Number), ["2.005", "2.010", "2.015"]);
        assert_eq!(labels(0.0, 1.25, Unit::Number), ["0.00", "0.25", "0.50", "0.75", "1.00", "1.25"]);
        assert_eq!(labels(7e5, 1.3e6, Unit::Bytes), ["0.8", "1.0", "1.2"]);
        assert_eq!(labels(1e5, 5e5, Unit::Bytes), ["100", "200", "300", "400", "500"]);
    }

    #[test]
    fn values_are_between_the_ends() {
        let axis = Axis::new([2.0, 4.0].into_iter(), Unit::Number, true, (100.0, 0.0));
        assert!(axis.at(2.0) < 100.0 && axis.at(2.0) > 90.0 && axis.at(4.0) < 10.0);
        assert!((axis.at(3.0) - 50.0).abs() < 1e-9);
        let wide = Axis::new([1e3, 1e6].into_iter(), Unit::Bytes, true, (0.0, 1.0));
        assert!((wide.at(31622.7766) - 0.5).abs() < 1e-6, "the middle of a wide range is its geometric mean");
        let values: Vec<f64> = wide.ticks(5).into_iter().map(|t| t.0).collect();
        assert_eq!(values, [1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6]);
    }

    #[test]
    fn no_values_or_one_still_have_an_axis() {
        for values in [vec![], vec![2.5], vec![0.0], vec![f64::NAN, 7.0]] {
            let axis = Axis::new(values.into_iter(), Unit::Number, true, (0.0, 10.0));
            assert!(axis.at(7.0).is_finite() && !axis.ticks(5).is_empty());
        }
    }
}
