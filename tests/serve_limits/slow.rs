//! Clients that take their time: with reading an answer, or with sending a request.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{ENDLESS, endless};
use crate::server::{Server, text};

/// Sends a request and reads nothing. The system takes as little as it can for who does not read.
fn ask(server: &Server, mut body: Value) -> TcpStream {
    body["model"] = "model".into();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let connected = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        socket.connect(server.address.parse().expect("an address")).await?.into_std()
    });
    let mut stream = connected.expect("a connection");
    stream.set_nonblocking(false).expect("a socket");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time limit");
    let body = body.to_string();
    let head = format!("Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close", body.len());
    write!(stream, "POST /v1/completions HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n{body}").expect("it is sent");
    stream
}

/// Much to read for each token.
fn wordy(mut fields: Value) -> Value {
    fields["logprobs"] = 5.into();
    fields["stream"] = true.into();
    fields
}

/// An answer that is made soon and is more than the system takes at once.
fn long() -> Value {
    let ids: Vec<u32> = (0..8000).map(|i| 5 + i % 400).collect();
    json!({ "prompt": ids, "n": 6, "max_tokens": 0, "echo": true, "logprobs": 5 })
}

#[test]
fn who_takes_nothing_loses_the_connection() {
    let server = Server::start(&format!("{ENDLESS} --stall 0.5 --max-running 1"));
    let stream = ask(&server, wordy(endless()));
    server.wait_for("sixpack_connections_stalled_total", 1.0);
    // The place is free for others.
    server.wait_for("sixpack_requests_running", 0.0);
    server.wait_for("sixpack_completions_total{end=\"client_left\"}", 1.0);
    drop(stream);
    // So with an answer that has been made.
    let mut stream = ask(&server, long());
    stream.read_exact(&mut [0; 1000]).expect("the answer begins");
    server.wait_for("sixpack_connections_stalled_total", 2.0);
}

/// Slowly, but on and on: the whole takes longer than a client may take nothing.
#[test]
fn who_reads_slowly_has_all_the_time_there_is() {
    let server = Server::start(&format!("{ENDLESS} --stall 3"));
    let mut stream = ask(&server, long());
    let (start, mut read) = (Instant::now(), 0);
    // A megabyte and a half a second: the system tells of room when a third of some megabytes is free.
    loop {
        let mut piece = Vec::new();
        match Read::by_ref(&mut stream).take(64 << 10).read_to_end(&mut piece).expect("the connection lives") {
            0 => break,
            more => read += more,
        }
        std::thread::sleep(Duration::from_millis(40));
    }
    assert!(read > 4 << 20 && start.elapsed().as_secs_f64() > 3.0, "{read} bytes in {:?}", start.elapsed());
    assert_eq!(server.metric("sixpack_connections_stalled_total"), 0.0);
}

#[test]
fn a_text_waits_for_its_reader_and_nobody_else_does() {
    const TOKENS: usize = 12_000;
    let server = Server::start("--threads 1 --max-tokens 20000 --max-running 2 --stall 100");
    let fields = wordy(json!({ "prompt": "fn", "max_tokens": TOKENS, "temperature": 0 }));
    let stream = ask(&server, fields.clone());
    let generated = || server.metric("sixpack_generated_tokens_total");
    let mut before = -1.0;
    while before < 1.0 || generated() > before {
        before = generated();
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(before < TOKENS as f64, "all {before} tokens were made for one who read none");
    // There is one turn, and others have it.
    let short = json!({ "prompt": "fn", "max_tokens": 20, "temperature": 0 });
    let answer = server.complete(short);
    assert_eq!(generated(), before + 20.0);
    // Nothing is lost.
    let lines = BufReader::new(stream).lines().map(|line| line.expect("a line"));
    let data: Vec<String> = lines.filter_map(|line| Some(line.strip_prefix("data: ")?.to_owned())).collect();
    let (done, chunks) = data.split_last().expect("data");
    let whole: String = chunks.iter().map(|c| text(&serde_json::from_str(c).expect("JSON")).to_owned()).collect();
    assert_eq!(done, "[DONE]");
    assert!(whole.starts_with(text(&answer)) && whole.len() >= TOKENS, "{} bytes", whole.len());
    assert_eq!(server.metric("sixpack_completions_total{end=\"done\"}"), 2.0);
}

#[test]
fn a_request_that_is_still_arriving_is_waited_for() {
    let server = Server::start("--grace 100");
    let body = json!({ "model": "model", "prompt": "fn", "max_tokens": 3 }).to_string();
    let (first, rest) = body.split_at(10);
    let mut stream = TcpStream::connect(&server.address).expect("a connection");
    let head = format!("Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close", body.len());
    write!(stream, "POST /v1/completions HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n{first}").expect("it is sent");
    server.wait_for("sixpack_requests_arriving", 1.0);
    server.terminate();
    let since = Instant::now();
    while server.get("/health").0 != 503 {
        assert!(since.elapsed() < Duration::from_secs(30), "it does not drain");
    }
    // Time enough to have ended.
    std::thread::sleep(Duration::from_millis(200));
    stream.write_all(rest.as_bytes()).expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("text_completion"), "{answer}");
    assert_eq!(server.ended().code(), Some(0));
}

#[test]
fn an_answer_that_is_still_taken_is_waited_for() {
    let server = Server::start("--grace 100");
    let mut stream = ask(&server, long());
    server.wait_for("sixpack_completions_total{end=\"done\"}", 1.0);
    server.terminate();
    // Nothing runs any more, and what is left to do takes no time but the client's.
    std::thread::sleep(Duration::from_secs(2));
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    assert_eq!(length.parse(), Ok(body.len()));
    assert_eq!(server.ended().code(), Some(0));
}
