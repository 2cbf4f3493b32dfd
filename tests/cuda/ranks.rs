//! Two processes with a GPU each: what they learn is what one learns, by NCCL and by way of the host, and the loss of one ends
//! the other.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::work::Output;
use crate::{losses, near, output, program, shards, training};

/// Losses of one process and of two differ by the order in which numbers are added.
const APART: f64 = 2e-3;

/// Starts both; `with` says in what they are different from others.
fn start(folder: &Path, line: &str, with: &[(&str, &str)]) -> [Child; 2] {
    let port = TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("address").port();
    [0, 1].map(|rank| {
        let mut command = program(folder, line);
        command.env("RANK", rank.to_string()).env("LOCAL_RANK", rank.to_string());
        command.env("WORLD_SIZE", "2").env("LOCAL_WORLD_SIZE", "2").env("SIXPACK_HOST_DEVICES", "2");
        command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
        command.envs(with.iter().copied());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
    })
}

/// What rank 0 says when both are done.
#[track_caller]
fn both(folder: &Path, line: &str, with: &[(&str, &str)]) -> String {
    let [first, second] = start(folder, line, with).map(ended);
    second.ok();
    first.ok().stdout
}

fn ended(child: Child) -> Output {
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    Output { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

pub(crate) fn learn_as_one(folder: &Path) {
    // Each has several micro-batches, of which only the last one's gradients travel.
    // Lines are few, so that steps are queued ahead between them.
    let muon = "--device cuda --set batch.micro_batch=1 --set budget.steps=8 --set run.log_steps=4";
    output(program(folder, &training("alone", muon))).ok();
    let said = both(folder, &training("by_nccl", muon), &[]);
    assert!(said.contains("gradients go by NCCL 2.27.3, while backward goes on"), "{said}");
    near(&losses("by_nccl"), &losses("alone"), APART);
    // Where there is none.
    let only = folder.to_str().expect("UTF-8");
    let said = both(folder, &training("by_host", muon), &[("LD_LIBRARY_PATH", only)]);
    assert!(said.contains("gradients go by way of the host: rank 0 has no NCCL (no libnccl.so.2)"), "{said}");
    near(&losses("by_host"), &losses("alone"), APART);
}

pub(crate) fn share_normuon(folder: &Path) {
    let normuon = "--device cuda --set optimizer.matrix.kind=normuon --set budget.steps=4";
    output(program(folder, &training("normuon_alone", normuon))).ok();
    let said = both(folder, &training("normuon", normuon), &[("SIXPACK_RANKS", "after")]);
    assert!(said.contains("gradients go by NCCL 2.27.3, after backward"), "{said}");
    near(&losses("normuon"), &losses("normuon_alone"), APART);
}

pub(crate) fn refuse_one_gpu(folder: &Path) {
    let said = both(folder, &training("one_gpu", "--device cuda:0 --set budget.steps=1"), &[]);
    assert!(said.contains("by way of the host: ranks 0 and 1 are on one GPU"), "{said}");
}

/// Waits for an event of a run's log.
fn wait_for(out: &str, event: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let is = |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|e| e["event"] == event);
    while !std::fs::read_to_string(shards().at(out).join("train.jsonl")).is_ok_and(|log| log.lines().any(is)) {
        assert!(Instant::now() < deadline, "no {event}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn lose_one(folder: &Path) {
    const LAST: usize = 5;
    let long = "--device cuda --set budget.steps=20 --set run.checkpoint_seconds=0.05";
    output(program(folder, &training("lost_alone", "--device cuda --set budget.steps=20"))).ok();
    let [first, mut second] = start(folder, &training("lost", long), &[]);
    wait_for("lost", "checkpoint");
    second.kill().expect("a child");
    let killed = Instant::now();
    let said = ended(first);
    second.wait().expect("a child");
    let reason = "rank 1 was lost: its connection was closed; to go on from step ";
    assert!(said.code == Some(1) && said.stderr.contains(reason), "{}", said.stderr);
    assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
    let said = output(program(folder, &training("lost", &format!("{long} --resume")))).ok().stdout;
    assert!(said.contains("from step ") && said.contains("20 steps"), "{said}");
    // What both remembered of the optimizer is whole: one goes on with it as if it had been alone from the start.
    let [lost, alone] = ["lost", "lost_alone"].map(|out| losses(out).split_off(losses(out).len() - LAST));
    near(&lost, &alone, 2.0 * APART);
}
