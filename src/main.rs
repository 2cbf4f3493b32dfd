//! The program: arguments, one file per verb. A verb parses, calls a library and prints; it does no arithmetic.
#![forbid(unsafe_code)]

mod args;
mod clock;
mod data;
mod loaded;
mod misuse;
mod parent;
mod plot;
mod progress;
mod report;
mod say;
mod self_text;
mod stop;
mod table;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Verb};

fn main() -> ExitCode {
    parent::watch();
    let cli = Cli::parse();
    let done = match &cli.verb {
        Verb::Quickstart(args) => verbs::quickstart::run(args),
        Verb::Tokenizer(args) => verbs::tokenizer::run(args),
        Verb::Tokenize(args) => verbs::tokenize::run(args),
        Verb::Train(args) => verbs::train::run(args),
        Verb::Compress(args) => verbs::compress::run(args),
        Verb::Sweep(args) => verbs::sweep::run(args),
        Verb::Sensitivity(args) => verbs::sensitivity::run(args),
        Verb::Eval(args) => verbs::eval::run(args),
        Verb::Run(args) => verbs::run::run(args),
        Verb::Devices(args) => verbs::devices::run(args),
        Verb::Serve(args) => verbs::serve::run(args),
        Verb::Inspect(args) => verbs::inspect::run(args),
        Verb::Codecs(args) => verbs::codecs::run(args),
        Verb::Experiment(args) => verbs::experiment::run(args),
        Verb::Recipe(args) => verbs::recipe::run(args),
    };
    let written = say::failure().map_or(Ok(()), |e| Err(anyhow::Error::new(e).context("cannot write standard output")));
    match done.and(written) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sixpack: {}", misuse::message(&error));
            ExitCode::from(misuse::exit_code(&error))
        }
    }
}
