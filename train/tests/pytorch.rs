//! State dicts in PyTorch's own files.

#[path = "../../tests/golden/golden.rs"]
mod golden;

use half::f16;
use proptest::prelude::*;
use sixpack_train::{params, pytorch};

fn file(name: &str) -> Vec<u8> {
    std::fs::read(golden::folder().join("pt").join(name)).unwrap()
}

#[test]
fn a_model_from_a_training_scripts_file() {
    let folder = tempfile::tempdir().unwrap();
    let golden = golden::model("bare");
    std::fs::write(folder.path().join("config.json"), golden.config.to_json()).unwrap();
    let path = golden::folder().join("pt/bare.pt");
    let model = pytorch::read_checkpoint(folder.path(), &path).unwrap();
    assert_eq!(model.config, golden.config);
    assert_eq!(model.bytes, std::fs::metadata(&path).unwrap().len());
    let (found, expected) = (params::of_model(&model), params::of_model(&golden));
    for (id, expected) in expected {
        let expected: Vec<f32> = expected.iter().map(|&x| f16::from_f32(x).to_f32()).collect();
        assert_eq!(found[&id], expected, "{id}");
    }
}

#[test]
fn views_dtypes_and_scalars() {
    // As PyTorch itself writes them, and as our own script lays them out.
    ["torch.pt", "odd.pt"].into_iter().for_each(views_dtypes_and_scalars_of);
}

fn views_dtypes_and_scalars_of(name: &str) {
    let dict = pytorch::parse(&file(name)).unwrap();
    let get = |name: &str| (dict[name].shape.clone(), dict[name].data.clone());
    assert_eq!(get("whole"), (vec![4, 6], (0..24).map(|i| i as f32).collect()));
    assert_eq!(get("view"), (vec![2, 3], vec![8., 9., 10., 14., 15., 16.]));
    let transposed = (0..24).map(|i| (i / 4 + i % 4 * 6) as f32).collect();
    assert_eq!(get("transposed"), (vec![6, 4], transposed));
    assert_eq!(get("scalar"), (vec![], vec![0.1]));
    assert_eq!(get("brain"), (vec![3], vec![1.5, -2.0, 0.0]));
    assert_eq!(get("empty"), (vec![0, 5], vec![]));
    assert_eq!(dict.len(), 6);
}

#[test]
fn what_is_no_state_dict_is_refused_by_name() {
    let message = |bytes: &[u8]| pytorch::parse(bytes).unwrap_err().to_string();
    assert!(message(&file("integers.pt")).contains("`steps`: expected a tensor of floats, found LongStorage"));
    assert!(message(b"").contains("expected a zip archive"));
    assert!(message(b"\x80\x02}q\x00.").contains("PyTorch 1.5"));
    let whole = file("odd.pt");
    assert!(message(&whole[..whole.len() - 1]).contains("expected a zip archive"));
    // The view's offset 8 (BININT1) becomes 200: outside the 24 elements of its storage.
    let at = whole.windows(6).position(|w| w == b"K\x08K\x02K\x03").unwrap();
    let mut moved = whole.clone();
    moved[at + 1] = 200;
    let found = message(&moved);
    assert!(
        found.contains("`view`: expected a view within the 24 elements") && found.contains("offset 200"),
        "{found}"
    );
    // A huge shape on a stride of nothing.
    let mut huge = whole.clone();
    huge[at + 2..at + 6].copy_from_slice(b"M\xff\xffN");
    assert!(message(&huge).contains("expected"));
    let config_only = tempfile::tempdir().unwrap();
    std::fs::write(config_only.path().join("config.json"), golden::model("tiny").config.to_json()).unwrap();
    let path = golden::folder().join("pt/bare.pt");
    let found = pytorch::read_checkpoint(config_only.path(), &path).unwrap_err().to_string();
    assert!(found.contains("bare.pt") && found.contains("expected shape"), "{found}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100_000))]

    /// Any bytes changed, the file cut short: an error or other tensors, never a panic.
    #[test]
    fn mutations_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        thread_local!(static WHOLE: Vec<u8> = file("odd.pt"));
        let mut bytes = WHOLE.with(Clone::clone);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = pytorch::parse(&bytes);
    }
}
