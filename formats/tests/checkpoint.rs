//! Checkpoint folders made of the golden weights, as a user of the reference would bring them.

use sixpack_formats::{checkpoint, state_dict};

#[path = "../../tests/golden/golden.rs"]
mod golden;

#[test]
fn golden_weights_and_a_configuration_make_a_checkpoint() {
    for case in golden::CASES {
        let folder = tempfile::tempdir().unwrap();
        let weights = golden::folder().join(case).join("weights.safetensors");
        std::fs::copy(&weights, folder.path().join("weights.safetensors")).unwrap();
        std::fs::write(folder.path().join("config.json"), golden::meta(case)["config"].to_string()).unwrap();
        let (read, expected) = (checkpoint::read(folder.path()).unwrap(), golden::model(case));
        assert_eq!((read.config, read.tensors), (expected.config, expected.tensors), "{case}");
        assert_eq!(read.bytes, std::fs::metadata(&weights).unwrap().len());
        assert_eq!(read.tokenizer, None);
    }
}

#[test]
fn every_golden_file_of_floats_is_read_as_the_official_crate_reads_it() {
    for case in golden::CASES {
        let file = format!("{case}/weights.safetensors");
        let ours = state_dict::read(&std::fs::read(golden::folder().join(&file)).unwrap()).unwrap();
        let theirs = golden::arrays(&file);
        assert!(ours.keys().eq(theirs.keys()));
        assert!(ours.values().zip(theirs.values()).all(|(a, b)| a.shape == b.shape && a.data == b.data));
    }
}
