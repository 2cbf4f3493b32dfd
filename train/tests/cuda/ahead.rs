//! Steps that are queued and not waited for: they give what steps give that are, and hold nothing up.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sixpack_formats::Model;
use sixpack_runtime::cuda::{Gpu, Kind, Settings, Stalls};
use sixpack_train::collective::Pending;
use sixpack_train::cuda::{IN_FLIGHT, Learner, Outcome, Ranks};
use sixpack_train::loader::{Rank, Source};
use sixpack_train::optim::{Matrix, Muon};
use sixpack_train::{Collective, Event, Params, Recipe, Result, Setup, Trainer, params};

use super::{RULES, groups, small, steps, text};

/// With the same algorithms each time it is opened.
fn gpu() -> Arc<Gpu> {
    Gpu::open(0, Settings { search: false, tile: 60, ..Settings::default() }).unwrap()
}

fn learner(gpu: &Arc<Gpu>, model: &Model) -> Learner {
    let weights = params::of_model(model);
    let groups = groups(Matrix::Muon(Muon::default()));
    Learner::new(gpu, Kind::F32, &model.config, groups, RULES, [&weights, &weights]).unwrap()
}

/// Twelve steps, recurrence in the second half; each pass has run twice before its third time.
pub(crate) fn queued() {
    let (model, steps) = (small(), steps(&text(12), 12));
    let (gpu, mut waiting) = (gpu(), learner(&gpu(), &model));
    let mut ahead = learner(&gpu, &model);
    let (mut found, mut expected): (Vec<Outcome>, Vec<Outcome>) = (Vec::new(), Vec::new());
    for (i, (batch, recurrence, now)) in steps.iter().enumerate() {
        let before = gpu.stalls();
        if ahead.in_flight() == IN_FLIGHT {
            found.extend(ahead.finish().unwrap());
        }
        let finished = gpu.stalls();
        assert!(finished.waits - before.waits <= 1, "step {i} waits for more than one step");
        ahead.queue(batch, *recurrence, *now, &Ranks::alone()).unwrap();
        let recorded = i % 6 >= 2;
        assert!(!recorded || gpu.stalls() == finished, "step {i} is held up: {finished:?}, then {:?}", gpu.stalls());
        expected.push(waiting.step(batch, *recurrence, *now).unwrap());
    }
    while let Some(outcome) = ahead.finish().unwrap() {
        found.push(outcome);
    }
    assert_eq!(found, expected);
    assert_eq!(ahead.weights().unwrap(), waiting.weights().unwrap());
    assert_eq!(ahead.average().unwrap(), waiting.average().unwrap());
}

/// A run of one process, which looks at its GPU when it would hear of others, once a step, and asks for a stop at one.
#[derive(Debug)]
struct Watch<'a> {
    gpu: &'a Gpu,
    seen: std::sync::Mutex<Vec<Stalls>>,
    stop: &'a AtomicBool,
    stop_at: u64,
    words: AtomicU64,
}

impl Collective for Watch<'_> {
    fn rank(&self) -> Rank {
        Rank::ALONE
    }

    fn sum(&self, bucket: Vec<f32>) -> Result<Pending> {
        Ok(Pending::new(|| Ok(bucket)))
    }

    fn broadcast(&self, _: usize, bucket: Vec<f32>) -> Result<Pending> {
        Ok(Pending::new(|| Ok(bucket)))
    }

    fn gather(&self, all: Vec<Vec<f32>>) -> Result<Pending<Vec<Vec<f32>>>> {
        Ok(Pending::new(|| Ok(all)))
    }

    fn exchange(&self, value: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.seen.lock().unwrap().push(self.gpu.stalls());
        if self.words.fetch_add(1, Ordering::Relaxed) == self.stop_at {
            self.stop.store(true, Ordering::Relaxed);
        }
        Ok(vec![value.to_vec()])
    }

    fn leave(&self, _: &str) {}

    fn on_loss(&self, _: Box<dyn FnOnce(usize, &str) + Send>) {}
}

const RECIPE: &str = r#"
    name = "test"
    model = { preset = "small", vocab_size = 64, num_layers = 2, model_dim = 16, num_heads = 2, num_kv_heads = 1, rope_dims = 8, train_seq_len = 8, eval_seq_len = 8, xsa_last_n = 1, ve_layers = [1], ve_dim = 8, recur_layers = [] }
    batch = { tokens_per_step = 32, micro_batch = 2 }
    budget = { steps = 14 }
    run = { warmup_steps = 2, log_steps = 1000, checkpoint_seconds = 0 }
"#;

/// What a run ends in, the losses of its lines with their numbers of steps, and how its steps held up the GPU.
struct Ran {
    weights: Params,
    average: Params,
    lines: Vec<(u64, f64)>,
    seen: Vec<Stalls>,
    failure: Option<String>,
}

/// A run on a GPU, with a stop asked for at a word, or never.
fn ran(overrides: &[&str], folder: Option<&Path>, resumes: bool, stop_at: u64) -> Ran {
    let recipe = Recipe::parse(RECIPE, overrides).unwrap();
    let tokens: Vec<u16> = (0..900).map(|i| i % 64).collect();
    let (gpu, stop) = (gpu(), AtomicBool::new(false));
    let all = Watch { gpu: &gpu, seen: Default::default(), stop: &stop, stop_at, words: AtomicU64::new(0) };
    let source = Source { name: "a.bin", content: "hash", tokens: &tokens };
    let setup = Setup {
        gpu: Some(&gpu),
        stop: Some(&stop),
        all: &all,
        folder: folder.map(Into::into),
        ..Setup::new(vec![source], 1)
    };
    let trainer = if resumes { Trainer::resume(recipe, setup) } else { Trainer::new(recipe, setup) };
    let (mut trainer, mut lines, mut at) = (trainer.unwrap(), Vec::new(), 0);
    let seen = || all.seen.lock().unwrap().len();
    let ended = trainer.run(&mut |event| {
        if let Event::Step(progress) = event {
            lines.push((progress.step, progress.loss));
            // Of words only those of the steps after the first line, which waits.
            at = if at == 0 { seen() } else { at };
        }
    });
    let (weights, average) = (trainer.weights().clone(), trainer.average().clone());
    let seen = all.seen.lock().unwrap()[at..].to_vec();
    Ran { weights, average, lines, seen, failure: ended.err().map(|error| error.to_string()) }
}

pub(crate) fn trained() {
    let ahead = ran(&[], None, false, u64::MAX);
    let waiting = ran(&["run.log_steps=1"], None, false, u64::MAX);
    // The first line is of the first step; the last one is of all others.
    assert_eq!(ahead.lines[0], waiting.lines[0]);
    let others = &waiting.lines[1..];
    let mean = others.iter().map(|(_, loss)| loss).sum::<f64>() / others.len() as f64;
    let (step, loss) = ahead.lines[1];
    assert!(step == 14 && ahead.lines.len() == 2 && (loss - mean).abs() < 1e-12, "{loss} of {step}, expected {mean}");
    assert!(ahead.weights == waiting.weights && ahead.average == waiting.average);
    // Each word of a step from the third one on: nothing but the step before the last was waited for.
    for pair in ahead.seen[3..12].windows(2) {
        let expected = Stalls { waits: pair[0].waits + 1, ..pair[0] };
        assert!(pair[1] == expected || pair[1] == pair[0], "from {:?} to {:?}", pair[0], pair[1]);
    }
    assert_eq!([ahead.failure, waiting.failure], [None, None]);
    // What comes to nothing is told of the step that it came from, though others were begun since.
    let lost = |more| {
        let rates = ["optimizer.matrix.lr=1e3", "optimizer.token.lr=1e3", "optimizer.scalar.lr=1e3"];
        let all = [&rates[..], &["budget.steps=100", "run.warmup_steps=0", more]].concat();
        ran(&all, None, false, u64::MAX).failure.expect("a step that is no number")
    };
    let failure = lost("run.log_steps=1");
    assert!(failure.starts_with("training diverged at step"), "{failure}");
    assert_eq!(lost("run.log_steps=1000"), failure);
    // What was drawn ahead, and begun before the stop was heard of, is neither lost nor done twice.
    let folder = tempfile::tempdir().unwrap();
    let stopped = ran(&["run.warmup_steps=0"], Some(folder.path()), false, 7);
    let (step, _) = *stopped.lines.last().unwrap();
    assert!((2..14).contains(&step), "stopped after step {step}");
    let resumed = ran(&["run.warmup_steps=0"], Some(folder.path()), true, u64::MAX);
    assert!(resumed.weights == ahead.weights && resumed.average == ahead.average);
}
