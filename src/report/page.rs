//! What the page says.

use sixpack_compress::report::TensorReport;
use sixpack_compress::sweep::Point;
use sixpack_formats::{QuantClass, Score};
use sixpack_runtime::count;
use sixpack_runtime::divergence::Divergence;

use super::html::{details, document, figure, figures, list, paragraph, section, table};
use super::pictures;
use crate::loaded::Loaded;
use crate::table::thousands;
use crate::verbs::compress::Outcome;

/// Everything the page is made from.
pub(super) struct Page<'a> {
    /// The artifact's name.
    pub(super) name: &'a str,
    /// What compression did.
    pub(super) outcome: &'a Outcome,
    /// The artifact as re-read from disk.
    pub(super) packed: &'a Loaded,
    /// Its predictions against the float model's.
    pub(super) divergence: &'a Divergence,
    /// Windows these were compared in.
    pub(super) seq_len: usize,
    /// Points of a sweep beside the artifact.
    pub(super) points: &'a [Point],
}

impl Page<'_> {
    /// The whole page.
    pub(super) fn html(&self) -> String {
        let mut content = format!("<h1>{}</h1>\n", crate::plot::escape(self.name));
        content.push_str(&self.summary());
        content.push_str(&section("Size against accuracy", &figure(&pictures::trade_off(self).svg(false))));
        content.push_str(&section("Predictions", &self.predictions()));
        content.push_str(&section("Bytes", &self.bytes()));
        content.push_str(&section("Error by layer", &self.errors()));
        content.push_str(&section("Provenance", &self.provenance()));
        document(&format!("{} – compression report", self.name), &content)
    }

    /// The figures that matter most.
    fn summary(&self) -> String {
        let (float, packed) = (&self.outcome.float, &self.outcome.packed);
        let parameters = count::parameters(&self.packed.model.config);
        let unit = if packed.bits_per_byte.is_some() { "bits per byte" } else { "nats per token" };
        let loss = |s: &Score| s.bits_per_byte.unwrap_or(s.nats_per_token);
        figures(&[
            ("bytes", thousands(packed.bytes)),
            ("of full precision", format!("÷{:.2}", float.bytes as f64 / packed.bytes as f64)),
            ("bits per weight, all of the file", format!("{:.3}", 8.0 * packed.bytes as f64 / parameters as f64)),
            (unit, format!("{:.5}", loss(packed))),
            ("in full precision", format!("{:.5}", loss(float))),
            ("gap", format!("{:+.5}", loss(packed) - loss(float))),
            ("scheme", self.outcome.report.scheme.name().to_owned()),
        ])
    }

    fn predictions(&self) -> String {
        let (float, packed, d) = (&self.outcome.float, &self.outcome.packed, self.divergence);
        let row = |what: &str, s: &Score| {
            let bpb = s.bits_per_byte.map_or("–".into(), |b| format!("{b:.5}"));
            vec![what.to_owned(), thousands(s.bytes), bpb, format!("{:.5}", s.nats_per_token)]
        };
        let scores = table(
            "Before and after, on text that was not calibrated on",
            &["model", "bytes", "bits per byte", "nats per token"],
            &[row("full precision", float), row("artifact", packed)],
        );
        let stderr = self.outcome.stderr.map_or(String::new(), |e| {
            paragraph(&format!("Standard error of the artifact's score over documents: {e:.5}."))
        });
        let rows = [
            vec!["KL divergence from full precision, nats a position".to_owned(), format!("{:.6}", d.kl_nats)],
            vec!["largest of a position".into(), format!("{:.4}", d.kl_max)],
            vec!["the same likeliest token (top-1 agreement)".into(), format!("{:.3}%", 100.0 * d.top1)],
        ];
        let caption = format!("{} positions in windows of {}", thousands(d.positions), self.seq_len);
        format!("{scores}{stderr}{}", table(&caption, &["predictions", ""], &rows))
    }

    fn bytes(&self) -> String {
        let tensors = &self.outcome.report.tensors;
        let rows: Vec<_> = tensors.iter().map(|t| tensor(t, self.outcome.packed.bytes)).collect();
        let header =
            ["tensor", "shape", "kept as", "bytes", "share", "bits/weight", "mean squared error", "error/nearest"];
        let all = table("Tensors; a stream's bytes are shared out by the entropy of its parts", &header, &rows);
        format!(
            "{}{}{}",
            figure(&pictures::bytes(tensors).svg(false)),
            self.classes(),
            details(&format!("All {} tensors", tensors.len()), &all)
        )
    }

    /// Bits per weight by class; the rows sum to the file.
    fn classes(&self) -> String {
        let tensors = &self.outcome.report.tensors;
        let total = self.outcome.packed.bytes;
        let share = |bytes: u64| format!("{:.2}%", 100.0 * bytes as f64 / total as f64);
        let classes = [
            (QuantClass::Attention, "attention matrices"),
            (QuantClass::Mlp, "MLP matrices"),
            (QuantClass::Embedding, "embedding tables"),
            (QuantClass::Half, "small tensors"),
        ];
        let mut rows = Vec::new();
        let mut counted = 0;
        for (class, name) in classes {
            let of = || tensors.iter().filter(|t| t.class == class);
            let weights: usize = of().map(|t| t.shape.iter().product::<usize>()).sum();
            let bytes: u64 = of().map(|t| t.coded_bytes).sum();
            counted += bytes;
            if weights > 0 {
                let bits = format!("{:.3}", 8.0 * bytes as f64 / weights as f64);
                rows.push(vec![name.to_owned(), thousands(weights as u64), thousands(bytes), share(bytes), bits]);
            }
        }
        let rest =
            |name: &str, bytes: u64| vec![name.to_owned(), "–".into(), thousands(bytes), share(bytes), "–".into()];
        let tokenizer = self.tokenizer_bytes();
        rows.push(rest("tokenizer", tokenizer));
        rows.push(rest("configuration, provenance, frame", total.saturating_sub(counted + tokenizer)));
        rows.push(rest("file", total));
        table("Bits per weight by class", &["class", "weights", "bytes", "share", "bits/weight"], &rows)
    }

    fn tokenizer_bytes(&self) -> u64 {
        let kind = sixpack_formats::artifact::Kind::Tokenizer;
        self.packed.packed.as_ref().map_or(0, |p| p.ledger.section(kind))
    }

    fn errors(&self) -> String {
        let report = &self.outcome.report;
        let sum = report.hessian_errors().map_or(String::new(), |(kept, nearest)| {
            paragraph(&format!(
                "Over all matrices the error in the Hessian norm is {:.3} of that of rounding to nearest.",
                kept / nearest
            ))
        });
        format!("{}{sum}", figure(&pictures::errors(&report.tensors).svg(false)))
    }

    fn provenance(&self) -> String {
        let Some(packed) = &self.packed.packed else { return String::new() };
        let p = &packed.provenance;
        let mut pairs = vec![("made by".to_owned(), p.tool.clone())];
        pairs.extend(p.notes.clone());
        pairs.extend(p.seed.map(|seed| ("seed".to_owned(), seed.to_string())));
        pairs.extend(p.checkpoint.map(|digest| ("checkpoint".to_owned(), digest.to_string())));
        pairs.extend(p.data.iter().map(|(use_of, digest)| (format!("{use_of} data"), digest.to_string())));
        let recipe = [("recipe".to_owned(), p.recipe.clone())];
        let recipe = if p.recipe.is_empty() { String::new() } else { details("Training recipe", &list(&recipe)) };
        format!("{}{recipe}", list(&pairs))
    }
}

/// A row of the table of tensors.
fn tensor(t: &TensorReport, total: u64) -> Vec<String> {
    let elements: usize = t.shape.iter().product();
    let shape = t.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("×");
    let ratio = t.matrix.and_then(|m| Some(m.error? / m.nearest_error?));
    let form = match t.bits {
        16 => "f16".to_owned(),
        bits => format!("int{bits}"),
    };
    vec![
        t.id.to_string(),
        if shape.is_empty() { "1".into() } else { shape },
        form,
        thousands(t.coded_bytes),
        format!("{:.2}%", 100.0 * t.coded_bytes as f64 / total as f64),
        format!("{:.3}", 8.0 * t.coded_bytes as f64 / elements as f64),
        format!("{:.3e}", t.mean_squared_error),
        ratio.map_or("–".into(), |r| format!("{r:.3}")),
    ]
}
