//! A server of a small model, and a client to talk to it. Shared by the server's tests with `mod`.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(unreachable_pub, reason = "included as a module of test crates")]
#![allow(missing_docs, reason = "test support")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::work::Work;

/// Nothing here takes longer, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A folder with `model.6pk` and its `tokenizer.model`, made once by each test program.
pub fn folder() -> &'static Path {
    static FOLDER: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    FOLDER.get_or_init(|| {
        let work = Work::trained();
        work.run("compress checkpoint --data shards --out model.6pk --calibration-tokens 512 --no-sensitivity").ok();
        let program = std::env::current_exe().expect("the test program");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(program.file_name().expect("a name"));
        std::fs::create_dir_all(&folder).expect("folder");
        for file in ["model.6pk", "tokenizer.model"] {
            std::fs::copy(work.at(file), folder.join(file)).expect("copy");
        }
        folder
    })
}

pub struct Server {
    child: Child,
    pub address: String,
    agent: ureq::Agent,
    _stdout: BufReader<std::process::ChildStdout>,
}

impl Server {
    /// Serves on a free port, from the CPU: what `auto` takes is measured each time, and two devices round differently.
    /// Options are split at spaces.
    pub fn start(options: &str) -> Self {
        Self::on("cpu", options)
    }

    /// As [`Server::start`], from another device.
    pub fn on(device: &str, options: &str) -> Self {
        Self::of(folder(), device, options)
    }

    /// As [`Server::on`], the `model.6pk` of another folder.
    pub fn of(folder: &Path, device: &str, options: &str) -> Self {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("sixpack"));
        command.current_dir(folder).args(["serve", "model.6pk", "--device", device, "--port", "0"]);
        command.args(options.split_whitespace()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build();
        Self { child, address: address.to_owned(), agent: config.into(), _stdout: stdout }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        let mut response = self.agent.get(self.url(path)).call().expect("an answer");
        (response.status().as_u16(), response.body_mut().read_to_string().expect("text"))
    }

    pub fn post(&self, body: &Value) -> (u16, Value) {
        let mut response = self.agent.post(self.url("/v1/completions")).send_json(body).expect("an answer");
        (response.status().as_u16(), response.body_mut().read_json().expect("JSON"))
    }

    /// The answer to a request that makes sense.
    #[track_caller]
    pub fn complete(&self, fields: Value) -> Value {
        let (status, answer) = self.post(&with_model(fields));
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// The events of an answer as they come. To drop them is to leave.
    #[track_caller]
    pub fn stream(&self, fields: Value) -> impl Iterator<Item = Value> + use<> {
        let mut body = with_model(fields);
        body["stream"] = true.into();
        let response = self.agent.post(self.url("/v1/completions")).send_json(body).expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let lines = BufReader::new(response.into_body().into_reader()).lines();
        let data = lines.map(|line| line.expect("a line")).filter_map(|l| Some(l.strip_prefix("data: ")?.to_owned()));
        data.take_while(|data| data != "[DONE]").map(|data| serde_json::from_str(&data).expect("JSON"))
    }

    /// A value of `/metrics`, by its name and labels.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").1;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Waits until a metric has a value.
    #[track_caller]
    pub fn wait_for(&self, name: &str, value: f64) {
        let since = Instant::now();
        while self.metric(name) != value {
            assert!(since.elapsed() < PATIENCE, "{name} is {} and not {value}", self.metric(name));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn terminate(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill").success());
    }

    #[track_caller]
    pub fn ended(mut self) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(since.elapsed() < PATIENCE, "the server goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn with_model(mut fields: Value) -> Value {
    fields["model"] = json!("model");
    fields
}

/// The text of the first completion, or of its chunk.
#[track_caller]
pub fn text(answer: &Value) -> &str {
    answer["choices"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {answer}"))
}
