//! One checkpoint on the bench: compressed in many ways, with what they share measured once.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use sixpack_compress::sweep::{Key, Measure, Point, Refused};
use sixpack_compress::{Compressed, Error, Hessians, Options};
use sixpack_formats::mapped::Mapped;
use sixpack_formats::{Digest, Model, QuantClass, Score, checkpoint, state_dict};
use sixpack_runtime::count;
use sixpack_runtime::metric::Evaluation;

use super::plan::{Combination, has_widths};
use crate::args::{self, CalibrateOn};
use crate::data::{self, Tokens};
use crate::loaded::{self, Loaded};
use crate::misuse::misuse;
use crate::verbs::compress::{Job, LOOKUP_TOKENS, calibration_text};
use crate::verbs::eval::{self, as_score};

/// The artifact being measured, within the sweep's folder.
const ARTIFACT: &str = ".point.6pk";

/// A checkpoint, the data, and what was measured of them.
pub(super) struct Bench<'a> {
    args: &'a args::Sweep,
    folder: &'a Path,
    name: String,
    weight_decay: Option<f64>,
    digest: Digest,
    float: Loaded,
    calibration: Tokens,
    scored_on: Tokens,
    hessians: OnceCell<Hessians>,
    float_score: OnceCell<Score>,
    /// By the hash of a model's values: codecs change no value.
    scores: BTreeMap<Digest, Evaluation>,
}

/// What came of a combination.
pub(super) enum Measured {
    Point(Box<Point>),
    Refused(Box<Refused>),
}

impl<'a> Bench<'a> {
    pub(super) fn open(folder: &'a Path, args: &'a args::Sweep) -> Result<Self> {
        if !folder.is_dir() {
            return Err(misuse(format!("--checkpoints: expected a checkpoint folder, found {}", folder.display())));
        }
        let float = loaded::open(folder)?;
        eval::options(&args.windows, float.model.config.eval_seq_len)?;
        let calibration = data::for_calibration(&args.data, &float, LOOKUP_TOKENS)?;
        let scored_on = match &args.eval_data {
            Some(path) => data::for_scoring(path, &float)?,
            None => data::validation_beside(&args.data, &float)?.ok_or_else(|| {
                let data = args.data.display();
                misuse(format!("{data} has no validation shards to score on: name some with --eval-data"))
            })?,
        };
        calibration.refuse_if_scored(&scored_on)?;
        let name = folder.file_name().map_or_else(|| folder.display().to_string(), |n| n.to_string_lossy().into());
        let digest = checkpoint::hash(folder)?;
        let weight_decay = weight_decay(folder)?;
        let (hessians, float_score) = (OnceCell::new(), OnceCell::new());
        let scores = BTreeMap::new();
        Ok(Self {
            args,
            folder,
            name,
            weight_decay,
            digest,
            float,
            calibration,
            scored_on,
            hessians,
            float_score,
            scores,
        })
    }

    /// Parameters, and matrices that may be int5 or int6.
    pub(super) fn parameters(&self) -> (u64, usize) {
        let config = &self.float.model.config;
        let matrix = |class| matches!(class, QuantClass::Attention | QuantClass::Mlp);
        (count::parameters(config), config.tensors().iter().filter(|t| matrix(t.class)).count())
    }

    /// What decides the point of a combination.
    pub(super) fn key(&self, combination: &Combination) -> Key {
        let windows = &self.args.windows;
        let options = eval::options(windows, self.float.model.config.eval_seq_len).expect("checked when it was opened");
        let measure = Measure {
            tool: TOOL.into(),
            text: self.scored_on.digest,
            seq_len: options.seq_len as u64,
            stride: options.stride.map(|s| s as u64),
            max_tokens: options.max_tokens.map(|n| n as u64),
            calibration: self.calibration.digest,
            calibration_tokens: self.args.calibration_tokens,
        };
        Key { checkpoint: self.digest, settings: combination.settings(), measure }
    }

    /// Compresses, writes, reads back and scores; a size that cannot be had is no failure of the sweep.
    pub(super) fn measure(&mut self, combination: &Combination, key: Key) -> Result<Measured> {
        let compressed = match self.compress(combination)? {
            Ok(compressed) => compressed,
            Err(reason) => {
                let (name, weight_decay) = (self.name.clone(), self.weight_decay);
                return Ok(Measured::Refused(Box::new(Refused { key, name, weight_decay, reason })));
            }
        };
        let file = self.args.out.join(ARTIFACT);
        sixpack_compress::pack(&file, &compressed)?;
        let packed = loaded::open(&file)?;
        std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        let evaluation = self.score(&packed)?;
        let float = self.float_score()?;
        Ok(Measured::Point(Box::new(Point {
            key,
            name: self.name.clone(),
            weight_decay: self.weight_decay,
            parameters: self.parameters().0,
            int6: has_widths(combination.scheme).then_some(compressed.report.int6 as u64),
            float,
            packed: as_score(packed.model.bytes, &evaluation),
            stderr: evaluation.stderr,
        })))
    }

    /// The artifact, or why there is none.
    fn compress(&self, combination: &Combination) -> Result<Result<Compressed, String>> {
        let job = self.job(combination);
        let provenance = job.provenance(&self.calibration, &self.scored_on)?;
        let sensitivity = job.sensitivity(&self.float, &self.calibration)?;
        let options = Options {
            scheme: combination.scheme,
            sensitivity: sensitivity.as_ref(),
            int6_layers: combination.int6_layers,
            target_bytes: combination.target_bytes,
            codec: combination.codec,
            provenance: &provenance,
            threads: self.threads(),
        };
        match sixpack_compress::compress_with(&self.float.model, Some(self.hessians()?), &options, &|_| {}) {
            Ok(compressed) => Ok(Ok(compressed)),
            Err(error @ (Error::OverBudget { .. } | Error::TooSmall { .. })) => Ok(Err(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// As `compress` does it, so that sizes are the same to the byte.
    fn job(&self, combination: &Combination) -> Job<'_> {
        Job {
            checkpoint: self.folder,
            out: Path::new(""),
            int6_layers: combination.int6_layers,
            target_bytes: combination.target_bytes,
            scheme: combination.scheme,
            sensitivity: true,
            codec: combination.codec,
            calibration_tokens: self.args.calibration_tokens as usize,
            calibrate_on: CalibrateOn::Data,
            seed: 0,
            windows: self.args.windows.clone(),
            on: self.args.place.on(),
        }
    }

    fn hessians(&self) -> Result<&Hessians> {
        if self.hessians.get().is_none() {
            eprintln!("{}: calibrating", self.name);
            let text = calibration_text(&self.float, &self.calibration.tokens, self.args.calibration_tokens as usize);
            let measured = Hessians::measure(&self.float.model, &text, self.threads(), &|_, _| {})?;
            let _ = self.hessians.set(measured);
        }
        Ok(self.hessians.get().expect("it was set"))
    }

    fn float_score(&mut self) -> Result<Score> {
        if let Some(score) = self.float_score.get() {
            return Ok(*score);
        }
        let evaluation =
            eval::score(&self.float, &self.scored_on, &self.args.windows, self.args.place.on())?.evaluation;
        Ok(*self.float_score.get_or_init(|| as_score(self.float.model.bytes, &evaluation)))
    }

    fn score(&mut self, packed: &Loaded) -> Result<Evaluation> {
        let values = digest_of_values(&packed.model);
        if let Some(known) = self.scores.get(&values) {
            return Ok(known.clone());
        }
        let evaluation = eval::score(packed, &self.scored_on, &self.args.windows, self.args.place.on())?.evaluation;
        self.scores.insert(values, evaluation.clone());
        Ok(evaluation)
    }

    fn threads(&self) -> usize {
        self.args.place.machine.threads()
    }
}

/// Name and version of the program.
const TOOL: &str = concat!("sixpack ", env!("CARGO_PKG_VERSION"));

/// The weight decay of the matrices in the recipe that a checkpoint was trained by, if it says one.
fn weight_decay(folder: &Path) -> Result<Option<f64>> {
    let metadata = state_dict::metadata(&Mapped::open(checkpoint::weights_file(folder)?)?)?;
    let recipe = metadata.get("recipe").filter(|r| !r.is_empty());
    let recipe = recipe.and_then(|text| sixpack_train::Recipe::parse(text, &[] as &[&str]).ok());
    Ok(recipe.map(|r| r.optimizer.matrix.weight_decay()))
}

/// The hash of what a model computes with.
fn digest_of_values(model: &Model) -> Digest {
    let digests = model.tensors.values().flat_map(|data| {
        let bytes: Vec<u8> = data.to_f32().iter().flat_map(|x| x.to_le_bytes()).collect();
        *Digest::of(&bytes).as_bytes()
    });
    Digest::of(&digests.collect::<Vec<u8>>())
}
