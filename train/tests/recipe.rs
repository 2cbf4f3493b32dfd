//! Recipes: what is typed, what it means, and what is refused.

use proptest::prelude::*;
use sixpack_formats::ModelConfig;
use sixpack_train::Recipe;
use sixpack_train::optim::{AdamW, Coefficients, Matrix, NorMuon};
use sixpack_train::recipe::{BatchSize, EMBEDDED};
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
    let Matrix::Muon(muon) = matrix else { panic!("{matrix:?}") };
    assert_eq!((muon.lr, muon.weight_decay, muon.newton_schulz_steps), (0.02, 0.09, 5));
    assert_eq!((muon.coefficients, muon.row_equalisation, muon.cautious), (Coefficients::Constant, true, false));
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
    // But a GPU has the micro-batch of a thread, unless it is given its own.
    let batch = BatchSize { gpu_micro_batch: None, ..record.batch };
    assert_eq!((&recipe.model, recipe.batch, &recipe.data), (&record.model, batch, &record.data));
    assert_eq!((recipe.batch.on_gpu(), record.batch.on_gpu()), (8, 48));
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
    assert_eq!(recipe.optimizer.matrix.lr(), 0.03);
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
fn the_matrix_group_has_a_rule_of_its_own() {
    let matrix = |overrides: &[&str]| set(overrides).optimizer.matrix;
    // What the file sets for another rule goes with that rule, whatever the order; rate and decay stay.
    let record = |overrides: &[&str]| Recipe::load("record", overrides).unwrap().optimizer.matrix;
    let normuon = NorMuon { lr: 0.02, weight_decay: 0.09, ..NorMuon::default() };
    assert_eq!(record(&["optimizer.matrix.kind=normuon"]), Matrix::NorMuon(normuon));
    let changed = record(&["optimizer.matrix.beta2=0.99", "optimizer.matrix.kind=normuon"]);
    assert_eq!(changed, Matrix::NorMuon(NorMuon { beta2: 0.99, ..normuon }));
    let adamw = AdamW { lr: 0.001, betas: [0.8, 0.95], eps: 1e-8, weight_decay: 0.09 };
    let arm = ["optimizer.matrix.kind=adamw", "optimizer.matrix.lr=0.001", "optimizer.matrix.betas=[0.8, 0.95]"];
    assert_eq!(matrix(&arm), Matrix::AdamW(adamw));
    // Three and seven steps.
    for steps in [3, 7] {
        let fitted = ["optimizer.matrix.coefficients=fitted", &format!("optimizer.matrix.newton_schulz_steps={steps}")];
        let Matrix::Muon(muon) = matrix(&fitted) else { panic!("another rule") };
        assert_eq!((muon.newton_schulz_steps, muon.coefficients), (steps, Coefficients::Fitted));
    }
    for overrides in [&["optimizer.matrix.kind=normuon"][..], &arm, &["optimizer.matrix.cautious=true"]] {
        let recipe = set(overrides);
        assert_eq!(Recipe::parse(&recipe.to_toml(), &NONE).unwrap(), recipe);
    }
}

#[test]
fn keys_of_another_rule_and_steps_beyond_a_table_are_refused() {
    for (change, expected) in [
        (&["optimizer.matrix.beta2=0.9"][..], "`optimizer.matrix.beta2`: expected kind `muon` with its keys lr, "),
        (&["optimizer.matrix.betas=[0.9, 0.95]"], "`optimizer.matrix.betas`"),
        (
            &["optimizer.matrix.row_equalisation=true", "optimizer.matrix.kind=normuon"],
            "`optimizer.matrix.row_equalisation`: expected kind `normuon` with its keys",
        ),
        (&["optimizer.matrix.kind=adamw", "optimizer.matrix.cautious=true"], "`optimizer.matrix.cautious`"),
        (&["optimizer.matrix.kind=sgd"], "`optimizer.matrix.kind`"),
        (&["optimizer.matrix.kind=normuon", "optimizer.matrix.beta2=1"], "`optimizer.matrix.beta2`"),
        (&["optimizer.matrix.kind=adamw", "optimizer.matrix.eps=0"], "`optimizer.matrix.eps`"),
        (
            &["optimizer.matrix.kind=normuon", "optimizer.matrix.newton_schulz_steps=7"],
            "`optimizer.matrix.newton_schulz_steps`: expected 1 to 5, the length of the table of coefficients \
             \"polar-express\"; \"fitted\" has up to 7, \"constant\" any number, found 7",
        ),
        (
            &["optimizer.matrix.coefficients=fitted", "optimizer.matrix.newton_schulz_steps=8"],
            "expected 1 to 7, as many as coefficients \"fitted\" are made for",
        ),
        (&["optimizer.matrix.newton_schulz_steps=0"], "`optimizer.matrix.newton_schulz_steps`: expected 1 to 100"),
        (&["schedule.weight_decay=[{ fraction = 0.0, value = -1.0 }]"], "`schedule.weight_decay`"),
    ] {
        let found = refused(change);
        assert!(found.contains(expected), "{change:?}: {found}");
    }
    let text = "[budget]\nsteps = 3\n[optimizer.token]\nlr = 1\nweight_decay = 0\nbetas = [0.9, 0.95]\n\
                [optimizer.matrix]\nlr = 0.04\nweight_decay = 0\nbetas = [0.9, 0.95]  # of AdamW\n";
    let found = Recipe::parse(text, &NONE).unwrap_err().to_string();
    assert!(found.contains("`optimizer.matrix.betas`") && found.ends_with("on line 10"), "{found}");
}

#[test]
fn a_recipe_from_before_the_rules_had_names_means_the_same() {
    let old = "[budget]\nsteps = 3\n[optimizer.matrix]\nlr = 0.02\nweight_decay = 0.09\nnewton_schulz_steps = 5\n\
               row_equalisation = true\n";
    let record = Recipe::load("record", &NONE).unwrap();
    let recipe = Recipe::parse(old, &NONE).unwrap();
    assert_eq!((recipe.optimizer, &recipe.schedule), (record.optimizer, &record.schedule));
    assert_eq!(recipe.schedule.weight_decay.value(Progress { step: 9, fraction: 0.7 }), 1.0);
}

#[test]
fn explain_tells_the_rules_of_the_matrices_apart() {
    let fitted = ["optimizer.matrix.coefficients=fitted", "optimizer.matrix.newton_schulz_steps=3"];
    let decay = "schedule.weight_decay=[{ fraction = 0.0, value = 1.0 }, { fraction = 1.0, value = 0.0 }]";
    for (overrides, expected) in [
        (&[][..], "MuonEq-R by 5 Newton–Schulz steps, constant coefficients"),
        (&fitted, "3 Newton–Schulz steps, coefficients fitted to bring values from 0.0095 on to 1 ± 0.3"),
        (
            &["optimizer.matrix.kind=normuon"],
            "NorMuon by 5 Newton–Schulz steps, coefficients of Polar Express, beta2 0.95, cautious decay",
        ),
        (&["optimizer.matrix.kind=adamw"], "AdamW with betas [0.9, 0.95], eps 0.00000001"),
        (&["optimizer.matrix.kind=normuon"], "matrix, NorMuon"),
        (&[decay], "× 1 at 0%, 0.75 at 25%"),
    ] {
        let text = set(overrides).explain();
        assert!(text.contains(expected), "{overrides:?}: no `{expected}` in\n{text}");
    }
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
model = { preset = "small", num_layers = 3, xsa_last_n = 3, ve_layers = [2], recur_layers = [1] }
batch = { tokens_per_step = 512, micro_batch = 2 }
budget = { steps = 10, seconds = 9.5 }
schedule = { recurrence = { step = 4 }, lr = [{ step = 0, value = 0.8 }, { step = 8, value = 0.9 }] }
"#;

#[test]
fn what_a_gpu_computes_again_is_named() {
    let recipe = Recipe::parse(SHORT, &["run.recompute=mix,rms_norm"]).unwrap();
    assert_eq!(recipe.run.recompute.to_string(), "mix,rms_norm");
    assert_eq!(Recipe::parse(&recipe.to_toml(), &NONE).unwrap(), recipe);
    assert!(!Recipe::parse(SHORT, &NONE).unwrap().to_toml().contains("recompute"));
    let error = Recipe::parse(SHORT, &["run.recompute=norm"]).unwrap_err().to_string();
    assert!(error.contains("run") && error.contains("expected none, all, or some of mix, rms_norm"), "{error}");
}

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
