//! `compress`: quantise and pack a checkpoint, then score what was packed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result};
use serde::Serialize;
use sixpack_compress::report::TensorReport;
use sixpack_compress::scheme::{Rd, SdClip};
use sixpack_compress::{Calibration, Hessians, Options, Progress as Stage, Report, Scheme};
use sixpack_formats::artifact::{self, Provenance};
use sixpack_formats::mapped::Mapped;
use sixpack_formats::{Codec, Score, Sensitivity, checkpoint, state_dict};
use sixpack_runtime::Device;
use sixpack_runtime::cuda::{Gpu, Settings};

use crate::args::{self, CalibrateOn, CodecName, On, SchemeName};
use crate::data::{self, Tokens};
use crate::loaded::{self, Loaded};
use crate::misuse::misuse;
use crate::progress::Progress;
use crate::report;
use crate::say::say;
use crate::self_text;
use crate::table::{render, thousands};
use crate::verbs::eval::{self, as_score};
use crate::verbs::sensitivity;

/// Sequences of a calibration batch, as the reference has them,
const BATCH_SEQUENCES: usize = 24;
/// and most tokens of one, which bounds the memory of long sequences.
const BATCH_TOKENS: usize = 8192;
/// Training tokens that are read: calibration takes sequences from all over them, and lookups are counted in them.
pub(crate) const LOOKUP_TOKENS: usize = 1 << 24;

pub(crate) fn run(args: &args::Compress) -> Result<()> {
    if !args.checkpoint.is_dir() {
        let found = args.checkpoint.display();
        return Err(misuse(format!("CKPT: expected a checkpoint folder, found {found}")));
    }
    let float = loaded::open(&args.checkpoint)?;
    // What would fail after the work fails before it.
    eval::options(&args.windows, float.model.config.eval_seq_len)?;
    partial("--out", &args.out)?;
    args.report.as_deref().map(report::check).transpose()?;
    let calibration_tokens = args.calibration_tokens as usize;
    let scheme = scheme(args);
    if args.int6_layers.is_some() && scheme != Scheme::Reference {
        return Err(misuse(format!("--int6-layers is for --scheme reference, not for {scheme}: try --target-bytes")));
    }
    let on = args.place.checked()?;
    let calibration = data::for_calibration(&args.data, &float, LOOKUP_TOKENS.max(calibration_tokens))?;
    let scored_on = match &args.eval_data {
        Some(path) => data::for_scoring(path, &float)?,
        None => data::validation_beside(&args.data, &float)?.ok_or_else(|| {
            let data = args.data.display();
            misuse(format!("{data} has no validation shards to score the result on: name some with --eval-data"))
        })?,
    };
    calibration.refuse_if_scored(&scored_on)?;
    let job = Job {
        checkpoint: &args.checkpoint,
        out: &args.out,
        int6_layers: args.int6_layers,
        target_bytes: args.target_bytes,
        scheme,
        sensitivity: !args.no_sensitivity,
        codec: args.codec.into(),
        calibration_tokens,
        calibrate_on: args.calibrate_on,
        seed: args.seed,
        windows: args.windows.clone(),
        on,
    };
    let outcome = job.run(&float, &calibration, &scored_on)?;
    if let Some(path) = &args.report {
        report::write(path, &job, &outcome, &float, &scored_on)?;
    }
    if args.json {
        say!("{}", serde_json::to_string(&Json::new(&outcome))?);
    } else {
        crate::say::write(format_args!("{}\n{}", tensors(&outcome.report), outcome.summary()));
    }
    Ok(())
}

/// A compression as the verbs ask for it.
pub(crate) struct Job<'a> {
    pub(crate) checkpoint: &'a Path,
    pub(crate) out: &'a Path,
    pub(crate) int6_layers: Option<usize>,
    pub(crate) target_bytes: Option<u64>,
    pub(crate) scheme: Scheme,
    /// Whether `rd` may have the sensitivity beside the checkpoint, which is measured if there is none.
    pub(crate) sensitivity: bool,
    pub(crate) codec: Codec,
    pub(crate) calibration_tokens: usize,
    pub(crate) calibrate_on: CalibrateOn,
    pub(crate) seed: u64,
    pub(crate) windows: args::Windows,
    pub(crate) on: On,
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) report: Report,
    pub(crate) float: Score,
    pub(crate) packed: Score,
    pub(crate) stderr: Option<f64>,
}

impl Job<'_> {
    /// Packs the model, reads the file back from disk, scores it, and writes the score into it.
    pub(crate) fn run(&self, float: &Loaded, calibration: &Tokens, scored_on: &Tokens) -> Result<Outcome> {
        let written = match self.calibrate_on {
            CalibrateOn::Data => None,
            CalibrateOn::Itself => Some(self_text::write(float, self.calibration_tokens, self.seed, self.on.threads)?),
        };
        let tokens = written.as_ref().unwrap_or(&calibration.tokens);
        let text = calibration_text(float, tokens, self.calibration_tokens);
        let sensitivity = self.sensitivity(float, calibration)?;
        let provenance = self.provenance(calibration, scored_on)?;
        let options = Options {
            scheme: self.scheme,
            sensitivity: sensitivity.as_ref(),
            int6_layers: self.int6_layers,
            target_bytes: self.target_bytes,
            codec: self.codec,
            provenance: &provenance,
            threads: self.on.threads,
        };
        let shown = Mutex::new(Shown::default());
        let show = |stage| shown.lock().unwrap_or_else(|e| e.into_inner()).show(stage);
        let compressed = match self.on.device {
            Device::Cuda(wanted) => {
                let gpu = Gpu::open(wanted.unwrap_or(0), Settings::default())?;
                let told = |done, of| show(Stage::Calibrating { done, of });
                let hessians = Hessians::measure_on(&gpu, &float.model, &text, &told)?;
                sixpack_compress::compress_with(&float.model, Some(&hessians), &options, &show)?
            }
            _ => sixpack_compress::compress(&float.model, Some(&text), &options, &show)?,
        };
        drop(shown);
        // The file takes its name when it is scored: until then the old one is whole.
        let file = Partial(partial("--out", self.out)?);
        sixpack_compress::pack(&file.0, &compressed)?;
        let packed = loaded::open(&file.0)?;
        let after = eval::score(&packed, scored_on, &self.windows, self.on)?.evaluation;
        let score = as_score(packed.model.bytes, &after);
        artifact::set_score(&file.0, &score)?;
        let before = eval::score(float, scored_on, &self.windows, self.on)?.evaluation;
        file.rename(self.out)?;
        Ok(Outcome {
            report: compressed.report,
            float: as_score(float.model.bytes, &before),
            packed: score,
            stderr: after.stderr,
        })
    }

    /// The sensitivity beside the checkpoint, measured where there is none, if the scheme is to have it. It names its
    /// weights by their safetensors file; what has none does without.
    pub(crate) fn sensitivity(&self, float: &Loaded, calibration: &Tokens) -> Result<Option<Sensitivity>> {
        let hashed = checkpoint::weights_file(self.checkpoint).is_ok();
        let wanted = self.sensitivity && hashed && matches!(self.scheme, Scheme::Rd(_));
        wanted.then(|| sensitivity::ensure(self.checkpoint, float, calibration, self.on.threads)).transpose()
    }

    pub(crate) fn provenance(&self, calibration: &Tokens, scored_on: &Tokens) -> Result<Provenance> {
        // A checkpoint of another program has no recipe, and its weights may be no safetensors file.
        let weights = checkpoint::weights_file(self.checkpoint).ok();
        let metadata = match &weights {
            Some(path) => state_dict::metadata(&Mapped::open(path)?)?,
            None => BTreeMap::new(),
        };
        let recipe = metadata.get("recipe").cloned().unwrap_or_default();
        let training = metadata.get("training_data").and_then(|d| d.parse().ok());
        let seed = sixpack_train::Recipe::parse(&recipe, &[] as &[&str]).ok().map(|r| r.seed);
        Ok(Provenance {
            tool: concat!("sixpack ", env!("CARGO_PKG_VERSION")).into(),
            seed: seed.filter(|_| !recipe.is_empty()),
            recipe,
            checkpoint: weights.map(|_| checkpoint::hash(self.checkpoint)).transpose()?,
            data: [
                ("training", training),
                ("calibration", Some(calibration.digest)),
                ("score", Some(scored_on.digest)),
            ]
            .into_iter()
            .filter_map(|(use_of, digest)| Some((use_of.to_owned(), digest?)))
            .collect(),
            notes: self.notes(),
        })
    }
}

/// At most `want` of these tokens, as sequences of the length the model was trained on.
pub(crate) fn calibration_text<'a>(float: &Loaded, tokens: &'a [u16], want: usize) -> Calibration<'a> {
    let seq_len = float.model.config.train_seq_len;
    let sequences = (BATCH_TOKENS / seq_len).clamp(1, BATCH_SEQUENCES);
    Calibration { tokens, seq_len, batches: want.div_ceil(seq_len * sequences), sequences }
}

impl Job<'_> {
    fn notes(&self) -> BTreeMap<String, String> {
        let mut notes = BTreeMap::from([("scheme".to_owned(), self.scheme.name().to_owned())]);
        if self.calibrate_on == CalibrateOn::Itself {
            notes.insert("calibration".to_owned(), format!("text of the model's own, seed {}", self.seed));
        }
        notes
    }
}

/// The name of an artifact that is not scored yet, beside the one it will have.
pub(crate) fn partial(option: &str, out: &Path) -> Result<PathBuf> {
    let folder = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (Some(name), true) = (out.file_name(), folder.is_dir()) else {
        return Err(misuse(format!("{option}: expected a file in a folder that is there, found {}", out.display())));
    };
    if out.exists() && !out.is_file() {
        return Err(misuse(format!("{option}: expected a file, found {}", out.display())));
    }
    Ok(folder.join(format!(".{}.unscored", name.to_string_lossy())))
}

/// A file that is removed unless it is given its name.
struct Partial(PathBuf);

impl Partial {
    fn rename(self, out: &Path) -> Result<()> {
        std::fs::rename(&self.0, out).with_context(|| format!("cannot write {}", out.display()))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After the rename there is none.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The bar of the stage at hand.
#[derive(Default)]
struct Shown {
    bar: Option<(std::mem::Discriminant<Stage>, Progress)>,
}

impl Shown {
    fn show(&mut self, stage: Stage) {
        let (what, unit, done, of) = match stage {
            Stage::Calibrating { done, of } => ("calibrating", "batches", done, of),
            Stage::Quantizing { done, of } => ("quantising", "tensors", done, of),
            Stage::Factoring { done, of } => ("factoring", "Hessians", done, of),
            Stage::Packing { int6 } => {
                self.bar = None;
                eprintln!("packing with {int6} matrices in int6");
                return;
            }
            Stage::Packed { bytes, knob } => {
                self.bar = None;
                eprintln!("{} bytes at a step of {knob:.4e}", thousands(bytes));
                return;
            }
        };
        let kind = std::mem::discriminant(&stage);
        if self.bar.as_ref().is_none_or(|(shown, _)| *shown != kind) {
            self.bar = Some((kind, Progress::new(what, unit, of as u64)));
        }
        if let Some((_, bar)) = &mut self.bar {
            bar.set(done as u64);
        }
    }
}

impl Outcome {
    /// Size and accuracy before and after, and the gap.
    pub(crate) fn summary(&self) -> String {
        let row = |what: &str, s: &Score| {
            let bpb = s.bits_per_byte.map_or("–".into(), |b| format!("{b:.5}"));
            vec![what.to_owned(), thousands(s.bytes), bpb, format!("{:.5}", s.nats_per_token)]
        };
        let (float, packed) = (&self.float, &self.packed);
        let gap = packed.bits_per_byte.zip(float.bits_per_byte).map_or("–".into(), |(a, b)| format!("{:+.5}", a - b));
        let nats = format!("{:+.5}", packed.nats_per_token - float.nats_per_token);
        let factor = format!("÷{:.2}", float.bytes as f64 / packed.bytes as f64);
        let rows = [row("float", float), row("artifact", packed), vec!["gap".into(), factor, gap, nats]];
        let errors = self.report.hessian_errors().map_or(String::new(), |(kept, nearest)| {
            format!("error in the Hessian norm: {:.3} of rounding to nearest\n", kept / nearest)
        });
        let stderr = self.stderr.map_or(String::new(), |s| format!("standard error over documents: {s:.5}\n"));
        let solved = self.report.solved.map_or(String::new(), |s| {
            let loss = |x: f64| format!("; expected rise of the loss {x:.5} nats per token");
            let slope = |x: f64| format!("; one more kilobyte would take {:.2e} off", 1000.0 * x);
            let (loss, slope) = (self.report.expected_loss().map(loss), s.nats_per_byte.map(slope));
            let (loss, slope) = (loss.unwrap_or_default(), slope.unwrap_or_default());
            let bits = self.report.bits_per_weight();
            format!("{bits:.3} bits per quantised weight, found in {} passes{loss}{slope}\n", s.passes)
        });
        format!("{}{stderr}{errors}{solved}", render(&["", "bytes", "bits per byte", "nats per token"], &rows))
    }
}

/// The report of each tensor.
fn tensors(report: &Report) -> String {
    let error = |t: &TensorReport| {
        let ratio = t.matrix.and_then(|m| Some(m.error? / m.nearest_error?));
        ratio.map_or("–".into(), |r| format!("{r:.3}"))
    };
    let rows: Vec<_> = report
        .tensors
        .iter()
        .map(|t| {
            let elements: usize = t.shape.iter().product();
            let shape = t.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("×");
            vec![
                t.id.to_string(),
                if shape.is_empty() { "1".into() } else { shape },
                t.bits.to_string(),
                t.step.map_or("–".into(), |s| format!("{s:.2e}")),
                thousands(t.coded_bytes),
                format!("{:.3}", 8.0 * t.coded_bytes as f64 / elements as f64),
                format!("{:.3e}", t.mean_squared_error),
                error(t),
                t.loss.map_or("–".into(), |x| format!("{x:.2e}")),
            ]
        })
        .collect();
    render(&["tensor", "shape", "bits", "step", "bytes", "bits/weight", "mse", "error/nearest", "loss"], &rows)
}

/// What `--json` prints.
#[derive(Serialize)]
struct Json {
    float: Score,
    artifact: Score,
    stderr: Option<f64>,
    scheme: &'static str,
    int6_layers: usize,
    matrices: usize,
    bits_per_weight: f64,
    /// The constant of the steps for rd, the factor on k for sdclip.
    knob: Option<f64>,
    passes: Option<usize>,
    nats_per_byte: Option<f64>,
    expected_loss: Option<f64>,
    tensors: Vec<JsonTensor>,
}

#[derive(Serialize)]
struct JsonTensor {
    name: String,
    bits: u32,
    coded_bytes: u64,
    bits_per_weight: f64,
    step: Option<f64>,
    expected_loss: Option<f64>,
    mean_squared_error: f64,
    hessian_error: Option<f64>,
    nearest_hessian_error: Option<f64>,
}

impl Json {
    fn new(outcome: &Outcome) -> Self {
        let tensor = |t: &TensorReport| JsonTensor {
            name: t.id.to_string(),
            bits: t.bits,
            coded_bytes: t.coded_bytes,
            bits_per_weight: 8.0 * t.coded_bytes as f64 / t.shape.iter().product::<usize>().max(1) as f64,
            step: t.step,
            expected_loss: t.loss,
            mean_squared_error: t.mean_squared_error,
            hessian_error: t.matrix.and_then(|m| m.error),
            nearest_hessian_error: t.matrix.and_then(|m| m.nearest_error),
        };
        Self {
            float: outcome.float,
            artifact: outcome.packed,
            stderr: outcome.stderr,
            scheme: outcome.report.scheme.name(),
            int6_layers: outcome.report.int6,
            matrices: outcome.report.matrices,
            bits_per_weight: outcome.report.bits_per_weight(),
            knob: outcome.report.solved.map(|s| s.knob),
            passes: outcome.report.solved.map(|s| s.passes),
            nats_per_byte: outcome.report.solved.and_then(|s| s.nats_per_byte),
            expected_loss: outcome.report.expected_loss(),
            tensors: outcome.report.tensors.iter().map(tensor).collect(),
        }
    }
}

/// The scheme as it was asked for.
fn scheme(args: &args::Compress) -> Scheme {
    match Scheme::from(args.scheme) {
        Scheme::SdClip(_) => {
            Scheme::SdClip(SdClip { attention: args.clip_attention, mlp: args.clip_mlp, embedding: args.clip_tables })
        }
        Scheme::Rd(rd) => Scheme::Rd(Rd { loss: args.loss.unwrap_or(rd.loss), ..rd }),
        other => other,
    }
}

impl From<SchemeName> for Scheme {
    fn from(name: SchemeName) -> Self {
        match name {
            SchemeName::Reference => Self::Reference,
            SchemeName::Sdclip => Self::SdClip(SdClip::default()),
            SchemeName::Rd => Self::Rd(Rd::default()),
        }
    }
}

impl From<CodecName> for Codec {
    fn from(name: CodecName) -> Self {
        match name {
            CodecName::Context => Self::Context,
            CodecName::Brotli => Self::Brotli,
            CodecName::Zstd => Self::Zstd,
        }
    }
}
