//! `serve`: a web page and an OpenAI-compatible API for one model.
//!
//! A request is checked whole before anything is done ([`request`]), waits for a place ([`admission`]) and runs on a
//! thread of its own with an engine that shares the weights ([`run`]). All that run take turns, token by token, so that
//! as many compute at any moment as there are threads and all streams go on at one pace. The answer is made from what
//! the run tells ([`completions`], [`answer`]); a client that leaves drops the receiver, and the run ends at its next
//! turn. A client that is slow is waited for out of turn, and nothing is kept for it beyond a few events; one that takes
//! nothing for a while loses its connection ([`listen`]), which is to leave.
//!
//! A GPU that is lost is known to all requests after it ([`app`]). Asked to end, the server waits for every request of
//! which it has seen the head and which it has not refused. The page ([`page`]) is a client like others.

mod admission;
mod answer;
mod app;
mod assembly;
mod baseline;
mod completions;
mod error;
mod listen;
mod metrics;
mod page;
mod request;
mod routes;
mod run;
mod signals;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use sixpack_runtime::{Engine, now};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use self::app::{App, ModelInfo, unix_time};
use self::page::Built;
use self::signals::Signals;
use crate::args;
use crate::loaded::{self, Loaded};
use crate::say::say;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What answers have to reach their clients when everything has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub(crate) fn run(args: &args::Serve) -> Result<()> {
    let built = Built::asked(args)?;
    let app = Arc::new(app(args)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.context("cannot start the server's threads")?;
    let served = runtime.block_on(serve(&app, built.as_ref(), SocketAddr::new(args.host, args.port)));
    runtime.shutdown_timeout(LAST_WORDS);
    served
}

fn app(args: &args::Serve) -> Result<App> {
    let Loaded { model, tokenizer, packed } = loaded::open(&args.model)?;
    let tokenizer = tokenizer.context("this model has no tokenizer, so it cannot read or write text")?;
    let info = ModelInfo {
        name: args.name.clone().unwrap_or_else(|| name(&args.model)),
        object: "model",
        created: unix_time(),
        owned_by: "sixpack",
        bytes: model.bytes,
        bits_per_byte: packed.and_then(|packed| packed.score?.bits_per_byte),
        context: model.config.train_seq_len.max(2),
        vocab_size: model.config.vocab_size,
        parameters: model.config.tensors().iter().map(|t| t.shape.iter().product::<usize>()).sum(),
        layers: model.config.num_layers,
        width: model.config.model_dim,
    };
    let on = args.place.on();
    let engine = now(Engine::open(&model, on.device, on.threads))?;
    let why = engine.choice().map_or_else(|| "as asked".into(), ToString::to_string);
    eprintln!("sixpack: the model runs on the {}: {why}", engine.device());
    Ok(App::new(info, engine, tokenizer, args.limits.clone(), on.threads))
}

/// What a model is called by its path.
fn name(path: &Path) -> String {
    let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
    stem.map_or_else(|| "model".into(), |stem| stem.to_string_lossy().into_owned())
}

/// Serves until it is told to end, and then until what runs has ended or the time for that is over.
async fn serve(app: &Arc<App>, built: Option<&Built>, address: SocketAddr) -> Result<()> {
    let mut signals = Signals::new().context("cannot wait for signals")?;
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr().context("cannot tell the address")?;
    if !address.ip().is_loopback() {
        eprintln!("sixpack: whoever reaches {address} can use the model and the page; there is no password");
    }
    say!("{} is served at http://{address}/ (API: http://{address}/v1)", app.model.name);
    let (close, closed) = oneshot::channel::<()>();
    let router = routes::router(app, built);
    let listening = tokio::spawn(listen::listen(Arc::clone(app), listener, router, async {
        let _ = closed.await;
    }));
    // Whoever was not refused is answered, and takes the answer.
    let ended = async {
        idle(app).await;
        let _ = close.send(());
        let _ = listening.await;
    };
    tokio::pin!(ended);
    signals.next().await;
    app.drain();
    let grace = app.limits.grace;
    eprintln!("sixpack: shutting down; what runs has {grace} seconds to end, unless asked again");
    tokio::select! {
        () = &mut ended => return Ok(()),
        () = sleep(Duration::from_secs_f64(grace)) => {}
        () = signals.next() => {}
    }
    app.end();
    // Whoever is still there hears the reason at its next token.
    let _ = timeout(LAST_WORDS, ended).await;
    Ok(())
}

/// Until nobody is there.
async fn idle(app: &App) {
    while !app.admission.is_idle() {
        sleep(Duration::from_millis(20)).await;
    }
}
