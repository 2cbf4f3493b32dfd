//! Many clients at once, some of whom leave. For a minute of it:
//! `SIXPACK_LOAD_SECONDS=60 cargo test --release --test serve_load -- --nocapture`.

mod server;
mod work;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use server::{Server, text};

const CLIENTS: usize = 32;

/// Of so many clients one leaves in the middle of each of its texts.
const LEAVES: usize = 3;

const PROMPTS: [&str; 8] =
    ["fn", "pub struct", "//! What", "let x =", "impl", "for (i, id) in", "assert_eq!(", "use std::collections"];

fn seconds() -> u64 {
    std::env::var("SIXPACK_LOAD_SECONDS").map_or(10, |text| text.parse().expect("SIXPACK_LOAD_SECONDS: a number"))
}

/// One of the texts that clients ask for.
fn fields(which: usize) -> Value {
    json!({ "prompt": PROMPTS[which % PROMPTS.len()], "max_tokens": 120, "seed": which, "top_k": 50, "min_p": 0.02 })
}

/// A cheap sequence of numbers that looks random.
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

/// Memory of the server in MB.
#[cfg(target_os = "linux")]
fn resident(server: &Server) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1000.0)
}

#[cfg(not(target_os = "linux"))]
fn resident(_: &Server) -> Option<f64> {
    None
}

#[derive(Default)]
struct Counts {
    whole: AtomicUsize,
    left: AtomicUsize,
}

/// Asks for one text after the other until `end`; gives how many were read to their ends.
fn client(server: &Server, number: usize, expected: &[String], end: Instant, counts: &Counts) -> usize {
    let mut state = number as u64;
    let mut whole = 0;
    // Each has one text at least, however slow the machine is.
    while whole == 0 || Instant::now() < end {
        let which = next(&mut state) % expected.len();
        let mut chunks = server.stream(fields(which));
        if number.is_multiple_of(LEAVES) {
            let taken: String = chunks.by_ref().take(1 + next(&mut state) % 40).map(|c| text(&c).to_owned()).collect();
            assert!(expected[which].starts_with(&taken), "client {number}, text {which}");
            counts.left.fetch_add(1, Ordering::Relaxed);
            // One text is read whole by those who leave as well, so that all see an end.
            if Instant::now() < end {
                continue;
            }
            let rest: String = chunks.map(|c| text(&c).to_owned()).collect();
            assert_eq!(taken + &rest, expected[which], "client {number}, text {which}");
        } else {
            let all: String = chunks.map(|c| text(&c).to_owned()).collect();
            assert_eq!(all, expected[which], "client {number}, text {which}");
        }
        counts.whole.fetch_add(1, Ordering::Relaxed);
        whole += 1;
    }
    whole
}

#[test]
fn many_clients_get_what_one_gets() {
    let server = Server::start("--threads 2");
    let expected: Vec<String> = (0..24).map(|which| text(&server.complete(fields(which))).to_owned()).collect();
    let counts = Counts::default();
    // All threads and their memory are there after a while: only then does memory tell of a leak.
    let run = |seconds: f64| {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        std::thread::scope(|scope| {
            let (server, expected, counts) = (&server, &expected, &counts);
            let client = move |number| scope.spawn(move || client(server, number, expected, end, counts));
            let clients: Vec<_> = (0..CLIENTS).map(client).collect();
            clients.into_iter().map(|c| c.join().expect("no client fails")).collect::<Vec<usize>>()
        })
    };
    let total = seconds() as f64;
    run(total * 0.3);
    let before = resident(&server);
    let since = Instant::now();
    let generated = server.metric("sixpack_generated_tokens_total");
    let each = run(total * 0.7);
    let rate = (server.metric("sixpack_generated_tokens_total") - generated) / since.elapsed().as_secs_f64();
    server.wait_for("sixpack_requests_running", 0.0);
    let after = resident(&server);
    let (whole, left) = (counts.whole.load(Ordering::Relaxed), counts.left.load(Ordering::Relaxed));
    println!("{CLIENTS} clients for {total} s: {whole} texts read, {left} left, {rate:.0} tokens/s in sum");
    println!("texts of each client in the second part: {each:?}; memory {before:?} MB, then {after:?} MB");
    assert!(left >= CLIENTS / LEAVES && each.iter().all(|&texts| texts > 0));
    // Those that stay go on at one pace; texts are not all of one length.
    let stay = each.iter().enumerate().filter(|(number, _)| !number.is_multiple_of(LEAVES)).map(|(_, &texts)| texts);
    let (least, most) = (stay.clone().min().unwrap_or(0), stay.max().unwrap_or(0));
    assert!(most < 4 || least * 3 >= most, "{least} texts for one, {most} for another");
    if let (Some(before), Some(after)) = (before, after) {
        assert!(after < before * 1.1 + 8.0, "memory grew from {before} MB to {after} MB");
    }
    // Nobody was refused or cut off, and no place was lost.
    for end in ["failed", "timeout", "shutdown"] {
        assert_eq!(server.metric(&format!("sixpack_completions_total{{end=\"{end}\"}}")), 0.0, "{end}");
    }
    assert_eq!(server.metric("sixpack_requests_waiting"), 0.0);
    assert_eq!(text(&server.complete(fields(0))), expected[0]);
}
