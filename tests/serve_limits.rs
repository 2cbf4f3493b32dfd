//! What the server refuses, whom it waits for, and how it ends.

mod server;
#[path = "serve_limits/slow.rs"]
mod slow;
mod work;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use server::{Server, text};

/// A request that goes on until it is stopped: the likeliest tokens of the test's model never end a document.
fn endless() -> Value {
    json!({ "prompt": "fn", "max_tokens": 100_000_000, "temperature": 0 })
}

const ENDLESS: &str = "--threads 1 --max-tokens 100000000";

#[track_caller]
fn is_error((status, body): (u16, Value), expected: u16, code: &str, param: &str, message: &str) {
    let error = &body["error"];
    let param = if param.is_empty() { Value::Null } else { param.into() };
    assert_eq!((status, &error["code"], &error["param"]), (expected, &json!(code), &param), "{body}");
    assert!(error["message"].as_str().is_some_and(|text| text.contains(message)), "no `{message}` in {body}");
    let kind = match status {
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        _ => "server_error",
    };
    assert_eq!(error["type"], kind);
}

#[test]
fn wrong_requests_are_refused_by_the_field() {
    let server = Server::start("--max-tokens 50 --max-prompt-tokens 20 --max-choices 4 --max-body 2000");
    for (field, value, message) in [
        ("prompt", json!({}), "expected a string"),
        ("prompt", json!([]), "not empty"),
        ("prompt", json!(["fn", 3]), "[\"fn\",3]"),
        ("prompt", json!([1, -3]), "token ids"),
        ("prompt", json!([70_000]), "below 512, found 70000"),
        ("prompt", json!([[]]), "at least one token"),
        ("n", json!(0), "at least 1"),
        ("n", json!("two"), "expected a whole number of at least 1, found \"two\""),
        ("max_tokens", json!(-1), "found -1"),
        ("max_tokens", json!(1.5), "found 1.5"),
        ("temperature", json!(-0.1), "expected 0 to"),
        ("temperature", json!("hot"), "expected a number"),
        ("top_p", json!(1.5), "expected 0 to 1, found 1.5"),
        ("min_p", json!(2), "expected 0 to 1"),
        ("top_k", json!(-2), "at least 0"),
        ("seed", json!(0.5), "a whole number"),
        ("stop", json!(5), "a string or a list of strings"),
        ("stop", json!([""]), "1 to 256 bytes"),
        ("logprobs", json!(true), "a whole number"),
        ("echo", json!("yes"), "true or false"),
        ("stream", json!(1), "true or false"),
        ("stream_options", json!({ "include_usage": true }), "only where `stream`"),
        ("stream_options", json!({ "colour": 1 }), "`colour`"),
        ("best_of", json!(3), "no such option"),
        ("suffix", json!("}"), "no such option"),
        ("logit_bias", json!({ "5": 100 }), "no such option"),
        ("presence_penalty", json!(1), "no such option"),
        ("messages", json!([]), "no such option"),
        ("model", json!(null), "names its model"),
    ] {
        let mut body = json!({ "model": "model", "prompt": "fn" });
        body[field] = value;
        is_error(server.post(&body), 400, "invalid_value", field, message);
    }
    for (field, value, message) in [
        ("max_tokens", json!(51), "at most 50 tokens, found 51"),
        ("prompt", json!("x y z ".repeat(20)), "at most 20 tokens"),
        ("prompt", json!(vec![5; 21]), "found 21"),
        ("prompt", json!(["a", "b", "c", "d", "e"]), "at most 4 prompts"),
        ("n", json!(5), "at most 4 completions"),
        ("logprobs", json!(6), "at most 5"),
        ("stop", json!(vec!["x"; 17]), "at most 16"),
    ] {
        let mut body = json!({ "model": "model", "prompt": "fn" });
        body[field] = value;
        is_error(server.post(&body), 400, "limit_exceeded", field, message);
    }
    is_error(server.post(&json!(["no", "object"])), 400, "invalid_body", "", "JSON object");
    is_error(server.post(&json!({ "model": "gpt-9", "prompt": "fn" })), 404, "model_not_found", "model", "gpt-9");
    let long = json!({ "model": "model", "prompt": "x".repeat(2000) });
    is_error(server.post(&long), 413, "body_too_large", "", "2000 bytes");

    let zstd = |body: Value| {
        let answer = ureq::post(server.url("/page/zstd")).config().http_status_as_error(false).build().send_json(body);
        let mut answer = answer.expect("an answer");
        (answer.status().as_u16(), answer.body_mut().read_json().expect("JSON"))
    };
    is_error(zstd(json!({ "texts": 1 })), 400, "invalid_body", "", "`text`");
    is_error(zstd(json!({ "text": "x".repeat(2000) })), 413, "body_too_large", "", "2000 bytes");

    // What asks for nothing may be there.
    let more = json!({ "prompt": "fn", "max_tokens": 2, "user": "me", "suffix": null, "best_of": 1, "logit_bias": {},
        "presence_penalty": 0, "frequency_penalty": 0.0, "n": 1, "stop": null, "seed": -1 });
    server.complete(more);
    let json = |(status, text): (u16, String)| (status, serde_json::from_str(&text).expect("JSON"));
    is_error(json(server.get("/v1/chat/completions")), 404, "unknown_url", "", "/v1/chat/completions");
    is_error(json(server.get("/v1/completions")), 405, "method_not_allowed", "", "GET");
    is_error(json(server.get("/v1/models/gpt-9")), 404, "model_not_found", "model", "gpt-9");
    let form = raw(&server, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}");
    assert!(form.starts_with("HTTP/1.1 415") && form.contains("application/json"), "{form}");
    let broken =
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n{\"x";
    let broken = raw(&server, broken);
    assert!(broken.starts_with("HTTP/1.1 400") && broken.contains("invalid_body"), "{broken}");
    assert_eq!(server.metric("sixpack_requests_running"), 0.0);
}

/// Sends bytes and reads what comes within a while.
fn raw(server: &Server, request: &str) -> String {
    let mut stream = TcpStream::connect(&server.address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time limit");
    stream.write_all(request.as_bytes()).expect("it is sent");
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    // The connection stays open: the body, which is JSON, says where it ends.
    while !answer.ends_with(b"}}") {
        let n = stream.read(&mut buffer).expect("an answer");
        assert!(n > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..n]);
    }
    String::from_utf8(answer).expect("UTF-8")
}

#[test]
fn a_full_queue_refuses_and_clients_that_leave_make_room() {
    let server = Server::start(&format!("{ENDLESS} --max-running 1 --max-queue 1"));
    let mut runs = server.stream(endless());
    assert!(!text(&runs.next().expect("a chunk")).is_empty());
    let short = json!({ "model": "model", "prompt": "fn", "max_tokens": 2 });
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| server.post(&short));
        server.wait_for("sixpack_requests_waiting", 1.0);
        is_error(server.post(&short), 429, "queue_full", "", "busy");
        assert_eq!(server.metric("sixpack_requests_running"), 1.0);
        // The one that runs leaves in the middle of its stream: the one that waits has its turn.
        drop(runs);
        assert_eq!(waits.join().expect("no panic").0, 200);
    });
    server.wait_for("sixpack_completions_total{end=\"client_left\"}", 1.0);
    server.wait_for("sixpack_requests_running", 0.0);

    // A client that leaves without a stream is noticed as well, running or waiting.
    let send = || {
        let mut body = endless();
        body["model"] = "model".into();
        let body = body.to_string();
        let mut stream = TcpStream::connect(&server.address).expect("a connection");
        let head = format!("Content-Type: application/json\r\nContent-Length: {}", body.len());
        write!(stream, "POST /v1/completions HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n{body}").expect("it is sent");
        stream
    };
    let runs = send();
    server.wait_for("sixpack_requests_running", 1.0);
    let waits = send();
    server.wait_for("sixpack_requests_waiting", 1.0);
    drop(waits);
    server.wait_for("sixpack_requests_waiting", 0.0);
    drop(runs);
    server.wait_for("sixpack_requests_running", 0.0);
    server.wait_for("sixpack_completions_total{end=\"client_left\"}", 2.0);
    assert_eq!(server.post(&short).0, 200);
}

#[test]
fn a_request_has_so_much_time() {
    let server = Server::start(&format!("{ENDLESS} --timeout 1 --max-running 1"));
    let mut body = endless();
    body["model"] = "model".into();
    let since = Instant::now();
    is_error(server.post(&body), 504, "timeout", "", "within 1 seconds");
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    // In a stream, which has begun, the error comes as an event.
    let last = server.stream(endless()).last().expect("events");
    assert_eq!((&last["error"]["code"], &last["error"]["type"]), (&json!("timeout"), &json!("server_error")));
    assert_eq!(server.metric("sixpack_completions_total{end=\"timeout\"}"), 2.0);
    // Waiting counts.
    std::thread::scope(|scope| {
        let first = scope.spawn(|| server.post(&body));
        server.wait_for("sixpack_requests_running", 1.0);
        let second = scope.spawn(|| server.post(&body));
        for answer in [first, second] {
            is_error(answer.join().expect("no panic"), 504, "timeout", "", "");
        }
    });
    // So does a body that does not come.
    let slow =
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{";
    let slow = raw(&server, slow);
    assert!(slow.starts_with("HTTP/1.1 408") && slow.contains("body_timeout"), "{slow}");
}

#[test]
fn a_server_that_is_asked_to_end_finishes_what_runs() {
    /// Enough that it is still at it when it has been asked to end and has refused something.
    const TOKENS: usize = 10_000;
    let server = Server::start("--threads 1 --max-tokens 20000 --grace 100");
    let mut fields = endless();
    fields["max_tokens"] = TOKENS.into();
    fields["stream_options"] = json!({ "include_usage": true });
    let mut runs = server.stream(fields);
    runs.next().expect("a chunk");
    server.terminate();
    let since = Instant::now();
    while server.get("/health") != (503, r#"{"status":"draining"}"#.into()) {
        assert!(since.elapsed() < Duration::from_secs(30), "it does not drain");
    }
    let refused = server.post(&json!({ "model": "model", "prompt": "fn" }));
    is_error(refused, 503, "shutting_down", "", "shutting down");
    let last = runs.last().expect("the rest");
    assert_eq!(last["usage"]["completion_tokens"], TOKENS, "{last}");
    assert_eq!(server.ended().code(), Some(0));
}

#[test]
fn a_server_that_is_asked_to_end_does_not_wait_for_ever() {
    for signals in [1, 2] {
        let grace = if signals == 1 { 0.3 } else { 100.0 };
        let server = Server::start(&format!("{ENDLESS} --grace {grace}"));
        let mut runs = server.stream(endless());
        runs.next().expect("a chunk");
        for _ in 0..signals {
            server.terminate();
            // Two signals at once are one.
            std::thread::sleep(Duration::from_millis(50));
        }
        let last = runs.last().expect("an event");
        assert_eq!(last["error"]["code"], "shutting_down", "{last}");
        assert_eq!(server.ended().code(), Some(0));
    }
}
