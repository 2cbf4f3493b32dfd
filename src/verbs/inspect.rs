//! `inspect`: configuration, tensors, bytes, provenance and score of a model.

use anyhow::Result;
use serde::Serialize;
use sixpack_formats::{ModelConfig, Score, TensorData};
use sixpack_runtime::count;

use crate::args;
use crate::loaded::{self, Loaded, Packed};
use crate::say::say;
use crate::table::{render, thousands};

pub(crate) fn run(args: &args::Inspect) -> Result<()> {
    let loaded = loaded::open(&args.model)?;
    let report = Report::new(&loaded);
    if args.json {
        say!("{}", serde_json::to_string(&report)?);
    } else {
        crate::say::write(format_args!("{}", report.text()));
    }
    Ok(())
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    config: &'a ModelConfig,
    parameters: u64,
    matmul_parameters: u64,
    bytes: u64,
    tensors: Vec<Tensor>,
    /// Bytes of an artifact by purpose; they sum to `bytes`.
    ledger: Vec<Line>,
    provenance: Option<&'a sixpack_formats::artifact::Provenance>,
    score: Option<Score>,
}

#[derive(Serialize)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    class: String,
    form: &'static str,
    bits_per_weight: f64,
    bytes: u64,
    share: f64,
}

#[derive(Serialize)]
struct Line {
    what: &'static str,
    codec: Option<String>,
    decoded: u64,
    bytes: u64,
}

impl<'a> Report<'a> {
    fn new(loaded: &'a Loaded) -> Self {
        let config = &loaded.model.config;
        let packed = loaded.packed.as_ref();
        Self {
            config,
            parameters: count::parameters(config),
            matmul_parameters: count::matmul_parameters(config, true),
            bytes: loaded.model.bytes,
            tensors: tensors(loaded),
            ledger: packed.map(ledger).unwrap_or_default(),
            provenance: packed.map(|p| &p.provenance),
            score: packed.and_then(|p| p.score),
        }
    }

    fn text(&self) -> String {
        let mut out = format!(
            "{} bytes, {} parameters ({} in matrix products of a forward pass)\n\n",
            thousands(self.bytes),
            thousands(self.parameters),
            thousands(self.matmul_parameters)
        );
        out.push_str(&self.config.to_json());
        out.push('\n');
        let rows: Vec<_> = self.tensors.iter().map(Tensor::row).collect();
        out.push_str(&render(&["tensor", "shape", "class", "form", "bits/weight", "bytes", "share"], &rows));
        if !self.ledger.is_empty() {
            out.push_str("\nWhat the bytes are for\n");
            let mut rows: Vec<_> = self.ledger.iter().map(Line::row).collect();
            rows.push(vec!["total".into(), "".into(), "".into(), thousands(self.bytes)]);
            out.push_str(&render(&["section", "codec", "decoded", "bytes"], &rows));
        }
        if let Some(p) = self.provenance {
            out.push_str(&format!("\nMade by {}", p.tool));
            for (use_of, digest) in &p.data {
                out.push_str(&format!("\n{use_of} data {digest}"));
            }
            if let Some(digest) = &p.checkpoint {
                out.push_str(&format!("\ncheckpoint {digest}"));
            }
            if let Some(seed) = p.seed {
                out.push_str(&format!("\nseed {seed}"));
            }
            for (key, value) in &p.notes {
                out.push_str(&format!("\n{key}: {value}"));
            }
            if !p.recipe.is_empty() {
                out.push_str(&format!("\nrecipe\n{}", p.recipe));
            }
            out.push('\n');
        }
        out.push_str(&match self.score {
            Some(s) => format!("\nScore: {}\n", score_line(&s)),
            None if self.ledger.is_empty() => String::new(),
            None => "\nScore: not measured\n".into(),
        });
        out
    }
}

/// A score in one line: size and accuracy together.
pub(crate) fn score_line(score: &Score) -> String {
    let bpb = score.bits_per_byte.map_or(String::new(), |b| format!("{b:.5} bits per byte, "));
    format!("{} bytes, {bpb}{:.5} nats per token", thousands(score.bytes), score.nats_per_token)
}

fn tensors(loaded: &Loaded) -> Vec<Tensor> {
    let model = &loaded.model;
    let shares = loaded.packed.as_ref().map(|p| &p.ledger.tensors);
    let table = model.config.tensors().into_iter().enumerate().map(|(i, spec)| {
        let data = &model.tensors[&spec.id];
        let (form, stored) = match data {
            TensorData::F32(v) => ("f32", 4 * v.len() as u64),
            TensorData::F16(v) => ("f16", 2 * v.len() as u64),
            TensorData::Quantized(q) => (int_name(q.bits()), q.codes.len() as u64),
        };
        let bytes = shares.map_or(stored, |s| s[i].bytes());
        Tensor {
            name: spec.name(),
            class: format!("{:?}", spec.class).to_lowercase(),
            form,
            bits_per_weight: 8.0 * bytes as f64 / spec.elements() as f64,
            bytes,
            share: bytes as f64 / model.bytes as f64,
            shape: spec.shape,
        }
    });
    table.collect()
}

fn int_name(bits: u32) -> &'static str {
    match bits {
        5 => "int5",
        6 => "int6",
        7 => "int7",
        8 => "int8",
        _ => "codes",
    }
}

fn ledger(packed: &Packed) -> Vec<Line> {
    let ledger = &packed.ledger;
    let whole = |what, bytes| Line { what, codec: None, decoded: bytes, bytes };
    let sections = ledger.sections.iter().map(|s| Line {
        what: s.name(),
        codec: s.codec.map(|c| c.name().to_owned()),
        decoded: s.raw,
        bytes: s.bytes,
    });
    [whole("header", ledger.header), whole("section table", ledger.table)].into_iter().chain(sections).collect()
}

impl Tensor {
    fn row(&self) -> Vec<String> {
        let shape = self.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("×");
        vec![
            self.name.clone(),
            if shape.is_empty() { "1".into() } else { shape },
            self.class.clone(),
            self.form.into(),
            format!("{:.3}", self.bits_per_weight),
            thousands(self.bytes),
            format!("{:.2}%", self.share * 100.0),
        ]
    }
}

impl Line {
    fn row(&self) -> Vec<String> {
        let codec = self.codec.clone().unwrap_or_default();
        vec![self.what.into(), codec, thousands(self.decoded), thousands(self.bytes)]
    }
}
