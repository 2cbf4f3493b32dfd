//! How well a model expects a text, token by token, and what zstd makes of it.

use js_sys::Function;
use serde::Serialize;
use sixpack_formats::Codec;
use sixpack_formats::tokenizer::{ByteTables, Tokenizer};
use sixpack_runtime::TextStream;

use crate::failure::Failure;
use crate::turns::in_turns;
use crate::{Model, json, tell};

/// A token, or several that make whole characters only together.
#[derive(Debug, Serialize)]
pub(crate) struct Cell {
    text: String,
    /// What it cost; nothing where there was nothing to expect it from.
    bits: Option<f64>,
    /// Bytes of text it stands for, as the metric counts them.
    bytes: u64,
    tokens: usize,
}

/// The whole text.
#[derive(Debug, Serialize)]
pub(crate) struct Read {
    /// Tokens that were scored.
    tokens: usize,
    /// Bytes of text they stand for.
    bytes: u64,
    /// What they cost in nats, each.
    nats: Vec<f32>,
    bits_per_byte: Option<f64>,
    /// Bytes that zstd at its highest level needs for the text as the model reads it.
    zstd_bytes: usize,
    /// Bytes of that text.
    text_bytes: usize,
}

impl Model {
    pub(crate) async fn score_text(&mut self, text: &str, on_cells: &Function) -> Result<String, Failure> {
        let ids = self.ids(text);
        if ids.len() < 2 {
            return Err(Failure::NothingToRead);
        }
        let context = self.engine.config().eval_seq_len.max(2);
        let mut cells = Cells::new(&self.tokenizer, &self.bytes, &ids, text);
        let mut thrown = None;
        let mut on_scores = |nats: &[f32]| {
            tell(on_cells, &json(&cells.take(nats))).unwrap_or_else(|error| {
                thrown = Some(error);
                false
            })
        };
        in_turns(&self.turn, self.engine.score_with(&ids, context, &mut on_scores)).await??;
        if let Some(error) = thrown {
            return Err(error.into());
        }
        tell(on_cells, &json(&cells.finish()))?;
        let read = &ids[..=cells.nats.len()];
        let text = self.tokenizer.decode(read);
        let bits = cells.nats.iter().map(|&x| f64::from(x)).sum::<f64>() / std::f64::consts::LN_2;
        Ok(json(&Read {
            tokens: cells.nats.len(),
            bytes: cells.bytes,
            bits_per_byte: (cells.bytes > 0).then(|| bits / cells.bytes as f64),
            zstd_bytes: Codec::Zstd.encode(text.as_bytes()).len(),
            text_bytes: text.len(),
            nats: cells.nats,
        }))
    }
}

/// Puts cells together as scores come in.
struct Cells<'a> {
    tokenizer: &'a Tokenizer,
    tables: &'a ByteTables,
    ids: &'a [u32],
    stream: TextStream,
    open: Cell,
    /// Whether the next piece is the first, whose space the text does not have.
    drop_space: bool,
    nats: Vec<f32>,
    bytes: u64,
}

const EMPTY: Cell = Cell { text: String::new(), bits: None, bytes: 0, tokens: 0 };

impl<'a> Cells<'a> {
    fn new(tokenizer: &'a Tokenizer, tables: &'a ByteTables, ids: &'a [u32], text: &str) -> Self {
        let stream = TextStream::new();
        let drop_space = !text.starts_with(' ');
        Self { tokenizer, tables, ids, stream, open: EMPTY, drop_space, nats: Vec::new(), bytes: 0 }
    }

    /// The cells that are whole with the scores of the next tokens.
    fn take(&mut self, nats: &[f32]) -> Vec<Cell> {
        let mut cells = Vec::with_capacity(nats.len() + 1);
        // The first token has no score; without a token that begins a document it is part of the text.
        if self.nats.is_empty() && self.tokenizer.bos_id().is_none() {
            cells.extend(self.push(self.ids[0]));
        }
        for &nats in nats {
            let [previous, id] = [self.nats.len(), self.nats.len() + 1].map(|at| self.ids[at]);
            let bytes = self.tables.bytes(previous, id);
            let bits = f64::from(nats) / std::f64::consts::LN_2;
            self.open.bits = Some(self.open.bits.unwrap_or(0.0) + bits);
            self.open.bytes += bytes;
            self.bytes += bytes;
            self.nats.push(nats);
            cells.extend(self.push(id));
        }
        cells
    }

    fn push(&mut self, id: u32) -> Option<Cell> {
        let mut text = self.stream.push(self.tokenizer.piece_bytes(id));
        if std::mem::take(&mut self.drop_space) && text.starts_with(' ') {
            text.remove(0);
        }
        self.open.tokens += 1;
        self.open.text.push_str(&text);
        (!text.is_empty()).then(|| std::mem::replace(&mut self.open, EMPTY))
    }

    /// What was not whole at the end.
    fn finish(&mut self) -> Vec<Cell> {
        self.open.text = self.stream.finish();
        if self.open.tokens == 0 { Vec::new() } else { vec![std::mem::replace(&mut self.open, EMPTY)] }
    }
}
