//! The two parts of a plan: what only the plan says, and what one of its scales may say otherwise.

use toml::Spanned;

use super::typed::{self, Budget, Seeds, Typed};

/// The settings that the plan and a scale both may have.
#[derive(Default)]
pub(super) struct Settings {
    pub(super) baseline: Option<Spanned<String>>,
    pub(super) set: Vec<Spanned<String>>,
    pub(super) seeds: Option<Spanned<Seeds>>,
    pub(super) budget: Option<Spanned<Budget>>,
    pub(super) time_limit: Option<Spanned<f64>>,
    pub(super) tolerance: Option<Spanned<f64>>,
    pub(super) eval: Option<Spanned<typed::Windows>>,
    pub(super) compress: Option<Spanned<typed::Compress>>,
}

/// What only the plan has.
pub(super) struct Part {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) data: typed::Data,
    pub(super) order: Vec<Spanned<String>>,
    pub(super) arms: Vec<typed::Arm>,
    /// Overrides of arms by the scale.
    pub(super) arm_sets: Vec<(Spanned<String>, Vec<Spanned<String>>)>,
}

impl Part {
    /// The plan's own part, and the settings of the scale over those of the plan.
    pub(super) fn split(t: Typed, scale: Option<typed::Scale>) -> (Self, Settings) {
        let mut settings = Settings {
            baseline: t.baseline,
            set: t.set,
            seeds: t.seeds,
            budget: t.budget,
            time_limit: t.time_limit_seconds,
            tolerance: t.tolerance,
            eval: t.eval,
            compress: t.compress,
        };
        let (mut description, mut arm_sets) = (t.description, Vec::new());
        if let Some(s) = scale {
            if !s.description.is_empty() {
                description = [description, s.description].join(" ").trim().to_owned();
            }
            arm_sets = s.arm.into_iter().collect();
            settings.set.extend(s.set);
            settings = Settings {
                baseline: s.baseline.or(settings.baseline),
                set: settings.set,
                seeds: s.seeds.or(settings.seeds),
                budget: s.budget.or(settings.budget),
                time_limit: s.time_limit_seconds.or(settings.time_limit),
                tolerance: s.tolerance.or(settings.tolerance),
                eval: s.eval.or(settings.eval),
                compress: s.compress.or(settings.compress),
            };
        }
        (Self { name: t.name, description, data: t.data, order: t.order, arms: t.arms, arm_sets }, settings)
    }
}
