//! The whole life of a model through the program, on real text: this project's own source.

mod work;

use std::path::Path;

use serde_json::Value;

use work::{Work, number};

#[test]
fn text_to_a_scored_artifact_that_speaks() {
    let work = Work::trained();
    let compressed =
        work.run("compress checkpoint --data shards --out model.6pk --calibration-tokens 4096 --json").json();
    let size = std::fs::metadata(work.at("model.6pk")).expect("artifact").len();
    assert_eq!(number(&compressed, "/artifact/bytes"), size as f64);
    let (float, packed) = (number(&compressed, "/float/bits_per_byte"), number(&compressed, "/artifact/bits_per_byte"));
    assert!((packed - float).abs() < 0.1 && packed < 8.0, "{float} {packed}");

    // What eval measures is what compress wrote into the file; text gives what shards give.
    let evaluated = work.run("eval model.6pk --data shards --json").json();
    assert!((number(&evaluated, "/bits_per_byte") - packed).abs() < 1e-9);
    assert_eq!(number(&evaluated, "/model_bytes"), size as f64);
    let float_again = work.run("eval checkpoint --data shards --json").json();
    assert!((number(&float_again, "/bits_per_byte") - float).abs() < 1e-9);
    let plain = work.run("eval model.6pk --data shards --plain --max-tokens 500 --json").json();
    assert_eq!((number(&plain, "/tokens"), &plain["stride"]), (448.0, &Value::Null));
    std::fs::write(work.at("note.txt"), "fn main() { println!(\"some text that no one has seen\"); }\n").expect("text");
    let on_text = work.run("eval model.6pk --data note.txt --json").json();
    assert_eq!(number(&on_text, "/bytes"), 57.0, "the line end at the end is no text after normalisation");

    // The ledger and the tensors account for every byte.
    let inspected = work.run("inspect model.6pk --json").json();
    let sum = |list: &str| inspected[list].as_array().expect(list).iter().map(|l| number(l, "/bytes")).sum::<f64>();
    assert_eq!(sum("ledger"), size as f64);
    assert!(sum("tensors") < size as f64);
    assert!((number(&inspected, "/score/bits_per_byte") - packed).abs() < 1e-12);
    assert_eq!(number(&inspected, "/provenance/seed"), 7.0);
    for digest in ["/data/training", "/data/calibration", "/data/score", "/checkpoint"] {
        assert!(inspected["provenance"].pointer(digest).is_some_and(Value::is_string), "{digest}: {inspected}");
    }
    let text = work.run("inspect model.6pk").ok().stdout;
    for part in ["tok_emb.weight", "What the bytes are for", "Score:", "recipe"] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    work.run("inspect checkpoint").ok();

    // The same seed speaks the same text, and greedy text does not depend on it.
    let speak = |more: &str| work.run(&format!("run model.6pk --prompt fn --max-tokens 20 --json {more}")).json();
    assert_eq!(speak("--seed 3")["text"], speak("--seed 3")["text"]);
    assert_eq!(speak("--temperature 0 --seed 1")["text"], speak("--temperature 0 --seed 2")["text"]);
    let streamed = work.run("run model.6pk --prompt fn --max-tokens 20 --seed 3").ok();
    assert_eq!(streamed.stdout.strip_suffix('\n').expect("a line"), speak("--seed 3")["text"].as_str().expect("text"));
    assert!(streamed.stderr.contains("tokens/s") && streamed.stderr.contains("bits per token"), "{streamed:?}");
    work.run("run model.6pk --prompt fn --top-p 3").fails(2, "top_p");
}

#[test]
fn a_training_may_end_with_an_artifact() {
    let work = Work::with_shards();
    let recipe = std::fs::read_to_string(work.at("recipe.toml")).expect("recipe");
    let pack = "\n[pack]\ntarget_bytes = 400_000\ncalibration_tokens = 2048\n";
    std::fs::write(work.at("recipe.toml"), recipe + pack).expect("recipe");
    let train = "train --recipe recipe.toml --data shards --threads 2 --measure-size-every 0";
    let said = work.run(&format!("{train} --out checkpoint --set budget.steps=3 --json")).ok().stdout;
    let table: Value = serde_json::from_str(said.lines().last().expect("lines")).expect("JSON");
    assert_eq!((&table["event"], number(&table, "/steps")), (&"packed".into(), 3.0), "{table}");
    let size = std::fs::metadata(work.at("checkpoint/model.6pk")).expect("an artifact").len();
    assert!(size <= 400_000 && number(&table, "/sliding/bytes") == size as f64, "{table}");
    // Scores are those that `eval` finds.
    for (model, name) in [("checkpoint", "float"), ("checkpoint/model.6pk", "packed")] {
        let found = work.run(&format!("eval {model} --data shards --plain --json")).json();
        let said = number(&table, &format!("/{name}/bits_per_byte"));
        assert!((number(&found, "/bits_per_byte") - said).abs() < 1e-9, "{name}: {said}, eval {found}");
    }
    let sliding = work.run("inspect checkpoint/model.6pk --json").json();
    assert_eq!(sliding["score"]["bits_per_byte"], table["sliding"]["bits_per_byte"]);
    // Not at all; and refused before a step was taken.
    work.run(&format!("{train} --out other --set budget.steps=1 --no-pack")).ok();
    assert!(!work.at("other/model.6pk").exists());
    work.run(&format!("{train} --out third --pack no/folder.6pk")).fails(2, "--pack: expected a file in a folder");
    std::fs::create_dir(work.at("bare")).expect("folder");
    std::fs::copy(work.at("shards/train_000000.bin"), work.at("bare/train_000000.bin")).expect("a copy");
    let bare = train.replace("--data shards", "--data bare --tokenizer tokenizer.model");
    work.run(&format!("{bare} --out third")).fails(2, "no validation shards");
    assert!(!work.at("third").exists());
}

#[test]
fn the_budget_and_the_split_are_kept() {
    let work = Work::trained();
    let base = "compress checkpoint --data shards --scheme reference --calibration-tokens 4096 --plain --out small.6pk";
    std::fs::write(work.at("small.6pk"), "an older file").expect("file");
    let refused = work.run(&format!("{base} --target-bytes 1000")).fails(1, "1000");
    assert!(refused.stderr.contains("over") || refused.stderr.contains("more"), "{refused:?}");
    assert_eq!(std::fs::read(work.at("small.6pk")).expect("file"), b"an older file", "nothing half-written");
    work.run(&format!("{base} --seq-len 8 --calibration-tokens 0")).fails(2, "calibration-tokens");
    work.run(&base.replace("--plain", "--stride 65")).fails(2, "--stride");
    work.run(&base.replace("small.6pk", "no/folder.6pk")).fails(2, "--out");
    work.run(&base.replace("small.6pk", "checkpoint")).fails(2, "--out");
    let all = work.run(&format!("{base} --json")).json();
    let left = std::fs::read_dir(work.dir.path()).expect("folder").filter_map(|e| Some(e.ok()?.path()));
    assert!(!left.into_iter().any(|p| p.to_string_lossy().contains("unscored")), "nothing is left behind");
    let none = work.run(&format!("{base} --int6-layers 0 --json")).json();
    let target = number(&all, "/artifact/bytes") as u64 - 1;
    let fitted = work.run(&format!("{base} --target-bytes {target} --json")).json();
    let bytes = number(&fitted, "/artifact/bytes");
    assert!(bytes <= target as f64 && bytes > number(&none, "/artifact/bytes"), "{bytes} for {target}");
    let rd = base.replace("reference", "rd");
    work.run(&format!("{rd} --int6-layers 0")).fails(2, "--int6-layers");
    // The reference keeps most of a model this small in f16, more than the finest grid of `rd` can fill.
    let target = target * 2 / 5;
    let solved = work.run(&format!("{rd} --target-bytes {target} --json")).json();
    let bytes = number(&solved, "/artifact/bytes");
    assert!(bytes <= target as f64 && bytes > 0.99 * target as f64, "{bytes} for {target}");
    let own = rd.replace("--calibration-tokens 4096", "--calibration-tokens 512 --no-sensitivity --calibrate-on self");
    work.run(&own).ok();
    let zstd = work.run(&format!("{base} --codec zstd --json")).json();
    assert_ne!(number(&zstd, "/artifact/bytes"), number(&all, "/artifact/bytes"));

    // Validation tokens never calibrate, under whatever name.
    let val = std::fs::read_dir(work.at("shards")).expect("shards").filter_map(|e| Some(e.ok()?.path()));
    let val = val
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "bin"))
        .find(|p| p.to_string_lossy().contains("val_"))
        .expect("a validation shard");
    let line = format!("compress checkpoint --data {} --eval-data shards --out x.6pk", val.display());
    work.run(&line).fails(1, "validation");
    std::fs::create_dir(work.at("renamed")).expect("folder");
    std::fs::copy(&val, work.at("renamed/neutral.bin")).expect("copy");
    let line = "compress checkpoint --data renamed/neutral.bin --eval-data shards --out x.6pk";
    work.run(line).fails(1, "to be calibrated on and scored on");
    assert!(!work.at("x.6pk").exists());
    work.run("compress model.6pk --data shards --out x.6pk").fails(2, "expected a checkpoint folder");
}

#[test]
fn training_stops_goes_on_and_refuses() {
    let work = Work::trained();
    let whole = std::fs::read(work.at("checkpoint/model.safetensors")).expect("weights");
    let log = std::fs::read_to_string(work.at("checkpoint/train.jsonl")).expect("log");
    let events: Vec<Value> = log.lines().map(|l| serde_json::from_str(l).expect("JSON lines")).collect();
    let steps: Vec<_> = events.iter().filter(|e| e["event"] == "step").collect();
    assert_eq!(steps.len(), 12);
    for key in ["loss", "bits_per_byte", "tokens_per_second", "projected_bytes"] {
        assert!(steps.iter().all(|s| s[key].is_number()), "{key}");
    }
    assert!(steps[11]["recurrence"] == true && steps[0]["recurrence"] == false);
    let train = "train --recipe recipe.toml --data shards --out checkpoint";
    work.run(train).fails(2, "--resume");
    work.run(&format!("{train} --resume")).ok();
    assert_eq!(std::fs::read(work.at("checkpoint/model.safetensors")).expect("weights"), whole, "nothing left to do");
    work.run(&format!("{train} --resume --set optimizer.matrix.lr=0.5")).fails(1, "optimizer.matrix.lr");
    work.run("train --recipe recipe.toml --data shards --out other --set model.depth=3").fails(2, "depth");
    work.run("train --recipe nowhere.toml --data shards --out other").fails(2, "nowhere.toml");
    work.run("train --recipe recipe.toml --data nowhere --out other").fails(1, "nowhere");
    work.run("train --recipe recipe.toml --data shards --out other --set model.vocab_size=600").fails(1, "600");
    assert!(!work.at("other").exists(), "nothing is left behind");
    let exact =
        "train --recipe recipe.toml --data shards --out exact --set budget.steps=2 --measure-size-every 1 --json";
    let lines = work.run(exact).ok().stdout;
    assert!(lines.lines().all(|l| !l.contains("projected_bytes") || l.contains("\"measured\":true")), "{lines}");
}

#[cfg(unix)]
#[test]
fn a_closed_pipe_and_a_signal_are_no_accidents() {
    use std::io::Read;
    use std::process::{Command, Stdio};
    let work = Work::trained();
    let start = |line: &str| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("sixpack"));
        command.current_dir(work.dir.path()).args(line.split(' ')).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("it runs")
    };
    // Nobody reads on: no panic, and training goes on to its end.
    for line in ["inspect checkpoint", "train --recipe recipe.toml --data shards --out piped"] {
        let mut child = start(line);
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(work.at("piped/model.safetensors").exists());
    // A request to terminate writes a checkpoint that training goes on from.
    let mut child = start("train --recipe recipe.toml --data shards --out ended --set budget.steps=100000");
    let mut seen = String::new();
    while !seen.contains("step      2") {
        let mut buffer = [0; 256];
        let n = child.stdout.as_mut().expect("piped").read(&mut buffer).expect("output");
        assert!(n > 0, "ended early: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill").success());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(work.at("ended/resume.safetensors").exists());
}

#[test]
fn recipes_explain_themselves() {
    let work = Work::new();
    let shown = work.run("recipe show record").ok().stdout;
    for part in ["34,401,371", "786,432", "0.09"] {
        assert!(shown.contains(part) || shown.contains(&part.replace(',', "")), "no {part} in {shown}");
    }
    work.run("recipe show no-such").fails(2, "no-such");
    work.run("recipe show small --set batch.tokens=3").fails(2, "tokens");
}

#[test]
fn quickstart_on_a_small_text() {
    let work = Work::new();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("runtime");
    let corpus = corpus.to_str().expect("UTF-8");
    let args = ["quickstart", "--corpus", corpus, "--minutes", "0.05", "--out", "quick"];
    let printed = work.args(&args).ok().stdout;
    for part in ["model, packed", "order-2 context model", "zstd -19", "sixpack run", "a sample"] {
        assert!(printed.contains(part), "no `{part}` in {printed}");
    }
    for file in ["model.6pk", "checkpoint/model.safetensors", "shards/manifest.json", "sample.txt"] {
        assert!(work.at("quick").join(file).exists(), "{file}");
    }
    work.args(&args).fails(2, "--out");
    work.run("quickstart --minutes 0").fails(2, "above 0");
}
