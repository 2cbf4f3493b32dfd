//! What is tested of the page as `sixpack serve` serves it, with what it lets a page do in force.

use serde_json::Value;

use crate::Stage;
use crate::browser::Page;
use crate::cases::{Case, Native, PHONE, PROMPT, TEXT, WIDE, browser, colours, open_offered, order, read, write};
use crate::server::Server;
use crate::work::number;

pub(crate) const CASES: &[Case] = &[
    ("served_the_page_asks_for_what_is_computed", asks),
    ("served_the_page_says_what_went_wrong", says_what_went_wrong),
    ("served_the_built_page_computes_itself", computes),
];

fn asks(stage: &Stage) {
    let server = Server::of(stage.work.dir.path(), "cpu", "");
    let mut browser = browser(stage);
    let mut page = browser.open(&server.url("/"), WIDE);
    opened(&mut page);
    assert_eq!(page.eval("document.documentElement.dataset.device"), "server");
    let said = page.eval("document.body.innerText");
    let said = said.as_str().expect("text");
    assert!(said.contains("run by the server") && !said.contains("Nothing you type leaves it"), "{said}");
    let mut native = Native::open(stage);
    for (temperature, seed) in [(0.0, 0), (0.8, 7)] {
        let written = write(&mut page, PROMPT, 40, temperature, seed);
        assert_eq!(written["tokens"], native.write(PROMPT, 40, temperature as f32, seed).len(), "{written}");
        let text = native.text(PROMPT, 40, temperature as f32, seed);
        assert_eq!(page.eval("continuation.textContent"), text, "at {temperature}");
    }
    let measured = read(&mut page, TEXT);
    let found: Vec<f64> = measured["nats"].as_array().expect("nats").iter().filter_map(Value::as_f64).collect();
    let expected = native.score(TEXT);
    assert_eq!(found.len(), expected.len(), "{measured}");
    let bits = expected.iter().map(|&x| f64::from(x)).sum::<f64>() / std::f64::consts::LN_2;
    let worst = found.iter().zip(&expected).map(|(f, e)| (f - f64::from(*e)).abs()).fold(0.0, f64::max);
    assert!(worst < 1e-3, "off by {worst} nats");
    let (found, expected) = (number(&measured, "/bits_per_byte"), bits / number(&measured, "/bytes"));
    assert!((found - expected).abs() < 1e-4, "{found} bits per byte instead of {expected}");
    assert!((number(&measured, "/bytes") - TEXT.len() as f64).abs() < 0.1 * TEXT.len() as f64, "{measured}");
    let shown = page.eval("heat.textContent").as_str().expect("text").replace('↵', "");
    assert_eq!(shown.split_whitespace().collect::<String>(), TEXT.split_whitespace().collect::<String>());
    assert!(colours(&page.picture("#heat")).values().filter(|&&n| n > 100).count() >= 4);
    let zstd = sixpack_formats::Codec::Zstd.encode(TEXT.as_bytes()).len() as f64;
    assert!((number(&measured, "/zstd_bytes") - zstd).abs() < 0.1 * zstd, "{measured} instead of {zstd}");
    assert_eq!(page.eval("document.querySelectorAll('#bars tr').length"), 3);
    page.resize(PHONE);
    let wide = page.eval("document.documentElement.scrollWidth");
    assert!(wide.as_u64().is_some_and(|w| w <= u64::from(PHONE)), "{wide} wide");
    // A text that would go on is stopped, and the server stops with it.
    page.eval("document.getElementById('length').max = 4096");
    order(&mut page, PROMPT, 4096, 0.0, 0);
    page.wait("document.getElementById('continuation').textContent.length > 20");
    page.eval("document.getElementById('stop-write').click()");
    let written = page.wait("sixpack.written");
    assert!(written["stopped"] == true && number(&written, "/tokens") < 4096.0, "{written}");
    server.wait_for("sixpack_requests_running", 0.0);
    assert_eq!(page.errors(), [""; 0]);
    let elsewhere: Vec<_> = page.requests().into_iter().filter(|url| !url.starts_with(&server.url("/"))).collect();
    assert!(elsewhere.iter().all(|url| url.starts_with("data:")), "{elsewhere:?}");
}

fn says_what_went_wrong(stage: &Stage) {
    let server = Server::of(stage.work.dir.path(), "cpu", "--max-tokens 3000 --max-prompt-tokens 100");
    let mut browser = browser(stage);
    let mut page = browser.open(&server.url("/"), WIDE);
    opened(&mut page);
    let problem = |page: &mut Page<'_>, words: &str| {
        let problem = page.wait("!problem.hidden && problem.innerText");
        assert!(problem.as_str().is_some_and(|p| p.contains(words)), "{problem}");
        page.eval("problem.hidden = true");
    };
    page.pick("#file", &stage.work.at("model.6pk"));
    problem(&mut page, "--page");
    order(&mut page, PROMPT, 3500, 0.0, 0);
    problem(&mut page, "more than this server allows");
    read(&mut page, &TEXT.repeat(9));
    problem(&mut page, "more than this server allows");
    read(&mut page, "");
    problem(&mut page, "nothing to measure");
    // An answer that ends like any other, but is not said to have ended.
    let answer = r#"data: {\"choices\":[{\"text\":\"half\",\"index\":0}]}\n\n"#;
    page.eval(&format!("window.whole = fetch; window.fetch = async () => new Response(\"{answer}\"); 0"));
    order(&mut page, PROMPT, 5, 0.0, 0);
    problem(&mut page, "broke off");
    assert_eq!(page.eval("continuation.textContent"), "half");
    page.eval("window.fetch = whole; 0");
    // A server that dies in the middle.
    order(&mut page, PROMPT, 3000, 0.0, 0);
    page.wait("document.getElementById('continuation').textContent.length > 20");
    drop(server);
    problem(&mut page, "broke off");
    order(&mut page, PROMPT, 5, 0.0, 0);
    problem(&mut page, "cannot be reached");
}

fn computes(stage: &Stage) {
    let server = Server::of(stage.work.dir.path(), "cpu", "--page page");
    let mut browser = browser(stage);
    let mut page = browser.open(&server.url("/"), WIDE);
    open_offered(&mut page);
    assert_eq!(page.eval("document.documentElement.dataset.device"), "cpu");
    let ids = write(&mut page, PROMPT, 20, 0.8, 7)["ids"].clone();
    assert_eq!(ids, Value::from(Native::open(stage).write(PROMPT, 20, 0.8, 7)));
    assert_eq!(page.errors(), [""; 0]);
    assert_eq!(server.metric("sixpack_generated_tokens_total"), 0.0);
}

/// Waits until the served model is open, which nobody has to ask for.
fn opened(page: &mut Page<'_>) {
    page.wait("!document.getElementById('go-write').disabled || problem.innerText");
    assert_eq!(page.eval("problem.innerText"), "");
}
