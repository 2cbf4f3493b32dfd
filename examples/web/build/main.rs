//! Builds the page with the runtime in it and serves it to this machine.
//!
//! ```sh
//! cargo run --release --example web
//! ```
//!
//! Needs the target: `rustup target add wasm32-unknown-unknown`.

mod bundle;
mod server;

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

/// Builds the page with the runtime in it and serves it to this machine.
#[derive(Debug, Parser)]
struct Args {
    /// Where the page is written.
    #[arg(long, value_name = "DIR", default_value = "target/page")]
    out: PathBuf,
    /// Port of the server; 0 takes a free one.
    #[arg(long, default_value_t = 6174)]
    port: u16,
    /// Build only.
    #[arg(long)]
    no_serve: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let size = bundle::build(&args.out)?;
    eprintln!("{}: {size} bytes without models", args.out.display());
    if args.no_serve {
        return Ok(());
    }
    let address = (Ipv4Addr::LOCALHOST, args.port);
    let listener = TcpListener::bind(address).with_context(|| format!("port {}", args.port))?;
    println!("http://{}", listener.local_addr()?);
    server::serve(listener, &args.out)
}
