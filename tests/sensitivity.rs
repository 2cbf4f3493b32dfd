//! `sixpack sensitivity` as a program: what it writes, and what it refuses.

use std::path::Path;

use assert_cmd::Command;
use predicates::str::contains;
use sixpack_formats::{ModelConfig, checkpoint, sensitivity, shard};
use sixpack_train::params;

fn sixpack() -> Command {
    Command::cargo_bin("sixpack").expect("built with the tests")
}

/// A checkpoint and a shard of training tokens.
fn make(dir: &Path) {
    let config = ModelConfig {
        vocab_size: 16,
        num_layers: 2,
        model_dim: 16,
        num_heads: 2,
        num_kv_heads: 1,
        rope_dims: 4,
        train_seq_len: 8,
        xsa_last_n: 1,
        ve_layers: vec![1],
        ve_dim: 4,
        recur_layers: vec![0],
        ..ModelConfig::record()
    };
    let model = params::into_model(&config, sixpack_train::init(&config, 3), None).unwrap();
    checkpoint::write(dir.join("model"), &model, &Default::default()).unwrap();
    let tokens: Vec<u16> = (0..400u32).map(|i| (i * i % 13) as u16).collect();
    shard::write(dir.join("train_000000.bin"), &tokens).unwrap();
    shard::write(dir.join("val_000000.bin"), &tokens[..100]).unwrap();
}

#[test]
fn the_file_lies_beside_the_weights_and_names_them() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path());
    let model = folder.path().join("model");
    let run = |threads: &str, more: &[&str]| {
        let mut command = sixpack();
        command.arg("sensitivity").arg(&model).arg("--data").arg(folder.path().join("train_000000.bin"));
        command.args(["--threads", threads]).args(more).assert().success()
    };
    run("1", &["--tokens", "64"]).stdout(contains("blocks.1.mlp.proj.weight")).stdout(contains("64 tokens"));
    let config = checkpoint::read_config(&model).unwrap();
    let read = sensitivity::read(sensitivity::path(&model), &config).unwrap();
    assert_eq!((read.tokens, read.checkpoint), (64, checkpoint::hash(&model).unwrap()));
    let first = std::fs::read(sensitivity::path(&model)).unwrap();
    let json = run("3", &["--tokens", "64", "--json"]).get_output().stdout.clone();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((&json["tokens"], &json["checkpoint"]), (&64.into(), &read.checkpoint.to_string().into()));
    assert_eq!(std::fs::read(sensitivity::path(&model)).unwrap(), first, "threads change nothing");
    run("1", &["--tokens", "64", "--device", "cpu"]);
}

#[test]
fn validation_data_and_other_mistakes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path());
    let refused = |model: &str, data: &str, code: i32, message: &'static str| {
        let mut command = sixpack();
        command.arg("sensitivity").arg(folder.path().join(model)).arg("--data").arg(folder.path().join(data));
        command.assert().code(code).stderr(contains(message));
    };
    refused("model", "val_000000.bin", 1, "refused as training data");
    refused("none", "train_000000.bin", 2, "expected a checkpoint folder");
    refused("model", "none.bin", 1, "none.bin");
    for device in ["wgpu", "cuda:1"] {
        let mut command = sixpack();
        command.arg("sensitivity").arg(folder.path().join("model")).arg("--data").arg(folder.path().join("none.bin"));
        let failed = command.args(["--device", device]).assert().code(1);
        failed.stderr(contains(format!("no device `{device}`: gradients are taken on the CPU only")));
    }
    assert!(!sensitivity::path(folder.path().join("model")).exists());
}
