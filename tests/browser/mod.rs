//! A headless Chromium, driven by the DevTools protocol over two pipes. Shared by tests with `mod`.
#![allow(unreachable_pub, reason = "included as a module of test crates")]
#![allow(missing_docs, reason = "test support")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

/// What works where there is neither a screen nor a GPU: the adapter of WebGPU is then SwiftShader's.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-device-scale-factor=1",
    "--remote-debugging-pipe",
];
/// For anything the page does: machines of CI are slow.
const PATIENCE: Duration = Duration::from_secs(300);

/// The browser's program, if it is installed.
pub fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    std::env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name))).find(|program| program.is_file())
}

pub struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    last_id: u64,
    events: Vec<Value>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts the browser with flags beside the usual ones.
    pub fn start(program: &Path, flags: &[&str]) -> Self {
        let profile = tempfile::tempdir().expect("folder");
        // The protocol is spoken at descriptors 3 and 4, which the shell makes of what it was given.
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 0</dev/null 1>&2 2>/dev/null"#]).arg(program);
        command.args(FLAGS).args(flags).arg(format!("--user-data-dir={}", profile.path().display()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell");
        let (commands, output) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).split(0).map_while(Result::ok);
            let parsed = lines.filter_map(|line| serde_json::from_slice(&line).ok());
            parsed.map_while(|message| sender.send(message).ok()).count()
        });
        Self { child, commands, messages, last_id: 0, events: Vec::new(), _profile: profile }
    }

    /// Calls a method and gives its result.
    fn call(&mut self, session: Option<&str>, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let mut command = json!({ "id": self.last_id, "method": method, "params": params });
        if let Some(session) = session {
            command["sessionId"] = session.into();
        }
        self.commands.write_all(command.to_string().as_bytes()).expect("the browser listens");
        self.commands.write_all(&[0]).expect("the browser listens");
        self.commands.flush().expect("the browser listens");
        loop {
            let message = self.messages.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("{method}: {e}"));
            if message["id"] == self.last_id {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    /// Opens `url` in a page of its own, `width` wide.
    pub fn open(&mut self, url: &str, width: u32) -> Page<'_> {
        self.events.clear();
        let target = self.call(None, "Target.createTarget", json!({ "url": "about:blank" }));
        let id = target["targetId"].clone();
        let attached = self.call(None, "Target.attachToTarget", json!({ "targetId": id, "flatten": true }));
        let session = attached["sessionId"].as_str().expect("a session").to_owned();
        let mut page = Page { browser: self, session };
        for domain in ["Runtime", "Log", "Network", "Page"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        page.resize(width);
        page.call("Page.navigate", json!({ "url": url }));
        page.wait("location.protocol === 'http:' && document.readyState === 'complete'");
        page
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // A browser that is told to leave takes its helpers with it.
        let leave = json!({ "id": 0, "method": "Browser.close" }).to_string() + "\0";
        let _ = self.commands.write_all(leave.as_bytes());
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Page<'a> {
    browser: &'a mut Browser,
    session: String,
}

impl Page<'_> {
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.browser.call(Some(&self.session), method, params)
    }

    pub fn resize(&mut self, width: u32) {
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Shows the page as to someone who likes it dark.
    pub fn darken(&mut self) {
        let features = json!([{ "name": "prefers-color-scheme", "value": "dark" }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// The value of an expression, which may be a promise.
    #[track_caller]
    pub fn eval(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true, or something not null, and gives its value.
    #[track_caller]
    pub fn wait(&mut self, expression: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let value = self.eval(expression);
            if !(value.is_null() || value == false || value == "") {
                return value;
            }
            if Instant::now() > until {
                let seen = self.eval("document.body.innerText");
                panic!("`{expression}` is still {value}; the page says\n{}", seen.as_str().unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Picks a file with an input element.
    pub fn pick(&mut self, input: &str, file: &Path) {
        let found =
            self.call("Runtime.evaluate", json!({ "expression": format!("document.querySelector('{input}')") }));
        let params = json!({ "files": [file], "objectId": found["result"]["objectId"] });
        self.call("DOM.setFileInputFiles", params);
    }

    /// Presses a key, by its name.
    pub fn press(&mut self, key: &str) {
        for event in ["keyDown", "keyUp"] {
            self.call("Input.dispatchKeyEvent", json!({ "type": event, "key": key }));
        }
    }

    /// A picture of an element, as PNG.
    pub fn picture(&mut self, element: &str) -> Vec<u8> {
        self.eval(&format!("document.querySelector('{element}').scrollIntoView()"));
        let clip = self.eval(&format!(
            "(() => {{ const r = document.querySelector('{element}').getBoundingClientRect();
             return {{ x: r.x + scrollX, y: r.y + scrollY, width: r.width, height: r.height, scale: 1 }} }})()"
        ));
        let params = json!({ "format": "png", "clip": clip, "captureBeyondViewport": true });
        let picture = self.call("Page.captureScreenshot", params);
        BASE64_STANDARD.decode(picture["data"].as_str().expect("base64")).expect("base64")
    }

    /// Errors that the console has, uncaught ones too.
    pub fn errors(&mut self) -> Vec<String> {
        self.eval("0");
        let is_error = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => event["params"]["type"] == "error",
            Some("Log.entryAdded") => event["params"]["entry"]["level"] == "error",
            _ => false,
        };
        self.browser.events.iter().filter(is_error).map(|event| event["params"].to_string()).collect()
    }

    /// What the page has asked of the network.
    pub fn requests(&mut self) -> Vec<String> {
        self.eval("0");
        let asked = self.browser.events.iter().filter(|e| e["method"] == "Network.requestWillBeSent");
        asked.filter_map(|event| event["params"]["request"]["url"].as_str().map(str::to_owned)).collect()
    }
}
