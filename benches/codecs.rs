//! Encode and decode throughput of every codec, with the bits a weight takes.
//!
//! `cargo bench --bench codecs`, which takes about two minutes. The codes are of weights as trained models have them,
//! Gaussian with sizes of rows and columns that vary as lognormals, quantised in two ways: with the step of the scheme
//! `reference`, one for all, and with a step for each row and column. `SIXPACK_MODEL=FILE` adds the codes of an artifact or
//! a safetensors file. Everything decoded is compared before anything is timed; sizes are of the whole set, encoding is
//! timed on one matrix.

use std::f64::consts::TAU;
use std::path::Path;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput};
use half::f16;
use sixpack_compress::codecs::{self, Layout, MatrixCodec, measure, outline};
use sixpack_formats::QuantizedMatrix;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    bench(&mut criterion, "one step", &synthetic(false));
    bench(&mut criterion, "steps of rows and columns", &synthetic(true));
    if let Some(path) = std::env::var_os("SIXPACK_MODEL") {
        let named =
            codecs::of_file(Path::new(&path)).expect("SIXPACK_MODEL: an artifact or a safetensors file of codes");
        bench(&mut criterion, "model", &named.into_iter().map(|n| n.matrix).collect::<Vec<_>>());
    }
    criterion.final_summary();
}

/// Prints the size that each codec gives, and times it.
fn bench(criterion: &mut Criterion, set: &str, matrices: &[QuantizedMatrix]) {
    let all: Vec<&QuantizedMatrix> = matrices.iter().collect();
    let mut group = criterion.benchmark_group(set);
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(700));
    for codec in codecs::find(&[], &[Layout::Plain]).expect("all there are") {
        let measured = measure(codec.as_ref(), std::slice::from_ref(&all), 0.0).expect("codes come back as they were");
        println!("{set}, {}: {:.4} bits a weight", codec.full_name(), measured.bits_per_weight());
        time(&mut group, codec.as_ref(), &all);
    }
    group.finish();
    // What our coder is to be compared with: the order and packing that brotli likes best.
    let of_matrix: Vec<_> = all.iter().map(|&m| vec![m]).collect();
    let orders = codecs::find(&["brotli-11".to_owned()], &[Layout::Plain, Layout::Transposed, Layout::Pairs]);
    let measured = orders.expect("it is there").into_iter().map(|codec| measure(codec.as_ref(), &of_matrix, 0.0));
    let measured = measured.collect::<Result<Vec<_>, _>>().expect("codes come back as they were");
    let best = codecs::best(&measured, "brotli-11").expect("three layouts");
    println!("{set}, brotli-11, the best of plain, transposed and pairs: {:.4} bits a weight", best.bits_per_weight());
}

fn time(group: &mut BenchmarkGroup<'_, WallTime>, codec: &dyn MatrixCodec, all: &[&QuantizedMatrix]) {
    let weights = |matrices: &[&QuantizedMatrix]| matrices.iter().map(|m| m.codes.len() as u64).sum();
    let one = &all[..1];
    group.throughput(Throughput::Elements(weights(one)));
    group.bench_function(format!("{}/encode", codec.name()), |b| b.iter(|| codec.encode(one)));
    let coded = codec.encode(all).expect("encoded before");
    let outlines: Vec<_> = all.iter().map(|m| outline(m)).collect();
    group.throughput(Throughput::Elements(weights(all)));
    group.bench_function(format!("{}/decode", codec.name()), |b| b.iter(|| codec.decode(&coded, &outlines)));
}

/// About a million codes of three matrices, the same each time: with one step of the size that the reference's floor has,
/// 0.5 of the weights' deviation, or with steps for rows and columns that follow the sizes in part.
fn synthetic(steps: bool) -> Vec<QuantizedMatrix> {
    let mut random = Random(1);
    let shapes = [[320, 320], [1280, 320], [320, 1280]];
    let matrix = |[rows, cols]: [usize; 2]| {
        let mut sizes = |n: usize, spread: f64| (0..n).map(|_| (spread * random.gaussian()).exp()).collect::<Vec<_>>();
        let (of_rows, of_cols) = (sizes(rows, 0.15), sizes(cols, 0.25));
        let (row_steps, col_steps) = (sizes(rows, 0.2), sizes(cols, 0.3));
        let half = |x: f64| f16::from_f64(x);
        let (scales, columns): (Vec<f16>, Vec<f16>) = match steps {
            true => (row_steps.iter().map(|s| half(0.6 * s)).collect(), col_steps.iter().map(|&s| half(s)).collect()),
            false => (vec![half(0.5); rows], Vec::new()),
        };
        let mut codes = Vec::with_capacity(rows * cols);
        for (row_size, scale) in of_rows.iter().zip(&scales) {
            codes.extend(of_cols.iter().enumerate().map(|(col, col_size)| {
                let step = scale.to_f64() * columns.get(col).map_or(1.0, |c| c.to_f64());
                (row_size * col_size * random.gaussian() / step).round().clamp(-31.0, 31.0) as i8
            }));
        }
        let matrix = QuantizedMatrix::new("synthetic", [rows, cols], 31, codes, scales);
        matrix.and_then(|m| m.with_columns("synthetic", columns)).expect("sizes that fit each other")
    };
    shapes.map(matrix).into()
}

/// A linear congruential generator.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f64 + 0.5) / (1u64 << 24) as f64
    }

    /// By the formula of Box and Muller.
    fn gaussian(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (TAU * self.uniform()).cos()
    }
}
