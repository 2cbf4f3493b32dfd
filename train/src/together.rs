//! What the ranks of a run agree on: that it is the same run, when it stops, what time it is, that their weights are the
//! same.

use serde::{Deserialize, Serialize};
use toml::Table;

use crate::collective::exchange;
use crate::loader::Source;
use crate::params::Params;
use crate::recipe::Recipe;
use crate::resume::{SavedShard, difference, shard_difference};
use crate::{Collective, Error, Result};

/// What a rank takes the run for.
#[derive(Serialize, Deserialize)]
struct Identity {
    recipe: Table,
    shards: Vec<SavedShard>,
    /// Whether it goes on from a checkpoint.
    resumes: bool,
    /// Whether a GPU trains.
    gpu: bool,
}

/// What a rank says after a step was begun.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Word {
    /// It was asked to stop: any rank's request stops all.
    pub(crate) stop: bool,
    /// Seconds of the step: rank 0's clock is everyone's.
    pub(crate) seconds: f64,
    /// It is time for a checkpoint: rank 0 says so.
    pub(crate) save: bool,
    /// What is begun is to be waited for: rank 0 says so.
    pub(crate) look: bool,
    /// Bytes of text of its part of the batch: they add up.
    pub(crate) bytes: u64,
    /// Of the steps that are done since the last word, its part of the mean loss, which add up, and the norm of the
    /// gradients, which all have; as bits, so that what is no number arrives as it is.
    pub(crate) found: Vec<[u64; 2]>,
}

/// What all ranks make of their words.
pub(crate) fn agree(all: &dyn Collective, mine: Word) -> Result<Word> {
    let words = exchange(all, &mine)?;
    let Word { seconds, save, look, ref found, .. } = words[0];
    let loss = |step: usize| words.iter().filter_map(|w| w.found.get(step)).map(|f| f64::from_bits(f[0])).sum::<f64>();
    Ok(Word {
        stop: words.iter().any(|w| w.stop),
        seconds,
        save,
        look,
        bytes: words.iter().map(|w| w.bytes).sum(),
        found: found.iter().enumerate().map(|(step, [_, norm])| [loss(step).to_bits(), *norm]).collect(),
    })
}

/// Refuses a number of ranks that cannot share a step's sequences evenly.
///
/// # Errors
/// If it does not divide them.
pub fn check_world(recipe: &Recipe, world: usize) -> Result<()> {
    let sequences = recipe.sequences_per_step();
    if sequences.is_multiple_of(world) {
        return Ok(());
    }
    let expected = format!("as many sequences a step as {world} ranks can share evenly");
    Err(Error::recipe("batch.tokens_per_step", expected, format!("{sequences} sequences")))
}

/// Refuses ranks that would train something else than rank 0; says the same on all ranks.
pub(crate) fn same_run(
    all: &dyn Collective,
    recipe: &Recipe,
    sources: &[Source<'_>],
    resumes: bool,
    gpu: bool,
) -> Result<()> {
    if all.rank().world == 1 {
        return Ok(());
    }
    let recipe = Table::try_from(recipe).expect("plain tables of numbers serialise");
    let mine = Identity { recipe, shards: sources.iter().map(SavedShard::of).collect(), resumes, gpu };
    let identities = exchange(all, &mine)?;
    let first = &identities[0];
    for (rank, other) in identities.iter().enumerate() {
        let recipe = difference("", &first.recipe, &other.recipe);
        let found = recipe
            .map(|(key, expected, found)| (format!("recipe key `{key}`"), expected, found))
            .or_else(|| shard_difference(&first.shards, &other.shards))
            .or_else(|| {
                let how = |identity: &Identity| if identity.resumes { "a resumed run" } else { "a new run" }.to_owned();
                (first.resumes != other.resumes).then(|| ("what it begins".into(), how(first), how(other)))
            })
            .or_else(|| {
                let on = |identity: &Identity| if identity.gpu { "a GPU" } else { "processors" }.to_owned();
                (first.gpu != other.gpu).then(|| ("what it trains on".into(), on(first), on(other)))
            });
        if let Some((what, expected, found)) = found {
            return Err(Error::RanksDiffer { rank, what, expected, found });
        }
    }
    Ok(())
}

/// Refuses ranks whose weights are not rank 0's to the bit; names the first tensor that differs.
pub(crate) fn same_weights(all: &dyn Collective, weights: &Params, step: u64) -> Result<()> {
    if all.rank().world == 1 {
        return Ok(());
    }
    let hashes = exchange(all, &weights.values().map(|values| hash(values)).collect::<Vec<_>>())?;
    for (rank, theirs) in hashes.iter().enumerate() {
        let mut pairs = weights.keys().zip(hashes[0].iter().zip(theirs));
        if let Some((id, (expected, found))) = pairs.find(|(_, (a, b))| a != b) {
            let what = format!("tensor `{id}` after step {step}");
            let show = |hash: &u64| format!("weights of hash {hash:016x}");
            return Err(Error::RanksDiffer { rank, what, expected: show(expected), found: show(found) });
        }
    }
    Ok(())
}

/// Tells weights apart, bit by bit and place by place: it need not withstand anybody.
fn hash(values: &[f32]) -> u64 {
    let mix = |hash: u64, x: &f32| (hash ^ u64::from(x.to_bits())).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    values.iter().fold(0, mix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_mind_every_bit_and_place() {
        let values = [1.0f32, 0.0, -2.5, 3.25];
        let mut seen = vec![hash(&values), hash(&[0.0, 1.0, -2.5, 3.25]), hash(&values[..3])];
        for i in 0..values.len() {
            for bit in [0, 22, 31] {
                let mut other = values;
                other[i] = f32::from_bits(other[i].to_bits() ^ (1 << bit));
                seen.push(hash(&other));
            }
        }
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }
}
