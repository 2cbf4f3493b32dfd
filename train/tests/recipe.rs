//! Recipes: what is typed, what it means, and what is refused.

use proptest::prelude::*;
use sixpack_formats::ModelConfig;
use sixpack_train::Recipe;
use sixpack_train::recipe::EMBEDDED;
use sixpack_train::schedule::{Progress, When};

const NONE: [&str; 0] = [];

fn set(overrides: &[&str]) -> Recipe {
    Recipe::load("small", overrides).unwrap()
}

fn refused(overrides: &[&str]) -> String {
    Recipe::load("small", overrides).unwrap_err().to_string()
}

#[test]
fn the_record_is_the_record() {
    let recipe = Recipe::load("record", &NONE).unwrap();
    assert_eq!(recipe.model, ModelConfig::record());
    assert_eq!((recipe.batch.tokens_per_step, recipe.sequences_per_step()), (786_432, 384));
    assert_eq!(recipe.budget.training_seconds(), Some(590.0));
    let (matrix, token, scalar) = (recipe.optimizer.matrix, recipe.optimizer.token, recipe.optimizer.scalar);
    assert_eq!((matrix.lr, matrix.weight_decay, matrix.newton_schulz_steps), (0.02, 0.09, 5));
    assert_eq!((token.lr, token.betas, token.eps, token.weight_decay), (0.03, [0.9, 0.95], 1e-8, 0.09));
    assert_eq!((scalar.lr, scalar.betas, scalar.eps, scalar.weight_decay), (0.02, [0.9, 0.95], 1e-8, 0.02));
    assert_eq!((recipe.optimizer.grad_clip, recipe.optimizer.ema_decay), (0.3, 0.997));
    assert_eq!(recipe.schedule.recurrence, When::Step(3000));
    let at = |step, fraction| Progress { step, fraction };
    assert_eq!(recipe.schedule.lr.value(at(0, 0.3)), 1.0);
    assert!((recipe.schedule.lr.value(at(0, 0.5)) - 0.5 / 0.667).abs() < 1e-12);
    assert!((recipe.schedule.momentum.value(at(750, 0.0)) - 0.955).abs() < 1e-12);
    assert_eq!(recipe.data.shards.value(at(1800, 0.0)), 32.0);
    assert_eq!(recipe.data.alpha.value(at(0, 0.0)), 0.9);
    assert_eq!(recipe.run.warmup_steps, 20);
}

#[test]
fn absent_keys_take_the_records_values() {
    let recipe = Recipe::parse("budget.steps = 3", &NONE).unwrap();
    let record = Recipe::load("record", &NONE).unwrap();
    assert_eq!((&recipe.optimizer, &recipe.schedule), (&record.optimizer, &record.schedule));
    assert_eq!((&recipe.model, recipe.batch, &recipe.data), (&record.model, record.batch, &record.data));
}

#[test]
fn every_embedded_recipe_round_trips_through_its_resolved_form() {
    for (name, _) in EMBEDDED {
        let recipe = Recipe::load(name, &NONE).unwrap();
        assert_eq!(recipe.name, name);
        assert_eq!(Recipe::parse(&recipe.to_toml(), &NONE).unwrap(), recipe);
    }
}

#[test]
fn overrides_by_dotted_key() {
    let recipe = set(&["optimizer.matrix.lr=0.03", "model.num_layers = 6", "model.recur_layers=[2, 3]", "name=mine"]);
    assert_eq!(recipe.optimizer.matrix.lr, 0.03);
    assert_eq!((recipe.model.num_layers, recipe.model.recur_layers.as_slice()), (6, &[2, 3][..]));
    assert_eq!(recipe.name, "mine");
    let recipe = set(&["schedule.recurrence={ step = 7 }", "budget.seconds=30", "budget.steps=9"]);
    assert_eq!((recipe.schedule.recurrence, recipe.model.recur_start_step), (When::Step(7), 7));
    assert_eq!((recipe.budget.seconds, recipe.budget.steps), (Some(30.0), Some(9)));
    let recipe = Recipe::parse("budget.steps = 3", &["optimizer.token.lr=1"]).unwrap();
    assert_eq!((recipe.optimizer.token.lr, recipe.optimizer.token.weight_decay), (1.0, 0.09));
    let recipe = set(&["schedule.momentum=[{ fraction = 0.5, value = 0.9 }]"]);
    assert_eq!(recipe.schedule.momentum.value(Progress::default()), 0.9);
}

#[test]
fn unknown_keys_are_named_with_their_line() {
    let message = |text: &str| Recipe::parse(text, &NONE).unwrap_err().to_string();
    let text = "[budget]\nsteps = 3\n[optimizer.matrix]\nlearning_rate = 0.1\n";
    assert!(message(text).contains("line 4") && message(text).contains("unknown field `learning_rate`"));
    let text = "budget.steps = 3\n[model]\npreset = \"small\"\nnum_layer = 4\n";
    let found = message(text);
    assert!(found.contains("`model.num_layer`") && found.contains("unknown key on line 4"), "{found}");
    assert!(message("budgets.steps = 3").contains("unknown field `budgets`"));
    assert!(message("budget.steps = ").contains("line 1"));
    assert!(refused(&["optimizer.matrix.lrr=1"]).contains("`optimizer.matrix.lrr`"));
    assert!(refused(&["model.widht=64"]).contains("`model.widht`"));
    assert!(refused(&["seed"]).contains("expected KEY=VALUE"));
    assert!(refused(&["seed.x=1"]).contains("expected a table at `seed`, found integer"));
    let found = Recipe::load("no/such/file.toml", &NONE).unwrap_err().to_string();
    assert!(found.contains("no/such/file.toml: cannot read") && found.contains("record, small"), "{found}");
}

#[test]
fn impossible_values_are_named() {
    for (change, expected) in [
        ("batch.tokens_per_step=1000", "`batch.tokens_per_step`: expected a multiple of model.train_seq_len 256"),
        ("budget.seconds=-1", "`budget.seconds`"),
        ("budget.reserve_seconds=200", "`budget.seconds`: expected above budget.reserve_seconds 200"),
        ("optimizer.matrix.lr=-0.1", "`optimizer.matrix.lr`: expected 0 to 1000, found -0.1"),
        ("optimizer.token.betas=[0.9, 1.0]", "`optimizer.token.betas`"),
        ("optimizer.ema_decay=1", "`optimizer.ema_decay`"),
        ("optimizer.matrix.lr=fast", "`optimizer.matrix.lr`"),
        ("schedule.lr=[]", "`schedule.lr`: expected at least one point"),
        ("schedule.recurrence={ fraction = 2.0 }", "`schedule.recurrence`"),
        ("schedule.momentum=[{ value = 1.0 }]", "needs either `step` or `fraction`"),
        ("model.num_kv_heads=3", "`num_kv_heads`: expected a divisor"),
        ("model.preset=huge", "`preset`"),
        ("run.log_steps=0", "`run.log_steps`"),
    ] {
        let found = refused(&[change]);
        assert!(found.contains(expected), "{change}: {found}");
    }
    let found = Recipe::parse("seed = 1", &NONE).unwrap_err().to_string();
    assert!(found.contains("`budget`: expected `steps`, `minutes` or `seconds`"), "{found}");
}

#[test]
fn budgets_end_and_measure_a_run() {
    let time = set(&["budget.seconds=100", "budget.reserve_seconds=20", "budget.steps=50"]).budget;
    assert_eq!((time.fraction(5, 40.0), time.fraction(45, 40.0)), (0.5, 0.9));
    assert!(!time.spent(49, 79.9) && time.spent(50, 0.0) && time.spent(0, 80.0));
    let steps = Recipe::parse("budget.steps = 8", &NONE).unwrap().budget;
    assert_eq!(steps.fraction(2, 1e6), 0.25);
    assert!(!steps.spent(7, 1e6) && steps.spent(8, 0.0));
}

#[test]
fn explain_says_what_a_recipe_means() {
    let text = Recipe::load("record", &NONE).unwrap().explain();
    for expected in [
        "34,401,371; a token is multiplied by 33,849,344 (39,616,512 with recurrence)",
        "blocks of 8 to 32 shards a batch, drawn by blocks left to the power 0.9 to 0.5",
        "[0, 1, 2, 3, 4, 5, 4, 5, 6, 7, 8, 9, 10] with recurrence",
        "786,432 tokens: 384 sequences of 2048, 8 at once",
        "600 s, of which 10 s are kept back",
        "× 1 at 0%, 1 at 25%, 0.7496 at 50%, 0.3748 at 75%, 0.1499 at 90%, 0 at 100%",
        "0.92 at step 0, 0.9375 at step 375, 0.955 at step 750",
        "of layers [4, 5] from step 3000",
        "matrix, MuonEq-R  lr 0.02   decay 0.09   11 × blocks.*.attn.c_q.weight       2,883,584",
        "scalar, AdamW     lr 0.02   decay 0.02    2 × ve_layer_scales.*                      2",
    ] {
        assert!(text.contains(expected), "no `{expected}` in\n{text}");
    }
}

const SHORT: &str = r#"
seed = 7
model = { preset = "small", num_layers = 3, ve_layers = [2], recur_layers = [1] }
batch = { tokens_per_step = 512, micro_batch = 2 }
budget = { steps = 10, seconds = 9.5 }
schedule = { recurrence = { step = 4 }, lr = [{ step = 0, value = 0.8 }, { step = 8, value = 0.9 }] }
"#;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100_000))]

    /// Any characters changed: an error, or another recipe that can be shown; never a panic.
    #[test]
    fn mutations_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), "[0-9a-z.={}\\[\\]\"\n-]"), 1..4),
    ) {
        let mut text = SHORT.to_owned();
        for (at, with) in changes {
            let at = at.index(text.len());
            text.replace_range(at..at + 1, &with);
        }
        if let Ok(recipe) = Recipe::parse(&text, &NONE) {
            prop_assert!(!recipe.explain().is_empty());
        }
    }
}
