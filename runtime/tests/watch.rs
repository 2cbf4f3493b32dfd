//! The decorators see what runs.

#[path = "../../tests/golden/golden.rs"]
mod golden;

use std::collections::BTreeMap;

use sixpack_runtime::cpu::{Mat, Reference};
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
