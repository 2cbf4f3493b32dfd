//! `recipe show`: a recipe and what it means.

use anyhow::Result;
use sixpack_train::Recipe;

use crate::args;
use crate::misuse::misuse;

pub(crate) fn run(args: &args::Recipe) -> Result<()> {
    let args::Recipe::Show { recipe, set } = args;
    let recipe = load(recipe, set)?;
    crate::say::write(format_args!("{}", recipe.explain()));
    Ok(())
}

/// A recipe by name or path with overrides; what is wrong with it is misuse.
pub(crate) fn load(recipe: &str, set: &[String]) -> Result<Recipe> {
    Recipe::load(recipe, set).map_err(misuse)
}
