//! Keep or discard: the rule, in one place.

use serde::{Deserialize, Serialize};

use super::statistics::Effect;

/// The rule in words, for the report.
pub const RULE: &str = "A change is kept if it is better than the baseline beyond chance: its mean is lower, and its \
    p-value, adjusted (Holm) for the number of arms of its kind, trained or one kind of artifact, is below 5%. A change \
    that makes things simpler is also kept if it costs no more than the tolerance: the upper end of its interval is not \
    above it. A change that makes things more complex has to gain more than the tolerance. Everything else is discarded, \
    and so is an arm of which a run crashed where the baseline's of the same seed did not.";

/// What an arm does to the code and the settings, beside its effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Complexity {
    /// There is less of it.
    Simpler,
    /// A value is another.
    #[default]
    Same,
    /// There is more of it.
    More,
}

/// What becomes of an arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// What the others are compared with.
    Baseline,
    /// Better beyond chance.
    KeepBetter,
    /// Equal and simpler.
    KeepSimpler,
    /// Worse beyond chance, but by no more than the tolerance, and simpler.
    KeepSimplerWorse,
    /// Worse beyond chance.
    DiscardWorse,
    /// Better, but by less than the complexity costs.
    DiscardSmall,
    /// The runs do not tell it from the baseline.
    DiscardUndecided,
    /// Some runs came to no end.
    DiscardCrashes,
    /// No run came to an end.
    Crash,
}

impl Verdict {
    /// The verdict on an effect whose p-value adjusted for several arms is `p`.
    pub fn of(effect: Option<&Effect>, p: Option<f64>, complexity: Complexity, tolerance: f64) -> Self {
        let told = effect.and_then(|e| Some((e, e.spread?, p?)));
        let Some((effect, spread, p)) = told else { return Self::DiscardUndecided };
        let sure = p < 0.05;
        match complexity {
            Complexity::More if sure && effect.mean < 0.0 && effect.mean >= -tolerance => Self::DiscardSmall,
            _ if sure && effect.mean < 0.0 => Self::KeepBetter,
            Complexity::Simpler if spread.interval[1] <= tolerance && spread.interval[0] > 0.0 => {
                Self::KeepSimplerWorse
            }
            Complexity::Simpler if spread.interval[1] <= tolerance => Self::KeepSimpler,
            _ if sure => Self::DiscardWorse,
            _ => Self::DiscardUndecided,
        }
    }

    /// `keep`, `discard` or `crash`.
    pub fn status(self) -> &'static str {
        match self {
            Self::Baseline | Self::KeepBetter | Self::KeepSimpler | Self::KeepSimplerWorse => "keep",
            Self::DiscardWorse | Self::DiscardSmall | Self::DiscardUndecided | Self::DiscardCrashes => "discard",
            Self::Crash => "crash",
        }
    }

    /// Why.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Baseline => "the baseline",
            Self::KeepBetter => "better",
            Self::KeepSimpler => "equal and simpler",
            Self::KeepSimplerWorse => "worse by less than the tolerance, and simpler",
            Self::DiscardWorse => "worse",
            Self::DiscardSmall => "gains less than it complicates",
            Self::DiscardUndecided => "not told from the baseline",
            Self::DiscardCrashes => "some runs crashed",
            Self::Crash => "no run came to an end",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_case_by_case() {
        let better = [-0.011, -0.010, -0.009, -0.010];
        let equal = [-0.001, 0.001, 0.0005, -0.0005];
        let worse = [0.011, 0.010, 0.009, 0.010];
        let noise = [-0.05, 0.04, 0.02, -0.03];
        use Complexity::{More, Same, Simpler};
        for (differences, complexity, tolerance, expected) in [
            (better, Same, 0.002, Verdict::KeepBetter),
            (better, Simpler, 0.002, Verdict::KeepBetter),
            (better, More, 0.002, Verdict::KeepBetter),
            (better, More, 0.02, Verdict::DiscardSmall),
            (equal, Same, 0.002, Verdict::DiscardUndecided),
            (equal, Simpler, 0.002, Verdict::KeepSimpler),
            (noise, Simpler, 0.002, Verdict::DiscardUndecided),
            (worse, Same, 0.002, Verdict::DiscardWorse),
            (worse, Simpler, 0.002, Verdict::DiscardWorse),
            (worse, Simpler, 0.02, Verdict::KeepSimplerWorse),
        ] {
            let effect = Effect::of(&differences).unwrap();
            let found = Verdict::of(Some(&effect), effect.spread.map(|s| s.p), complexity, tolerance);
            assert_eq!(found, expected, "{differences:?}, {complexity:?}, {tolerance}");
        }
        let one = Effect::of(&[-0.5]).unwrap();
        assert_eq!(Verdict::of(Some(&one), None, Simpler, 1.0), Verdict::DiscardUndecided, "one pair tells nothing");
        assert_eq!(Verdict::of(None, None, Same, 1.0), Verdict::DiscardUndecided, "nor does none");
        // Better by itself, but not among many.
        let effect = Effect::of(&better).unwrap();
        assert_eq!(Verdict::of(Some(&effect), Some(0.06), Same, 0.002), Verdict::DiscardUndecided);
    }
}
