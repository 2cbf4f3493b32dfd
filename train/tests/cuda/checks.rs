//! What the engine must pass on any GPU: it does what the CPU engine does.

#[path = "ahead.rs"]
mod ahead;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sixpack_formats::{Model, ModelConfig};
use sixpack_runtime::cuda::{Again, Gpu, Kind, Recompute, Settings, gpus};
use sixpack_train::cuda::{Learner, Rules};
use sixpack_train::loader::Source;
use sixpack_train::optim::{self, AdamW, Coefficients, Groups, Matrix, Muon, NorMuon, Now};
use sixpack_train::{CpuEngine, Optimizer, Params, Recipe, Sequences, Setup, Trainer, init, params};

use crate::golden;

/// Its checks and their names; each opens the first GPU.
pub(crate) const CHECKS: &[(&str, fn())] = &[
    ("gradients_are_those_of_the_cpu", gradients),
    ("what_is_computed_again_is_the_same", again),
    ("optimizers_step_as_on_the_cpu", optimizers),
    ("a_recorded_run_is_that_of_the_cpu", run),
    ("queued_steps_are_those_that_wait", ahead::queued),
    ("a_run_waits_for_no_step_but_the_one_before_the_last", ahead::trained),
    ("batches_in_bf16_give_nearly_the_same", bf16),
    ("a_stop_while_warming_up_leaves_no_trace", stopped_while_warming_up),
    ("mistakes_are_told", mistakes),
];

/// What can be checked where nothing else takes memory, and a driver takes no more than it is asked for.
#[allow(dead_code, reason = "a real GPU is not one")]
pub(crate) const ON_THE_HOST: &[(&str, fn())] = &[("memory_is_what_was_expected", memory)];

/// What a recipe says by default, small.
fn groups(matrix: Matrix) -> Groups {
    let adamw = |lr| AdamW { lr, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.02 };
    Groups { matrix, token: adamw(0.035), scalar: adamw(0.025) }
}

const RULES: Rules = Rules { micro_batch: 2, grad_clip: 0.3, ema_decay: 0.9 };

fn gpu(reuse: bool) -> Arc<Gpu> {
    // What is compared to the bit must not choose algorithms by time.
    Gpu::open(0, Settings { reuse, search: false, tile: 60, ..Settings::default() }).expect("the driver of the tests")
}

fn learner(reuse: bool, storage: Kind, config: &ModelConfig, groups: Groups, weights: &Params) -> Learner {
    Learner::new(&gpu(reuse), storage, config, groups, RULES, [weights, weights]).unwrap()
}

/// The golden tokens of a case in batches of two sequences.
fn batches(case: &str) -> Vec<Sequences> {
    let tokens = &golden::arrays(&format!("{case}/forward.safetensors"))["tokens"];
    let ids = tokens.ids();
    let windows = ids.chunks_exact(ids.len() / tokens.shape[0]);
    windows.map(|windows| Sequences::from_windows(windows, tokens.shape[2] - 1)).collect()
}

/// The largest difference of a tensor, relative to its norm; with its name.
fn worst(found: &Params, expected: &Params) -> (f64, String) {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let of = |id| -> f64 {
        let (f, e): (&Vec<f32>, &Vec<f32>) = (&found[id], &expected[id]);
        let difference: f64 = f.iter().zip(e).map(|(f, e)| square(f - e)).sum();
        let norm: f64 = e.iter().map(|&e| square(e)).sum();
        (difference / norm.max(1e-30)).sqrt()
    };
    assert!(found.keys().eq(expected.keys()));
    let worst = expected.keys().map(|id| (of(id), id.to_string())).max_by(|a, b| a.0.total_cmp(&b.0));
    worst.expect("a model has tensors")
}

const RECIPE: &str = r#"
name = "test"
model = { preset = "small", vocab_size = 64, num_layers = 3, model_dim = 32, num_heads = 2, num_kv_heads = 1, rope_dims = 8, train_seq_len = 16, eval_seq_len = 16, xsa_last_n = 3, ve_layers = [2], ve_dim = 8, recur_layers = [1] }
batch = { tokens_per_step = 64, micro_batch = 2 }
budget = { steps = 10 }
"#;

/// A model of 25 thousand parameters with all that a model may have but lanes.
fn small() -> Model {
    let config = Recipe::parse(RECIPE, &[] as &[&str]).unwrap().model;
    let weights = init(&config, 7);
    params::into_model(&config, weights, None).unwrap()
}

/// Batches of three sequences of a text that a model can learn: counting, with a jump now and then.
fn text(count: usize) -> Vec<Sequences> {
    let tokens: Vec<u32> = (0..count * 51).map(|i| ((i + i / 37 * 11) % 64) as u32).collect();
    tokens.chunks_exact(51).map(|windows| Sequences::from_windows(windows, 16)).collect()
}

fn cases() -> impl Iterator<Item = (&'static str, Model)> {
    golden::CASES.into_iter().map(|case| (case, golden::model(case)))
}

fn gradients() {
    for (case, model) in cases() {
        let weights = params::of_model(&model);
        let batch = &batches(case)[0];
        let engine = CpuEngine::new(&model.config, 1, 1).unwrap();
        for recurrence in [false, true] {
            // Each buffer an allocation of its own, between guard zones.
            let recompute = if recurrence { Recompute::ALL } else { Recompute::NONE };
            let gpu = Gpu::open(0, Settings { reuse: false, tile: 60, recompute, ..Settings::default() }).unwrap();
            let groups = groups(Matrix::Muon(Muon::default()));
            let learner = Learner::new(&gpu, Kind::F32, &model.config, groups, RULES, [&weights, &weights]);
            let mut learner = learner.unwrap();
            let expected = engine.gradients(&weights, batch, recurrence).unwrap();
            let before = ["project_heads", "head_norm_rope"].map(|name| gpu.starts(name));
            let (loss, found) = learner.gradients(batch, recurrence).unwrap();
            // Queries, keys and values are one product in every block.
            let after = ["project_heads", "head_norm_rope"].map(|name| gpu.starts(name));
            assert!(
                after[0] - before[0] >= model.config.num_layers as u64 && after[1] == before[1],
                "{before:?} {after:?}"
            );
            assert!((loss - expected.loss).abs() < 1e-5, "{case}: loss {loss}, expected {}", expected.loss);
            let (worst, tensor) = worst(&found, &expected.of);
            assert!(worst < 1e-4, "{case}: the gradient of {tensor} differs by {worst:.2e} of its norm");
            let average = learner.loss_of_average(batch, recurrence).unwrap();
            assert!((average - loss).abs() < 1e-5, "{case}: {average} of the average, {loss}");
        }
    }
}

/// Also with a last micro-batch that is smaller than the others.
fn memory() {
    let recipe =
        |sequences: usize| Recipe::parse(RECIPE, &[format!("batch.tokens_per_step={}", 16 * sequences)]).unwrap();
    for (sequences, recompute) in [(4, Recompute::NONE), (4, Recompute::ALL), (5, Recompute::NONE)] {
        let recipe = recipe(sequences);
        let expected = sixpack_train::cuda::memory::recipe(&recipe, 1, recompute).unwrap();
        // Of several the last, on which no other test works.
        let last = gpus().unwrap().len() - 1;
        let gpu = Gpu::open(last, Settings { library: false, recompute, ..Settings::default() }).unwrap();
        let before = gpu.taken().unwrap();
        let weights = init(&recipe.model, 7);
        let rules = Rules { micro_batch: recipe.batch.micro_batch, ..RULES };
        let groups = recipe.optimizer.groups();
        let mut learner = Learner::new(&gpu, Kind::Bf16, &recipe.model, groups, rules, [&weights, &weights]).unwrap();
        let ids: Vec<u32> = (0..sequences * 17).map(|i| (i % 64) as u32).collect();
        for step in 0..6 {
            learner.step(&Sequences::from_windows(&ids, 16), step >= 3, Now::default()).unwrap();
        }
        let found = (gpu.taken().unwrap() - before) as u64;
        // Parts of sums are as many as the multiprocessors want, of which the processor has one and the imagined GPU 132.
        assert!(
            found.abs_diff(expected) <= expected / 500,
            "{found} bytes, expected {expected}, {sequences} sequences, {recompute}"
        );
    }
    let [kept, again] = [Recompute::NONE, Recompute::ALL]
        .map(|recompute| sixpack_train::cuda::memory::recipe(&recipe(4), 1, recompute).unwrap());
    assert!(again < kept, "{again} bytes where results are computed again, {kept}");
}

fn again() {
    let model = small();
    let (weights, batch) = (params::of_model(&model), &text(1)[0]);
    let with = |recompute: Recompute, storage: Kind| {
        let settings = Settings { reuse: false, search: false, tile: 60, recompute, ..Settings::default() };
        let gpu = Gpu::open(0, settings).unwrap();
        let groups = groups(Matrix::Muon(Muon::default()));
        let mut learner = Learner::new(&gpu, storage, &model.config, groups, RULES, [&weights, &weights]).unwrap();
        learner.gradients(batch, true).unwrap()
    };
    assert_eq!(with(Recompute::NONE, Kind::Bf16), with(Recompute::ALL, Kind::Bf16));
    let kept = with(Recompute::NONE, Kind::F32);
    for op in Again::ALL {
        assert_eq!(kept, with(Recompute::of(&[op]), Kind::F32), "{}", op.name());
    }
}

/// Steps on the CPU, as the trainer takes them: losses, norms, and what they end in.
fn on_cpu(model: &Model, groups: Groups, steps: &[(Sequences, bool, Now)]) -> (Vec<[f64; 2]>, Params, Params) {
    let engine = CpuEngine::new(&model.config, RULES.micro_batch, 1).unwrap();
    let mut optimizer = Optimizer::new(&model.config, groups).unwrap();
    let mut weights = params::of_model(model);
    let mut average = weights.clone();
    let mut said = Vec::new();
    for (batch, recurrence, now) in steps {
        let mut gradients = engine.gradients(&weights, batch, *recurrence).unwrap();
        let norm = optim::clip(&mut gradients.of, RULES.grad_clip);
        optimizer.step(&mut weights, &gradients.of, *now);
        optim::average(&mut average, &weights, RULES.ema_decay);
        said.push([gradients.loss, norm]);
    }
    (said, weights, average)
}

/// Steps on batches in turn, with rates, momentum and decay that change, and recurrence from the middle on.
fn steps(batches: &[Sequences], count: usize) -> Vec<(Sequences, bool, Now)> {
    let now = |i: usize| Now {
        lr_scale: 1.0 - i as f32 / 200.0,
        momentum: 0.85 + i as f32 / 1000.0,
        decay_scale: 1.0 + i as f32 / 50.0,
    };
    (0..count).map(|i| (batches[i % batches.len()].clone(), i >= count / 2, now(i))).collect()
}

fn optimizers() {
    let muon = Muon::default();
    let rules = [
        Matrix::Muon(muon),
        Matrix::Muon(Muon { row_equalisation: false, cautious: true, coefficients: Coefficients::Fitted, ..muon }),
        Matrix::NorMuon(NorMuon::default()),
        Matrix::AdamW(AdamW { lr: 0.01, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1 }),
    ];
    let model = small();
    for matrix in rules {
        let groups = groups(matrix);
        let steps = steps(&text(3), 3);
        let (said, weights, average) = on_cpu(&model, groups.clone(), &steps);
        let mut learner = learner(false, Kind::F32, &model.config, groups.clone(), &params::of_model(&model));
        for ((batch, recurrence, now), [loss, norm]) in steps.iter().zip(said) {
            let found = learner.step(batch, *recurrence, *now).unwrap();
            let name = matrix.name();
            assert!((found.loss - loss).abs() < 1e-4, "{name}: loss {}, expected {loss}", found.loss);
            assert!((found.grad_norm / norm - 1.0).abs() < 1e-3, "{name}: norm {}, expected {norm}", found.grad_norm);
        }
        assert_eq!(learner.steps(), 3);
        for (what, found, expected) in
            [("weight", learner.weights().unwrap(), weights), ("average", learner.average().unwrap(), average)]
        {
            let (worst, tensor) = worst(&found, &expected);
            assert!(worst < 1e-3, "{}: the {what} {tensor} differs by {worst:.2e} of its norm", matrix.name());
        }
        resumed(&model, &groups, &mut learner);
    }
}

/// Another one with the state of a learner goes on as that does, to the bit; its buffers are named as the CPU's.
fn resumed(model: &Model, groups: &Groups, first: &mut Learner) {
    let (weights, average) = (first.weights().unwrap(), first.average().unwrap());
    let mut buffers = first.buffers().unwrap();
    let names = Optimizer::new(&model.config, groups.clone()).unwrap();
    assert!(names.buffers().map(|(name, _)| name).collect::<BTreeSet<_>>().iter().eq(buffers.keys()));
    let start = params::of_model(model);
    let mut second = learner(false, Kind::F32, &model.config, groups.clone(), &start);
    assert!(second.restore([&weights, &average], 3, |_| None).is_err(), "nothing to take");
    second.restore([&weights, &average], 3, |name| buffers.remove(name)).unwrap();
    let (batch, _, now) = &steps(&text(1), 1)[0];
    let (a, b) = (first.step(batch, true, *now).unwrap(), second.step(batch, true, *now).unwrap());
    assert_eq!(a, b);
    assert_eq!(first.weights().unwrap(), second.weights().unwrap());
    assert_eq!(first.buffers().unwrap(), second.buffers().unwrap());
}

/// Fifty steps. Passes and updates are recorded, memory is used again, recurrence starts in the middle, and batches have a
/// last part of another size.
fn run() {
    let model = small();
    let groups = groups(Matrix::Muon(Muon::default()));
    let steps = steps(&text(50), 50);
    let (said, ..) = on_cpu(&model, groups.clone(), &steps);
    let mut learner = learner(true, Kind::F32, &model.config, groups, &params::of_model(&model));
    let (first, mut last) = (said[0][0], 0.0);
    for (i, ((batch, recurrence, now), [loss, _])) in steps.iter().zip(said).enumerate() {
        last = learner.step(batch, *recurrence, *now).unwrap().loss;
        assert!((last - loss).abs() < 2e-2, "step {i}: loss {last}, expected {loss}");
        if i % 20 == 7 {
            // In between others use memory.
            assert!(learner.loss_of_average(batch, *recurrence).unwrap().is_finite());
        }
    }
    assert!(last < 0.8 * first, "from {first} to {last}");
}

/// Warm-up takes real steps on the GPU, and takes them back.
fn stopped_while_warming_up() {
    const RECIPE: &str = r#"
    name = "test"
    model = { preset = "small", vocab_size = 64, num_layers = 1, model_dim = 16, num_heads = 2, num_kv_heads = 1, rope_dims = 8, train_seq_len = 8, eval_seq_len = 8, xsa_last_n = 1, ve_layers = [], recur_layers = [] }
    batch = { tokens_per_step = 16, micro_batch = 2 }
    budget = { steps = 10 }
    run = { warmup_steps = 1000000 }
"#;
    let recipe = Recipe::parse(RECIPE, &[] as &[&str]).unwrap();
    let start = init(&recipe.model, recipe.seed);
    let tokens: Vec<u16> = (0..900).map(|i| i % 64).collect();
    let (gpu, stop) = (gpu(true), AtomicBool::new(false));
    let source = Source { name: "a.bin", content: "hash", tokens: &tokens };
    let setup = Setup { gpu: Some(&gpu), stop: Some(&stop), ..Setup::new(vec![source], 1) };
    let mut trainer = Trainer::new(recipe, setup).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(700));
            stop.store(true, Ordering::Relaxed);
        });
        trainer.run(&mut |_| {}).unwrap();
    });
    assert_eq!((trainer.step(), trainer.weights(), trainer.average()), (0, &start, &start));
}

fn bf16() {
    for (case, model) in cases() {
        let steps = steps(&batches(case), 2);
        let groups = groups(Matrix::Muon(Muon::default()));
        let (said, ..) = on_cpu(&model, groups.clone(), &steps);
        let mut learner = learner(true, Kind::Bf16, &model.config, groups, &params::of_model(&model));
        for ((batch, recurrence, now), [loss, norm]) in steps.iter().zip(said) {
            let found = learner.step(batch, *recurrence, *now).unwrap();
            assert!((found.loss / loss - 1.0).abs() < 0.02, "{case}: loss {}, expected {loss}", found.loss);
            assert!((found.grad_norm / norm - 1.0).abs() < 0.1, "{case}: norm {}, expected {norm}", found.grad_norm);
        }
    }
}

fn mistakes() {
    let model = golden::model("tiny");
    let weights = params::of_model(&model);
    let mut learner = learner(false, Kind::F32, &model.config, groups(Matrix::Muon(Muon::default())), &weights);
    let error = learner.step(&Sequences::default(), false, Now::default()).unwrap_err();
    assert_eq!(error.to_string(), sixpack_train::Error::EmptyBatch.to_string());
    let foreign = Sequences::from_windows(&[0, 1, model.config.vocab_size as u32], 2);
    let error = learner.step(&foreign, false, Now::default()).unwrap_err().to_string();
    assert!(error.contains("below the vocabulary's size"), "{error}");
    let error = Learner::new(
        &gpu(true),
        Kind::F32,
        &model.config,
        groups(Matrix::Muon(Muon {
            coefficients: Coefficients::PolarExpress,
            newton_schulz_steps: 9,
            ..Muon::default()
        })),
        RULES,
        [&weights, &weights],
    );
    assert!(error.unwrap_err().to_string().contains("newton_schulz_steps"));
}
