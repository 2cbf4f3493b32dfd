//! `experiment` through the program: what it refuses, what it writes, and that being killed changes nothing of it.

mod work;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use work::{Work, number};

/// Three arms, one of which diverges at once, over two seeds; two artifacts of each model.
const PLAN: &str = r#"name = "test"
description = "Does anything matter?"
baseline = "recipe.toml"
set = ["optimizer.matrix.weight_decay=0.1"]
seeds = 2
budget = { steps = 6 }
time_limit_seconds = 300

[eval]
plain = true
max_tokens = 1000

[compress]
schemes = ["reference"]
codecs = ["zstd"]
int6_layers = [0, 99]
calibration_tokens = 1024

[[arm]]
id = "half"
description = "half the learning rate"
set = ["optimizer.matrix.lr=0.01", "optimizer.token.lr=0.015"]

[[arm]]
id = "wild"
description = "far too much of it"
priority = "high"
set = ["optimizer.matrix.lr=1000", "optimizer.token.lr=1000", "optimizer.scalar.lr=1000"]
seeds = 1

[scale.tiny]
budget = { tokens = 1024 }
seeds = [5]
set = ["optimizer.matrix.lr=0.03"]
arm.half = ["optimizer.matrix.lr=0.015"]
"#;

const LINE: &str = "experiment run plan.toml --data shards --threads 1";

fn planned() -> Work {
    let work = Work::trained();
    std::fs::write(work.at("plan.toml"), PLAN).expect("plan");
    work
}

/// The results of a folder without what is measured and so never twice the same.
fn decided(folder: &Path) -> (Vec<Vec<String>>, Value) {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect(name);
    let table = read("results.tsv");
    let cells = |line: &str| {
        let cells: Vec<String> = line.split('\t').map(str::to_owned).collect();
        assert_eq!(cells.len(), 8, "{line}");
        [&cells[..4], &cells[6..]].concat()
    };
    let mut json: Value = serde_json::from_str(&read("results.json")).expect("JSON");
    for run in json["runs"].as_array_mut().expect("runs") {
        if let Some(trained) = run.pointer_mut("/outcome/trained") {
            trained["measured"] = Value::Null;
            for point in trained["curve"].as_array_mut().expect("curve") {
                point[1] = Value::Null;
            }
        }
    }
    (table.lines().map(cells).collect(), json)
}

#[test]
fn runs_killed_at_any_moment_end_with_the_same_results() {
    let work = planned();
    let whole = work.run(&format!("{LINE} --out whole --json")).ok();
    let (table, json) = decided(&work.at("whole"));
    let ids: Vec<&str> = table.iter().map(|row| row[0].as_str()).collect();
    let of = |arm: &'static str| {
        [arm.to_owned(), format!("{arm}/reference-zstd-int6x000"), format!("{arm}/reference-zstd-int6x004")]
    };
    assert_eq!(ids[0], "id");
    assert_eq!(ids[1..7], [of("baseline"), of("baseline")].concat(), "{table:?}");
    assert_eq!(ids[7], "wild", "of high priority");
    assert_eq!(ids[8..], [of("half"), of("half")].concat());
    assert_eq!((table[7][4].as_str(), table[7][2].as_str()), ("crash", ""), "{table:?}");
    assert!(table[7][5].contains("diverged"), "{table:?}");
    let packed: f64 = table[3][2].parse().expect("a number");
    assert!(table[2][3].parse::<u64>().unwrap() < table[3][3].parse::<u64>().unwrap(), "int5 is smaller than int6");
    assert!(packed < 9.0 && json["runs"].as_array().unwrap().len() == 5, "{json}");
    assert!(json["conditions"]["training_data"][0].as_str().is_some_and(|d| d.len() == 64));
    let report: Value = serde_json::from_str(&whole.stdout).expect("JSON");
    assert_eq!(number(&report["rows"][0], "/runs"), 2.0);

    // Killed again and again, with no chance to tidy up, at moments that are anywhere in a run.
    let mut sixpack = Command::new(assert_cmd::cargo::cargo_bin!("sixpack"));
    let arguments: Vec<&str> = LINE.split(' ').chain(["--out", "broken"]).collect();
    sixpack.current_dir(work.dir.path()).args(&arguments).stdout(Stdio::null()).stderr(Stdio::null());
    for milliseconds in [150, 900, 2300, 400, 3100, 1300] {
        let mut child = sixpack.spawn().expect("it runs");
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().expect("kill");
        child.wait().expect("it ends");
    }
    // And at the end of a run.
    let mut child = sixpack.stderr(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
    lines.find(|l| l.starts_with('['));
    child.kill().expect("kill");
    child.wait().expect("it ends");
    work.run(&format!("{LINE} --out broken --jobs 2")).ok();
    assert_eq!(decided(&work.at("broken")), (table, json), "killed");
    let again = work.run(&format!("{LINE} --out broken")).ok();
    assert!(!again.stderr.contains("[5/5]"), "there is nothing left to do: {}", again.stderr);
    assert!(std::fs::read_dir(work.at("broken/.working")).expect("folder").count() <= 1, "the lock at most");
    let left: Vec<_> = std::fs::read_dir(work.at("broken/runs/half/seed-2")).expect("folder").collect();
    assert!(left.iter().flatten().all(|e| e.path().is_file()), "no checkpoint: {left:?}");

    #[cfg(target_os = "linux")]
    {
        ended_with_all_processes(&work);
        work.run(&format!("{LINE} --out ended")).ok();
        assert_eq!(decided(&work.at("ended")), decided(&work.at("whole")), "a run that was asked to end is no crash");
    }
    reports(&work);

    // What was made otherwise is not taken for what the plan says.
    let changed = PLAN.replace("weight_decay=0.1", "weight_decay=0.2");
    std::fs::write(work.at("plan.toml"), changed).expect("plan");
    work.run(&format!("{LINE} --out broken")).fails(2, "weight_decay = 0.1").fails(2, "choose another --out");
    std::fs::write(work.at("plan.toml"), PLAN.replace("max_tokens = 1000", "max_tokens = 900")).expect("plan");
    work.run(&format!("{LINE} --out broken")).fails(2, "[eval]");
    // More of the same joins what is there.
    std::fs::write(work.at("plan.toml"), PLAN.replace("seeds = 2", "seeds = 3")).expect("plan");
    let more = work.run(&format!("{LINE} --out broken")).ok();
    assert!(more.stderr.contains("[7/7] half, seed 3"), "{}", more.stderr);
}

/// Begins an experiment several times and asks all its processes to end, as a system that goes down does; the runs first.
#[cfg(target_os = "linux")]
fn ended_with_all_processes(work: &Work) {
    for milliseconds in [800, 1300, 1900, 2600] {
        let mut sixpack = Command::new(assert_cmd::cargo::cargo_bin!("sixpack"));
        sixpack.current_dir(work.dir.path()).args(LINE.split(' ').chain(["--out", "ended"]));
        let mut parent = sixpack.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
        std::thread::sleep(Duration::from_millis(milliseconds));
        let tasks = std::fs::read_dir(format!("/proc/{}/task", parent.id())).expect("threads").flatten();
        let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        let ids: Vec<String> = children.flat_map(|c| c.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect();
        let ids = ids.into_iter().filter(|id| !id.is_empty()).chain([parent.id().to_string()]);
        Command::new("kill").arg("-TERM").args(ids).stderr(Stdio::null()).status().expect("kill");
        assert!(!parent.wait().expect("it ends").success(), "stopped is not done");
    }
}

/// The report in its forms.
fn reports(work: &Work) {
    let text = work.run("experiment report whole").ok().stdout;
    for expected in ["half/reference-zstd-int6x004", "1 crashed", "wild, seed 1: train: training diverged", "Holm"] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    let markdown = work.run("experiment report whole --format markdown").ok().stdout;
    let row = markdown.lines().find(|l| l.starts_with("| half |")).expect("a row");
    assert_eq!(row.matches(" | ").count(), 9, "{row}");
    work.run("experiment report whole --out page.html").ok();
    let page = std::fs::read_to_string(work.at("page.html")).expect("page");
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let page = roxmltree::Document::parse_with_options(&page, options).expect("well-formed");
    assert_eq!(page.descendants().filter(|n| n.has_tag_name(("http://www.w3.org/2000/svg", "svg"))).count(), 4);
    for foreign in ["href", "src", "onload"] {
        assert!(!page.descendants().any(|n| n.attribute(foreign).is_some()), "{foreign}");
    }
    // The tables need the results alone.
    std::fs::create_dir(work.at("kept")).expect("folder");
    std::fs::copy(work.at("whole/results.json"), work.at("kept/results.json")).expect("copy");
    assert_eq!(work.run("experiment report kept").ok().stdout, text);
    work.run("experiment report nowhere").fails(2, "nowhere");
}

#[test]
fn what_cannot_work_is_refused_before_the_first_run() {
    let work = planned();
    for (from, to, expected) in [
        ("seeds = 2", "seed = 2", "plan.toml, line 5: unknown field `seed`"),
        ("seeds = 2", "seeds = 0", "line 5: seeds: expected at least 1"),
        ("{ steps = 6 }", "{ steps = 0 }", "line 6: budget"),
        ("{ steps = 6 }", "{ tokens = 100 }", "line 6: budget: expected at least the 512 tokens of a step"),
        ("{ steps = 6 }", "{ steps = 6, seconds = 3.0 }", "line 6: budget: expected one of"),
        ("{ steps = 6 }", "{ seconds = 400.0 }", "line 7: time_limit_seconds"),
        ("\"recipe.toml\"", "\"nothing.toml\"", "line 3: "),
        ("matrix.weight_decay=0.1", "matrix.weight_dekay=0.1", "line 4: recipe key `optimizer.matrix.weight_dekay`"),
        ("optimizer.token.lr=0.015", "optimizer.token.lr=-1", "line 22: recipe key `optimizer.token.lr`"),
        ("id = \"wild\"", "id = \"half\"", "line 25: id: `half` is another arm's"),
        ("id = \"wild\"", "id = \"../up\"", "line 25: id: expected letters"),
        ("arm.half", "arm.halve", "expected the id of an arm, found `halve`"),
        ("schemes = [\"reference\"]", "schemes = [\"best\"]", "line 13: [compress]: invalid value 'best'"),
        ("max_tokens = 1000", "max_tokens = 0", "line 9: [eval]: invalid value '0'"),
        ("plain = true", "seq_len = 16\nstride = 32", "line 9: [eval]: --stride: expected at most the window"),
        ("schemes = [\"reference\"]", "schemes = [\"rd\"]", "line 13: [compress]: --int6-layers: none of the schemes"),
        (
            "optimizer.matrix.lr=0.01\"",
            "budget.steps=50\"",
            "line 22: set: `budget.steps` is decided by the plan's `budget`",
        ),
        ("optimizer.matrix.lr=0.01\"", "seed=5\"", "line 22: set: `seed` is decided by"),
        ("\"far too much of it\"", "\"far", "line 26: "),
    ] {
        assert!(PLAN.contains(from), "{from}");
        std::fs::write(work.at("plan.toml"), PLAN.replacen(from, to, 1)).expect("plan");
        work.run(
            &format!("{LINE} --out out --scale tiny")
                .replace(" --scale tiny", if from == "arm.half" { " --scale tiny" } else { "" }),
        )
        .fails(2, expected);
    }
    std::fs::write(work.at("plan.toml"), PLAN).expect("plan");
    work.run(&format!("{LINE} --out out").replace("shards", "nowhere")).fails(2, "--data: nowhere");
    work.run("experiment run plan.toml --out out").fails(2, "expected data");
    std::fs::write(work.at("plan.toml"), format!("{PLAN}[data]\npath = \"gone\"\n")).expect("plan");
    work.run("experiment run plan.toml --out out").fails(2, "line 37: data");
    work.run(&format!("{LINE} --out out --scale huge")).fails(2, "expected one of its scales (tiny), found `huge`");
    assert!(!work.at("out").exists(), "nothing was begun");
    let listed = work.run(&format!("{LINE} --out out --scale tiny --dry-run")).ok().stdout;
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(listed.contains("half, seed 5: optimizer.token.lr=0.015, optimizer.matrix.lr=0.015"));
}

#[test]
fn kept_studies_give_their_reports_again() {
    for study in ["muon", "weight-decay"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(study);
        for name in ["report.md", "report.html"] {
            let scratch = tempfile::tempdir().expect("a folder");
            let out = scratch.path().join(name);
            let mut command = Command::new(env!("CARGO_BIN_EXE_sixpack"));
            let status = command.args(["experiment", "report"]).arg(&folder).arg("--out").arg(&out).status();
            assert!(status.expect("the program").success(), "{study}");
            let read = |path: &Path| std::fs::read_to_string(path).expect("a report");
            assert!(
                read(&out) == read(&folder.join(name)),
                "sixpack experiment report examples/{study} --out examples/{study}/{name} is another than the kept one"
            );
        }
    }
}
