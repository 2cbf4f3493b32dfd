//! What was typed for `serve`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use super::{Place, positive};

/// `serve`.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Artifact or checkpoint folder
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// Address to listen on; the default is reached from this machine only
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,
    /// Port to listen on; 0 takes one that is free and says which
    #[arg(long, value_name = "N", default_value_t = 8080)]
    pub(crate) port: u16,
    /// What the API calls the model (default: its file's name)
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Folder of the page with all that runs a model in the browser, as `cargo run --example web -- --no-serve` builds
    /// it (default: the same page, for which this server runs the model)
    #[arg(long, value_name = "DIR")]
    pub(crate) page: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// What a server does not go beyond.
#[derive(Clone, Debug, Args)]
pub(crate) struct Limits {
    /// Bytes of a request's body at most
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    pub(crate) max_body: usize,
    /// Tokens of a prompt at most
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pub(crate) max_prompt_tokens: usize,
    /// Tokens of a completion at most
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub(crate) max_tokens: usize,
    /// Completions of one request at most: prompts times `n`
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) max_choices: u16,
    /// Requests that run at once; they take turns, token by token
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) max_running: u16,
    /// Requests that wait for others to end at most
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) max_queue: u16,
    /// Seconds that a request may take, waiting included
    #[arg(long, value_name = "SECONDS", default_value_t = 300.0, value_parser = seconds)]
    pub(crate) timeout: f64,
    /// Seconds after which a client that takes nothing of its answer loses its connection, or so little that the system
    /// has no room for more of it
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = seconds)]
    pub(crate) stall: f64,
    /// Seconds that running requests have to end after SIGTERM or Ctrl-C
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = seconds)]
    pub(crate) grace: f64,
}

/// More than a moment, less than a year.
fn seconds(text: &str) -> Result<f64, String> {
    positive(text).and_then(|s| if s <= 3e7 { Ok(s) } else { Err("expected at most 30000000 seconds".into()) })
}
