//! The decorators see what runs.

#[path = "../../tests/golden/golden.rs"]
mod golden;

use std::collections::BTreeMap;

use sixpack_runtime::cpu::{Fast, Mat, Reference};
use sixpack_runtime::watch::{Divergence, Trace, first_divergence};
use sixpack_runtime::{Batch, Calibrate, Pass, Role, Site, forward, model};

#[test]
fn calibrate_sees_every_linear_site_as_often_as_it_runs() {
    for case in golden::CASES {
        let golden = golden::model(case);
        let config = &golden.config;
        let mut ops = Reference::new();
        let weights = ops.load(&golden);
        let mut seen = BTreeMap::<Site, usize>::new();
        let mut see = |site: Site, x: &Mat| {
            let spec = config.tensors().into_iter().find(|s| s.id == site.tensor()).expect("a site has a tensor");
            assert_eq!(x.shape(), [2, 5, spec.shape[1]], "{site}");
            *seen.entry(site).or_default() += 1;
        };
        let mut calibrate = Calibrate::new(&mut ops, &mut see);
        let ids = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
        let h = forward(config, &weights, &mut calibrate, &Batch::new(&ids, 2), Pass::FULL).unwrap();
        model::nll(config, &weights, &mut calibrate, &h, &ids).unwrap();

        let mut expected = BTreeMap::from([(Site::HEAD, 1)]);
        if !config.ve_layers.is_empty() && config.ve_dim != config.kv_dim() {
            expected.insert(Site::VALUE_PROJ, 1);
        }
        for layer in 0..config.num_layers {
            let times = if config.recur_layers.contains(&layer) { 2 } else { 1 };
            for role in [Role::Query, Role::Key, Role::Value, Role::AttnOut, Role::MlpUp, Role::MlpDown] {
                expected.insert(Site { layer, role }, times);
            }
        }
        assert_eq!(seen, expected, "{case}");
    }
}

/// What a backend does with a golden model and a few tokens.
macro_rules! trace {
    ($ops:expr, $model:expr) => {{
        let (mut ops, model) = ($ops, $model);
        let weights = ops.load(model);
        let mut trace = Trace::new(&mut ops);
        let ids = [3, 1, 4, 1, 5, 9, 2, 6];
        let h = forward(&model.config, &weights, &mut trace, &Batch::new(&ids, 2), Pass::FULL).unwrap();
        model::nll(&model.config, &weights, &mut trace, &h, &ids).unwrap();
        trace.into_records()
    }};
}

#[test]
fn backends_do_not_diverge() {
    for case in golden::CASES {
        let model = golden::model(case);
        let expected = trace!(Reference::new(), &model);
        assert!(expected.len() > 20);
        let found = trace!(Fast::new(1).unwrap(), &model);
        let divergence = first_divergence(&found, &expected, 2e-5);
        assert!(divergence.is_none(), "{case}: {}", divergence.unwrap());
    }
}

#[test]
fn a_trace_names_the_operation_that_differs() {
    let model = golden::model("tiny");
    let mut broken = model.clone();
    let id = sixpack_formats::TensorId::block(2, sixpack_formats::Part::MlpDown);
    let Some(sixpack_formats::TensorData::F32(values)) = broken.tensors.get_mut(&id) else { panic!("f32") };
    values[5 * 256 + 7] = f32::NAN;
    let expected = trace!(Reference::new(), &model);
    let found = trace!(Reference::new(), &broken);
    let divergence = first_divergence(&found, &expected, 1e-3).expect("a NaN diverges");
    let Divergence::Value { op, element, found: value, .. } = &divergence else { panic!("{divergence}") };
    assert_eq!(op, "linear blocks.2.mlp.proj.weight of virtual layer 2");
    assert_eq!(element % 64, 5);
    assert!(value.is_nan());

    let Some(Divergence::Operation { index, found, .. }) = first_divergence(&expected[1..], &expected, 1e-3) else {
        panic!("the first operation is missing")
    };
    assert_eq!((index, found.unwrap().split(' ').next()), (0, Some("rms_norm")));
    let end = expected.len() - 1;
    let cut = first_divergence(&expected[..end], &expected, 1e-3).expect("one is missing");
    assert_eq!(cut.to_string(), format!("operation {end}: expected cross_entropy of virtual layer 6, found nothing"));
}
