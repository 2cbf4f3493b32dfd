//! What is tested of the page.

use std::collections::BTreeMap;
use std::sync::MutexGuard;

use serde_json::Value;
use sixpack_formats::Artifact;
use sixpack_formats::tokenizer::Tokenizer;
use sixpack_runtime::generate::Limits;
use sixpack_runtime::{Engine, Sampler, Sampling, TextStream, now};

use crate::Stage;
use crate::browser::{Browser, Page};
use crate::work::number;

/// A test and its name.
pub(crate) type Case = (&'static str, fn(&Stage));

pub(crate) const CASES: &[Case] = &[
    ("the_bundle_is_small", the_bundle_is_small),
    ("on_the_processor_tokens_and_bits_are_the_native_ones", on_the_processor),
    ("on_webgpu_tokens_and_bits_are_the_native_ones", on_webgpu),
    ("without_webgpu_the_page_says_so", without_webgpu),
    ("errors_are_in_plain_words", errors_are_in_plain_words),
    ("the_heat_map_shows_and_can_be_walked", the_heat_map_shows),
    ("the_offered_model_opens", the_offered_model_opens),
    ("stop_stops", stop_stops),
    ("a_model_too_large_for_the_memory_is_named", too_large),
];

pub(crate) const PROMPT: &str = "pub fn read(";
pub(crate) const TEXT: &str = "/// The bytes of a file, mapped read-only – “é” 🦀.\npub struct Mapped(Mmap);\n";
pub(crate) const WIDE: u32 = 1280;
pub(crate) const PHONE: u32 = 360;

fn the_bundle_is_small(stage: &Stage) {
    assert!(stage.size < 1_500_000, "{} bytes", stage.size);
}

fn on_the_processor(stage: &Stage) {
    same_as_native(stage, "cpu", 40);
}

fn on_webgpu(stage: &Stage) {
    // In software a token takes seconds.
    same_as_native(stage, "webgpu", 4);
}

fn without_webgpu(stage: &Stage) {
    let mut browser = Browser::start(&stage.program, &["--disable-features=WebGPU", "--disable-gpu"]);
    let mut page = browser.open(&stage.url, WIDE);
    load(&mut page, stage, "auto");
    assert_eq!(page.eval("document.documentElement.dataset.device"), "cpu");
    let why = page.eval("document.getElementById('device-why').innerText");
    assert!(why.as_str().is_some_and(|why| why.contains("no WebGPU")), "{why}");
    choose(&mut page, "webgpu");
    page.pick("#file", &stage.work.at("model.6pk"));
    let problem = page.wait("!problem.hidden && problem.innerText");
    assert!(problem.as_str().is_some_and(|p| p.contains("Choose the processor instead")), "{problem}");
    // Which the page lets one do.
    assert_eq!(page.eval("document.getElementById('device').offsetParent !== null"), true);
    load(&mut page, stage, "cpu");
    assert_eq!(page.eval("document.documentElement.dataset.device"), "cpu");
}

/// Opens the test's model on `device`, writes so many `tokens` twice and reads a text as long, and compares with this
/// machine's processor.
fn same_as_native(stage: &Stage, device: &str, tokens: usize) {
    let mut browser = browser(stage);
    let mut page = browser.open(&stage.url, WIDE);
    load(&mut page, stage, device);
    assert_eq!(page.eval("document.documentElement.dataset.device"), device);
    let mut native = Native::open(stage);
    for (temperature, seed) in [(0.0, 0), (0.8, 7)] {
        let ids = write(&mut page, PROMPT, tokens, temperature, seed)["ids"].clone();
        assert_eq!(ids, Value::from(native.write(PROMPT, tokens, temperature as f32, seed)), "at {temperature}");
    }
    let shown = page.eval("document.getElementById('written').innerText");
    assert!(shown.as_str().is_some_and(|s| s.starts_with(PROMPT) && s.len() > PROMPT.len()), "{shown}");
    let long = TEXT.repeat((tokens / 8).max(1));
    let read = read(&mut page, &long);
    let found: Vec<f64> = read["nats"].as_array().expect("nats").iter().filter_map(Value::as_f64).collect();
    let expected = native.score(&long);
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert!((found - f64::from(*expected)).abs() < 1e-3, "token {i}: {found} instead of {expected}");
    }
    let bits = expected.iter().map(|&x| f64::from(x)).sum::<f64>() / std::f64::consts::LN_2;
    let (found, expected) = (number(&read, "/bits_per_byte"), bits / number(&read, "/bytes"));
    assert!((found - expected).abs() < 1e-4, "{found} bits per byte instead of {expected}");
    assert!((number(&read, "/bytes") - long.len() as f64).abs() < 0.1 * long.len() as f64, "{}", read["bytes"]);
    let zstd = sixpack_formats::Codec::Zstd.encode(long.as_bytes()).len() as f64;
    assert!((number(&read, "/zstd_bytes") - zstd).abs() < 0.1 * zstd, "{} instead of {zstd}", read["zstd_bytes"]);
    assert_eq!(page.errors(), [""; 0]);
    let elsewhere: Vec<_> = page.requests().into_iter().filter(|url| !url.starts_with(&stage.url)).collect();
    assert!(elsewhere.iter().all(|url| url.starts_with("data:")), "{elsewhere:?}");
}

fn errors_are_in_plain_words(stage: &Stage) {
    let mut browser = browser(stage);
    let mut page = browser.open(&stage.url, WIDE);
    let whole = std::fs::read(stage.work.at("model.6pk")).expect("model");
    std::fs::write(stage.work.at("cut.6pk"), &whole[..whole.len() / 2]).expect("file");
    std::fs::write(stage.work.at("text.6pk"), "no model").expect("file");
    for (file, words) in [("text.6pk", "not a sixpack model"), ("cut.6pk", "damaged")] {
        page.wait("!document.getElementById('file').disabled");
        page.pick("#file", &stage.work.at(file));
        let problem = page.wait("!document.getElementById('problem').hidden && problem.innerText");
        assert!(problem.as_str().is_some_and(|p| p.contains(words)), "{file}: {problem}");
        page.eval("problem.hidden = true");
    }
    // After all that a model opens.
    load(&mut page, stage, "cpu");
    assert_eq!(page.eval("problem.hidden"), true);
    page.eval("document.getElementById('text').value = ''");
    page.eval("document.getElementById('go-read').click()");
    let problem = page.wait("!problem.hidden && problem.innerText");
    assert!(problem.as_str().is_some_and(|p| p.contains("nothing to measure")), "{problem}");
}

fn the_heat_map_shows(stage: &Stage) {
    let mut browser = browser(stage);
    let mut page = browser.open(&stage.url, WIDE);
    load(&mut page, stage, "cpu");
    read(&mut page, TEXT);
    let colours = colours(&page.picture("#heat"));
    assert!(colours.len() > 20 && colours.values().filter(|&&n| n > 100).count() >= 4, "{} colours", colours.len());
    let shown = page.eval("heat.textContent").as_str().expect("text").replace('↵', "");
    assert_eq!(shown.split_whitespace().collect::<String>(), TEXT.split_whitespace().collect::<String>());
    assert_eq!(page.eval("document.querySelectorAll('#bars tr').length"), 3);
    assert!(page.eval("chart.getAttribute('aria-label')").as_str().is_some_and(|s| s.contains("zstd")));
    page.eval("heat.focus()");
    let first = page.wait("token.innerText");
    page.press("ArrowRight");
    let second = page.wait("token.innerText");
    assert_ne!(first, second);
    assert!(second.as_str().is_some_and(|s| s.contains("bits")), "{second}");
    // Every control has a name, and nothing is wider than a phone.
    let nameless = "[...document.querySelectorAll('input, textarea, select, button')].filter((e) => !(e.labels?.length || e.innerText)).map((e) => e.id)";
    assert_eq!(page.eval(nameless), serde_json::json!([]));
    page.resize(PHONE);
    assert_eq!(page.eval("innerWidth"), PHONE);
    let wide = page.eval("document.documentElement.scrollWidth");
    assert!(wide.as_u64().is_some_and(|w| w <= u64::from(PHONE)), "{wide} wide");
    page.darken();
    assert_ne!(self::colours(&page.picture("#heat")), colours);
    assert_eq!(page.errors(), [""; 0]);
}

fn the_offered_model_opens(stage: &Stage) {
    let mut browser = browser(stage);
    let mut page = browser.open(&stage.url, WIDE);
    open_offered(&mut page);
    let models = page.eval("fetch('models.json').then((answer) => answer.json())");
    let bytes = number(&models, "/0/bytes");
    let size = page.eval("document.getElementById('size').innerText.replaceAll(',', '')");
    assert!(size.as_str().is_some_and(|size| size.contains(&format!("\n{bytes} bytes"))), "{size} for {bytes} bytes");
    let score = page.eval("document.getElementById('score').innerText");
    assert!(score.as_str().is_some_and(|score| score.contains("bits per byte")), "{score}");
    // It is a model of English: better than zstd on the text that is there from the start.
    let read = page.eval("document.getElementById('text').value");
    let read = self::read(&mut page, read.as_str().expect("text"));
    assert!(number(&read, "/bits_per_byte") < 0.7 * 8.0 * number(&read, "/zstd_bytes") / number(&read, "/text_bytes"));
    assert_eq!(page.errors(), [""; 0]);
}

fn stop_stops(stage: &Stage) {
    let mut browser = browser(stage);
    let mut page = browser.open(&stage.url, WIDE);
    // The test's own model ends its texts early by itself.
    open_offered(&mut page);
    order(&mut page, "The captain", 4000, 1.0, 1);
    page.wait("document.getElementById('continuation').textContent.length > 20");
    page.eval("document.getElementById('stop-write').click()");
    let written = page.wait("sixpack.written");
    let tokens = written["ids"].as_array().map_or(0, Vec::len);
    assert!(written["stopped"] == true && tokens < 4000, "{tokens} tokens");
    // It can be asked again at once.
    assert_eq!(write(&mut page, PROMPT, 5, 0.0, 0)["ids"].as_array().map(Vec::len), Some(5));
}

fn too_large(stage: &Stage) {
    // 2 MiB: room for the program, and for little else.
    let flags = ["--js-flags=--wasm-max-mem-pages=32"];
    let mut browser = Browser::start(&stage.program, &flags);
    let mut page = browser.open(&stage.url, WIDE);
    page.wait("!document.getElementById('file').disabled");
    page.pick("#file", &stage.work.at("model.6pk"));
    let problem = page.wait("!document.getElementById('problem').hidden && problem.innerText");
    assert!(problem.as_str().is_some_and(|p| p.contains("memory")), "{problem}");
}

pub(crate) fn browser(stage: &Stage) -> MutexGuard<'_, Browser> {
    // A test that failed says so itself.
    stage.browser.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Gives the page the test's model.
fn load(page: &mut Page<'_>, stage: &Stage, device: &str) {
    page.wait("document.readyState === 'complete' && !document.getElementById('file').disabled");
    choose(page, device);
    page.pick("#file", &stage.work.at("model.6pk"));
    page.wait("!document.getElementById('go-write').disabled || problem.innerText");
    assert_eq!(page.eval("problem.innerText"), "");
}

pub(crate) fn choose(page: &mut Page<'_>, device: &str) {
    page.eval(&format!("document.getElementById('device').value = '{device}'"));
}

/// Takes the model that lies beside the page, on the processor.
pub(crate) fn open_offered(page: &mut Page<'_>) {
    page.wait("!document.querySelector('#offers button')?.disabled && document.querySelector('#offers button')");
    choose(page, "cpu");
    page.eval("document.querySelector('#offers button').click()");
    page.wait("!document.getElementById('go-write').disabled || problem.innerText");
    assert_eq!(page.eval("problem.innerText"), "");
}

pub(crate) fn order(page: &mut Page<'_>, prompt: &str, tokens: usize, temperature: f64, seed: u64) {
    page.wait("!document.getElementById('go-write').disabled");
    page.eval(&format!(
        "sixpack.written = null; document.getElementById('prompt').value = {};
         for (const [id, value] of [['length', {tokens}], ['temperature', {temperature}], ['seed', {seed}]])
           document.getElementById(id).value = value;
         document.getElementById('go-write').click()",
        Value::from(prompt)
    ));
}

pub(crate) fn write(page: &mut Page<'_>, prompt: &str, tokens: usize, temperature: f64, seed: u64) -> Value {
    order(page, prompt, tokens, temperature, seed);
    page.wait("sixpack.written ?? problem.innerText")
}

pub(crate) fn read(page: &mut Page<'_>, text: &str) -> Value {
    page.wait("!document.getElementById('go-read').disabled");
    page.eval(&format!(
        "sixpack.read = null; document.getElementById('text').value = {}; document.getElementById('go-read').click()",
        Value::from(text)
    ));
    page.wait("sixpack.read ?? problem.innerText")
}

/// Pixels of each colour of a PNG.
pub(crate) fn colours(png: &[u8]) -> BTreeMap<Vec<u8>, usize> {
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a picture of a page")];
    let info = reader.next_frame(&mut pixels).expect("a PNG");
    let mut colours = BTreeMap::new();
    for pixel in pixels[..info.buffer_size()].chunks(info.color_type.samples()) {
        *colours.entry(pixel.to_vec()).or_default() += 1;
    }
    colours
}

/// The same model on this machine.
pub(crate) struct Native {
    tokenizer: Tokenizer,
    engine: Engine,
}

impl Native {
    pub(crate) fn open(stage: &Stage) -> Self {
        let artifact = Artifact::open(stage.work.at("model.6pk")).expect("model");
        let tokenizer =
            Tokenizer::from_model(artifact.model.tokenizer.as_deref().expect("tokenizer")).expect("tokenizer");
        Self { tokenizer, engine: Engine::cpu(&artifact.model, 1).expect("engine") }
    }

    fn ids(&self, text: &str) -> Vec<u32> {
        self.tokenizer.bos_id().into_iter().chain(self.tokenizer.encode(text)).collect()
    }

    pub(crate) fn write(&mut self, prompt: &str, max_tokens: usize, temperature: f32, seed: u64) -> Vec<u32> {
        let stop: Vec<u32> = [self.tokenizer.bos_id(), self.tokenizer.eos_id()].into_iter().flatten().collect();
        let limits = Limits { max_tokens, context: self.engine.config().train_seq_len, stop: &stop };
        let mut sampler = Sampler::new(Sampling { temperature, seed, ..Sampling::default() }).expect("options");
        let (prompt, mut ids) = (self.ids(prompt), Vec::new());
        let mut on_token = |id| {
            ids.push(id);
            true
        };
        now(self.engine.generate(&prompt, &limits, &mut sampler, &mut on_token)).expect("text");
        ids
    }

    pub(crate) fn score(&mut self, text: &str) -> Vec<f32> {
        let (ids, context) = (self.ids(text), self.engine.config().eval_seq_len);
        now(self.engine.score(&ids, context)).expect("scores")
    }

    /// As [`Native::write`], in letters.
    pub(crate) fn text(&mut self, prompt: &str, max_tokens: usize, temperature: f32, seed: u64) -> String {
        let ids = self.write(prompt, max_tokens, temperature, seed);
        let mut stream = TextStream::new();
        let pieces: String = ids.iter().map(|&id| stream.push(self.tokenizer.piece_bytes(id))).collect();
        pieces + &stream.finish()
    }
}
