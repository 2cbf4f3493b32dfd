//! `eval`: bits per byte of a model on text or token shards.

use anyhow::Result;
use serde::Serialize;
use sixpack_formats::Score;
use sixpack_runtime::metric::{self, Evaluation};
use sixpack_runtime::{Device, now};

use crate::args::{self, On, Windows};
use crate::data::{self, Tokens};
use crate::loaded::{self, Loaded};
use crate::misuse::misuse;
use crate::progress::Progress;
use crate::say::say;
use crate::table::thousands;

/// Stride where none is asked for: the record's.
const STRIDE: usize = 64;

/// Tokens of a forward pass: enough for efficient matrix products, few enough to stay in cache (measured: LOG.md).
const BATCH_TOKENS: usize = 1024;

/// The same on a GPU, which has more to fill.
const GPU_BATCH_TOKENS: usize = 8192;

pub(crate) fn run(args: &args::Eval) -> Result<()> {
    let loaded = loaded::open(&args.model)?;
    let text = data::for_scoring(&args.data, &loaded)?;
    let scored = score(&loaded, &text, &args.windows, args.place.on())?;
    let report = Report::new(&loaded, &scored);
    if args.json {
        say!("{}", serde_json::to_string(&report)?);
    } else {
        crate::say::write(format_args!("{}", report.lines(&scored.evaluation)));
    }
    Ok(())
}

/// An evaluation, and what it ran on.
pub(crate) struct Scored {
    pub(crate) evaluation: Evaluation,
    pub(crate) device: Device,
}

/// Scores a model on tokens with the windows asked for.
pub(crate) fn score(loaded: &Loaded, text: &Tokens, windows: &Windows, on: On) -> Result<Scored> {
    let mut options = options(windows, loaded.model.config.eval_seq_len)?;
    let mut engine = loaded::engine(&loaded.model, on)?;
    if engine.device() != Device::Cpu {
        options.batch = (GPU_BATCH_TOKENS / options.seq_len).max(1);
    }
    let tables = loaded.tokenizer.as_ref().map(|t| t.byte_tables());
    let bos = loaded.tokenizer.as_ref().and_then(|t| t.bos_id());
    let metric_text = metric::Text { tokens: &text.tokens, bytes: tables.as_ref(), bos };
    let mut bar = None;
    let mut show =
        |p: metric::Progress| bar.get_or_insert_with(|| Progress::new("scoring", "tokens", p.total)).set(p.scored);
    let evaluation = now(engine.evaluate(&metric_text, &options, &mut show))?;
    Ok(Scored { evaluation, device: engine.device() })
}

/// The windows asked for, with what was left open filled in.
pub(crate) fn options(windows: &Windows, eval_seq_len: usize) -> Result<metric::Options> {
    let seq_len = windows.seq_len.map_or(eval_seq_len, |l| l as usize);
    let stride = match windows.stride {
        _ if windows.plain => None,
        Some(s) if s as usize > seq_len => {
            return Err(misuse(format!("--stride: expected at most the window length {seq_len}, found {s}")));
        }
        Some(s) => Some(s as usize),
        None => Some(STRIDE.min(seq_len)),
    };
    let max_tokens = windows.max_tokens.map(|n| n as usize);
    Ok(metric::Options { seq_len, stride, batch: (BATCH_TOKENS / seq_len).max(1), max_tokens })
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    loss_nats: f64,
    bits_per_byte: Option<f64>,
    stderr: Option<f64>,
    tokens: u64,
    bytes: Option<u64>,
    model_bytes: u64,
    tokens_per_second: f64,
    seq_len: usize,
    stride: Option<usize>,
    device: String,
}

impl Report {
    pub(crate) fn new(loaded: &Loaded, scored: &Scored) -> Self {
        let Scored { evaluation: e, device } = scored;
        Self {
            loss_nats: e.loss_nats,
            bits_per_byte: e.bits_per_byte,
            stderr: e.stderr,
            tokens: e.tokens,
            bytes: e.bytes,
            model_bytes: loaded.model.bytes,
            tokens_per_second: e.tokens_per_second(),
            seq_len: e.seq_len,
            stride: e.stride,
            device: device.to_string(),
        }
    }

    fn lines(&self, e: &Evaluation) -> String {
        let error = self.stderr.map_or(String::new(), |s| format!(" ± {s:.5} (standard error over documents)"));
        let (figure, unit) = match self.bits_per_byte {
            Some(bpb) => (bpb, "bits per byte"),
            None => (self.loss_nats, "nats per token (no tokenizer, so no bits per byte)"),
        };
        let windows = match self.stride {
            Some(stride) => format!("windows of {}, stride {stride}", self.seq_len),
            None => format!("consecutive windows of {}", self.seq_len),
        };
        let text = self.bytes.map_or(String::new(), |b| format!(" for {} bytes of text", thousands(b)));
        format!(
            "{figure:.5} {unit}{error}\n{} bytes of model, {:.5} nats per token\n{} tokens{text}, {windows}, {:.0} tokens/s on the {}\n",
            thousands(self.model_bytes),
            self.loss_nats,
            thousands(e.tokens),
            self.tokens_per_second,
            self.device,
        )
    }
}

/// Size and accuracy of what was evaluated.
pub(crate) fn as_score(bytes: u64, e: &Evaluation) -> Score {
    Score::from_sums(bytes, e.nats, e.tokens, e.bytes)
}
