//! Results that backward computes again instead of keeping them from forward.

use std::fmt;
use std::str::FromStr;

/// Operations whose results can be computed again: each costs about one pass over its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// `mix`.
    Mix,
    /// `rms_norm`.
    RmsNorm,
    /// `head_norm_rope`.
    HeadNormRope,
    /// `exclude_self`.
    ExcludeSelf,
    /// `leaky_relu_squared`.
    LeakyReluSquared,
    /// `gated_skip`.
    GatedSkip,
}

impl Again {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Mix, Self::RmsNorm, Self::HeadNormRope, Self::ExcludeSelf, Self::LeakyReluSquared, Self::GatedSkip];

    /// The operation's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mix => "mix",
            Self::RmsNorm => "rms_norm",
            Self::HeadNormRope => "head_norm_rope",
            Self::ExcludeSelf => "exclude_self",
            Self::LeakyReluSquared => "leaky_relu_squared",
            Self::GatedSkip => "gated_skip",
        }
    }
}

/// A set of operations whose results are computed again.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Recompute(u8);

impl Recompute {
    /// All results are kept.
    pub const NONE: Self = Self(0);
    /// None is that can be computed again.
    pub const ALL: Self = Self((1 << Again::ALL.len()) - 1);

    /// These operations.
    pub fn of(ops: &[Again]) -> Self {
        Self(ops.iter().fold(0, |set, &op| set | 1 << op as u8))
    }

    /// Whether the results of `op` are computed again.
    pub fn has(self, op: Again) -> bool {
        self.0 & 1 << op as u8 != 0
    }
}

impl fmt::Debug for Recompute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Recompute {
    /// As [`Recompute::from_str`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NONE => f.write_str("none"),
            Self::ALL => f.write_str("all"),
            some => {
                let names: Vec<_> = Again::ALL.into_iter().filter(|&op| some.has(op)).map(Again::name).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

impl FromStr for Recompute {
    type Err = String;

    /// `none`, `all`, or names of operations between commas.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => return Ok(Self::NONE),
            "all" => return Ok(Self::ALL),
            _ => {}
        }
        let named = |name: &str| {
            let known = || Again::ALL.map(Again::name).join(", ");
            let op = Again::ALL.into_iter().find(|op| op.name() == name);
            op.ok_or_else(|| format!("expected none, all, or some of {}; found {name:?}", known()))
        };
        Ok(Self::of(&text.split(',').map(named).collect::<Result<Vec<_>, _>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_as_they_are_written() {
        let some = Recompute::of(&[Again::RmsNorm, Again::LeakyReluSquared]);
        assert!(some.has(Again::RmsNorm) && !some.has(Again::Mix));
        for (set, text) in [(some, "rms_norm,leaky_relu_squared"), (Recompute::ALL, "all"), (Recompute::NONE, "none")] {
            assert_eq!(set.to_string(), text);
            assert_eq!(text.parse(), Ok(set));
        }
        assert_eq!(Recompute::of(&Again::ALL), Recompute::ALL);
        let error = "mix,norm".parse::<Recompute>().unwrap_err();
        assert!(error.starts_with("expected none, all, or some of mix, rms_norm") && error.ends_with("found \"norm\""));
    }
}
