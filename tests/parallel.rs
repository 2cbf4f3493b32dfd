//! Training in several processes through the program: launched as launchers do it, stopped, killed, gone on with.
#![cfg(unix)]

mod work;

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use work::{Output, Work, number};

/// A model of 60 thousand parameters, four sequences a step.
const RECIPE: &str = r#"
name = "parallel"
seed = 7
model = { preset = "small", vocab_size = 512, num_layers = 2, model_dim = 32, num_heads = 2, num_kv_heads = 1, rope_dims = 8, train_seq_len = 32, eval_seq_len = 32, xsa_last_n = 2, ve_layers = [1], ve_dim = 8, recur_layers = [1] }
batch = { tokens_per_step = 128, micro_batch = 1 }
budget = { steps = 12 }
schedule = { recurrence = { step = 6 } }
run = { warmup_steps = 0, log_steps = 1 }
"#;

/// Losses of one process and of several differ by the order in which numbers are added.
const TOLERANCE: f64 = 1e-4;

/// How launchers tell a process its rank and how many there are.
const TORCHRUN: [&str; 2] = ["RANK", "WORLD_SIZE"];
const MPIRUN: [&str; 2] = ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"];
const SLURM: [&str; 2] = ["SLURM_PROCID", "SLURM_NTASKS"];

/// Every variable that a launcher around these tests may have set.
const LAUNCHER: [&str; 12] = [
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "SLURM_STEP_ID",
    "PMI_RANK",
    "PMI_SIZE",
    "TORCHELASTIC_USE_AGENT_STORE",
];

fn shards() -> Work {
    let work = Work::with_shards();
    std::fs::write(work.at("recipe.toml"), RECIPE).expect("recipe");
    work
}

fn train(out: &str, more: &str) -> String {
    let line =
        format!("train --recipe recipe.toml --data shards --out {out} --measure-size-every 0 --threads 1 {more}");
    line.trim_end().to_owned()
}

/// Processes of a run, by rank.
struct Ranks(Vec<Option<Child>>);

impl Ranks {
    /// Starts `world` processes; `line` says what each is told.
    fn start(work: &Work, [rank_name, world_name]: [&str; 2], world: usize, line: impl Fn(usize) -> String) -> Self {
        let port = TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("address").port();
        let start = |rank: usize| {
            let mut command = program(work, &line(rank));
            command.env(rank_name, rank.to_string()).env(world_name, world.to_string());
            command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
            if rank_name == SLURM[0] {
                command.env("SLURM_STEP_ID", "0");
            }
            Some(command.spawn().expect("it starts"))
        };
        Self((0..world).map(start).collect())
    }

    fn signal(&self, rank: usize, signal: &str) {
        let id = self.0[rank].as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("kill").success());
    }

    /// Reads rank 0's lines until one has this text.
    fn wait_for(&mut self, text: &str) {
        let stdout = self.0[0].as_mut().and_then(|child| child.stdout.as_mut()).expect("piped");
        // One byte at a time, so that nothing is taken from who reads on.
        let mut reader = BufReader::with_capacity(1, stdout);
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert!(reader.read_line(&mut line).expect("output") > 0, "it ended before `{text}`");
        }
    }

    /// Waits for one process, but not for ever.
    fn end(&mut self, rank: usize) -> Output {
        let mut child = self.0[rank].take().expect("it runs");
        let deadline = Instant::now() + Duration::from_secs(60);
        let (mut stdout, mut stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).map(|_| text)
        });
        let code = loop {
            match child.try_wait().expect("a child") {
                Some(status) => break status.code(),
                None if Instant::now() > deadline => {
                    child.kill().expect("a child");
                    panic!("rank {rank} does not end");
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        let mut text = String::new();
        stderr.read_to_string(&mut text).expect("UTF-8");
        Output { code, stdout: reading.join().expect("a reader").expect("UTF-8"), stderr: text }
    }

    fn end_all(mut self) -> Vec<Output> {
        (0..self.0.len()).map(|rank| self.end(rank)).collect()
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        for child in self.0.iter_mut().flatten() {
            // A test failed; nothing is to stay behind.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn program(work: &Work, line: &str) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("sixpack"));
    command.current_dir(work.dir.path()).args(line.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in LAUNCHER {
        command.env_remove(name);
    }
    command
}

/// The events of a run's log.
fn events(work: &Work, out: &str) -> Vec<Value> {
    let log = std::fs::read_to_string(work.at(out).join("train.jsonl")).expect("log");
    log.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
}

fn losses(work: &Work, out: &str) -> Vec<f64> {
    events(work, out).iter().filter(|e| e["event"] == "step").map(|e| number(e, "/loss")).collect()
}

#[test]
fn the_first_of_them_packs_what_they_trained_and_scores_it() {
    let work = shards();
    let mut ranks = Ranks::start(&work, TORCHRUN, 2, |_| train("seed", "--pack seed.6pk --json"));
    let [first, second] = [0, 1].map(|rank| ranks.end(rank).ok());
    assert!(!second.stdout.contains("packed"), "{second:?}");
    let line: Value = serde_json::from_str(first.stdout.lines().last().expect("lines")).expect("JSON");
    assert_eq!((&line["event"], &line["seed"], &line["steps"]), (&"packed".into(), &7.into(), &12.into()));
    let size = std::fs::metadata(work.at("seed.6pk")).expect("an artifact").len() as f64;
    assert!(number(&line, "/sliding/bytes") == size && number(&line, "/ms_per_step") > 0.0, "{line}");
    let scores = ["float", "packed", "sliding"].map(|s| number(&line, &format!("/{s}/bits_per_byte")));
    assert!(scores.iter().all(|s| (s - scores[0]).abs() < 0.2 && *s > 0.0), "{line}");
    // What cannot be packed later is refused before.
    let nowhere = work.run(&train("other", "--pack no-such-folder/seed.6pk"));
    nowhere.fails(2, "--pack: expected a file in a folder that is there");
    assert!(!work.at("other").exists());
}

#[test]
fn processes_of_every_launcher_learn_what_one_learns() {
    let work = shards();
    work.run(&train("one", "")).ok();
    let one = losses(&work, "one");
    assert_eq!(one.len(), 12);
    for (launcher, world, out) in [(TORCHRUN, 2, "two"), (MPIRUN, 4, "four"), (SLURM, 2, "slurm")] {
        let ended = Ranks::start(&work, launcher, world, |_| train(out, "")).end_all();
        for (rank, output) in ended.into_iter().enumerate() {
            let output = output.ok();
            assert_eq!(output.stdout.contains("step     12"), rank == 0, "only rank 0 tells: {output:?}");
        }
        let start = &events(&work, out)[0];
        assert_eq!((number(start, "/ranks"), number(start, "/threads")), (world as f64, 1.0));
        for (a, b) in losses(&work, out).iter().zip(&one) {
            assert!((a / b - 1.0).abs() < TOLERANCE, "{world} processes: {a} for {b}");
        }
    }
    work.run("eval four --data shards --plain --max-tokens 200 --json").ok();
}

#[test]
fn a_killed_process_ends_the_run_which_goes_on_with_more_and_with_fewer() {
    let work = shards();
    let line = |more: &str| train("out", &format!("--set budget.steps=100000 --set run.checkpoint_seconds=0.1 {more}"));
    let mut ranks = Ranks::start(&work, TORCHRUN, 2, |_| line(""));
    ranks.wait_for("checkpoint in");
    ranks.signal(1, "-KILL");
    let first = ranks.end(0);
    assert_eq!(first.code, Some(1), "{first:?}");
    let found = first.stderr.lines().filter(|line| line.contains("rank 1 was lost: its connection was closed"));
    assert_eq!(found.count(), 1, "one clear message: {first:?}");
    assert!(first.stderr.contains("to go on from step") && first.stderr.contains("--resume"), "{first:?}");
    assert_eq!(ranks.end(1).code, None, "it was killed");
    // Rank 0 of four is the one to go.
    let mut ranks = Ranks::start(&work, TORCHRUN, 4, |_| line("--resume"));
    ranks.wait_for("checkpoint in");
    ranks.signal(0, "-KILL");
    for rank in 1..4 {
        ranks.end(rank).fails(1, "rank 0 was lost: its connection was closed; to go on from step");
    }
    drop(ranks);
    let mut alone = Ranks::start(&work, TORCHRUN, 1, |_| line("--resume"));
    alone.wait_for("checkpoint in");
    alone.signal(0, "-TERM");
    alone.end(0).ok();
    let log = events(&work, "out");
    let starts = log.iter().filter(|e| e["event"] == "start");
    let worlds: Vec<_> = starts.clone().map(|e| number(e, "/ranks")).collect();
    assert_eq!(worlds, [2.0, 4.0, 1.0]);
    assert!(starts.skip(1).all(|e| number(e, "/step") > 0.0), "they went on");
}

#[test]
fn a_request_to_one_process_stops_all_at_one_step() {
    let work = shards();
    let line = |more: &str| train("out", &format!("--set budget.steps=100000 {more}"));
    let mut ranks = Ranks::start(&work, MPIRUN, 2, |_| line(""));
    ranks.wait_for("step      2");
    ranks.signal(1, "-TERM");
    let ended: Vec<_> = ranks.end_all().into_iter().map(Output::ok).collect();
    assert!(ended[0].stdout.contains("stopped; to go on: the same command with --resume"), "{ended:?}");
    assert!(ended[1].stderr.contains("stopping after this step") && ended[1].stdout.is_empty(), "{ended:?}");
    let log = events(&work, "out");
    assert_eq!(log.last().expect("events")["stopped"], true);
    assert!(work.at("out/resume.safetensors").exists());
}

#[test]
fn a_process_that_hangs_is_named() {
    let work = shards();
    let sets = "--set budget.steps=100000 --set batch.tokens_per_step=96";
    let mut ranks = Ranks::start(&work, TORCHRUN, 3, |_| train("out", &format!("{sets} --rank-timeout 3")));
    ranks.wait_for("step      2");
    ranks.signal(2, "-STOP");
    for rank in 0..2 {
        ranks.end(rank).fails(1, "rank 2 was lost: it was silent for 3 s; there is no checkpoint yet");
    }
}

#[test]
fn what_cannot_run_together_is_refused() {
    let work = shards();
    let line = train("out", "");
    for output in Ranks::start(&work, TORCHRUN, 3, |_| line.clone()).end_all() {
        output.fails(2, "as many sequences a step as 3 ranks can share evenly, found 4 sequences");
    }
    let other = |rank| train("out", if rank == 1 { "--set optimizer.matrix.lr=0.5" } else { "" });
    for output in Ranks::start(&work, SLURM, 2, other).end_all() {
        output.fails(1, "rank 1 differs from rank 0 in recipe key `optimizer.matrix.lr`: expected 0.02, found 0.5");
    }
    let nothing = |rank| train("out", "").replace("shards", if rank == 0 { "nowhere" } else { "shards" });
    let ended = Ranks::start(&work, TORCHRUN, 2, nothing).end_all();
    assert!(ended.iter().all(|output| output.code == Some(1) && output.stderr.contains("nowhere")), "{ended:?}");
    assert!(ended[1].stderr.contains("rank 0 was lost: it ended: "), "{ended:?}");
    // Environments that say half of it.
    let run = |variables: &[(&str, &str)], more: &str| {
        let mut command = program(&work, &train("out", more));
        let output = command.env_remove("MASTER_ADDR").envs(variables.iter().copied()).output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Output { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    };
    run(&[("RANK", "0")], "").fails(2, "WORLD_SIZE: expected a number, as RANK is set, found nothing");
    run(&[("RANK", "2"), ("WORLD_SIZE", "2")], "").fails(2, "RANK: expected a number below WORLD_SIZE 2, found 2");
    run(&[("PMI_RANK", "0"), ("PMI_SIZE", "2")], "").fails(2, "MASTER_ADDR: expected the name or address");
    let waiting = [("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "0")];
    run(&waiting, "").fails(2, "MASTER_PORT: expected 1 to 65535, found 0");
    let port = TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("address").port().to_string();
    let waiting = [&waiting[..3], &[("MASTER_PORT", port.as_str())]].concat();
    run(&waiting, "--rank-timeout 1").fails(1, "rank 1 of 2 did not come within 1 s");
    assert!(!work.at("out").exists(), "nothing is left behind");
}
