//! `codecs`: the table, its JSON, and what it refuses.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::Value;

fn codecs(args: &[&str]) -> (Option<i32>, String, String) {
    let output =
        Command::cargo_bin("sixpack").expect("the program").arg("codecs").args(args).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A file of codes: an attention matrix, both of an MLP, and scales that are all 1.
fn codes(dir: &Path) -> PathBuf {
    let mut state = 1u64;
    let mut die = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 62) as u8
    };
    let names = ["blocks.0.attn.c_q.weight", "blocks.0.mlp.fc.weight", "blocks.0.mlp.proj.weight"];
    let (codes, scales): (Vec<_>, Vec<_>) = names
        .iter()
        .map(|_| {
            ((0..64 * 48).map(|_| (die() + die() + die()).wrapping_sub(4)).collect::<Vec<u8>>(), [0, 0x3c].repeat(64))
        })
        .unzip();
    let tensor = |dtype, shape: &[usize], data| TensorView::new(dtype, shape.to_vec(), data).expect("sizes that fit");
    let tensors = names.iter().enumerate().flat_map(|(i, name)| {
        let codes = (format!("{name}.q"), tensor(Dtype::I8, &[64, 48], &codes[i]));
        [codes, (format!("{name}.scale"), tensor(Dtype::F16, &[64], &scales[i]))]
    });
    let path = dir.join("codes.safetensors");
    std::fs::write(&path, serialize(tensors, None).expect("tensors")).expect("file");
    path
}

#[test]
fn every_codec_is_in_the_table_and_floors_are_below() {
    let dir = tempfile::tempdir().expect("folder");
    let file = codes(dir.path());
    let file = file.to_str().expect("UTF-8");
    let (code, out, err) = codecs(&[file, "--json", "--seconds", "0.001", "--layout", "plain,pairs"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("1 of "), "slow codecs show themselves: {err}");
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(report["weights"], 3 * 64 * 48);
    assert_eq!((&report["matrices"], &report["streams"]), (&3.into(), &3.into()));
    let rows = report["codecs"].as_array().expect("rows");
    let row = |codec: &str, layout: &str| {
        let layout = if layout.is_empty() { Value::Null } else { layout.into() };
        rows.iter().find(|r| r["codec"] == codec && r["layout"] == layout).unwrap_or_else(|| panic!("{codec}: {out}"))
    };
    for codec in ["brotli-5", "brotli-9", "brotli-11", "zstd-3", "zstd-19", "zstd-22"] {
        row(codec, "plain");
        row(codec, "pairs");
    }
    assert_eq!(row("brotli-11", "plain")["relative"], 1.0);
    // Three dice of four sides take 2.984 bits; 3,072 throws seem to take a little less. Tables are paid for.
    let bits = |row: &Value| row["bits_per_weight"].as_f64().expect("bits");
    let floors = report["floors"].as_array().expect("floors");
    let within = bits(floors.iter().find(|f| f["floor"] == "order 0, within tensors").expect("this floor"));
    assert!((2.96..2.984).contains(&within), "{within}");
    for codec in ["constriction-static", "constriction-adaptive", "sixpack"] {
        let bits = bits(row(codec, ""));
        assert!((within..within + 0.1).contains(&bits), "{codec}: {bits}");
    }
}

#[test]
fn classes_choose_tensors_and_the_text_says_what_they_are() {
    let dir = tempfile::tempdir().expect("folder");
    let file = codes(dir.path());
    let file = file.to_str().expect("UTF-8");
    let (code, out, _) = codecs(&[file, "--class", "mlp", "--codec", "brotli-5,zstd-3/packed", "--streams", "one"]);
    assert_eq!(code, Some(0));
    assert!(out.starts_with("6,144 weights of 2 matrices in 1 streams: codes as they are in the file\n"), "{out}");
    assert!(out.contains("a floor: its model is not paid for"), "{out}");
    let codecs: Vec<&str> = out.lines().filter(|l| l.starts_with("brotli") || l.starts_with("zstd")).collect();
    assert!(codecs.len() == 2 && codecs[1].contains("packed"), "{out}");
}

#[test]
fn misuse_is_2_and_a_broken_file_is_1() {
    let dir = tempfile::tempdir().expect("folder");
    let file = codes(dir.path());
    let file = file.to_str().expect("UTF-8");
    let refused = |args: &[&str], code: i32, what: &str| {
        let (found, _, err) = codecs(args);
        assert!(found == Some(code) && err.contains(what), "{args:?}: {found:?} {err}");
    };
    refused(&[], 2, "MODEL");
    refused(&[file, "--codec", "lzma"], 2, "--codec: codec: expected one of brotli-5");
    refused(&[file, "--codec", "brotli-5", "--layout", "sideways"], 2, "sideways");
    refused(&[file, "--class", "tables"], 2, "no quantised tensors of this class");
    let text = dir.path().join("a.txt");
    std::fs::write(&text, "no model").expect("text");
    refused(&[text.to_str().expect("UTF-8")], 2, "a.txt: expected an artifact, or a safetensors file with codes");
    let floats = dir.path().join("floats.safetensors");
    std::fs::write(&floats, serialize(std::iter::empty::<(String, TensorView<'_>)>(), None).expect("none"))
        .expect("file");
    refused(&[floats.to_str().expect("UTF-8")], 2, "expected an artifact");
    refused(&["no/such/model"], 1, "no/such/model");
    let cut = dir.path().join("cut.safetensors");
    let bytes = std::fs::read(file).expect("bytes");
    std::fs::write(&cut, &bytes[..bytes.len() - 1]).expect("file");
    refused(&[cut.to_str().expect("UTF-8")], 1, "cut.safetensors");
}
