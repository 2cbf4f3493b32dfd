//! `recipe show`: a recipe and what it means.

use anyhow::Result;
use sixpack_runtime::cuda::Recompute;
use sixpack_train::Recipe;

use crate::args;
use crate::misuse::misuse;

pub(crate) fn run(args: &args::Recipe) -> Result<()> {
    let args::Recipe::Show { recipe, set } = args;
    let recipe = load(recipe, set)?;
    crate::say::write(format_args!("{}", recipe.explain()));
    if let Some(on_gpu) = on_gpu(&recipe)? {
        crate::say::write(format_args!("{on_gpu}"));
    }
    Ok(())
}

/// The memory that a step takes on a GPU, as the engine finds it on one that is not there.
fn on_gpu(recipe: &Recipe) -> Result<Option<String>> {
    /// Tokens at once for which no GPU has room.
    const TOO_MANY: usize = 1 << 22;
    let sequences = recipe.batch.on_gpu().min(recipe.sequences_per_step());
    if sequences.saturating_mul(recipe.model.train_seq_len) >= TOO_MANY {
        return Ok(None);
    }
    let [kept, again] = [recipe.run.recompute, Recompute::ALL]
        .map(|recompute| sixpack_train::cuda::memory::recipe(recipe, 1, recompute));
    let [kept, again] = [kept?, again?].map(|bytes| format!("{:.2} GB", bytes as f64 / 1e9));
    Ok(Some(format!("on a GPU    {kept} for {sequences} sequences at once, {again} with --recompute\n")))
}

/// A recipe by name or path with overrides; what is wrong with it is misuse.
pub(crate) fn load(recipe: &str, set: &[String]) -> Result<Recipe> {
    Recipe::load(recipe, set).map_err(misuse)
}
