//! A server of which the GPU is lost. That a GPU which is lost gives this error is tested in `runtime/tests/wgpu`.

#[path = "../../../../tests/golden/golden.rs"]
mod golden;

use std::net::Ipv4Addr;
use std::sync::Arc;

use clap::Parser;
use serde_json::{Value, json};

use super::*;
use crate::verbs::serve::assembly::tests::tokenizer;
use crate::verbs::serve::{listen, routes};

/// The limits that are there where none is asked for.
fn limits() -> Limits {
    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        limits: Limits,
    }
    Typed::parse_from(["serve"]).limits
}

fn app() -> App {
    let info = ModelInfo {
        name: "tiny".into(),
        object: "model",
        created: 0,
        owned_by: "sixpack",
        bytes: 1,
        bits_per_byte: None,
        context: 48,
        vocab_size: 290,
        parameters: 1,
        layers: 1,
        width: 1,
    };
    let engine = Engine::cpu(&golden::model("tiny"), 1).expect("an engine");
    App::new(info, engine, tokenizer(), limits(), 1)
}

/// Serves `app` and gives its answers to each of `requests`: a path, and a body where it is a POST.
fn answers(app: &Arc<App>, requests: &[(&str, Option<Value>)]) -> Vec<(u16, String)> {
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = routes::router(app, None);
    runtime.spawn(listen::listen(Arc::clone(app), listener, router, std::future::pending()));
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let answer = |(path, body): &(&str, Option<Value>)| {
        let url = format!("http://{address}{path}");
        let answer = match body {
            Some(body) => agent.post(url).send_json(body),
            None => agent.get(url).call(),
        };
        let mut answer = answer.expect("an answer");
        (answer.status().as_u16(), answer.body_mut().read_to_string().expect("text"))
    };
    requests.iter().map(answer).collect()
}

#[test]
fn a_server_whose_gpu_is_lost_says_so_to_all() {
    let app = Arc::new(app());
    let lost = Error::DeviceLost { adapter: "Card".into(), reason: "it fell out".into() };
    let completion = || ("/v1/completions", Some(json!({ "model": "tiny", "prompt": "the" })));
    let ask = || answers(&app, &[("/health", None), completion(), ("/metrics", None)]);
    // An error of another kind is this request's alone.
    let other = Error::Logits { found: "a NaN".into() };
    app.give_back(app.fork().expect("an engine"), Some(&other));
    let [(status, _), _, (_, metrics)] = <[_; 3]>::try_from(ask()).expect("three");
    assert!(status == 200 && metrics.contains("sixpack_device_failed 0\n"), "{metrics}");
    for _ in 0..2 {
        app.give_back(app.fork().expect("an engine"), Some(&lost));
    }
    let [health, refused, (_, metrics)] = <[_; 3]>::try_from(ask()).expect("three");
    let reason = "the GPU `Card` was lost: it fell out";
    let said: Value = serde_json::from_str(&health.1).expect("JSON");
    assert_eq!((health.0, said), (503, json!({ "status": "failed", "reason": reason })));
    let said: Value = serde_json::from_str(&refused.1).expect("JSON");
    assert_eq!((refused.0, &said["error"]["code"]), (503, &json!("device_failed")));
    assert_eq!(said["error"]["message"], reason);
    assert!(metrics.contains("sixpack_device_failed 1\n"), "{metrics}");
}

#[test]
fn another_device_shows_in_the_metrics() {
    let app = app();
    assert!(app.metrics.text().contains("device=\"cpu\""));
    // As when a GPU takes the CPU's place, which is the other way round and needs none.
    app.metrics.runs_on("wgpu:0");
    let text = app.metrics.text();
    assert!(text.contains("device=\"wgpu:0\"") && !text.contains("device=\"cpu\""), "{text}");
}
