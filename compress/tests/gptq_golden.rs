//! GPTQ, round-to-nearest and int8 against the reference implementation's results.

#[path = "../../tests/golden/golden.rs"]
mod golden;

use std::collections::BTreeMap;

use golden::Array;
use sixpack_compress::distortion::{hessian_error, mean_squared_error};
use sixpack_compress::{Matrix, Scheme, gptq, round};
use sixpack_formats::QuantizedMatrix;

const MATRICES: [&str; 5] = ["wide", "tall", "small_scale", "large_scale", "dead"];

fn matrix<'a>(arrays: &'a BTreeMap<String, Array>, name: &'a str) -> Matrix<'a> {
    let array = &arrays[&format!("{name}.weight")];
    Matrix::new(name, [array.shape[0], array.shape[1]], &array.data).unwrap()
}

/// Scales exactly, codes to the given share.
fn assert_matches(arrays: &BTreeMap<String, Array>, key: &str, found: &QuantizedMatrix, share: f64) {
    let scales: Vec<f32> = found.scales.iter().map(|s| s.to_f32()).collect();
    assert_eq!(scales, arrays[&format!("{key}.scale")].data, "{key}");
    let codes = &arrays[&format!("{key}.q")].data;
    assert_eq!(codes.len(), found.codes.len(), "{key}");
    let equal = codes.iter().zip(&found.codes).filter(|(a, b)| **a == f32::from(**b)).count();
    assert!(equal as f64 >= share * codes.len() as f64, "{key}: {equal} of {} codes equal", codes.len());
    println!("{key}: {equal} of {}", codes.len());
}

fn assert_near(what: &str, found: f64, expected: &serde_json::Value) {
    let expected = expected.as_f64().unwrap();
    assert!((found / expected - 1.0).abs() < 0.005, "{what}: {found}, expected {expected}");
}

#[test]
fn gptq_and_rounding_agree_with_the_reference() {
    let arrays = golden::arrays("gptq/gptq.safetensors");
    let meta = golden::meta("gptq");
    for name in MATRICES {
        let w = matrix(&arrays, name);
        let hessian = &arrays[&format!("{name}.hessian")].data;
        for q_max in [31, 15] {
            let key = format!("{name}.{q_max}");
            let (q, method) = gptq::quantize(&w, hessian, Scheme::Reference, q_max).unwrap();
            assert_eq!(method, gptq::Method::Gptq, "{key}");
            assert_matches(&arrays, &format!("{name}.gptq{q_max}"), &q, 0.99);
            assert_near(&key, mean_squared_error(&w, &q), &meta[&key]["gptq_mse"]);
            assert_near(&key, hessian_error(&w, &q, hessian).unwrap(), &meta[&key]["gptq_hessian_error"]);
            let q = round::to_nearest(&w, Scheme::Reference, q_max).unwrap();
            assert_matches(&arrays, &format!("{name}.rtn{q_max}"), &q, 1.0);
            assert_near(&key, mean_squared_error(&w, &q), &meta[&key]["rtn_mse"]);
            assert_near(&key, hessian_error(&w, &q, hessian).unwrap(), &meta[&key]["rtn_hessian_error"]);
        }
    }
}

#[test]
fn int8_tables_agree_with_the_reference() {
    let arrays = golden::arrays("gptq/gptq.safetensors");
    for name in MATRICES {
        let q = round::table(&matrix(&arrays, name), Scheme::Reference).unwrap();
        assert_matches(&arrays, &format!("{name}.int8"), &q, 1.0);
    }
}
