//! Which combinations a sweep measures.

use anyhow::Result;
use clap::ValueEnum;
use sixpack_compress::Scheme;
use sixpack_compress::sweep::Settings;
use sixpack_formats::Codec;

use crate::args::{self, SchemeName};
use crate::misuse::misuse;

/// How an artifact's size is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Size {
    /// So many matrices in int6.
    Int6(usize),
    /// A share of what all matrices are: of this many in int6.
    Share(f64),
    /// So many bits for each parameter.
    Bits(f64),
    /// So many bytes.
    Bytes(u64),
    /// What the scheme gives by itself.
    Free,
}

/// The combinations for each checkpoint.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    schemes: Vec<Scheme>,
    codecs: Vec<Codec>,
    int6: Vec<Size>,
    targets: Vec<Size>,
}

/// One combination: what the library is asked for, and how it is known in files.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Combination {
    pub(super) scheme: Scheme,
    pub(super) codec: Codec,
    pub(super) int6_layers: Option<usize>,
    pub(super) target_bytes: Option<u64>,
}

impl Combination {
    pub(super) fn settings(&self) -> Settings {
        Settings {
            scheme: self.scheme.name().into(),
            codec: self.codec.name().into(),
            int6_layers: self.int6_layers.map(|n| n as u64),
            target_bytes: self.target_bytes,
        }
    }
}

impl Plan {
    pub(super) fn new(args: &args::Sweep) -> Result<Self> {
        let names = if args.schemes.is_empty() { SchemeName::value_variants() } else { &args.schemes };
        let schemes: Vec<Scheme> = names.iter().map(|&name| Scheme::from(name)).collect();
        let bits = args.bits.iter().map(|&b| Size::Bits(b));
        let targets: Vec<Size> = bits.chain(args.target_bytes.iter().map(|&b| Size::Bytes(b))).collect();
        if !args.int6_layers.is_empty() && !schemes.iter().any(|&s| has_widths(s)) {
            return Err(misuse("--int6-layers: none of the schemes has int5 and int6; name sizes with --bits"));
        }
        let int6 = match &args.int6_layers[..] {
            // Where sizes are named, they are the question.
            [] if !targets.is_empty() => Vec::new(),
            [] => [0.0, 0.5, 1.0].map(Size::Share).to_vec(),
            some => some.iter().map(|&n| Size::Int6(n)).collect(),
        };
        Ok(Self { schemes, codecs: args.codecs.iter().map(|&c| c.into()).collect(), int6, targets })
    }

    /// Combinations of a checkpoint, at most.
    pub(super) fn len(&self) -> usize {
        self.schemes.iter().map(|&s| self.sizes(s).len()).sum::<usize>() * self.codecs.len()
    }

    /// The combinations for a model with so many parameters, `matrices` of them to be int5 or int6.
    pub(super) fn of(&self, (parameters, matrices): (u64, usize)) -> Vec<Combination> {
        let mut all = Vec::with_capacity(self.len());
        for &scheme in &self.schemes {
            for size in self.sizes(scheme) {
                let (int6_layers, target_bytes) = match size {
                    Size::Int6(n) => (Some(n.min(matrices)), None),
                    Size::Share(share) => (Some((share * matrices as f64).round() as usize), None),
                    Size::Bits(bits) => (None, Some((bits * parameters as f64 / 8.0) as u64)),
                    Size::Bytes(bytes) => (None, Some(bytes)),
                    Size::Free => (None, None),
                };
                let one = |&codec| Combination { scheme, codec, int6_layers, target_bytes };
                all.extend(self.codecs.iter().map(one));
            }
        }
        // More int6 matrices than there are is all of them.
        let mut seen = Vec::with_capacity(all.len());
        all.retain(|one| {
            !seen.contains(one) && {
                seen.push(one.clone());
                true
            }
        });
        all
    }

    fn sizes(&self, scheme: Scheme) -> Vec<Size> {
        let int6 = self.int6.iter().filter(|_| has_widths(scheme));
        let sizes: Vec<Size> = int6.chain(&self.targets).copied().collect();
        if sizes.is_empty() { vec![Size::Free] } else { sizes }
    }
}

/// Whether a scheme's sizes are numbers of int6 matrices; the others have steps to choose instead.
pub(super) fn has_widths(scheme: Scheme) -> bool {
    scheme == Scheme::Reference
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Verb};

    fn plan(more: &str) -> Result<Plan> {
        let line = format!("sixpack sweep --checkpoints a b --data d --out o {more}");
        let cli = Cli::try_parse_from(line.split_whitespace()).expect("a command");
        let Verb::Sweep(args) = cli.verb else { panic!("another verb") };
        Plan::new(&args)
    }

    fn sizes(more: &str) -> Vec<(Option<usize>, Option<u64>)> {
        let plan = plan(more).unwrap();
        let all = plan.of((1000, 24));
        assert!(all.len() <= plan.len());
        all.iter().map(|c| (c.int6_layers, c.target_bytes)).collect()
    }

    #[test]
    fn sizes_are_what_was_asked_for() {
        let widths = [(Some(0), None), (Some(12), None), (Some(24), None)];
        assert_eq!(sizes("--schemes reference"), widths);
        assert_eq!(sizes("--schemes reference --int6-layers 3,24"), [(Some(3), None), (Some(24), None)]);
        assert_eq!(sizes("--schemes reference --int6-layers 24,30,99"), [(Some(24), None)]);
        assert_eq!(
            sizes("--schemes reference --bits 2,2.5 --target-bytes 700"),
            [250, 312, 700].map(|b| (None, Some(b)))
        );
        let both = sizes("--schemes reference --int6-layers 3 --bits 4 --codecs brotli,zstd");
        assert_eq!(both, [(Some(3), None), (Some(3), None), (None, Some(500)), (None, Some(500))]);
    }

    #[test]
    fn references_are_parsed() {
        let parse = |text: &str| text.parse::<args::Reference>();
        let found = parse("15967000, 1.09057,PR 1285, seed 42").unwrap();
        assert_eq!((found.bytes, found.bits_per_byte, &found.label[..]), (15_967_000, 1.09057, "PR 1285, seed 42"));
        for wrong in ["1,2", "x,1.0,a", "1,NaN,a", ""] {
            assert!(parse(wrong).unwrap_err().contains("BYTES,BPB,LABEL"), "{wrong}");
        }
    }
}
