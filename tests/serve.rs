//! What the server answers, over HTTP.

mod server;
mod work;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};
use sixpack_formats::tokenizer::Tokenizer;

use server::{Server, folder, text};
use work::number;

/// What `sixpack run` says.
fn run(prompt: &str, options: &str) -> Value {
    let mut command = assert_cmd::Command::cargo_bin("sixpack").expect("the program");
    command.current_dir(folder()).args(["run", "model.6pk", "--device", "cpu", "--json", "--prompt", prompt]);
    let output = command.args(options.split(' ')).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_model(&std::fs::read(folder().join("tokenizer.model")).expect("file")).expect("a model")
}

fn numbers(list: &Value) -> Vec<Option<f64>> {
    list.as_array().unwrap_or_else(|| panic!("no list: {list}")).iter().map(Value::as_f64).collect()
}

#[test]
fn completions_are_what_the_program_says() {
    let server = Server::start("--threads 2");
    let sampling = json!({ "prompt": "fn", "max_tokens": 90, "temperature": 0.8, "top_k": 40, "min_p": 0.01 });
    let with = |more: Value| {
        let mut fields = sampling.clone();
        fields.as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
        fields
    };
    let expected = |seed| {
        let said = run("fn", &format!("--max-tokens 90 --temperature 0.8 --top-k 40 --min-p 0.01 --seed {seed}"));
        (said["text"].as_str().expect("text").strip_prefix("fn").expect("the prompt").to_owned(), said)
    };
    let (three, said) = expected(3);
    let whole = server.complete(with(json!({ "seed": 3 })));
    // More than the context of 64 tokens: it rolls over alike.
    assert_eq!(text(&whole), three);
    let usage = [&whole["usage"]["prompt_tokens"], &whole["usage"]["completion_tokens"]];
    assert_eq!(usage, [&said["prompt_tokens"], &said["generated_tokens"]]);
    let total = said["prompt_tokens"].as_u64().zip(said["generated_tokens"].as_u64()).map(|(a, b)| a + b);
    assert_eq!(whole["usage"]["total_tokens"].as_u64(), total);
    let ended = if said["generated_tokens"] == 90 { "length" } else { "stop" };
    assert_eq!(whole["choices"][0]["finish_reason"], ended);
    assert_eq!((&whole["object"], &whole["model"]), (&json!("text_completion"), &json!("model")));

    // In a stream, with scores, with the prompt: the text is the same.
    let chunks: Vec<Value> = server.stream(with(json!({ "seed": 3 }))).collect();
    assert_eq!(chunks.iter().map(text).collect::<String>(), three);
    assert!(chunks.len() > 5 && chunks.iter().all(|c| c.get("usage").is_none() && c["id"] == chunks[0]["id"]));
    let reasons: Vec<&Value> = chunks.iter().map(|c| &c["choices"][0]["finish_reason"]).collect();
    assert!(reasons[..reasons.len() - 1].iter().all(|r| r.is_null()) && *reasons[reasons.len() - 1] == ended);
    assert_eq!(text(&server.complete(with(json!({ "seed": 3, "logprobs": 2 })))), three);
    assert_eq!(text(&server.complete(with(json!({ "seed": 3, "echo": true })))), format!("fn{three}"));

    // Each of several completions has the next seed; each prompt begins with the first.
    let four = expected(4).0;
    let several = server.complete(with(json!({ "seed": 3, "n": 2, "prompt": ["fn", "fn"] })));
    let texts: Vec<&Value> = several["choices"].as_array().expect("choices").iter().map(|c| &c["text"]).collect();
    assert_eq!(texts, [&three, &four, &three, &four]);
    let indices: Vec<&Value> = several["choices"].as_array().expect("choices").iter().map(|c| &c["index"]).collect();
    assert_eq!(indices, [0, 1, 2, 3]);
    // Without a seed they differ.
    let any = || text(&server.complete(with(json!({ "prompt": "struct" })))).to_owned();
    assert_ne!(any(), any());

    let usage = with(json!({ "seed": 3, "stream_options": { "include_usage": true } }));
    let chunks: Vec<Value> = server.stream(usage).collect();
    let (last, others) = chunks.split_last().expect("chunks");
    assert!(last["choices"].as_array().is_some_and(Vec::is_empty) && last["usage"] == whole["usage"], "{last}");
    assert!(others.iter().all(|c| c.get("usage").is_some_and(Value::is_null)));
}

#[test]
fn a_prompt_is_scored_by_its_echo() {
    let server = Server::start("--threads 1");
    // Longer than the context, so that it is read in two parts.
    let prompt =
        "pub fn read(bytes: &[u8]) -> Result<Self> { let x = Self::new(bytes)?; Ok(x) } // the end of it".repeat(2);
    let scored = json!({ "prompt": prompt, "max_tokens": 0, "echo": true, "logprobs": 3 });
    let answer = server.complete(scored.clone());
    let choice = &answer["choices"][0];
    assert_eq!((text(&answer), &choice["finish_reason"]), (prompt.as_str(), &json!("length")));
    let logprobs = numbers(&choice["logprobs"]["token_logprobs"]);
    let ids = tokenizer().encode(&prompt);
    assert!(ids.len() > 64, "{}", ids.len());
    // A document begins with a token that is not the client's: every one of the client's has a score.
    assert_eq!(logprobs.len(), ids.len());
    assert_eq!(answer["usage"]["prompt_tokens"], ids.len() + 1);
    let bits: f64 = logprobs.iter().map(|x| -x.expect("a score") / std::f64::consts::LN_2).sum::<f64>();
    let said = run(&prompt, "--max-tokens 1");
    assert!((bits / ids.len() as f64 - number(&said, "/prompt_bits_per_token")).abs() < 1e-4, "{bits} {said}");

    let tokens = choice["logprobs"]["tokens"].as_array().expect("tokens");
    assert_eq!(tokens.iter().map(|t| t.as_str().expect("text")).collect::<String>().trim_start(), prompt);
    for (i, top) in choice["logprobs"]["top_logprobs"].as_array().expect("a list").iter().enumerate() {
        let top = top.as_object().expect("tokens");
        assert!((3..=4).contains(&top.len()), "{top:?}");
        assert_eq!(top[tokens[i].as_str().expect("text")].as_f64(), logprobs[i]);
    }
    let offsets = numbers(&choice["logprobs"]["text_offset"]);
    assert_eq!((offsets[0], offsets.len()), (Some(0.0), ids.len()));
    assert!(offsets.is_sorted());

    // Token ids are taken as they are: nothing is expected of the first.
    let as_ids = server.complete(json!({ "prompt": [ids], "max_tokens": 0, "echo": true, "logprobs": 0 }));
    let list = &as_ids["choices"][0]["logprobs"];
    assert_eq!((text(&as_ids), list["token_logprobs"][0].is_null()), (prompt.as_str(), true));
    assert!(list["top_logprobs"][0].is_null() && numbers(&list["token_logprobs"])[1..].iter().all(Option::is_some));
    let bos = tokenizer().bos_id().expect("BOS");
    let with_bos: Vec<u32> = std::iter::once(bos).chain(ids.iter().copied()).collect();
    let as_ids = server.complete(json!({ "prompt": with_bos, "max_tokens": 0, "echo": true, "logprobs": 3 }));
    assert_eq!(numbers(&as_ids["choices"][0]["logprobs"]["token_logprobs"])[1..], logprobs);

    // Prompt and continuation in one: in a stream, the same.
    let fields = json!({ "prompt": "let", "max_tokens": 8, "echo": true, "logprobs": 1, "temperature": 0 });
    let whole = server.complete(fields.clone());
    let chunks: Vec<Value> = server.stream(fields).collect();
    for list in ["tokens", "token_logprobs", "text_offset", "top_logprobs"] {
        let parts = chunks.iter().flat_map(|c| c["choices"][0]["logprobs"][list].as_array().expect("a list").clone());
        assert_eq!(Value::from_iter(parts), whole["choices"][0]["logprobs"][list], "{list}");
    }
    for (logprob, top) in numbers(&whole["choices"][0]["logprobs"]["token_logprobs"])
        .iter()
        .zip(whole["choices"][0]["logprobs"]["top_logprobs"].as_array().expect("a list"))
        .skip(tokenizer().encode("let").len())
    {
        let top: Vec<f64> = top.as_object().expect("tokens").values().filter_map(Value::as_f64).collect();
        assert_eq!(top, [logprob.expect("a score")], "the likeliest is taken");
    }
}

#[test]
fn stop_strings_end_a_text_and_are_no_part_of_it() {
    let server = Server::start("--threads 1");
    let fields = |stop: Value| json!({ "prompt": "impl", "max_tokens": 60, "seed": 1, "top_k": 30, "stop": stop });
    let free = server.complete(fields(Value::Null));
    let whole = text(&free).to_owned();
    let chars: Vec<char> = whole.chars().collect();
    for (from, len) in [(0, 1), (5, 3), (9, 7), (chars.len() - 12, 9)] {
        let stop: String = chars[from..from + len].iter().collect();
        let expected = &whole[..whole.find(&stop).expect("a part")];
        let mut asked = fields(json!([stop, "never in it"]));
        asked["logprobs"] = 0.into();
        let answer = server.complete(asked.clone());
        assert_eq!((text(&answer), &answer["choices"][0]["finish_reason"]), (expected, &json!("stop")), "{stop:?}");
        let offsets = numbers(&answer["choices"][0]["logprobs"]["text_offset"]);
        assert!(offsets.iter().flatten().all(|&at| at < expected.chars().count() as f64), "{answer}");
        assert!(number(&answer, "/usage/completion_tokens") < number(&free, "/usage/completion_tokens"));
        let chunks: Vec<Value> = server.stream(asked).collect();
        assert_eq!(chunks.iter().map(text).collect::<String>(), expected, "{stop:?} in a stream");
    }
}

#[test]
fn the_page_and_what_machines_ask_for() {
    let server = Server::start("--name tiny");
    // The page is the one of examples/web, but for what runs a model in the browser.
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/web/page");
    let mut files = 0;
    for entry in std::fs::read_dir(page).expect("folder") {
        let path = entry.expect("a file").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let (served, kind) = match path.extension().and_then(|e| e.to_str()) {
            Some("html") => ("/".to_owned(), "text/html"),
            Some("css") => (format!("/{name}"), "text/css"),
            Some("js") if name != "worker.js" => (format!("/{name}"), "text/javascript"),
            _ => continue,
        };
        let mut answer = ureq::get(server.url(&served)).call().expect("the file");
        let header = |name: &str| answer.headers()[name].to_str().expect("text").to_owned();
        assert!(header("content-type").starts_with(kind) && !header("content-security-policy").contains("inline"));
        let text = answer.body_mut().read_to_string().expect("text");
        assert_eq!(text, std::fs::read_to_string(&path).expect("file"), "{name}");
        assert!(!text.contains("//cdn") && !text.contains("https://"), "{name} needs something from elsewhere");
        files += 1;
    }
    assert!(files > 5, "{files}");
    let offered: Value = serde_json::from_str(&server.get("/models.json").1).expect("JSON");
    assert_eq!((&offered[0]["api"], &offered[0]["name"]), (&json!("v1"), &json!("tiny")));
    assert_eq!(server.get("/health"), (200, r#"{"status":"ok"}"#.into()));
    let models: Value = serde_json::from_str(&server.get("/v1/models").1).expect("JSON");
    let size = std::fs::metadata(folder().join("model.6pk")).expect("file").len();
    assert_eq!((&models["data"][0]["id"], &models["data"][0]["bytes"]), (&json!("tiny"), &json!(size)));
    let model: Value = serde_json::from_str(&server.get("/v1/models/tiny").1).expect("JSON");
    assert_eq!(model, models["data"][0]);
    assert_eq!((&model["device"], &model["layers"]), (&json!("cpu"), &json!(2)));
    assert_eq!(
        server.metric(concat!(
            "sixpack_server_info{model=\"tiny\",device=\"cpu\",version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"}"
        )),
        1.0
    );
    assert_eq!(server.metric("sixpack_model_bytes"), size as f64);
    assert_eq!(server.metric("sixpack_model_bits_per_byte"), number(&model, "/bits_per_byte"));
    let body = json!({ "model": "tiny", "prompt": "fn", "max_tokens": 7, "temperature": 0 });
    assert_eq!(server.post(&body).0, 200);
    assert_eq!(server.metric("sixpack_generated_tokens_total"), 7.0);
    assert_eq!(server.metric("sixpack_completions_total{end=\"done\"}"), 1.0);
    assert_eq!(server.metric("sixpack_requests_total{route=\"/v1/completions\",code=\"200\"}"), 1.0);
    assert_eq!(server.metric("sixpack_token_seconds_count"), 6.0);
    assert!(server.get("/metrics").1.ends_with("# EOF\n"));
}

#[test]
fn a_built_page_takes_the_place_of_the_one_that_asks() {
    let page = tempfile::tempdir().expect("folder");
    std::fs::write(page.path().join("index.html"), "<!doctype html><title>built</title>").expect("file");
    std::fs::write(page.path().join("models.json"), "[]").expect("file");
    let server = Server::start(&format!("--name tiny --page {}", page.path().display()));
    let (status, index) = server.get("/");
    assert!(status == 200 && index.contains("built"), "{index}");
    // The page offers the model that is served, not those that lie beside it.
    let models: Value = serde_json::from_str(&server.get("/models.json").1).expect("JSON");
    let size = std::fs::metadata(folder().join("model.6pk")).expect("file").len();
    assert_eq!((&models[0]["name"], &models[0]["bytes"]), (&json!("tiny"), &json!(size)));
    let file = models[0]["file"].as_str().expect("a path");
    let mut answer = ureq::get(server.url(&format!("/{file}"))).call().expect("the file");
    let model = std::fs::read(folder().join("model.6pk")).expect("file");
    assert_eq!(answer.body_mut().read_to_vec().expect("bytes"), model);
    let (status, missing) = server.get("/no/such/file");
    assert!(status == 404 && missing.contains("/no/such/file"), "{status} {missing}");
    assert_eq!(server.get("/health").0, 200);
}

#[test]
fn what_the_model_runs_on_is_said() {
    // On a model this small no GPU is worth a look.
    for (device, asked) in [("cpu", true), ("auto", false)] {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("sixpack"));
        command.current_dir(folder()).args(["serve", "model.6pk", "--port", "0", "--device", device]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
        let mut line = String::new();
        let read = BufReader::new(child.stderr.take().expect("piped")).read_line(&mut line);
        child.kill().and_then(|()| child.wait()).expect("it ends");
        read.expect("a line");
        assert!(line.contains("the model runs on the cpu") && line.contains("as asked") == asked, "{device}: {line}");
    }
}
