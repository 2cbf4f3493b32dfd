//! What a training is for: its model packed and scored, in one table.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;
use sixpack_compress::Scheme;
use sixpack_compress::scheme::Rd;
use sixpack_formats::Score;
use sixpack_formats::dataset::Dataset;
use sixpack_train::Recipe;
use sixpack_train::recipe::Pack;

use crate::args::{self, CalibrateOn, CodecName, On, Windows};
use crate::data;
use crate::loaded;
use crate::misuse::misuse;
use crate::say::say;
use crate::table::{render, thousands};
use crate::verbs::compress::{self, Job, LOOKUP_TOKENS};
use crate::verbs::eval::{self, as_score};

/// What became of a seed. Scores are of the average weights; bits per byte are missing without a tokenizer.
#[derive(Debug, Serialize)]
struct Seed {
    event: &'static str,
    seed: u64,
    steps: u64,
    ms_per_step: f64,
    /// Before packing, in consecutive windows.
    float: Score,
    /// The artifact in consecutive windows,
    packed: Score,
    /// and in sliding ones, which is the score that the artifact says of itself.
    sliding: Score,
}

/// What the run is to end with.
pub(super) struct Packing {
    out: PathBuf,
    settings: Pack,
}

impl Packing {
    /// What the command line and the recipe say. Refuses before a training what would fail after it.
    pub(super) fn wanted(args: &args::Train, recipe: &Recipe) -> Result<Option<Self>> {
        let out = match &args.pack {
            Some(out) => {
                compress::partial("--pack", out)?;
                out.clone()
            }
            None if recipe.pack.is_some() && !args.no_pack => args.out.join("model.6pk"),
            None => return Ok(None),
        };
        // Contents are checked when they are read.
        let dataset = Dataset::open(&args.data)?;
        if dataset.val_shards().is_empty() {
            let reason = "has no validation shards to score what is packed on; --no-pack only trains";
            return Err(misuse(format!("{} {reason}", args.data.display())));
        }
        Ok(Some(Self { out, settings: recipe.pack.unwrap_or_default() }))
    }

    /// Packs the checkpoint that a training has left, scores it, and says so in one table.
    pub(super) fn run(&self, args: &args::Train, seed: u64, on: On) -> Result<()> {
        let float = loaded::open(&args.out)?;
        let calibration = data::for_calibration(&args.data, &float, LOOKUP_TOKENS)?;
        let text = data::validation_beside(&args.data, &float)?.context("the validation shards are gone")?;
        let sliding = Windows { seq_len: None, stride: None, plain: false, max_tokens: None };
        let plain = Windows { plain: true, ..sliding.clone() };
        let job = Job {
            checkpoint: &args.out,
            out: &self.out,
            int6_layers: None,
            target_bytes: self.settings.target_bytes,
            scheme: Scheme::Rd(Rd::default()),
            sensitivity: true,
            codec: CodecName::Context.into(),
            calibration_tokens: self.settings.calibration_tokens,
            calibrate_on: CalibrateOn::Data,
            seed,
            windows: sliding,
            on,
        };
        let outcome = job.run(&float, &calibration, &text)?;
        let of = |model| -> Result<Score> {
            let loaded = loaded::open(model)?;
            Ok(as_score(loaded.model.bytes, &eval::score(&loaded, &text, &plain, on)?.evaluation))
        };
        let (steps, ms_per_step) = ended(&args.out.join(super::LOG))?;
        let (float, packed) = (of(&args.out)?, of(&self.out)?);
        let seed = Seed { event: "packed", seed, steps, ms_per_step, float, packed, sliding: outcome.packed };
        if args.json {
            say!("{}", serde_json::to_string(&seed)?);
        } else {
            crate::say::write(format_args!("{}", seed.table()));
        }
        Ok(())
    }
}

impl Seed {
    fn table(&self) -> String {
        let bpb = |score: &Score| score.bits_per_byte.map_or("–".into(), |b| format!("{b:.5}"));
        let row = vec![
            self.seed.to_string(),
            thousands(self.steps),
            format!("{:.1}", self.ms_per_step),
            bpb(&self.float),
            bpb(&self.packed),
            bpb(&self.sliding),
            thousands(self.sliding.bytes),
        ];
        render(&["seed", "steps", "ms/step", "average, bpb", "packed, bpb", "packed, sliding bpb", "bytes"], &[row])
    }
}

/// Steps that a log ends with, and milliseconds of one.
fn ended(log: &Path) -> Result<(u64, f64)> {
    let text = std::fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
    let mut events = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let end = events.find(|event| event["event"] == "end");
    let end = end.with_context(|| format!("{}: expected an end, found none", log.display()))?;
    let (step, elapsed) = (end["step"].as_u64().unwrap_or(0), end["elapsed"].as_f64().unwrap_or(0.0));
    Ok((step, 1e3 * elapsed / step.max(1) as f64))
}
