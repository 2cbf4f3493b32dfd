//! `sweep` through the program: what it writes, and that an interruption changes nothing of it.

mod work;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use work::{Work, number};

const FILES: [&str; 3] = ["points.json", "points.csv", "tradeoff.svg"];

const LINE: &str = "sweep --recipe recipe.toml --weight-decays 0.5,0.02 --data shards --schemes reference \
                    --int6-layers 0,99 --codecs brotli,zstd --calibration-tokens 2048 --plain --max-tokens 1000 \
                    --budget 900000 --reference 800000,3.5,others --threads 2";

#[test]
fn an_interrupted_sweep_ends_with_the_same_files() {
    let work = Work::trained();
    let line = LINE.split_whitespace().collect::<Vec<_>>().join(" ");
    let whole = work.run(&format!("{line} --out whole --json")).json();
    let points = whole["points"].as_array().expect("points");
    assert_eq!(points.len(), 8, "two checkpoints, two widths, two codecs");
    for point in points {
        assert!(number(point, "/packed/bytes") > 0.0 && number(point, "/packed/bits_per_byte") < 9.0, "{point}");
        let gap = number(point, "/packed/bits_per_byte") - number(point, "/float/bits_per_byte");
        assert_eq!(number(point, "/gap"), gap);
    }
    // By weight decay, whatever the order they were asked for in; the codec changes bytes and nothing else.
    let decay = |i: usize| number(&points[i], "/weight_decay");
    assert_eq!([decay(0), decay(7)], [0.02, 0.5]);
    let of = |codec: &str| -> Vec<_> { points.iter().filter(|p| p["settings"]["codec"] == codec).collect() };
    for (brotli, zstd) in of("brotli").into_iter().zip(of("zstd")) {
        assert_eq!(brotli["packed"]["bits_per_byte"], zstd["packed"]["bits_per_byte"]);
        assert_ne!(brotli["packed"]["bytes"], zstd["packed"]["bytes"]);
    }

    // Killed after its third point, with no chance to tidy up.
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("sixpack"));
    child.current_dir(work.dir.path()).args(line.split(' ')).args(["--out", "broken"]);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map(|l| l.expect("UTF-8"));
    assert!(lines.any(|l| l.starts_with("[3/8]")), "three points");
    child.kill().expect("kill");
    child.wait().expect("it ends");
    let read = |folder: &str, file: &str| std::fs::read_to_string(work.at(folder).join(file)).expect(file);
    assert_ne!(read("broken", FILES[0]), read("whole", FILES[0]), "it was stopped before the end");

    let resumed = work.run(&format!("{line} --out broken")).ok();
    assert!(!resumed.stderr.contains("[3/8]") && resumed.stderr.contains("[8/8]"), "{}", resumed.stderr);
    for file in FILES {
        assert_eq!(read("broken", file), read("whole", file), "{file}");
    }
    let left = std::fs::read_dir(work.at("broken")).expect("folder").count();
    assert_eq!(left, FILES.len() + 1, "the files and the checkpoints");

    // The picture is XML and draws every point; the table has a line for each.
    let picture = read("whole", "tradeoff.svg");
    let picture = roxmltree::Document::parse(&picture).expect("well-formed");
    let titles = picture.descendants().filter(|n| n.has_tag_name("title") && n.text().unwrap().contains("bytes,"));
    assert_eq!(titles.count(), 8);
    assert!(picture.descendants().any(|n| n.text() == Some("others")));
    assert_eq!(read("whole", "points.csv").lines().count(), 9);

    // The sizes are those of `compress`, and more points join those that are there.
    let alone = "compress whole/checkpoints/wd_0.5 --data shards --out alone.6pk --scheme reference --codec brotli \
                 --int6-layers 0 --plain --calibration-tokens 2048 --max-tokens 1000 --json --threads 2";
    let alone = work.run(&alone.split_whitespace().collect::<Vec<_>>().join(" ")).json();
    let same = |p: &&serde_json::Value| p["packed"] == alone["artifact"];
    assert_eq!(points.iter().filter(same).count(), 1, "{alone}");
    let more = line.replace("0,99", "3").replace("brotli,zstd", "brotli");
    let more = work.run(&format!("{more} --out whole --json")).json();
    assert_eq!(more["points"].as_array().map(Vec::len), Some(10));
    assert_eq!(read("whole", "points.json").matches("\"weight_decay\"").count(), 10);
}

#[test]
fn what_cannot_be_had_is_said_and_does_not_stop_a_sweep() {
    let work = Work::trained();
    let line = "sweep --checkpoints checkpoint --data shards --schemes reference --int6-layers 0 --target-bytes 1000 \
                --calibration-tokens 2048 --plain --max-tokens 1000 --out tried";
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    for _ in 0..2 {
        let tried = work.run(&format!("{line} --json")).json();
        assert_eq!(tried["points"].as_array().map(Vec::len), Some(1));
        assert!(tried["refused"][0]["reason"].as_str().is_some_and(|r| r.contains("1000")), "{tried}");
    }
    let told = work.run(&line).ok().stdout;
    assert!(told.contains("int6 × 0") && told.contains("over the target of 1000"), "{told}");
    work.run(&line.replace("--checkpoints checkpoint ", "")).fails(2, "--checkpoints");
    work.run(&line.replace("checkpoint ", "nowhere ")).fails(2, "nowhere");
    work.run(&format!("{line} --reference 3,x,y")).fails(2, "BYTES,BPB,LABEL");
    work.run(&format!("{line} --stride 9 --seq-len 8").replace("--plain ", "")).fails(2, "--stride");
    std::fs::write(work.at("tried/points.json"), "{").expect("file");
    work.run(&line).fails(1, "points.json");
}
