use candle_core::{CpuStorage, InplaceOp1, Layout, Result as CandleResult, bail};
use sixpack_formats::TensorData;

use super::*;
use crate::{CpuEngine, Sequences, init};

/// A model with every feature, small enough to nudge each number of it.
fn tiny(lanes: bool) -> Model {
    let config = ModelConfig {
        vocab_size: 11,
        num_layers: 4,
        model_dim: 12,
        num_heads: 2,
        num_kv_heads: 1,
        mlp_mult: 1.5,
        rope_dims: 4,
        train_seq_len: 5,
        eval_seq_len: 5,
        xsa_last_n: 2,
        ve_layers: vec![1, 3],
        ve_dim: 3,
        recur_layers: vec![1],
        parallel_residual: lanes,
        parallel_start_layer: 3,
        ..ModelConfig::record()
    };
    // As a trained one: nothing that starts at zero is left there.
    let mut params = init(&config, 5);
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    params.values_mut().flatten().for_each(|x| *x += 0.4 * (rng.random::<f32>() - 0.5));
    // Large enough for its gradients to stand out from the rounding of a loss.
    params.insert(TensorId::ValueScale, vec![1.5]);
    params::into_model(&config, params, None).unwrap()
}

const IDS: [u32; 5] = [3, 1, 7, 3, 10];
const TARGETS: [u32; 5] = [1, 7, 3, 0, 2];

fn summed(machine: &Machine<'_>) -> Sums {
    machine.backward(machine.record(&IDS).unwrap(), &IDS, &TARGETS).unwrap()
}

/// Adds to one element of an activation.
struct Nudge {
    at: usize,
    by: f32,
}

impl InplaceOp1 for Nudge {
    fn name(&self) -> &'static str {
        "nudge"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, _: &Layout) -> CandleResult<()> {
        let CpuStorage::F32(x) = x else { bail!("expected f32") };
        x[self.at] += self.by;
        Ok(())
    }
}

/// Nudges one element of the `visit`th result that is a product's or a lookup's; notes what all of them are.
struct Nudger {
    seen: Seen,
    results: Vec<(Place, usize)>,
    visit: usize,
    nudge: Nudge,
}

impl Watch<CandleOps> for Nudger {
    fn output(&mut self, ops: &mut CandleOps, op: &'static str, site: Option<Site>, y: &Tensor) -> CandleResult<()> {
        self.seen.output(ops, op, site, y)?;
        if let Some(&place) = self.seen.places.get(&y.id()) {
            if self.results.len() == self.visit {
                y.inplace_op1(&self.nudge)?;
            }
            self.results.push((place, y.elem_count()));
        }
        Ok(())
    }
}

/// The summed loss with one nudge, and the results that can be nudged.
fn loss(machine: &Machine<'_>, visit: usize, at: usize, by: f32) -> (f64, Vec<(Place, usize)>) {
    let mut ops = CandleOps::default();
    let nudger = Nudger { seen: Seen::default(), results: Vec::new(), visit, nudge: Nudge { at, by } };
    let mut watched = Watched::with(&mut ops, nudger);
    let h = forward(machine.config, &machine.weights, &mut watched, &Batch::new(&IDS, 1), Pass::FULL).unwrap();
    let logits = model::logits(machine.config, &machine.weights, &mut watched, &h).unwrap();
    let results = watched.into_watch().results;
    let nll = ops.cross_entropy(&logits, &TARGETS).unwrap();
    (sixpack_runtime::now(ops.read(&nll)).unwrap().into_iter().map(f64::from).sum(), results)
}

fn assert_close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().copied().fold(0.0, f64::max);
    assert!(scale > 0.0, "{what}: nothing to compare");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() < tolerance * scale, "{what}, {i}: {found}, expected {expected}");
    }
}

#[test]
fn squares_at_outputs_and_lookups_are_those_of_nudged_activations() {
    for lanes in [false, true] {
        let model = tiny(lanes);
        let machine = Machine::new(&model).unwrap();
        let sums = summed(&machine);
        let (_, results) = loss(&machine, usize::MAX, 0, 0.0);
        // Four layers and the second pass of one: six products each; two lookups, one projection, one head.
        assert_eq!(results.len(), 5 * 6 + 4);
        let mut expected = Sums::default();
        for (visit, &(place, elements)) in results.iter().enumerate() {
            const BY: f32 = 0.008;
            let slope = |at| {
                ((loss(&machine, visit, at, BY).0 - loss(&machine, visit, at, -BY).0) / (2.0 * f64::from(BY))) as f32
            };
            let gradient: Vec<f32> = (0..elements).map(slope).collect();
            let gradient = Tensor::from_vec(gradient, (1, IDS.len(), elements / IDS.len()), &candle_core::Device::Cpu);
            match place {
                Place::Product(tensor) => expected.output(tensor, &gradient.unwrap()).unwrap(),
                Place::Lookup(table) => expected.lookup(table, &IDS, &gradient.unwrap()).unwrap(),
            }
        }
        for (tensor, expected) in &expected.outputs {
            if *tensor != TensorId::TokenEmbedding {
                assert_close(&tensor.to_string(), &sums.outputs[tensor], expected, 0.02);
            }
        }
        assert_eq!(sums.lookups.len(), 2);
        for (table, expected) in &expected.lookups {
            let found = &sums.lookups[table];
            assert_close(&table.to_string(), &found.columns, &expected.columns, 0.02);
            let rows =
                |sums: &LookupSums| sums.rows.values().map(|&(n, sum)| n as f64 * 1e-9 + sum).collect::<Vec<_>>();
            assert_close(&table.to_string(), &rows(found), &rows(expected), 0.02);
            assert_eq!(found.rows[&3].0, 2, "token 3 is looked up twice");
        }
    }
}

#[test]
fn squares_of_elements_are_those_of_the_training_engine() {
    for lanes in [false, true] {
        let model = tiny(lanes);
        let machine = Machine::new(&model).unwrap();
        let sums = summed(&machine);
        let engine = CpuEngine::new(&model.config, 1, 1).unwrap();
        let batch = Sequences { inputs: IDS.to_vec(), targets: TARGETS.to_vec(), len: IDS.len() };
        let gradients = engine.gradients(&params::of_model(&model), &batch, true).unwrap();
        for spec in model.config.tensors() {
            let mean = &gradients.of[&spec.id];
            let squares: Vec<f64> = mean.iter().map(|&g| (f64::from(g) * IDS.len() as f64).powi(2)).collect();
            if squares.iter().all(|&x| x == 0.0) {
                assert!(lanes, "{}: no gradient", spec.name());
                continue;
            }
            assert_close(&spec.name(), &sums.elements[&spec.id], &squares, 1e-3);
        }
    }
}

#[test]
fn the_head_has_the_mean_over_all_targets() {
    let model = tiny(false);
    let machine = Machine::new(&model).unwrap();
    let recorded = machine.record(&IDS).unwrap();
    let found = head(&recorded.values, IDS.len(), model.config.logit_softcap);
    let mut expected = vec![0.0; model.config.vocab_size];
    for target in 0..model.config.vocab_size {
        let Recorded { mut ops, seen, logits, values } = machine.record(&IDS).unwrap();
        let nll = ops.cross_entropy(&logits, &[target as u32; 5]).unwrap();
        let mut gradient = Vec::new();
        let mut see = |id, g: &Tensor| {
            if seen.places.get(&id) == Some(&Place::Product(TensorId::TokenEmbedding)) {
                gradient = g.flatten_all()?.to_vec1::<f32>()?;
            }
            Ok(())
        };
        ops.backward_watched(&nll, nll.ones_like().unwrap(), &mut see).unwrap();
        for (row, gradient) in values.chunks_exact(11).zip(gradient.chunks_exact(11)) {
            let odds = odds(row);
            let p = odds[target] / odds.iter().sum::<f64>();
            expected.iter_mut().zip(gradient).for_each(|(sum, &g)| *sum += p * f64::from(g).powi(2));
        }
    }
    assert_close("head", &found, &expected, 1e-5);
}

#[test]
fn targets_are_drawn_as_the_model_would() {
    let model = tiny(false);
    let recorded = Machine::new(&model).unwrap().record(&IDS).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut counts = vec![0.0; IDS.len() * 11];
    for _ in 0..20_000 {
        recorded.draw(&mut rng).iter().enumerate().for_each(|(t, &id)| counts[t * 11 + id as usize] += 1.0 / 20_000.0);
    }
    for (shares, row) in counts.chunks_exact(11).zip(recorded.values.chunks_exact(11)) {
        let (odds, top) = (odds(row), odds(row).iter().sum::<f64>());
        for (share, odds) in shares.iter().zip(odds) {
            assert!((share - odds / top).abs() < 0.015, "{share}, expected {}", odds / top);
        }
    }
}

fn text(tokens: &[u16]) -> Text<'_> {
    Text { tokens, seq_len: 5, sequences: 70, seed: 3 }
}

#[test]
fn the_number_of_threads_changes_nothing_and_the_seed_does() {
    let model = tiny(true);
    let tokens: Vec<u16> = (0..400).map(|i: u32| (i * i % 11) as u16).collect();
    let run = |threads, seed| measure(&model, Digest::of(b""), &Text { seed, ..text(&tokens) }, threads, &|_, _| {});
    let one = run(1, 3).unwrap();
    assert_eq!(one.tokens, 350);
    assert_eq!(run(2, 3).unwrap(), one);
    assert_eq!(run(3, 3).unwrap(), one);
    assert_ne!(run(1, 4).unwrap(), one);
    // Means over tokens, not sums.
    let half = measure(&model, Digest::of(b""), &Text { sequences: 35, ..text(&tokens) }, 1, &|_, _| {}).unwrap();
    let mean = |s: &Sensitivity| s.outputs[&TensorId::ValueProj].iter().sum::<f32>();
    assert!((0.7..1.4).contains(&(mean(&half) / mean(&one))), "{} and {}", mean(&half), mean(&one));
}

#[test]
fn rows_that_are_never_looked_up_lean_on_the_others() {
    let sums = BTreeMap::from([(0, (92, 92.0)), (1, (8, 32.0))]);
    let shares = shares(&[0, 0, 0, 1, 9], 3);
    assert_eq!(shares, [3.5 / 5.5, 1.5 / 5.5, 0.5 / 5.5]);
    let (mean, rows) = (1.24, rows(&sums, &shares));
    let expected = [shares[0] * (92.0 + 8.0 * mean) / 100.0, shares[1] * (32.0 + 8.0 * mean) / 16.0, shares[2] * mean];
    assert_close("rows", &rows, &expected, 1e-12);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let model = tiny(false);
    let message =
        |model: &Model, text: Text<'_>| measure(model, Digest::of(b""), &text, 1, &|_, _| {}).unwrap_err().to_string();
    assert!(message(&model, text(&[1, 2, 3])).contains("at least one sequence"));
    assert!(message(&model, Text { sequences: 0, ..text(&[1; 40]) }).contains("at least one sequence"));
    assert!(message(&model, Text { seq_len: 0, ..text(&[1; 40]) }).contains("at least one sequence"));
    assert!(message(&model, text(&[11; 40])).contains("token ids below 11, found 11"));
    let mut broken = model.clone();
    broken.tensors.insert(TensorId::SkipGates, TensorData::F32(vec![f32::NAN; 24]));
    assert!(message(&broken, text(&[1; 40])).contains("finite values of at least 0, found NaN"));
}
