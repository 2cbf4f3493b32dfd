//! From what was typed to what it means. Whatever is wrong with a plan is said here, with its line.

use std::path::Path;

use toml::Spanned;

use super::place::Place;
use super::plan::{Arm, BASELINE, Plan, Priority};
use super::typed::{self, ArmSets, Budget, Seeds, Typed};
use super::verdict::Complexity;
use crate::recipe::{self, Recipe};
use crate::{Error, Result};

/// Seconds that a run may take if the plan does not say, beside what it may train.
const TIME_LIMIT: f64 = 3600.0;
/// Tables and keys of a recipe that a plan decides otherwise.
const DECIDED: [(&str, &str); 4] = [
    ("budget", "the plan's `budget`"),
    ("seed", "the plan's `seeds`"),
    ("name", "the arm's `id`"),
    ("run", "the experiment"),
];
/// Lines of a run's log: enough for a curve.
const LOG_LINES: u64 = 60;

impl Plan {
    /// Reads a plan, at one of its scales.
    ///
    /// # Errors
    /// Whatever would make a run fail that can be known before it, naming the file and the line.
    pub fn load(path: &Path, scale: Option<&str>) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::Plan { place: path.display().to_string(), reason: format!("cannot read: {e}") })?;
        Self::parse(&text, path, scale)
    }

    /// Reads a plan from its text; see [`Plan::load`].
    ///
    /// # Errors
    /// As [`Plan::load`].
    pub fn parse(text: &str, path: &Path, scale: Option<&str>) -> Result<Self> {
        let place = Place { text, path };
        let mut typed: Typed = toml::from_str(text).map_err(|e| place.syntax(&e))?;
        let known = typed.scales.keys().cloned().collect::<Vec<_>>().join(", ");
        let chosen = match scale {
            None => None,
            Some(name) => Some(typed.scales.remove(name).ok_or_else(|| {
                let known = if known.is_empty() { "none".into() } else { known.clone() };
                place.whole(format!("--scale: expected one of its scales ({known}), found `{name}`"))
            })?),
        };
        let arm_sets = chosen.map(|scale| scale.over(&mut typed)).unwrap_or_default();
        Resolving { place, own: typed, arm_sets, scale, known }.plan()
    }
}

/// A plan on its way.
struct Resolving<'a> {
    place: Place<'a>,
    /// The plan, with what the scale says in place of its own.
    own: Typed,
    arm_sets: ArmSets,
    scale: Option<&'a str>,
    known: String,
}

impl Resolving<'_> {
    fn plan(&self) -> Result<Plan> {
        let Self { place, own, .. } = self;
        self.check_ids()?;
        let seeds = self.seeds()?;
        let baseline = self.arm(None, &seeds)?;
        let mut arms = own.arms.iter().map(|arm| self.arm(Some(arm), &seeds)).collect::<Result<Vec<_>>>()?;
        let first = |arm: &Arm| own.order.iter().position(|id| *id.get_ref() == arm.id).unwrap_or(usize::MAX);
        arms.sort_by_key(|arm| (first(arm), arm.priority));
        arms.insert(0, baseline);
        let tolerance = match &own.tolerance {
            Some(t) if !(*t.get_ref() >= 0.0 && t.get_ref().is_finite()) => {
                return Err(place.at(t, format!("tolerance: expected at least 0, found {}", t.get_ref())));
            }
            tolerance => tolerance.as_ref().map(|t| *t.get_ref()),
        };
        let data = own.data.path.as_ref();
        Ok(Plan {
            name: own.name.clone(),
            description: own.description.clone(),
            scale: self.scale.map(str::to_owned),
            data: data.map(|p| (self.beside(p.get_ref()), place.line(p))),
            seeds,
            time_limit: self.time_limit(&arms)?,
            tolerance,
            eval: own.eval.as_ref().map(|e| e.get_ref().arguments()).unwrap_or_default(),
            eval_line: own.eval.as_ref().map(|e| place.line(e)),
            compress: own.compress.as_ref().map(|c| (c.get_ref().arguments(), place.line(c))),
            arms,
            path: place.path.into(),
        })
    }

    /// Ids are names of folders, and each of one arm; those that are referred to are there.
    fn check_ids(&self) -> Result<()> {
        let Self { place, own, .. } = self;
        let plain = |id: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !id.is_empty() && !id.starts_with('.') && id.chars().all(allowed)
        };
        let ids: Vec<&Spanned<String>> = own.arms.iter().map(|arm| &arm.id).collect();
        for (i, id) in ids.iter().enumerate() {
            let name = id.get_ref();
            if !plain(name) {
                return Err(place.at(id, format!("id: expected letters, digits, `-`, `_` and `.`, found `{name}`")));
            }
            // Names of folders on systems that do not tell cases apart.
            let same = |other: &&Spanned<String>| other.get_ref().eq_ignore_ascii_case(name);
            if ids[..i].iter().any(same) || name.eq_ignore_ascii_case(BASELINE) {
                return Err(place.at(id, format!("id: `{name}` is another arm's already")));
            }
        }
        for id in own.order.iter().chain(self.arm_sets.iter().map(|(id, _)| id)) {
            if !ids.iter().any(|known| known.get_ref() == id.get_ref()) {
                return Err(place.at(id, format!("expected the id of an arm, found `{}`", id.get_ref())));
            }
        }
        Ok(())
    }

    fn seeds(&self) -> Result<Vec<u64>> {
        let Some(typed) = &self.own.seeds else {
            return Err(self.place.whole("seeds: expected a number, found none"));
        };
        let fail = |reason: &str| Err(self.place.at(typed, reason));
        match typed.get_ref() {
            Seeds::Count(0) => fail("seeds: expected at least 1, found 0"),
            Seeds::Count(n @ 1..=10_000) => Ok((1..=*n).collect()),
            Seeds::Count(_) => fail("seeds: expected at most 10000"),
            Seeds::List(list) if list.is_empty() => fail("seeds: expected at least one, found none"),
            Seeds::List(list) if (1..list.len()).any(|i| list[..i].contains(&list[i])) => {
                fail("seeds: expected each once")
            }
            Seeds::List(list) => Ok(list.clone()),
        }
    }

    /// An arm with its recipe resolved, or the baseline.
    fn arm(&self, arm: Option<&typed::Arm>, seeds: &[u64]) -> Result<Arm> {
        let Self { place, own, .. } = self;
        let scaled = self.arm_sets.iter().find(|(id, _)| arm.is_some_and(|arm| arm.id == *id));
        let changes: Vec<&Spanned<String>> =
            arm.iter().flat_map(|arm| &arm.set).chain(scaled.iter().flat_map(|(_, set)| set)).collect();
        let recipe = self.recipe(&own.set.iter().chain(changes.iter().copied()).collect::<Vec<_>>(), arm)?;
        let seeds = match arm.and_then(|arm| arm.seeds.as_ref()) {
            Some(n) if *n.get_ref() == 0 => return Err(place.at(n, "seeds: expected at least 1, found 0")),
            Some(n) => seeds.len().min(usize::try_from(*n.get_ref()).unwrap_or(usize::MAX)),
            None => seeds.len(),
        };
        // What a later one of the same key replaces is not said.
        let key = |s: &Spanned<String>| s.get_ref().split('=').next().unwrap_or("").trim().to_owned();
        let last = |(i, s): &(usize, &&Spanned<String>)| !changes[i + 1..].iter().any(|later| key(later) == key(s));
        let set = changes.iter().enumerate().filter(last).map(|(_, s)| s.get_ref().clone()).collect();
        Ok(match arm {
            Some(arm) => Arm {
                id: arm.id.get_ref().clone(),
                description: arm.description.clone(),
                priority: arm.priority,
                complexity: arm.complexity,
                seeds,
                set,
                recipe,
            },
            None => Arm {
                id: BASELINE.into(),
                description: "what the others are compared with".into(),
                priority: Priority::High,
                complexity: Complexity::Same,
                seeds,
                set,
                recipe,
            },
        })
    }

    /// The baseline's recipe with these overrides and the budget.
    fn recipe(&self, set: &[&Spanned<String>], arm: Option<&typed::Arm>) -> Result<Recipe> {
        let Self { place, own, .. } = self;
        for typed in set {
            let key = typed.get_ref().split('=').next().unwrap_or("").trim();
            if let Some((_, instead)) = DECIDED.iter().find(|(name, _)| key.split('.').next() == Some(name)) {
                return Err(place.at(typed, format!("set: `{key}` is decided by {instead}, in all arms alike")));
            }
        }
        let baseline = own.baseline.as_ref().ok_or_else(|| place.whole("baseline: expected a recipe, found none"))?;
        let name = baseline.get_ref();
        let built_in = recipe::EMBEDDED.iter().any(|(known, _)| known == name);
        let file = if built_in { name.clone() } else { self.beside(Path::new(name)).to_string_lossy().into_owned() };
        Recipe::load(&file, &[] as &[&str]).map_err(|e| place.at(baseline, e))?;
        let overrides: Vec<&str> = set.iter().map(|s| s.get_ref().as_str()).collect();
        let recipe = Recipe::load(&file, &overrides).map_err(|e| {
            // The last override of the key that is at fault, else where the arm or the recipe is named.
            let key = if let Error::Recipe { key, .. } = &e { key.as_str() } else { "" };
            let path = |s: &&&Spanned<String>| s.get_ref().split('=').next().unwrap_or("").trim().to_owned();
            let about =
                |s: &&&Spanned<String>| !key.is_empty() && (path(s).starts_with(key) || key.starts_with(&path(s)));
            match set.iter().rev().find(about) {
                Some(s) => place.at(s, e),
                None => place.at(arm.map_or(baseline, |arm| &arm.id), e),
            }
        })?;
        self.budgeted(recipe)
    }

    /// The recipe with the plan's budget instead of its own, and a log of some lines.
    fn budgeted(&self, recipe: Recipe) -> Result<Recipe> {
        let Self { place, own, .. } = self;
        let scales = if self.known.is_empty() || self.scale.is_some() {
            String::new()
        } else {
            format!("; it has scales: choose one with --scale ({})", self.known)
        };
        let budget =
            own.budget.as_ref().ok_or_else(|| place.whole(format!("budget: expected one, found none{scales}")))?;
        let fail = |reason: String| place.at(budget, format!("budget: {reason}"));
        let per_step = recipe.batch.tokens_per_step as u64;
        let mut recipe = recipe;
        recipe.budget.reserve_seconds = 0.0;
        (recipe.budget.steps, recipe.budget.seconds) = match *budget.get_ref() {
            Budget { steps: Some(steps), tokens: None, seconds: None } => (Some(steps), None),
            Budget { steps: None, tokens: Some(tokens), seconds: None } if tokens < per_step => {
                return Err(fail(format!("expected at least the {per_step} tokens of a step, found {tokens}")));
            }
            Budget { steps: None, tokens: Some(tokens), seconds: None } => (Some(tokens / per_step), None),
            Budget { steps: None, tokens: None, seconds: Some(seconds) } => (None, Some(seconds)),
            _ => return Err(fail("expected one of `steps`, `tokens` and `seconds`".into())),
        };
        if let Some(steps) = recipe.budget.steps {
            recipe.run.log_steps = (steps / LOG_LINES).max(1);
        }
        // A run is done again as a whole if it is interrupted.
        recipe.run.checkpoint_seconds = 0.0;
        Recipe::parse(&recipe.to_toml(), &[] as &[&str]).map_err(|e| fail(e.to_string()))
    }

    fn time_limit(&self, arms: &[Arm]) -> Result<f64> {
        let seconds = arms.iter().filter_map(|arm| arm.recipe.budget.seconds).fold(0.0, f64::max);
        let Some(limit) = &self.own.time_limit_seconds else { return Ok(TIME_LIMIT + 2.0 * seconds) };
        let found = *limit.get_ref();
        if found > seconds && found <= 1e9 {
            return Ok(found);
        }
        let reason =
            format!("time_limit_seconds: expected more than the budget's {seconds}, at most 1e9, found {found}");
        Err(self.place.at(limit, reason))
    }

    /// A path beside the plan.
    fn beside(&self, path: &Path) -> std::path::PathBuf {
        self.place.path.parent().unwrap_or(Path::new("")).join(path)
    }
}
