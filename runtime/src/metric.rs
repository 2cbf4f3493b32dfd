//! The metric: nats per token and bits per byte of a text, every target scored exactly once. Sums are in f64.
//!
//! Plain: consecutive windows of `L` inputs, a shorter tail is dropped. Sliding with stride `s`: windows start at
//! `0, s, 2s, …`; the first scores all its targets, each later one those the one before did not reach, so that every
//! target but those of the first window has at least `L − s` tokens of context.
//!
//! Two shortcuts change nothing: logits are computed for scored positions only, and the last block's queries too.

use sixpack_formats::ModelConfig;
use sixpack_formats::tokenizer::ByteTables;

use crate::clock::Clock;
use crate::ops::{Batch, ReadBack};
use crate::{Error, Pass, Result, Weights, forward, model};

/// How to evaluate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Window length `L`.
    pub seq_len: usize,
    /// Distance of the sliding windows, `None` for plain evaluation.
    pub stride: Option<usize>,
    /// Windows of a forward pass.
    pub batch: usize,
    /// Score at most this many targets, from the start.
    pub max_tokens: Option<usize>,
}

/// What is evaluated.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// Its tokens; the first is context only.
    pub tokens: &'a [u16],
    /// How many bytes a token stands for; without it there are no bits per byte.
    pub bytes: Option<&'a ByteTables>,
    /// The token that begins a document, for the standard error.
    pub bos: Option<u32>,
}

/// How far an evaluation is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Targets scored.
    pub scored: u64,
    /// Targets to score.
    pub total: u64,
    /// Nats of those scored.
    pub nats: f64,
}

/// The result.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Sum of the negative log-likelihoods.
    pub nats: f64,
    /// Targets scored.
    pub tokens: u64,
    /// Bytes of text they stand for, if there is a tokenizer.
    pub bytes: Option<u64>,
    /// Nats per token.
    pub loss_nats: f64,
    /// `nats / ln 2 / bytes`.
    pub bits_per_byte: Option<f64>,
    /// Standard error over documents, of bits per byte or without a tokenizer of nats per token; `None` where there
    /// are fewer than two documents.
    pub stderr: Option<f64>,
    /// Window length.
    pub seq_len: usize,
    /// Distance of the sliding windows, `None` for plain.
    pub stride: Option<usize>,
    /// Time taken.
    pub seconds: f64,
}

impl Evaluation {
    /// Speed, in scored targets a second.
    pub fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.seconds
    }
}

/// Scores `text` with a model.
///
/// # Errors
/// Options that mean nothing, a text too short to score, a token outside the vocabulary, and those of the machine.
pub async fn evaluate<O>(
    config: &ModelConfig,
    weights: &Weights<O::Weight>,
    ops: &mut O,
    text: &Text<'_>,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Evaluation>
where
    O: ReadBack,
    Error: From<O::Error>,
{
    let clock = Clock::start();
    check_tokens(config, text)?;
    let windows = windows(text.tokens.len().saturating_sub(1), options)?;
    let total = windows.iter().map(|w| w.scored() as u64).sum();
    let mut ledger = Ledger::new(text);
    for batch in windows.chunk_by(|a, b| (a.len, a.first) == (b.len, b.first)).flat_map(|w| w.chunks(options.batch)) {
        let nll = score(config, weights, ops, text.tokens, options.seq_len, batch).await?;
        let targets = batch.iter().flat_map(|w| w.start + w.first..w.start + w.len);
        for (target, nll) in targets.zip(nll) {
            if !nll.is_finite() {
                return Err(Error::NotFinite { target, found: nll });
            }
            ledger.add(target, nll);
        }
        progress(Progress { scored: ledger.scored as u64, total, nats: ledger.nats });
    }
    assert_eq!(ledger.scored as u64, total, "targets scored");
    if text.bytes.is_some() && ledger.bytes == 0 {
        return Err(Error::NoText { tokens: ledger.scored });
    }
    Ok(ledger.close(options, clock.seconds()))
}

/// Where the consecutive windows of a text start whose every position has a next token.
pub(crate) fn plain_starts(tokens: &[u16], vocab: usize, options: &Options) -> Result<Vec<usize>> {
    if let Some(index) = tokens.iter().position(|&id| usize::from(id) >= vocab) {
        return Err(Error::Token { index, id: u32::from(tokens[index]), vocab });
    }
    let windows = windows(tokens.len().saturating_sub(1), &Options { stride: None, ..*options })?;
    Ok(windows.into_iter().map(|w| w.start).collect())
}

/// Inputs `start .. start + len`; the targets of positions `first ..` are scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    start: usize,
    len: usize,
    first: usize,
}

impl Window {
    fn scored(&self) -> usize {
        self.len - self.first
    }
}

/// The windows over `n` targets.
fn windows(n: usize, options: &Options) -> Result<Vec<Window>> {
    let Options { seq_len, stride, batch, max_tokens } = *options;
    let wrong = |field, expected: &str, found: usize| {
        Err(Error::Option { field, expected: expected.into(), found: found.to_string() })
    };
    if seq_len == 0 {
        return wrong("seq_len", "at least 1", 0);
    }
    if batch == 0 {
        return wrong("batch", "at least 1", 0);
    }
    if max_tokens == Some(0) {
        return wrong("max_tokens", "at least 1", 0);
    }
    let n = n.min(max_tokens.unwrap_or(n));
    let Some(stride) = stride else {
        if n < seq_len {
            return Err(Error::TooFewTokens { expected: seq_len + 1, found: n + 1 });
        }
        return Ok((0..n / seq_len).map(|i| Window { start: i * seq_len, len: seq_len, first: 0 }).collect());
    };
    if stride == 0 || stride > seq_len {
        return wrong("stride", &format!("1 to the window length {seq_len}"), stride);
    }
    if n == 0 {
        return Err(Error::TooFewTokens { expected: 2, found: 1 });
    }
    let first = Window { start: 0, len: seq_len.min(n), first: 0 };
    let starts = (1..).map(|i| i * stride).take_while(|start| start + seq_len - stride < n);
    let rest = starts.map(|start| Window { start, len: seq_len.min(n - start), first: seq_len - stride });
    Ok(std::iter::once(first).chain(rest).collect())
}

/// Negative log-likelihoods of the scored targets of windows of one shape.
async fn score<O>(
    config: &ModelConfig,
    weights: &Weights<O::Weight>,
    ops: &mut O,
    tokens: &[u16],
    seq_len: usize,
    windows: &[Window],
) -> Result<Vec<f32>>
where
    O: ReadBack,
    Error: From<O::Error>,
{
    let ids = |from: usize, to: usize| tokens[from..to].iter().map(|&id| u32::from(id));
    let inputs: Vec<u32> = windows.iter().flat_map(|w| ids(w.start, w.start + w.len)).collect();
    let targets: Vec<u32> = windows.iter().flat_map(|w| ids(w.start + w.first + 1, w.start + w.len + 1)).collect();
    // A truncated window is the start of a whole one: its rotary base is that of the window length.
    let batch = Batch { ids: &inputs, sequences: windows.len(), context: seq_len };
    let last = windows.first().map(Window::scored);
    let h = forward(config, weights, ops, &batch, Pass { recurrence: true, last })?;
    let nll = model::nll(config, weights, ops, &h, &targets)?;
    Ok(ops.read(&nll).await?)
}

fn check_tokens(config: &ModelConfig, text: &Text<'_>) -> Result<()> {
    let vocab = text.bytes.map_or(config.vocab_size, |tables| tables.len().min(config.vocab_size));
    match text.tokens.iter().position(|&id| usize::from(id) >= vocab) {
        Some(index) => Err(Error::Token { index, id: u32::from(text.tokens[index]), vocab }),
        None => Ok(()),
    }
}

/// The sums, and those of each document: nats, and bytes or tokens.
struct Ledger<'a> {
    text: &'a Text<'a>,
    scored: usize,
    nats: f64,
    bytes: u64,
    document: (f64, f64),
    documents: Vec<(f64, f64)>,
}

impl<'a> Ledger<'a> {
    fn new(text: &'a Text<'a>) -> Self {
        Self { text, scored: 0, nats: 0.0, bytes: 0, document: (0.0, 0.0), documents: Vec::new() }
    }

    /// Enters target number `target`, the token after that many others.
    fn add(&mut self, target: usize, nll: f32) {
        // Windows tile the targets in order, which is how each is scored exactly once.
        assert_eq!(target, self.scored, "the next target to score");
        self.scored += 1;
        let [previous, token] = [target, target + 1].map(|i| u32::from(self.text.tokens[i]));
        if self.text.bos == Some(token) {
            self.end_document();
        }
        let nats = f64::from(nll);
        let bytes = self.text.bytes.map(|tables| tables.bytes(previous, token));
        self.nats += nats;
        self.bytes += bytes.unwrap_or(0);
        self.document.0 += nats;
        self.document.1 += bytes.map_or(1.0, |bytes| bytes as f64);
    }

    fn end_document(&mut self) {
        if self.document != (0.0, 0.0) {
            self.documents.push(std::mem::take(&mut self.document));
        }
    }

    fn close(mut self, options: &Options, seconds: f64) -> Evaluation {
        self.end_document();
        let unit = if self.text.bytes.is_some() { std::f64::consts::LN_2 } else { 1.0 };
        let bits = |_| self.nats / std::f64::consts::LN_2 / self.bytes as f64;
        Evaluation {
            nats: self.nats,
            tokens: self.scored as u64,
            bytes: self.text.bytes.map(|_| self.bytes),
            loss_nats: self.nats / self.scored as f64,
            bits_per_byte: self.text.bytes.map(bits),
            stderr: ratio_stderr(&self.documents).map(|e| e / unit),
            seq_len: options.seq_len,
            stride: options.stride,
            seconds,
        }
    }
}

/// Standard error of `Σx / Σy` over independent pairs, by the ratio estimator.
fn ratio_stderr(pairs: &[(f64, f64)]) -> Option<f64> {
    let n = pairs.len() as f64;
    let (x, y) = pairs.iter().fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
    if pairs.len() < 2 || y == 0.0 {
        return None;
    }
    let squares: f64 = pairs.iter().map(|pair| (pair.0 - x / y * pair.1).powi(2)).sum();
    Some((n / (n - 1.0) * squares).sqrt() / y)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(n: usize, seq_len: usize, stride: Option<usize>) -> Result<Vec<usize>> {
        let windows = windows(n, &Options { seq_len, stride, batch: 1, max_tokens: None })?;
        Ok(windows.iter().flat_map(|w| w.start + w.first..w.start + w.len).collect())
    }

    #[test]
    fn sliding_windows_score_each_target_once_with_context() {
        for n in 1..60 {
            for seq_len in 1..20 {
                for stride in 1..=seq_len {
                    let expected: Vec<usize> = (0..n).collect();
                    assert_eq!(targets(n, seq_len, Some(stride)).unwrap(), expected, "n {n}, L {seq_len}, s {stride}");
                }
            }
        }
    }

    #[test]
    fn plain_windows_drop_the_tail() {
        assert_eq!(targets(11, 4, None).unwrap(), (0..8).collect::<Vec<_>>());
        assert_eq!(targets(12, 4, None).unwrap(), (0..12).collect::<Vec<_>>());
        let message = targets(3, 4, None).unwrap_err().to_string();
        assert_eq!(message, "too few tokens to evaluate: expected at least 5, found 4");
    }

    #[test]
    fn options_that_mean_nothing_are_named() {
        let sane = Options { seq_len: 8, stride: Some(4), batch: 1, max_tokens: None };
        let message = |options| windows(100, &options).unwrap_err().to_string();
        assert_eq!(
            message(Options { stride: Some(9), ..sane }),
            "option `stride`: expected 1 to the window length 8, found 9"
        );
        assert!(message(Options { stride: Some(0), ..sane }).contains("stride"));
        assert!(message(Options { seq_len: 0, ..sane }).contains("seq_len"));
        assert!(message(Options { batch: 0, ..sane }).contains("batch"));
        assert!(message(Options { max_tokens: Some(0), ..sane }).contains("max_tokens"));
        assert!(windows(0, &sane).is_err());
        let few = windows(100, &Options { max_tokens: Some(10), ..sane }).unwrap();
        assert_eq!(few.iter().map(Window::scored).sum::<usize>(), 10);
    }

    #[test]
    fn standard_error_of_a_ratio() {
        assert_eq!(ratio_stderr(&[(1.0, 2.0)]), None);
        assert_eq!(ratio_stderr(&[(1.0, 2.0), (2.0, 4.0), (0.5, 1.0)]), Some(0.0));
        // Equal sizes: the usual standard error of the mean of 1, 2, 3, 6.
        let found = ratio_stderr(&[(1.0, 1.0), (2.0, 1.0), (3.0, 1.0), (6.0, 1.0)]).unwrap();
        let deviation = (14.0f64 / 3.0).sqrt();
        assert!((found - deviation / 2.0).abs() < 1e-12);
    }
}
