//! Choosing what a model runs on. What a GPU computes is tested in `runtime/tests/wgpu.rs`.

use assert_cmd::Command;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;

fn sixpack() -> Command {
    Command::cargo_bin("sixpack").expect("the program was built")
}

#[test]
fn devices_are_listed_and_one_is_taken() {
    let found = sixpack().args(["devices", "--json", "--threads", "1"]).assert().success();
    let report: serde_json::Value = serde_json::from_slice(&found.get_output().stdout).unwrap();
    assert!(report["cpu"]["tokens_per_second"].as_f64().unwrap() > 0.0);
    assert!(!report["why"].as_str().unwrap().is_empty());
    let adapters = report["adapters"].as_array().unwrap();
    let devices: Vec<&str> = adapters.iter().map(|a| a["device"].as_str().unwrap()).chain(["cpu"]).collect();
    assert!(devices.contains(&report["auto"].as_str().unwrap()), "{report}");
    for adapter in adapters {
        assert_eq!(adapter["self_check"], "passed", "{adapter}");
        assert!(adapter["kind"] != "software" || adapter["device"] != report["auto"], "{report}");
    }
    let cuda = |key: &str| report["cuda"][key].as_array().unwrap().clone();
    let names: Vec<_> = cuda("found").iter().chain(&cuda("missing")).map(|l| l["what"].clone()).collect();
    assert_eq!(names.len(), 3, "{report}");
    assert!(cuda("found").iter().all(|l| !l["version"].as_str().unwrap().is_empty()), "{report}");
}

/// Each library of CUDA is found where it is or named with where was looked, and asking for CUDA says the same.
#[test]
fn what_of_cuda_is_missing_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = || {
        let mut program = sixpack();
        // No toolkit and no wheels, whatever this machine has of its own.
        for name in ["CUDA_HOME", "CUDA_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"] {
            program.env_remove(name);
        }
        program.env("HOME", folder.path()).env("SIXPACK_NVRTC", folder.path());
        program
    };
    let nowhere = format!("none at {}", folder.path().display());
    let found = elsewhere().args(["devices", "--threads", "1"]).assert().success();
    let text = String::from_utf8(found.get_output().stdout.clone()).unwrap();
    let line = text.lines().find(|l| l.starts_with("cuda: ")).unwrap();
    assert!(line.contains(&format!("NVRTC is missing ({nowhere})")), "{line}");
    assert!(["the driver ", "cuBLASLt "].iter().all(|what| line.contains(what)), "{line}");
    let out = folder.path().join("new");
    let args = ["quickstart", "--device", "cuda", "--out", out.to_str().unwrap()];
    let failed = elsewhere().args(args).assert().code(1);
    failed.stderr(contains("no device `cuda`: CUDA needs what is not found here: ").and(contains(nowhere)));
}

#[test]
fn what_is_not_there_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new");
    for (device, reason) in [("wgpu:99", "no device `wgpu:99`"), ("cuda", "no device `cuda`")] {
        let quickstart = || ["quickstart", "--device", device, "--out", out.to_str().unwrap()];
        sixpack().args(quickstart()).assert().code(1).stderr(contains(reason));
        assert!(!out.exists(), "{device}: something was done first");
    }
    let wrong = sixpack().args(["run", "model.6pk", "--prompt", "x", "--device", "gpu"]).assert().code(2);
    wrong.stderr(contains("expected auto, cpu, wgpu, cuda"));
}
