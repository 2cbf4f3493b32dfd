//! The program as it is used: verbs, files, exit codes.

#[path = "golden/golden.rs"]
mod golden;

use std::path::Path;

use assert_cmd::Command;
use sixpack_formats::shard;

fn sixpack(args: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = Command::cargo_bin("sixpack").expect("the program");
    command.args(args).assert()
}

fn stdout(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8(assert.get_output().stdout.clone()).expect("UTF-8")
}

fn stderr(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8(assert.get_output().stderr.clone()).expect("UTF-8")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of UTF-8")
}

/// A checkpoint folder made of a golden `weights.safetensors` and `config.json`, and a shard of its tokens.
fn golden_checkpoint(case: &str, dir: &Path) {
    let weights = golden::folder().join(case).join("weights.safetensors");
    std::fs::copy(weights, dir.join("model.safetensors")).expect("copy");
    std::fs::write(dir.join("config.json"), golden::meta(case)["config"].to_string()).expect("config");
    let tokens: Vec<u16> =
        golden::arrays(&format!("{case}/eval.safetensors"))["tokens"].ids().iter().map(|&t| t as u16).collect();
    shard::write(dir.join("tokens.bin"), &tokens).expect("shard");
}

#[test]
fn eval_reproduces_the_reference() {
    for case in golden::CASES {
        let dir = tempfile::tempdir().expect("folder");
        golden_checkpoint(case, dir.path());
        let meta = golden::meta(case);
        let number = |key: &str| meta["eval"][key].to_string();
        let (model, data) = (text(dir.path()), dir.path().join("tokens.bin"));
        let base = ["eval", model, "--data", text(&data), "--json", "--threads", "1", "--seq-len"];
        for (windows, key) in [
            (vec!["--stride".to_owned(), number("stride")], "sliding_loss"),
            (vec!["--plain".to_owned()], "plain_loss"),
        ] {
            let seq_len = number("seq_len");
            let mut args = [&base[..], &[&seq_len]].concat();
            args.extend(windows.iter().map(String::as_str));
            let done = sixpack(&args).success();
            let report: serde_json::Value = serde_json::from_str(&stdout(&done)).expect("JSON");
            let (found, expected) =
                (report["loss_nats"].as_f64().expect("loss"), meta["eval"][key].as_f64().expect(key));
            assert!((found - expected).abs() < 1e-6 * expected, "{case} {key}: {found} instead of {expected}");
            assert!(report["bits_per_byte"].is_null() && report["bytes"].is_null(), "no tokenizer, no bytes");
            let size = std::fs::metadata(dir.path().join("model.safetensors")).expect("file").len();
            assert_eq!(report["model_bytes"].as_u64(), Some(size));
            let keys = ["stderr", "tokens", "tokens_per_second", "seq_len", "stride", "device"];
            assert!(keys.iter().all(|k| report.get(k).is_some()), "{report}");
        }
    }
}

#[test]
fn misuse_is_2_and_failure_is_1() {
    let dir = tempfile::tempdir().expect("folder");
    golden_checkpoint("tiny", dir.path());
    let (model, data) = (text(dir.path()), dir.path().join("tokens.bin"));
    let data = text(&data);
    sixpack(&["eval", model]).code(2);
    sixpack(&["eval", model, "--data", data, "--plain", "--stride", "8"]).code(2);
    sixpack(&["eval", model, "--data", data, "--seq-len", "0"]).code(2);
    let stride = sixpack(&["eval", model, "--data", data, "--seq-len", "8", "--stride", "9"]).code(2);
    assert!(stderr(&stride).contains("--stride: expected at most the window length 8, found 9"), "{}", stderr(&stride));
    let missing = sixpack(&["eval", "no/such/model", "--data", data]).code(1);
    assert!(stderr(&missing).contains("no/such/model"), "{}", stderr(&missing));
    let text_data = dir.path().join("a.txt");
    std::fs::write(&text_data, "some text").expect("text");
    let no_tokenizer = sixpack(&["eval", model, "--data", text(&text_data)]).code(1);
    assert!(stderr(&no_tokenizer).contains("the model has no tokenizer"), "{}", stderr(&no_tokenizer));
    let foreign = sixpack(&["inspect", text(&text_data)]).code(1);
    assert!(stderr(&foreign).contains("a.txt"), "{}", stderr(&foreign));
    std::fs::write(dir.path().join("tokens.bin"), [1, 2, 3]).expect("truncate");
    let truncated = sixpack(&["eval", model, "--data", data]).code(1);
    assert!(stderr(&truncated).contains("tokens.bin"), "{}", stderr(&truncated));
    std::fs::write(dir.path().join("config.json"), r#"{"model_dims": 64}"#).expect("config");
    let unknown = sixpack(&["inspect", model]).code(1);
    assert!(
        stderr(&unknown).contains("config.json") && stderr(&unknown).contains("model_dims"),
        "{}",
        stderr(&unknown)
    );
}
