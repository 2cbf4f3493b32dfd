//! The plans that are part of the repository can be run at each of their scales.

use std::path::Path;

use sixpack_train::experiment::{Plan, Priority};

fn plan(name: &str, scale: &str) -> Plan {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans").join(name);
    Plan::load(&path, Some(scale)).unwrap_or_else(|e| panic!("{scale}: {e}"))
}

#[test]
fn the_muon_study_at_each_scale() {
    for scale in ["cpu", "h100"] {
        let plan = plan("muon.toml", scale);
        let ids: Vec<&str> = plan.arms.iter().map(|arm| arm.id.as_str()).collect();
        let order = [
            "baseline", "NS-1", "MM-5", "MM-1", "MM-3", "MB-2", "ABL-1", "MM-2", "MM-4", "NS-2", "NS-C", "MB-1",
            "MB-3", "ABL-2",
        ];
        assert_eq!(ids, order, "{scale}");
        let medium = plan.arms.iter().filter(|arm| arm.priority == Priority::Medium);
        assert!(medium.clone().count() == 5 && medium.clone().all(|arm| arm.seeds >= 6), "{scale}");
        // Each arm differs from the baseline in its optimizer or its schedule, and in nothing else.
        let baseline = &plan.arms[0].recipe;
        for arm in &plan.arms[1..] {
            let recipe = &arm.recipe;
            assert!(recipe.optimizer != baseline.optimizer || recipe.schedule != baseline.schedule, "{}", arm.id);
            assert_eq!(
                (&recipe.model, recipe.batch, recipe.budget),
                (&baseline.model, baseline.batch, baseline.budget)
            );
        }
        let runs = plan.runs();
        assert!(runs[..plan.arms.len()].iter().all(|run| run.seed == plan.seeds[0]), "seed by seed");
        assert_eq!(plan.recipe(runs[0]).seed, plan.seeds[0]);
    }
}

#[test]
fn a_ramp_has_the_same_share_of_a_small_run() {
    let momentum = |scale: &str, id: &str| {
        let plan = plan("muon.toml", scale);
        let arm = plan.arms.iter().find(|arm| arm.id == id).expect(id).recipe.clone();
        arm.schedule.momentum.points.iter().map(|p| p.value).collect::<Vec<_>>()
    };
    for id in ["baseline", "MM-1", "MM-2", "MM-3", "MM-4", "MM-5"] {
        assert_eq!(momentum("cpu", id), momentum("h100", id), "{id}");
    }
}

#[test]
fn the_weight_decay_study_at_each_scale() {
    for scale in ["cpu", "h100"] {
        let plan = plan("weight-decay.toml", scale);
        assert_eq!(plan.arms.len(), 5);
        let decays: Vec<f64> = plan.arms.iter().map(|arm| arm.recipe.optimizer.matrix.weight_decay()).collect();
        assert_eq!(decays, [0.085, 0.02, 0.09, 0.18, 0.36]);
        let (compress, _) = plan.compress.expect("it compresses");
        assert!(compress.contains(&"--int6-layers".to_owned()), "{compress:?}");
    }
}
