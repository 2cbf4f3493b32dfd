//! The checkpoints of a sweep: those given, or one trained for each weight decay.

use std::path::PathBuf;

use anyhow::Result;
use sixpack_formats::checkpoint;

use crate::args;
use crate::data;
use crate::verbs::recipe;
use crate::verbs::train::Run;

/// Folder of the trained checkpoints within the sweep's.
const CHECKPOINTS: &str = "checkpoints";

/// The checkpoint folders, trained where that was asked for; `None` if a training was stopped by a signal.
///
/// A training that was interrupted goes on from its last checkpoint, and one that is finished has nothing left to do.
pub(super) fn checkpoints(args: &args::Sweep) -> Result<Option<Vec<PathBuf>>> {
    if args.weight_decays.is_empty() {
        return Ok(Some(args.checkpoints.clone()));
    }
    // A recipe that is wrong for the last one is wrong now.
    let recipes: Vec<_> = args.weight_decays.iter().map(|&decay| load(args, decay)).collect::<Result<_>>()?;
    let mut folders = Vec::new();
    for (decay, recipe) in args.weight_decays.iter().zip(recipes) {
        let out = args.out.join(CHECKPOINTS).join(format!("wd_{decay}"));
        let run = Run {
            recipe,
            data: &args.data,
            tokenizer: data::tokenizer_for(&args.data, None)?,
            out: &out,
            resume: out.join(checkpoint::RESUME).exists(),
            measure_size_every: Some(0),
            validate_every: 0,
            threads: args.place.machine.threads(),
            json: false,
            lines_to_stderr: args.json,
            gpu: None,
            all: &sixpack_train::Alone,
        };
        eprintln!("training with weight decay {decay} in {}", out.display());
        if run.train()? {
            return Ok(None);
        }
        folders.push(out);
    }
    Ok(Some(folders))
}

fn load(args: &args::Sweep, decay: f64) -> Result<sixpack_train::Recipe> {
    let mut set = args.set.clone();
    set.push(format!("optimizer.matrix.weight_decay={decay:?}"));
    recipe::load(&args.recipe, &set)
}
