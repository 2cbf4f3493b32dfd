//! `quickstart`: text to a trained, packed, scored and speaking model in a few minutes.

mod sources;
mod split;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sixpack_compress::scheme::Rd;
use sixpack_compress::{Scheme, yardstick};
use sixpack_formats::dataset::Split;
use sixpack_formats::tokenizer::Tokenizer;
use sixpack_formats::tokenizer::train::{TrainOptions, train};
use sixpack_formats::{Codec, Score, atomic};
use sixpack_runtime::Sampling;

use crate::args::{self, CalibrateOn, On, Windows};
use crate::data;
use crate::loaded;
use crate::misuse::misuse;
use crate::say::say;
use crate::table::{render, thousands};
use crate::verbs::compress::{Job, LOOKUP_TOKENS, Outcome};
use crate::verbs::tokenize::{Shards, summary};
use crate::verbs::{recipe, run as speak, train as training};

/// Most bytes of text to learn from: more than the model sees in the default time, and read in a moment.
const MAX_TRAIN: usize = 12_000_000;

/// Most bytes of text to be scored on: enough for the second digit, scored in seconds.
const MAX_VAL: usize = 256_000;

/// Tokens the Hessians are measured on.
const CALIBRATION_TOKENS: usize = 98_304;

/// Characters of validation text that the sample goes on from.
const PROMPT_CHARS: usize = 120;

/// Tokens of the sample.
const SAMPLE_TOKENS: usize = 200;

/// A text split in two.
pub(crate) struct Corpus {
    /// Documents to learn from.
    pub(crate) train: Vec<String>,
    /// Documents to be scored on.
    pub(crate) val: Vec<String>,
    /// What it is, in a sentence.
    pub(crate) summary: String,
}

/// Where everything is written.
struct Paths {
    shards: PathBuf,
    checkpoint: PathBuf,
    artifact: PathBuf,
    sample: PathBuf,
}

pub(crate) fn run(args: &args::Quickstart) -> Result<()> {
    let at = |name: &str| args.out.join(name);
    let paths = Paths {
        shards: at("shards"),
        checkpoint: at("checkpoint"),
        artifact: at("model.6pk"),
        sample: at("sample.txt"),
    };
    if [&paths.shards, &paths.checkpoint, &paths.artifact].iter().any(|p| p.exists()) {
        let out = args.out.display();
        return Err(misuse(format!(
            "{out} holds an earlier quickstart: remove it, or choose another folder with --out"
        )));
    }
    let on = args.place.checked()?;
    let corpus = match &args.corpus {
        Some(path) => split::read(path, MAX_TRAIN, MAX_VAL)?,
        None => sources::of_locked_crates(MAX_TRAIN, MAX_VAL)?,
    };
    say!("1. text: {}", corpus.summary);
    let recipe = recipe::load("small", &[format!("budget.minutes={}", args.minutes), format!("seed={}", args.seed)])?;
    let tokenizer = Tokenizer::from_model(&train(&corpus.train, &TrainOptions::new(recipe.model.vocab_size))?)?;
    say!("2. tokenizer: {} pieces", tokenizer.vocab_size());
    say!("3. token shards: {}", write_shards(&paths.shards, &tokenizer, &corpus)?);
    say!("4. training for {} minutes", args.minutes);
    let training = training::Run {
        recipe,
        data: &paths.shards,
        tokenizer: Some(tokenizer.model_bytes().to_vec()),
        out: &paths.checkpoint,
        resume: false,
        measure_size_every: None,
        validate_every: 0,
        threads: on.threads,
        json: false,
        lines_to_stderr: false,
        gpu: None,
        all: &sixpack_train::Alone,
    };
    if training.train()? {
        say!("stopped; the checkpoint so far is in {}", paths.checkpoint.display());
        return Ok(());
    }
    say!("5. compressing and scoring on text it has not seen");
    let outcome = compress(&paths, on)?;
    let packed = loaded::open(&paths.artifact)?;
    let plain = |text: &String| tokenizer.normalize(text).replace('▁', " ");
    let prompt = prompt(&corpus.val.iter().map(plain).max_by_key(String::len).context("no text to go on from")?);
    let sampling = Sampling { temperature: 1.0, min_p: 0.05, seed: args.seed, ..Sampling::default() };
    let spoken = speak::speak(&packed, &prompt, SAMPLE_TOKENS, sampling, on, &mut |_| Ok(()))?;
    atomic::write(&paths.sample, format!("{}\n", spoken.text).as_bytes())?;
    say!("6. a sample, going on from “{prompt}”:\n\n{}\n", spoken.text);
    let (train, val): (Vec<_>, Vec<_>) =
        (corpus.train.iter().map(plain).collect(), corpus.val.iter().map(plain).collect());
    let order2 = yardstick::order2(&train, &val);
    let zstd = yardstick::zstd19(val.concat().as_bytes())?;
    crate::say::write(format_args!("{}", table(&outcome, order2, zstd)));
    crate::say::write(format_args!("{}", next(&paths, outcome.packed.bytes * 3 / 4)));
    Ok(())
}

/// Whole words from the middle of a text: its beginning is often a licence.
fn prompt(text: &str) -> String {
    let middle = &text[text.floor_char_boundary(text.len() / 2)..];
    let words = middle.split_once(' ').map_or(middle, |(_, rest)| rest);
    words.chars().take(PROMPT_CHARS).collect()
}

fn write_shards(folder: &Path, tokenizer: &Tokenizer, corpus: &Corpus) -> Result<String> {
    let mut shards = Shards::create(folder, tokenizer)?;
    // Validation first: a training document that is the same word for word is then the one that is dropped.
    for (split, documents) in [(Split::Val, &corpus.val), (Split::Train, &corpus.train)] {
        documents.iter().try_for_each(|d| shards.push(split, d))?;
    }
    Ok(summary(folder, &shards.finish()?))
}

fn compress(paths: &Paths, on: On) -> Result<Outcome> {
    let float = loaded::open(&paths.checkpoint)?;
    let calibration = data::for_calibration(&paths.shards, &float, LOOKUP_TOKENS)?;
    let scored_on = data::validation_beside(&paths.shards, &float)?.context("no validation shards were written")?;
    let job = Job {
        checkpoint: &paths.checkpoint,
        out: &paths.artifact,
        int6_layers: None,
        target_bytes: None,
        scheme: Scheme::Rd(Rd::default()),
        sensitivity: true,
        codec: Codec::Context,
        calibration_tokens: CALIBRATION_TOKENS,
        calibrate_on: CalibrateOn::Data,
        seed: 0,
        windows: Windows { seq_len: None, stride: None, plain: false, max_tokens: None },
        on,
    };
    job.run(&float, &calibration, &scored_on)
}

/// The one table: what it weighs and how well it predicts, beside two yardsticks.
fn table(outcome: &Outcome, order2: f64, zstd: f64) -> String {
    let model = |what: &str, s: &Score| {
        let bpb = s.bits_per_byte.map_or("–".into(), |b| format!("{b:.4}"));
        vec![what.to_owned(), thousands(s.bytes), bpb]
    };
    let yardstick = |what: &str, bpb: f64| vec![what.to_owned(), "–".into(), format!("{bpb:.4}")];
    let rows = [
        model("model, as trained", &outcome.float),
        model("model, packed", &outcome.packed),
        yardstick("order-2 context model of the same text", order2),
        yardstick("zstd -19 of the validation text", zstd),
    ];
    render(&["", "bytes", "bits per byte"], &rows)
}

fn next(paths: &Paths, target: u64) -> String {
    let (artifact, shards, checkpoint) = (paths.artifact.display(), paths.shards.display(), paths.checkpoint.display());
    format!(
        "\nTo go on:\n  sixpack run {artifact} --prompt \"pub fn \"\n  sixpack inspect {artifact}\n  \
         sixpack eval {artifact} --data {shards}\n  \
         sixpack train --recipe small --set budget.minutes=20 --data {shards} --out longer\n  \
         sixpack compress {checkpoint} --data {shards} --target-bytes {target} --out smaller.6pk\n"
    )
}
