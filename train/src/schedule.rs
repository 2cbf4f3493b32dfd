//! Schedules as tables: points joined by straight lines.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Optimizer steps taken.
    pub step: u64,
    /// Share of the budget used, of the time or of the steps, whichever limit is nearer. From 0 to 1.
    pub fraction: f64,
}

/// A moment of a run: `{ step = N }` or `{ fraction = F }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// Before this optimizer step, counted from 0.
    Step(u64),
    /// When this share of the budget is used.
    Fraction(f64),
}

impl When {
    /// Whether the moment has come.
    pub fn reached(self, now: Progress) -> bool {
        match self {
            Self::Step(step) => now.step >= step,
            Self::Fraction(fraction) => now.fraction >= fraction,
        }
    }
}

/// One row of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "TypedPoint", into = "TypedPoint")]
pub struct Point {
    /// When.
    pub at: When,
    /// The value then.
    pub value: f64,
}

/// A point as it is written: `{ step = 1500, value = 0.99 }`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TypedPoint {
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fraction: Option<f64>,
    value: f64,
}

impl TryFrom<TypedPoint> for Point {
    type Error = &'static str;

    fn try_from(typed: TypedPoint) -> Result<Self, Self::Error> {
        let at = match (typed.step, typed.fraction) {
            (Some(step), None) => When::Step(step),
            (None, Some(fraction)) => When::Fraction(fraction),
            _ => return Err("a point of a schedule needs either `step` or `fraction`"),
        };
        Ok(Self { at, value: typed.value })
    }
}

impl From<Point> for TypedPoint {
    fn from(point: Point) -> Self {
        let (step, fraction) = match point.at {
            When::Step(step) => (Some(step), None),
            When::Fraction(fraction) => (None, Some(fraction)),
        };
        Self { step, fraction, value: point.value }
    }
}

/// A value that changes over a run: linear between points, constant before the first and after the last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schedule {
    /// The table, in order of time; all in steps or all in fractions.
    pub points: Vec<Point>,
}

impl Schedule {
    /// The same value always.
    pub fn constant(value: f64) -> Self {
        Self { points: vec![Point { at: When::Fraction(0.0), value }] }
    }

    /// Points given as `(step, value)`.
    pub fn steps(points: &[(u64, f64)]) -> Self {
        Self { points: points.iter().map(|&(step, value)| Point { at: When::Step(step), value }).collect() }
    }

    /// Points given as `(fraction, value)`.
    pub fn fractions(points: &[(f64, f64)]) -> Self {
        Self { points: points.iter().map(|&(at, value)| Point { at: When::Fraction(at), value }).collect() }
    }

    /// The value now.
    ///
    /// # Panics
    /// If the table is empty.
    pub fn value(&self, now: Progress) -> f64 {
        let time = |point: &Point| match point.at {
            When::Step(step) => (step as f64, now.step as f64),
            When::Fraction(fraction) => (fraction, now.fraction),
        };
        let after = self.points.iter().position(|p| time(p).0 > time(p).1).unwrap_or(self.points.len());
        match (after.checked_sub(1).map(|i| self.points[i]), self.points.get(after)) {
            (Some(a), Some(b)) => {
                let ((start, now), (end, _)) = (time(&a), time(b));
                a.value + (b.value - a.value) * (now - start) / (end - start)
            }
            (Some(a), None) => a.value,
            (None, first) => first.expect("a schedule has points").value,
        }
    }

    /// Refuses a table without points, out of order, of mixed units or with values outside `low..=high`.
    pub(crate) fn validate(&self, key: &str, low: f64, high: f64) -> Result<()> {
        let fail = |expected: &str, found: String| Err(Error::recipe(key, expected, found));
        if self.points.is_empty() {
            return fail("at least one point", "none".into());
        }
        for pair in self.points.windows(2) {
            let ordered = match (pair[0].at, pair[1].at) {
                (When::Step(a), When::Step(b)) => a < b,
                (When::Fraction(a), When::Fraction(b)) => a < b,
                _ => return fail("points all in steps or all in fractions", "both".into()),
            };
            if !ordered {
                return fail("points in order of time", format!("{:?} before {:?}", pair[0].at, pair[1].at));
            }
        }
        for point in &self.points {
            point.at.validate(key)?;
            if !(low..=high).contains(&point.value) {
                return fail(&format!("values from {low} to {high}"), point.value.to_string());
            }
        }
        Ok(())
    }
}

impl When {
    /// Refuses a fraction outside 0 to 1.
    pub(crate) fn validate(self, key: &str) -> Result<()> {
        match self {
            Self::Fraction(f) if !(0.0..=1.0).contains(&f) => {
                Err(Error::recipe(key, "a fraction from 0 to 1", f.to_string()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(step: u64, fraction: f64) -> Progress {
        Progress { step, fraction }
    }

    #[test]
    fn linear_between_points_and_constant_outside() {
        let momentum = Schedule::steps(&[(0, 0.92), (1500, 0.99)]);
        assert_eq!(momentum.value(at(0, 0.9)), 0.92);
        assert!((momentum.value(at(750, 0.0)) - 0.955).abs() < 1e-12);
        assert_eq!(momentum.value(at(4000, 0.0)), 0.99);
        // The record: 1 until 1 − 0.667 of the run, then (1 − f)/0.667.
        let lr = Schedule::fractions(&[(0.0, 1.0), (0.333, 1.0), (1.0, 0.0)]);
        for f in [0.0, 0.2, 0.333, 0.5, 0.9, 1.0] {
            let expected = if f < 1.0 - 0.667 { 1.0 } else { (1.0 - f) / 0.667 };
            assert!((lr.value(at(7, f)) - expected).abs() < 1e-12, "at {f}");
        }
    }

    #[test]
    fn moments() {
        assert!(!When::Step(3).reached(at(2, 1.0)) && When::Step(3).reached(at(3, 0.0)));
        assert!(!When::Fraction(0.5).reached(at(9, 0.4)) && When::Fraction(0.5).reached(at(0, 0.5)));
    }

    #[test]
    fn tables_that_are_refused() {
        let message = |s: Schedule| s.validate("schedule.lr", 0.0, 2.0).unwrap_err().to_string();
        assert!(message(Schedule { points: vec![] }).contains("`schedule.lr`: expected at least one point"));
        assert!(message(Schedule::steps(&[(5, 1.0), (5, 1.0)])).contains("in order of time"));
        assert!(message(Schedule::fractions(&[(0.0, 3.0)])).contains("values from 0 to 2, found 3"));
        assert!(message(Schedule::fractions(&[(1.5, 1.0)])).contains("a fraction from 0 to 1"));
        let mut mixed = Schedule::steps(&[(5, 1.0)]);
        mixed.points.extend(Schedule::fractions(&[(0.5, 1.0)]).points);
        assert!(message(mixed).contains("all in steps or all in fractions"));
    }
}
