//! The training loop: it learns, resumes to the bit, leaves no trace of its warm-up, and says what it does.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use sixpack_formats::checkpoint;
use sixpack_formats::estimate::Sizes;
use sixpack_formats::tokenizer::ByteTables;
use sixpack_train::loader::Source;
use sixpack_train::trainer::{Sizing, Validation};
use sixpack_train::{Event, Recipe, Setup, Trainer, params};

/// A model of 25 thousand parameters, ten steps of four sequences, recurrence from step 4.
const RECIPE: &str = r#"
name = "test"
seed = 7
model = { preset = "small", vocab_size = 64, num_layers = 3, model_dim = 32, num_heads = 2, num_kv_heads = 1, rope_dims = 8, train_seq_len = 16, eval_seq_len = 16, xsa_last_n = 3, ve_layers = [2], ve_dim = 8, recur_layers = [1] }
batch = { tokens_per_step = 64, micro_batch = 2 }
budget = { steps = 10 }
schedule = { recurrence = { step = 4 }, momentum = [{ step = 0, value = 0.8 }, { step = 8, value = 0.9 }] }
run = { warmup_steps = 0, log_steps = 3, checkpoint_seconds = 0 }
"#;

fn recipe(overrides: &[&str]) -> Recipe {
    Recipe::parse(RECIPE, overrides).unwrap()
}

/// A text a model can learn: counting, with a jump now and then.
fn tokens(n: usize) -> Vec<u16> {
    (0..n).map(|i| ((i + i / 37 * 11) % 64) as u16).collect()
}

fn sources(shards: &[Vec<u16>]) -> Vec<Source<'_>> {
    let names = ["a.bin", "b.bin", "c.bin"];
    shards.iter().zip(names).map(|(tokens, name)| Source { name, content: "hash", tokens }).collect()
}

fn shards() -> Vec<Vec<u16>> {
    vec![tokens(900), tokens(400)]
}

fn train(recipe: Recipe, shards: &[Vec<u16>], threads: usize) -> Vec<Vec<f32>> {
    let mut trainer = Trainer::new(recipe, Setup::new(sources(shards), threads)).unwrap();
    trainer.run(&mut |_| {}).unwrap();
    trainer.weights().values().chain(trainer.average().values()).cloned().collect()
}

#[test]
fn training_learns() {
    let shards = shards();
    let mut losses = Vec::new();
    let recipe = recipe(&["budget.steps=150", "run.log_steps=1", "schedule.recurrence={step=50}"]);
    let mut trainer = Trainer::new(recipe, Setup::new(sources(&shards), 1)).unwrap();
    trainer
        .run(&mut |event| {
            if let Event::Step(progress) = event {
                losses.push(progress.loss);
            }
        })
        .unwrap();
    assert_eq!(losses.len(), 150);
    let (first, last) = (losses[0], losses[140..].iter().sum::<f64>() / 10.0);
    assert!((first - 64f64.ln()).abs() < 0.1, "an untrained model guesses: {first}");
    assert!(last < 0.5, "the rule of the text is learnt: {last}");
}

#[test]
fn the_number_of_threads_changes_nothing() {
    assert_eq!(train(recipe(&[]), &shards(), 1), train(recipe(&[]), &shards(), 3));
}

#[test]
fn warm_up_leaves_no_trace() {
    assert_eq!(train(recipe(&[]), &shards(), 1), train(recipe(&["run.warmup_steps=3"]), &shards(), 1));
}

#[test]
fn the_seed_decides() {
    assert_ne!(train(recipe(&[]), &shards(), 1), train(recipe(&["seed=8"]), &shards(), 1));
}

/// Runs until `stop_after` steps are done and leaves a checkpoint in `folder`.
fn interrupted(shards: &[Vec<u16>], folder: &Path, stop_after: u64) {
    interrupted_with(recipe(&["run.log_steps=1"]), shards, folder, stop_after);
}

/// As [`interrupted`], by a recipe that logs every step.
fn interrupted_with(recipe: Recipe, shards: &[Vec<u16>], folder: &Path, stop_after: u64) {
    let stop = AtomicBool::new(false);
    let mut setup = Setup::new(sources(shards), 1);
    (setup.folder, setup.stop) = (Some(folder.into()), Some(&stop));
    let mut trainer = Trainer::new(recipe, setup).unwrap();
    let mut ended = false;
    trainer
        .run(&mut |event| match event {
            // The event of a step is the last thing before the stop is looked at again, after the next step.
            Event::Step(progress) if progress.step + 1 == stop_after => stop.store(true, Ordering::Relaxed),
            Event::End { step, stopped, .. } => {
                assert_eq!((*step, *stopped), (stop_after, true));
                ended = true;
            }
            _ => {}
        })
        .unwrap();
    assert!(ended);
}

#[test]
fn a_resumed_run_gives_the_same_bits_as_an_uninterrupted_one() {
    let shards = shards();
    let straight = train(recipe(&[]), &shards, 1);
    // Before, at and after the step where recurrence starts.
    for stop_after in [2, 4, 7] {
        let folder = tempfile::tempdir().unwrap();
        interrupted(&shards, folder.path(), stop_after);
        let mut setup = Setup::new(sources(&shards), 2);
        setup.folder = Some(folder.path().into());
        // What does not change the result may differ.
        let other = ["run.log_steps=5", "run.warmup_steps=1", "pack.target_bytes=1000", "batch.gpu_micro_batch=3"];
        let mut trainer = Trainer::resume(recipe(&other), setup).unwrap();
        assert_eq!(trainer.step(), stop_after);
        trainer.run(&mut |_| {}).unwrap();
        let resumed: Vec<_> = trainer.weights().values().chain(trainer.average().values()).cloned().collect();
        assert!(straight == resumed, "stopped after {stop_after}");
    }
}

/// Overrides that choose each rule of the matrices, with a decay that moves.
const RULES: [&[&str]; 5] = [
    &["optimizer.matrix.row_equalisation=false", "optimizer.matrix.cautious=true"],
    &["optimizer.matrix.coefficients=fitted", "optimizer.matrix.newton_schulz_steps=3"],
    &["optimizer.matrix.coefficients=polar-express"],
    &["optimizer.matrix.kind=normuon"],
    &["optimizer.matrix.kind=adamw"],
];

#[test]
fn every_rule_of_the_matrices_trains_and_resumes_to_the_bit() {
    let shards = shards();
    let usual = train(recipe(&[]), &shards, 1);
    for rule in RULES {
        let decay = "schedule.weight_decay=[{ fraction = 0.0, value = 1.0 }, { fraction = 1.0, value = 0.0 }]";
        let overrides: Vec<_> = rule.iter().copied().chain([decay, "run.log_steps=1"]).collect();
        let straight = train(recipe(&overrides), &shards, 2);
        assert!(straight.iter().flatten().all(|w| w.is_finite()) && straight != usual, "{rule:?}");
        let folder = tempfile::tempdir().unwrap();
        interrupted_with(recipe(&overrides), &shards, folder.path(), 4);
        let mut setup = Setup::new(sources(&shards), 1);
        setup.folder = Some(folder.path().into());
        let mut trainer = Trainer::resume(recipe(&overrides), setup).unwrap();
        assert_eq!(trainer.step(), 4);
        trainer.run(&mut |_| {}).unwrap();
        let resumed: Vec<_> = trainer.weights().values().chain(trainer.average().values()).cloned().collect();
        assert!(straight == resumed, "{rule:?}");
    }
}

#[test]
fn a_schedule_of_the_decay_changes_a_run() {
    let none = "schedule.weight_decay=[{ fraction = 0.0, value = 0.0 }]";
    let by_schedule = train(recipe(&[none]), &shards(), 1);
    let groups = ["matrix", "token", "scalar"].map(|group| format!("optimizer.{group}.weight_decay=0"));
    let by_setting = train(recipe(&groups.each_ref().map(String::as_str)), &shards(), 1);
    assert!(by_schedule == by_setting && by_schedule != train(recipe(&[]), &shards(), 1));
}

#[test]
fn resuming_refuses_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let shards = shards();
    let resume = |overrides: &[&str], sources: Vec<Source<'_>>| {
        let mut setup = Setup::new(sources, 1);
        setup.folder = Some(folder.path().into());
        Trainer::resume(recipe(overrides), setup).map(|t| t.step()).map_err(|e| e.to_string())
    };
    let message = resume(&[], sources(&shards)).unwrap_err();
    assert!(message.contains("found no resume.safetensors"), "{message}");
    interrupted(&shards, folder.path(), 2);
    let message = resume(&["optimizer.matrix.lr=0.03"], sources(&shards)).unwrap_err();
    assert_eq!(message, "recipe key `optimizer.matrix.lr` differs from the run's: expected 0.02, found 0.03");
    let message = resume(&["model.qk_gain_init=5.0"], sources(&shards)).unwrap_err();
    assert!(message.contains("`model.qk_gain_init`"), "{message}");
    let message = resume(&["budget.seconds=5"], sources(&shards)).unwrap_err();
    assert!(message.contains("`budget.seconds` differs from the run's: expected nothing, found 5"), "{message}");
    let mut other = sources(&shards);
    other[1].content = "another hash";
    let message = resume(&[], other).unwrap_err();
    assert!(message.contains("shard 1 differs") && message.contains("another hash"), "{message}");
    let message = resume(&[], sources(&shards[..1])).unwrap_err();
    assert!(message.contains("shard 1 differs") && message.contains("found no shard"), "{message}");
    assert_eq!(resume(&[], sources(&shards)), Ok(2));
}

#[test]
fn a_checkpoint_holds_the_average_weights_and_the_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let shards = shards();
    let mut setup = Setup::new(sources(&shards), 1);
    (setup.folder, setup.tokenizer) = (Some(folder.path().into()), Some(b"a tokenizer".to_vec()));
    let mut trainer = Trainer::new(recipe(&[]), setup).unwrap();
    trainer.run(&mut |_| {}).unwrap();
    let model = checkpoint::read(folder.path()).unwrap();
    assert_eq!(&params::of_model(&model), trainer.average());
    assert_eq!((&model.config, model.tokenizer.as_deref()), (&recipe(&[]).model, Some(&b"a tokenizer"[..])));
}

#[test]
fn a_run_loses_at_most_the_interval() {
    let folder = tempfile::tempdir().unwrap();
    let shards = shards();
    let mut setup = Setup::new(sources(&shards), 1);
    setup.folder = Some(folder.path().into());
    // An interval that is over after every step.
    let recipe = recipe(&["run.checkpoint_seconds=1e-9"]);
    let mut written = Vec::new();
    let mut note = |event: &Event| {
        if let Event::Checkpoint { step, .. } = event {
            written.push(*step);
        }
    };
    Trainer::new(recipe, setup).unwrap().run(&mut note).unwrap();
    assert_eq!(written, (1..=10).collect::<Vec<_>>());
}

#[test]
fn events_say_how_the_run_stands() {
    let shards = shards();
    let validation = tokens(100);
    let measure = |model: &sixpack_formats::Model| {
        Some(Sizes { attention: model.tensors.len() as f64, half: 1e6, ..Sizes::default() })
    };
    let mut setup = Setup::new(sources(&shards), 1);
    // Every token stands for two bytes.
    setup.byte_tables =
        Some(ByteTables { base_bytes: vec![2; 64], leading_space: vec![false; 64], boundary: vec![false; 64] });
    setup.validation = Some(Validation { tokens: &validation, every_steps: 5 });
    setup.sizing = Some(Sizing { every_steps: Some(4), measure: &measure });
    let mut events = Vec::new();
    let mut trainer = Trainer::new(recipe(&[]), setup).unwrap();
    trainer.run(&mut |event| events.push(event.clone())).unwrap();
    let steps: Vec<_> = events
        .iter()
        .filter_map(|e| match e {
            Event::Step(progress) => Some(progress.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(steps.iter().map(|p| p.step).collect::<Vec<_>>(), [1, 3, 4, 6, 8, 9, 10]);
    for p in &steps {
        assert_eq!((p.tokens, p.fraction), (64 * p.step, p.step as f64 / 10.0));
        let bits = p.loss / std::f64::consts::LN_2 / 2.0;
        assert!((p.bits_per_byte.unwrap() - bits).abs() < 1e-9);
        assert_eq!(p.measured, p.step == 1 || p.step % 4 == 0 || p.step == 10);
        // All of this model is kept in f16, and the estimate of that is the same for all weights.
        assert_eq!(p.projected.half, 1e6, "step {}", p.step);
        assert_eq!(p.recurrence, p.step > 4, "step {} is the one with index {}", p.step, p.step - 1);
        assert!(p.projected_bytes >= 1_000_000);
        assert!(p.tokens_per_second > 0.0 && p.grad_norm > 0.0);
    }
    assert_eq!(steps.last().unwrap().remaining, 0.0);
    let kinds: Vec<_> = events.iter().filter(|e| !matches!(e, Event::Step(_))).collect();
    assert!(
        matches!(kinds[0], Event::Start { step: 0, threads: 1, recipe, .. } if recipe.contains("tokens_per_step = 64"))
    );
    for (event, expected) in kinds[1..3].iter().zip([5, 10]) {
        let Event::Validation { step, loss, bits_per_byte } = event else { panic!("{event:?}") };
        assert_eq!(*step, expected);
        assert!((bits_per_byte.unwrap() - loss / std::f64::consts::LN_2 / 2.0).abs() < 1e-9);
    }
    assert!(matches!(kinds[3], Event::End { step: 10, tokens: 640, stopped: false, .. }));
    let line = serde_json::to_string(&events[1]).unwrap();
    assert!(line.starts_with(r#"{"event":"step","step":1,"tokens":64"#), "{line}");
}

#[test]
fn wrong_data_is_refused_by_name() {
    let mut bad = vec![tokens(200)];
    bad[0][100] = 64;
    let mut trainer = Trainer::new(recipe(&[]), Setup::new(sources(&bad), 1)).unwrap();
    let message = trainer.run(&mut |_| {}).unwrap_err().to_string();
    assert!(message.contains("below 64, found 64"), "{message}");
    let short = vec![tokens(10)];
    let message = Trainer::new(recipe(&[]), Setup::new(sources(&short), 1)).unwrap_err().to_string();
    assert!(message.contains("`a.bin`: expected at least 17 tokens"), "{message}");
}
