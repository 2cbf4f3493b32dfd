//! `codecs`: sizes and speeds of codecs on a model's quantised weights.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use sixpack_compress::Error;
use sixpack_compress::codecs::floors::Floor;
use sixpack_compress::codecs::{self, Class, Layout, Measured, Named, Streams};

use crate::args::{self, ClassName, LayoutName, StreamsName};
use crate::loaded;
use crate::misuse::misuse;
use crate::say::say;
use crate::table::{render, thousands};

/// What sizes are compared with: the reference's coder.
const BASELINE: (&str, Option<Layout>) = ("brotli-11", Some(Layout::Plain));

pub(crate) fn run(args: &args::Codecs) -> Result<()> {
    let layouts: Vec<Layout> = args.layout.iter().flat_map(|&name| of_name(name)).collect();
    let chosen = codecs::find(&args.codec, &layouts).map_err(|e| misuse(format!("--codec: {e}")))?;
    if chosen.is_empty() {
        return Err(misuse("--codec and --layout: no codec is left"));
    }
    let (source, mut matrices) = open(&args.model)?;
    matrices.retain(|m| is_of(args.class, m.class));
    if matrices.is_empty() {
        let model = args.model.display();
        return Err(misuse(format!("--class: {model} has no quantised tensors of this class")));
    }
    let streams = Streams::from(args.streams).group(&matrices);
    let all: Vec<_> = matrices.iter().map(|m| &m.matrix).collect();
    let floors = Floor::ALL.into_iter().map(|f| Ok((f, f.bits_per_weight(&all)?))).collect::<Result<Vec<_>>>()?;
    let mut measured = Vec::new();
    for (i, codec) in chosen.iter().enumerate() {
        eprintln!("{} of {}: {}", i + 1, chosen.len(), codec.full_name());
        measured.push(codecs::measure(codec.as_ref(), &streams, args.seconds)?);
    }
    let report = Report::new(source, &all, streams.len(), &floors, &measured);
    if args.json {
        say!("{}", serde_json::to_string(&report)?);
    } else {
        crate::say::write(format_args!("{}", report.text()));
    }
    Ok(())
}

/// What the codes are, and the codes.
fn open(path: &Path) -> Result<(&'static str, Vec<Named>)> {
    if path.is_dir() {
        let matrices = codecs::of_model(&loaded::read_checkpoint(path)?)?;
        return Ok((
            "weights rounded to nearest with the steps of the scheme `reference`, without calibration",
            matrices,
        ));
    }
    match codecs::of_file(path) {
        Ok(matrices) => Ok(("codes as they are in the file", matrices)),
        Err(error @ Error::NoCodes { .. }) => Err(misuse(format!("MODEL: {error}"))),
        Err(error) => Err(error.into()),
    }
}

fn is_of(name: ClassName, class: Class) -> bool {
    match name {
        ClassName::All => true,
        ClassName::Attention => class == Class::Attention,
        ClassName::Mlp => matches!(class, Class::MlpUp | Class::MlpDown),
        ClassName::Matrices => class != Class::Table,
        ClassName::Tables => class == Class::Table,
    }
}

fn of_name(name: LayoutName) -> Vec<Layout> {
    match name {
        LayoutName::Plain => vec![Layout::Plain],
        LayoutName::Transposed => vec![Layout::Transposed],
        LayoutName::Shuffled => vec![Layout::Shuffled],
        LayoutName::Planes => vec![Layout::Planes],
        LayoutName::Packed => vec![Layout::Packed],
        LayoutName::Pairs => vec![Layout::Pairs],
        LayoutName::All => Layout::ALL.to_vec(),
    }
}

impl From<StreamsName> for Streams {
    fn from(name: StreamsName) -> Self {
        match name {
            StreamsName::One => Self::One,
            StreamsName::Class => Self::Class,
            StreamsName::Tensor => Self::Tensor,
        }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    source: &'static str,
    matrices: usize,
    weights: u64,
    streams: usize,
    floors: Vec<FloorRow>,
    codecs: Vec<CodecRow>,
}

/// An entropy, which does not pay for its model.
#[derive(Serialize)]
struct FloorRow {
    floor: &'static str,
    bits_per_weight: f64,
    bytes: u64,
}

#[derive(Serialize)]
struct CodecRow {
    codec: String,
    layout: Option<&'static str>,
    bytes: u64,
    bits_per_weight: f64,
    /// Bytes over those of brotli-11 in the plain layout.
    relative: Option<f64>,
    /// Also MB/s of codes of one byte; none for a choice among several runs.
    encode_million_weights_per_second: Option<f64>,
    decode_million_weights_per_second: Option<f64>,
}

impl Report {
    fn new(
        source: &'static str,
        matrices: &[&sixpack_formats::QuantizedMatrix],
        streams: usize,
        floors: &[(Floor, f64)],
        measured: &[Measured],
    ) -> Self {
        let weights = matrices.iter().map(|m| m.codes.len() as u64).sum();
        let baseline = measured.iter().find(|m| (&m.codec[..], m.layout) == BASELINE).map(Measured::bytes);
        let relative = |bytes: u64| baseline.map(|baseline| bytes as f64 / baseline as f64);
        let row = |m: &Measured, layout: Option<&'static str>, timed: bool| CodecRow {
            codec: m.codec.clone(),
            layout,
            bytes: m.bytes(),
            bits_per_weight: m.bits_per_weight(),
            relative: relative(m.bytes()),
            encode_million_weights_per_second: timed.then(|| m.encode_rate()),
            decode_million_weights_per_second: timed.then(|| m.decode_rate()),
        };
        let mut codecs: Vec<_> = measured.iter().map(|m| row(m, m.layout.map(Layout::name), true)).collect();
        let best = ["brotli-11", "zstd-22"].into_iter().filter_map(|codec| codecs::best(measured, codec));
        codecs.extend(best.map(|m| row(&m, Some("best of each stream"), false)));
        let floor = |&(floor, bits): &(Floor, f64)| FloorRow {
            floor: floor.name(),
            bits_per_weight: bits,
            bytes: (bits * weights as f64 / 8.0).ceil() as u64,
        };
        Self { source, matrices: matrices.len(), weights, streams, floors: floors.iter().map(floor).collect(), codecs }
    }

    fn text(&self) -> String {
        let rows: Vec<_> = self.floors.iter().map(FloorRow::row).collect();
        let floors = render(&["entropy (a floor: its model is not paid for)", "bytes", "bits/weight"], &rows);
        let rows: Vec<_> = self.codecs.iter().map(CodecRow::row).collect();
        let header = ["codec", "layout", "bytes", "bits/weight", "to brotli-11", "encode M/s", "decode M/s"];
        format!(
            "{} weights of {} matrices in {} streams: {}\n\n{floors}\n{}M/s: million weights a second on one thread, \
             also MB/s of codes of one byte. Scales are not counted; everything decoded was compared.\n",
            thousands(self.weights),
            self.matrices,
            self.streams,
            self.source,
            render(&header, &rows),
        )
    }
}

impl FloorRow {
    fn row(&self) -> Vec<String> {
        vec![self.floor.to_owned(), thousands(self.bytes), format!("{:.4}", self.bits_per_weight)]
    }
}

impl CodecRow {
    fn row(&self) -> Vec<String> {
        let rate = |rate: Option<f64>| {
            rate.map_or("–".into(), |r| if r < 1.0 { format!("{r:.2}") } else { format!("{r:.1}") })
        };
        vec![
            self.codec.clone(),
            self.layout.unwrap_or("own").to_owned(),
            thousands(self.bytes),
            format!("{:.4}", self.bits_per_weight),
            self.relative.map_or("–".into(), |r| format!("{:+.2}%", 100.0 * (r - 1.0))),
            rate(self.encode_million_weights_per_second),
            rate(self.decode_million_weights_per_second),
        ]
    }
}
